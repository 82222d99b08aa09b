//! The answers of the server.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use serde_json::Value;

use crate::watch::WatchStream;

/// An answer: complete, or a watch that goes on.
#[derive(Debug)]
pub enum Answer {
    /// Complete, with its body.
    Once(Response<Bytes>),
    /// The events of a watch, which the caller delivers when it likes.
    Watch(WatchStream),
}

impl Answer {
    /// The status; a watch that began has 200.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Once(response) => response.status(),
            Self::Watch(_) => StatusCode::OK,
        }
    }

    /// The body as JSON; null where there is none.
    pub fn json(&self) -> Value {
        match self {
            Self::Once(response) => serde_json::from_slice(response.body()).unwrap_or_default(),
            Self::Watch(_) => Value::Null,
        }
    }
}

pub(crate) fn json_response(code: u16, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
