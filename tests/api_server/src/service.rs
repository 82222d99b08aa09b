//! The server behind kube's client, without a network and without faults.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use http::{HeaderValue, Request, Response};
use http_body::Frame;

use crate::answer::Answer;
use crate::server::ApiServer;
use crate::watch::WatchStream;

/// The server as a service for `kube::Client::new`.
#[derive(Clone)]
pub struct Service {
    server: ApiServer,
    user: String,
}

impl ApiServer {
    /// The server as one user reaches it.
    pub fn service(&self, user: &str) -> Service {
        Service { server: self.clone(), user: user.to_owned() }
    }
}

impl tower::Service<Request<kube::client::Body>> for Service {
    type Response = Response<ResponseBody>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let Self { server, user } = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await?.to_vec();
            Ok(server.call(Request::from_parts(parts, body), &user).into_response())
        })
    }
}

impl Answer {
    /// The answer as HTTP, with the events of a watch as they come.
    pub fn into_response(self) -> Response<ResponseBody> {
        match self {
            Self::Once(response) => response.map(|body| ResponseBody(Kind::Once(Some(body)))),
            Self::Watch(watch) => {
                let next = |mut watch: WatchStream| async { watch.next().await.map(|event| (event.line, watch)) };
                ResponseBody::streamed(stream::unfold(watch, next).boxed())
            }
        }
    }
}

/// A body that is complete, or lines that are still to come.
pub struct ResponseBody(Kind);

enum Kind {
    Once(Option<Bytes>),
    Lines(BoxStream<'static, Bytes>),
}

impl ResponseBody {
    /// An answer of lines; it ends where the stream does.
    pub fn streamed(lines: BoxStream<'static, Bytes>) -> Response<Self> {
        let mut response = Response::new(Self(Kind::Lines(lines)));
        response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match &mut self.0 {
            Kind::Once(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Kind::Lines(lines) => lines.poll_next_unpin(context).map(|line| line.map(|line| Ok(Frame::data(line)))),
        }
    }
}
