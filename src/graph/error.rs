//! What can go wrong with a request, and what that says about whether it was carried out.

use std::time::Duration;

use serde_json::Value;

use super::scrub::Scrubber;

/// A sentence from Graph is not shown beyond this many characters.
const MAX_SENTENCE_CHARACTERS: usize = 400;

/// The kind of a failure: what it means for the next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// No connection could be made, or no access token be had: nothing was sent to Graph.
    Unreachable,
    /// The request was sent and its answer never came, or came and can't be read: it may have been carried out.
    OutcomeUnknown,
    /// 429: nothing was carried out.
    Throttled,
    /// 5xx: it may have been carried out.
    Unavailable,
    /// 401: the access token was not accepted.
    Unauthorized,
    /// 403: a permission is missing.
    Forbidden,
    /// 404.
    NotFound,
    /// 409, 412, 423: something else is going on with it; nothing was carried out.
    Conflict,
    /// Any other 4xx: Graph refuses the request.
    Refused,
    /// Entra ID refused the credentials.
    Credentials,
}

impl ErrorKind {
    /// Credentials and permissions: whichever of them Microsoft names, it is one cause for a person.
    pub fn is_about_access(self) -> bool {
        matches!(self, Self::Credentials | Self::Unauthorized | Self::Forbidden)
    }
}

/// A failed request. Its text contains no secret that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphError {
    /// What it means.
    pub kind: ErrorKind,
    /// Graph's own sentence, or what happened to the connection.
    pub sentence: String,
    /// Graph's error code, or Entra's `AADSTS…` code.
    pub code: Option<String>,
    /// HTTP status, when there was an answer.
    pub status: Option<u16>,
    /// How long the server asked to wait.
    pub retry_after: Option<Duration>,
    /// Graph's id of the request, for Microsoft's support.
    pub request_id: Option<String>,
    /// Intune's id of the activity, for Microsoft's support.
    pub activity_id: Option<String>,
}

impl std::error::Error for GraphError {}

impl std::fmt::Display for GraphError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.sentence)?;
        let mut details = Vec::new();
        if let Some(status) = self.status {
            details.push(format!("HTTP {status}"));
        }
        details.extend(self.code.clone());
        details.extend(self.request_id.as_ref().map(|id| format!("request id {id}")));
        details.extend(self.activity_id.as_ref().map(|id| format!("activity id {id}")));
        if details.is_empty() { Ok(()) } else { write!(f, " ({})", details.join(", ")) }
    }
}

impl GraphError {
    /// The sentence with its code: what is the same at each try.
    pub fn summary(&self) -> String {
        let sentence = self.sentence.trim_end_matches('.');
        match &self.code {
            Some(code) if !sentence.contains(code) => format!("{sentence} ({code})."),
            _ => format!("{sentence}."),
        }
    }

    /// A failure that has only a sentence.
    pub fn new(kind: ErrorKind, sentence: impl Into<String>) -> Self {
        Self {
            kind,
            sentence: sentence.into(),
            code: None,
            status: None,
            retry_after: None,
            request_id: None,
            activity_id: None,
        }
    }

    pub(super) fn bad_answer(what: &str) -> Self {
        Self::new(ErrorKind::OutcomeUnknown, format!("Graph's answer can't be used: {what}"))
    }

    pub(super) fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// No connection: the request was not sent.
    pub fn not_connected() -> Self {
        Self::new(ErrorKind::Unreachable, "no connection could be made")
    }

    /// The request may have been sent, and there is no answer, or half of one.
    pub fn connection_broken() -> Self {
        Self::new(ErrorKind::OutcomeUnknown, "the connection broke before the answer was complete")
    }

    /// The request may have been sent, and the time for an answer is over.
    pub(super) fn timed_out() -> Self {
        Self::new(ErrorKind::OutcomeUnknown, "there was no answer in time")
    }

    /// A request without an answer. The text does not name the URL, which is not for every reader.
    pub(super) fn of_transport(error: &reqwest::Error) -> Self {
        if error.is_connect() {
            Self::not_connected()
        } else if error.is_timeout() {
            Self::timed_out()
        } else if error.is_builder() {
            Self::new(ErrorKind::Unreachable, "the request could not be built")
        } else {
            Self::connection_broken()
        }
    }

    /// An answer that is an error. Bodies can be JSON, JSON within JSON, HTML, empty, or cut off.
    pub(super) fn of_answer(
        status: u16,
        body: &[u8],
        retry_after: Option<Duration>,
        request_id: Option<String>,
        scrubber: &Scrubber,
    ) -> Self {
        let kind = match status {
            401 => ErrorKind::Unauthorized,
            403 => ErrorKind::Forbidden,
            404 => ErrorKind::NotFound,
            429 => ErrorKind::Throttled,
            409 | 412 | 423 => ErrorKind::Conflict,
            408 | 500.. => ErrorKind::Unavailable,
            300..=399 => ErrorKind::OutcomeUnknown,
            _ => ErrorKind::Refused,
        };
        let body: Option<Value> = serde_json::from_slice(body).ok();
        let error = body.as_ref().and_then(|body| body.get("error"));
        let text = |name: &str| error.and_then(|error| error.get(name)).and_then(Value::as_str);
        let (sentence, activity_id) = inner_sentence(text("message").unwrap_or_default());
        let sentence = shortened(&scrubber.scrub(&sentence));
        let inner_id = error
            .and_then(|error| error.get("innerError"))
            .and_then(|inner| inner.get("request-id"))
            .and_then(Value::as_str)
            .map(str::to_owned);
        Self {
            kind,
            sentence: if sentence.is_empty() { "Graph gave no reason".into() } else { sentence },
            code: text("code").filter(|code| !code.is_empty()).map(|code| shortened(&scrubber.scrub(code))),
            status: Some(status),
            retry_after,
            request_id: inner_id.map(|id| scrubber.scrub(&id)).or(request_id),
            activity_id: activity_id.map(|id| scrubber.scrub(&id)),
        }
    }

    /// Whether the request may have been carried out although it failed.
    pub fn maybe_executed(&self) -> bool {
        matches!(self.kind, ErrorKind::OutcomeUnknown | ErrorKind::Unavailable)
    }
}

/// Seconds, also fractional, as `Retry-After` has them here.
pub(super) fn retry_after(text: &str) -> Option<Duration> {
    let seconds: f64 = text.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok().map(|wait| wait.min(Duration::from_secs(3600)))
}

/// Intune nests a JSON string in `message`, whose sentence ends with ids: returns the sentence and the activity id.
fn inner_sentence(message: &str) -> (String, Option<String>) {
    let nested: Option<Value> = serde_json::from_str(message).ok();
    let sentence = nested
        .as_ref()
        .and_then(|nested| nested.get("Message").or_else(|| nested.get("message")))
        .and_then(Value::as_str)
        .unwrap_or(message);
    let activity_id = sentence
        .split_once("Activity ID: ")
        .map(|(_, rest)| rest.split_whitespace().next().unwrap_or_default().to_owned())
        .filter(|id| !id.is_empty());
    let sentence = sentence.split(" - Operation ID").next().unwrap_or_default();
    let sentence = sentence.split(" - Activity ID").next().unwrap_or_default();
    (sentence.trim().to_owned(), activity_id)
}

pub(super) fn shortened(text: &str) -> String {
    let one_line: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SENTENCE_CHARACTERS).collect();
    one_line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, body: &str) -> GraphError {
        GraphError::of_answer(status, body.as_bytes(), None, Some("header-id".into()), &Scrubber::default())
    }

    #[test]
    fn the_inner_sentence_and_its_ids_are_found() {
        let message = r#"{\"_version\":3,\"Message\":\"The token is bad - Operation ID (for customer support): 0 - Activity ID: 11-22 - Url: https://x\",\"CustomApiErrorPhrase\":\"\"}"#;
        let error = of(
            400,
            &format!(r#"{{"error":{{"code":"BadRequest","message":"{message}","innerError":{{"request-id":"r1"}}}}}}"#),
        );
        assert_eq!(error.sentence, "The token is bad");
        assert_eq!(error.activity_id.as_deref(), Some("11-22"));
        assert_eq!(error.to_string(), "The token is bad (HTTP 400, BadRequest, request id r1, activity id 11-22)");
    }

    #[test]
    fn any_body_makes_an_error() {
        for body in ["", "<html>no</html>", "{\"error\":{\"code\":\"x\"", "{\"error\":\"text\"}", "null", "[1]"] {
            let error = of(502, body);
            assert_eq!((error.kind, error.status), (ErrorKind::Unavailable, Some(502)), "{body}");
            assert_eq!(error.sentence, "Graph gave no reason", "{body}");
            assert_eq!(error.request_id.as_deref(), Some("header-id"), "{body}");
        }
    }

    #[test]
    fn a_status_says_whether_it_may_have_been_carried_out() {
        for (status, maybe) in [
            (400, false),
            (401, false),
            (403, false),
            (404, false),
            (409, false),
            (429, false),
            (500, true),
            (503, true),
            (504, true),
        ] {
            assert_eq!(of(status, "").maybe_executed(), maybe, "{status}");
        }
    }

    #[test]
    fn waiting_times_may_be_fractional() {
        assert_eq!(retry_after("2.128"), Some(Duration::from_millis(2128)));
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        for text in ["", "-1", "soon", "inf", "nan"] {
            assert_eq!(retry_after(text), None, "{text}");
        }
    }
}
