//! What a request asks for, read off its method, path and query alone.

use crate::log::Operation;
use axum::http::{Method, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Which API a request uses. Both show the same entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    V1,
    Beta,
}

impl Api {
    /// The first segment of its paths.
    pub(crate) fn segment(self) -> &'static str {
        match self {
            Self::V1 => "v1.0",
            Self::Beta => "beta",
        }
    }
}

/// A request, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) operation: Operation,
    /// `V1` outside the collection.
    pub(crate) api: Api,
    /// At the token endpoint.
    pub(crate) tenant: Option<String>,
    pub(crate) id: Option<String>,
    /// For lists.
    pub(crate) page: Option<Page>,
}

/// Which page of a list, and how it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) number: u32,
    /// After this position in the collection.
    pub(crate) after: Option<u64>,
    /// Past so many entries.
    pub(crate) offset: usize,
    pub(crate) top: Option<usize>,
    /// What is wrong with the query.
    pub(crate) wrong: Option<String>,
}

impl Page {
    /// The value of `$skiptoken` that leads here. It is opaque to clients.
    pub(crate) fn skiptoken(&self) -> String {
        let after = self.after.map(|after| after.to_string()).unwrap_or_default();
        let top = self.top.map(|top| top.to_string()).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(format!("{}.{after}.{}.{top}", self.number, self.offset))
    }

    fn from_skiptoken(token: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        let mut parts = text.split('.');
        let number = parts.next()?.parse().ok()?;
        let after = optional(parts.next()?)?;
        let offset = parts.next()?.parse().ok()?;
        let top = optional(parts.next()?)?;
        Some(Self { number, after, offset, top, wrong: None })
    }

    fn from_query(query: &str) -> Self {
        let mut page = Self { number: 1, after: None, offset: 0, top: None, wrong: None };
        for (name, value) in query.split('&').filter(|part| !part.is_empty()).map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (name.replace("%24", "$"), value)
        }) {
            let wrong = match name.as_str() {
                "$skiptoken" => match Self::from_skiptoken(value) {
                    Some(found) => {
                        page = Self { top: page.top.or(found.top), ..found };
                        None
                    }
                    None => Some("Skip token is not valid.".to_owned()),
                },
                "$top" => match value.parse() {
                    Ok(top) if top > 0 => {
                        page.top = Some(top);
                        None
                    }
                    _ => Some("Invalid value for '$top'.".to_owned()),
                },
                name if name.starts_with('$') => Some(format!("The emulator does not know the query option '{name}'.")),
                _ => None,
            };
            page.wrong = page.wrong.or(wrong);
        }
        page
    }
}

fn optional<T: std::str::FromStr>(text: &str) -> Option<Option<T>> {
    if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) }
}

impl Route {
    /// Reads a request's head.
    pub(crate) fn of(method: &Method, uri: &Uri) -> Self {
        let segments: Vec<&str> = uri.path().split('/').skip(1).collect();
        let (api, rest) = match segments.as_slice() {
            ["v1.0", "deviceAppManagement", "vppTokens", rest @ ..] => (Api::V1, Some(rest)),
            ["beta", "deviceAppManagement", "vppTokens", rest @ ..] => (Api::Beta, Some(rest)),
            _ => (Api::V1, None),
        };
        let route = |operation, id: Option<&str>| Self {
            operation,
            api,
            tenant: None,
            id: id.map(str::to_owned),
            page: (operation == Operation::List).then(|| Page::from_query(uri.query().unwrap_or_default())),
        };
        if let [tenant, "oauth2", "v2.0", "token"] = segments.as_slice() {
            let operation = if method == Method::POST { Operation::Token } else { Operation::Other };
            return Self { tenant: Some((*tenant).to_owned()), ..route(operation, None) };
        }
        // What has parentheses is a function, such as `getLicensesForApp(bundleId='…')`.
        let names_entity = |id: &str| !id.is_empty() && !id.contains('(');
        match (method.as_str(), rest) {
            ("GET", Some([])) => route(Operation::List, None),
            ("POST", Some([])) => route(Operation::Create, None),
            ("GET", Some([id])) if names_entity(id) => route(Operation::Get, Some(id)),
            ("PATCH", Some([id])) if names_entity(id) => route(Operation::Update, Some(id)),
            ("DELETE", Some([id])) if names_entity(id) => route(Operation::Delete, Some(id)),
            ("POST", Some([id, "syncLicenses"])) if names_entity(id) => route(Operation::SyncLicenses, Some(id)),
            _ => route(Operation::Other, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_recognized() {
        let collection = "/v1.0/deviceAppManagement/vppTokens";
        for (method, path, operation, id) in [
            ("POST", "/t/oauth2/v2.0/token".to_owned(), Operation::Token, None),
            ("GET", "/t/oauth2/v2.0/token".to_owned(), Operation::Other, None),
            ("GET", collection.to_owned(), Operation::List, None),
            ("POST", collection.to_owned(), Operation::Create, None),
            ("GET", format!("{collection}/a"), Operation::Get, Some("a")),
            ("PATCH", format!("{collection}/a"), Operation::Update, Some("a")),
            ("DELETE", format!("{collection}/a"), Operation::Delete, Some("a")),
            ("POST", format!("{collection}/a/syncLicenses"), Operation::SyncLicenses, Some("a")),
            ("PUT", format!("{collection}/a"), Operation::Other, None),
            ("GET", format!("{collection}/getLicensesForApp(bundleId='a')"), Operation::Other, None),
        ] {
            let (method, beta) = (method.parse().unwrap(), path.replacen("/v1.0/", "/beta/", 1));
            for (path, api) in [(&path, Api::V1), (&beta, if beta == path { Api::V1 } else { Api::Beta })] {
                let found = Route::of(&method, &path.parse().unwrap());
                assert_eq!((found.operation, found.id.as_deref()), (operation, id), "{method} {path}");
                assert_eq!(found.api, api, "{method} {path}");
            }
        }
        let found = Route::of(&Method::GET, &"/v2.0/deviceAppManagement/vppTokens".parse().unwrap());
        assert_eq!(found.operation, Operation::Other);
    }

    #[test]
    fn a_skip_token_leads_to_its_page() {
        let page = Page { number: 3, after: Some(7), offset: 0, top: Some(2), wrong: None };
        assert_eq!(Page::from_query(&format!("$skiptoken={}", page.skiptoken())), page);
        assert_eq!(Page::from_query(&format!("%24skiptoken={}", page.skiptoken())), page);
        assert!(Page::from_query("$skiptoken=zzz").wrong.is_some());
    }
}
