//! The body of an answer: whole, or broken off in the middle.

use hyper::body::{Body, Bytes, Frame, SizeHint};
use std::fmt;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The body of an answer. As an HTTP body it yields its bytes in one piece, and then, if it is broken, an error. `Debug`
/// shows only its length: it may hold an access token.
pub struct AnswerBody {
    bytes: Bytes,
    end: End,
}

/// What comes after the bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    /// The connection breaks, after one poll that returns pending, so that a server sends what it has.
    Broken {
        waited: bool,
    },
}

/// The connection broke in the middle of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokenBody;

impl fmt::Display for BrokenBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection broke in the middle of the body")
    }
}

impl std::error::Error for BrokenBody {}

impl AnswerBody {
    /// All of it.
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), end: End::Complete }
    }

    /// The first half; then the connection breaks.
    pub(crate) fn half_of(bytes: &Bytes) -> Self {
        Self { bytes: bytes.slice(..bytes.len() / 2), end: End::Broken { waited: false } }
    }

    /// The bytes that arrive: all, or those before the break.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether the connection breaks after the bytes.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.end != End::Complete
    }

    /// All of the body.
    ///
    /// # Errors
    /// The connection breaks before its end.
    pub fn into_bytes(self) -> Result<Bytes, BrokenBody> {
        if self.is_broken() { Err(BrokenBody) } else { Ok(self.bytes) }
    }
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.is_broken() { ", then broken" } else { "" };
        write!(f, "AnswerBody({} bytes{end})", self.bytes.len())
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BrokenBody;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenBody>>> {
        let bytes = mem::take(&mut self.bytes);
        if !bytes.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match self.end {
            End::Complete => Poll::Ready(None),
            End::Broken { waited: false } => {
                self.end = End::Broken { waited: true };
                context.waker().wake_by_ref();
                Poll::Pending
            }
            End::Broken { waited: true } => Poll::Ready(Some(Err(BrokenBody))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty() && self.end == End::Complete
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_broken() { SizeHint::default() } else { SizeHint::with_exact(self.bytes.len() as u64) }
    }
}
