//! Error answers of Graph and Intune: realistic JSON, the JSON string that Intune nests inside, and broken bodies.

use crate::body::AnswerBody;
use crate::settings::BodyKind;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The ids of one request that answers carry.
#[derive(Debug, Clone)]
pub(crate) struct RequestIds {
    pub(crate) request_id: String,
    pub(crate) client_request_id: Option<String>,
}

/// Why a request is refused. Not `Debug`: a message may quote what was sent.
#[derive(Clone)]
pub(crate) struct Failure {
    status: u16,
    code: String,
    message: String,
    nested: bool,
    retry_after: Option<String>,
    html: bool,
}

impl std::fmt::Debug for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Failure({} {})", self.status, self.code)
    }
}

impl Failure {
    /// An error whose message is a sentence.
    pub(crate) fn plain(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into(), nested: false, retry_after: None, html: false }
    }

    /// An error of Intune, whose message is JSON in a string.
    pub(crate) fn nested(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { nested: true, ..Self::plain(status, code, message) }
    }

    /// 400 from the OData layer in front of Intune.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::plain(400, "BadRequest", message)
    }

    /// 411 comes from the web server, as HTML.
    pub(crate) fn length_required() -> Self {
        Self {
            html: true,
            ..Self::plain(411, "LengthRequired", "The request must be chunked or have a content length.")
        }
    }

    /// An error with a status that someone asked for, and the code that usually goes with it.
    pub(crate) fn with_status(status: u16) -> Self {
        let (code, message) = match status {
            400 => ("BadRequest", "The request is invalid."),
            401 => ("InvalidAuthenticationToken", "Access token has expired or is not yet valid."),
            403 => ("Forbidden", "Application is not authorized to perform this operation."),
            404 => ("ResourceNotFound", "Resource not found."),
            409 => ("Conflict", "The request conflicts with the state of the resource."),
            429 => ("TooManyRequests", "Too many requests."),
            500 => ("InternalServerError", "An internal server error has occurred."),
            502 => ("BadGateway", "The service behind the gateway did not answer."),
            503 => ("ServiceUnavailable", "The service is temporarily unavailable."),
            504 => ("GatewayTimeout", "The service behind the gateway did not answer in time."),
            _ => ("UnknownError", "An error has occurred."),
        };
        Self::nested(status, code, message)
    }

    /// With a `Retry-After`.
    pub(crate) fn retry_after(mut self, value: Option<String>) -> Self {
        self.retry_after = value;
        self
    }

    /// The answer.
    pub(crate) fn respond(&self, body: BodyKind, ids: &RequestIds, at: Timestamp) -> Response<AnswerBody> {
        let body = if self.html { BodyKind::Html } else { body };
        let (content_type, body) = match body {
            BodyKind::Json => ("application/json", self.json(ids, at).to_string()),
            BodyKind::Empty => ("", String::new()),
            BodyKind::Html => ("text/html; charset=us-ascii", self.html()),
            BodyKind::CutOff => ("application/json", half(&self.json(ids, at).to_string())),
        };
        let mut response = respond(self.status, content_type, body);
        if let Some(value) = self.retry_after.as_deref().and_then(|value| HeaderValue::from_str(value).ok()) {
            response.headers_mut().insert(RETRY_AFTER, value);
        }
        response
    }

    fn json(&self, ids: &RequestIds, at: Timestamp) -> Value {
        let message = if self.nested { self.nest(ids) } else { self.message.clone() };
        json!({"error": {
            "code": self.code,
            "message": message,
            "innerError": {
                "date": at.strftime("%Y-%m-%dT%H:%M:%S").to_string(),
                "request-id": ids.request_id,
                "client-request-id": ids.client_request_id.as_ref().unwrap_or(&ids.request_id),
            },
        }})
    }

    fn nest(&self, ids: &RequestIds) -> String {
        let sentence = format!(
            "{} - Operation ID (for customer support): 00000000-0000-0000-0000-000000000000 - Activity ID: {} - Url: \
             https://emulator.example/deviceAppManagement/vppTokens",
            self.message, ids.request_id
        );
        json!({
            "_version": 3,
            "Message": sentence,
            "CustomApiErrorPhrase": "",
            "RetryAfter": null,
            "ErrorSourceService": "",
            "HttpHeaders": "{}",
        })
        .to_string()
    }

    fn html(&self) -> String {
        let status = self.status;
        let reason = StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason()).unwrap_or("Error");
        format!(
            "<!DOCTYPE HTML>\r\n<HTML><HEAD><TITLE>{reason}</TITLE></HEAD>\r\n<BODY><h2>{reason}</h2>\r\n<hr><p>HTTP \
             Error {status}. {reason}.</p>\r\n</BODY></HTML>\r\n"
        )
    }
}

/// The first half of a text.
pub(crate) fn half(text: &str) -> String {
    text.chars().take(text.chars().count() / 2).collect()
}

/// An answer; no `Content-Type` if that is empty.
pub(crate) fn respond(status: u16, content_type: &str, body: String) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::whole(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(value) = HeaderValue::from_str(content_type)
        && !content_type.is_empty()
    {
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    response
}
