//! Requests, read: which resource, which verb, with which options.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::request::Parts;

use crate::failure::Failure;
use crate::resource::{Resource, qualified};
use crate::state::{Shape, State};

/// A request to a resource.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) resource: Arc<Resource>,
    /// Empty for cluster-scoped resources, and for all namespaces.
    pub(crate) namespace: String,
    pub(crate) name: Option<String>,
    pub(crate) subresource: String,
    pub(crate) query: Query,
    /// Whether the answer has metadata only.
    pub(crate) is_partial: bool,
    pub(crate) content_type: String,
    pub(crate) user: String,
    pub(crate) body: Vec<u8>,
    user_agent: String,
}

impl Call {
    /// Reads the request; none when no resource is at its path.
    pub(crate) fn read(state: &State, parts: &Parts, body: Vec<u8>, user: &str) -> Option<Self> {
        let mut segments = parts.uri.path().split('/').filter(|segment| !segment.is_empty());
        let (group, version) = match segments.next()? {
            "api" => ("", segments.next()?),
            "apis" => (segments.next()?, segments.next()?),
            _ => return None,
        };
        let rest: Vec<&str> = segments.collect();
        let is_namespace_itself = group.is_empty() && (rest.len() < 3 || matches!(rest[2], "status" | "finalize"));
        let (namespace, rest) = match rest.as_slice() {
            ["namespaces", namespace, rest @ ..] if !is_namespace_itself => (*namespace, rest),
            rest => ("", rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (*plural, None, ""),
            [plural, name] => (*plural, Some(decoded(name)), ""),
            [plural, name, subresource] => (*plural, Some(decoded(name)), *subresource),
            _ => return None,
        };
        let resource = Arc::clone(&state.tables.get(&qualified(group, plural))?.resource);
        let fits = resource.version == version
            && (resource.is_namespaced || namespace.is_empty())
            && !(resource.is_namespaced && namespace.is_empty() && name.is_some())
            && (subresource.is_empty() || (subresource == "status" && resource.has_status));
        let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let content_type = header(CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_owned();
        fits.then(|| Self {
            resource,
            namespace: decoded(namespace),
            name,
            subresource: subresource.to_owned(),
            query: Query::read(parts.uri.query().unwrap_or_default()),
            is_partial: header(ACCEPT).contains("as=PartialObjectMetadata"),
            content_type,
            user: user.to_owned(),
            body,
            user_agent: header(USER_AGENT).to_owned(),
        })
    }

    pub(crate) fn is_status(&self) -> bool {
        self.subresource == "status"
    }

    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    pub(crate) fn key(&self) -> String {
        self.resource.key(&self.namespace, self.name())
    }

    /// The shape of a single object in the answer.
    pub(crate) fn shape(&self) -> Shape {
        if self.is_partial { Shape::Partial } else { Shape::Full }
    }

    /// The name of the field manager: as asked for, or whoever sent it.
    pub(crate) fn manager(&self) -> String {
        let agent = || self.user_agent.split('/').next().unwrap_or_default().chars().take(128).collect();
        let name: String = self.query.get("fieldManager").map_or_else(agent, str::to_owned);
        if name.is_empty() { "unknown".into() } else { name }
    }

    pub(crate) fn is_dry_run(&self) -> bool {
        self.query.get("dryRun") == Some("All")
    }
}

/// The query of a request.
#[derive(Debug, Default)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    fn read(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(&key.replace('+', " ")), decoded(&value.replace('+', " ")))
        });
        Self(pairs.collect())
    }

    /// A parameter that is there and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1"))
    }

    /// # Errors
    /// 500 when it is no version, as Kubernetes has it.
    pub(crate) fn version(&self) -> Result<Option<u64>, Failure> {
        let read = |text: &str| {
            text.parse()
                .map_err(|_| Failure::internal(format!("resourceVersion: Invalid value: \"{text}\": invalid syntax")))
        };
        self.get("resourceVersion").map(read).transpose()
    }

    /// # Errors
    /// 400 when it is no number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        let read =
            |text: &str| text.parse().map_err(|_| Failure::bad_request(format!("{name}: \"{text}\" is no number")));
        self.get(name).map(read).transpose()
    }
}

/// Undoes percent encoding.
fn decoded(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = |bytes: &[u8]| u8::from_str_radix(std::str::from_utf8(bytes).ok()?, 16).ok();
        match after.get(..2).filter(|_| first == b'%').and_then(hex) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
