//! Listens, and speaks HTTP on each connection. The accept loop is our own, so that a connection can be closed without
//! an answer, and the whole server can be down for a while and come back on the same port.

use crate::admin;
use crate::emulation::Emulation;
use crate::pipeline::Closed;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

const BACKLOG: u32 = 1024;

/// Whether the port answers.
enum Port {
    /// The accept loop and its connections, which end with `stop`.
    Listening { stop: CancellationToken, tasks: TaskTracker },
    /// Bound, so that nobody else takes it, but not listening: connections are refused.
    Reserved(TcpSocket),
    /// Changing from one to the other, or over.
    Between,
}

/// The server.
pub(crate) struct Server {
    emulation: Emulation,
    address: SocketAddr,
    port: Mutex<Port>,
}

impl Server {
    /// Binds and listens.
    pub(crate) fn start(emulation: Emulation) -> io::Result<Arc<Self>> {
        let socket = bind(emulation.shared().read(|state| state.settings.listen))?;
        let listener = socket.listen(BACKLOG)?;
        let server = Arc::new(Self { address: listener.local_addr()?, emulation, port: Mutex::new(Port::Between) });
        server.listen(listener);
        Ok(server)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn emulation(&self) -> &Emulation {
        &self.emulation
    }

    /// Closes all connections and refuses new ones. Requests in flight still have their effect.
    pub(crate) async fn down(&self) -> io::Result<()> {
        let Port::Listening { stop, tasks } = self.swap(Port::Between) else {
            return Ok(());
        };
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        let reserved = bind_patiently(self.address).await?;
        self.swap(Port::Reserved(reserved));
        Ok(())
    }

    /// Listens again.
    pub(crate) async fn up(self: &Arc<Self>) -> io::Result<()> {
        let socket = match self.swap(Port::Between) {
            Port::Reserved(socket) => socket,
            Port::Between => bind_patiently(self.address).await?,
            listening @ Port::Listening { .. } => {
                self.swap(listening);
                return Ok(());
            }
        };
        self.listen(socket.listen(BACKLOG)?);
        Ok(())
    }

    /// Begins to end everything.
    pub(crate) fn stop(&self) {
        self.emulation.stop().cancel();
    }

    /// Ends everything.
    pub(crate) async fn shutdown(&self) {
        self.stop();
        if let Port::Listening { tasks, .. } = self.swap(Port::Between) {
            tasks.close();
            tasks.wait().await;
        }
        self.emulation.ended().await;
    }

    fn swap(&self, port: Port) -> Port {
        std::mem::replace(&mut *self.port.lock().unwrap_or_else(PoisonError::into_inner), port)
    }

    fn listen(self: &Arc<Self>, listener: TcpListener) {
        let stop = self.emulation.stop().child_token();
        let tasks = TaskTracker::new();
        let accepting = accept(Arc::clone(self), listener, stop.clone(), tasks.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(accepting));
        self.swap(Port::Listening { stop, tasks });
    }

    async fn serve(self: Arc<Self>, request: Request<Incoming>) -> Result<Response, Closed> {
        let (parts, body) = request.into_parts();
        let body = Body::new(body);
        if parts.uri.path() == "/emulator" || parts.uri.path().starts_with("/emulator/") {
            let Ok(response) = admin::router(&self).oneshot(Request::from_parts(parts, body)).await;
            return Ok(response);
        }
        // On an error of the service, hyper closes the connection without an answer.
        let answer = self.emulation.exchange(parts, body, &self.address.to_string()).await?;
        Ok(answer.map(Body::new))
    }
}

async fn accept(server: Arc<Server>, listener: TcpListener, stop: CancellationToken, tasks: TaskTracker) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tasks.spawn(stop.clone().run_until_cancelled_owned(connection(Arc::clone(&server), stream)));
            }
            // Out of file descriptors, or a client that has closed already: neither is a reason to stop.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn connection(server: Arc<Server>, stream: TcpStream) {
    // Without it answers wait for the client's acknowledgement; failing that is only slower.
    let _slower = stream.set_nodelay(true);
    let service = service_fn(move |request| Arc::clone(&server).serve(request));
    let served = http1::Builder::new().header_read_timeout(None).serve_connection(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended");
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Without it the port stays taken as long as the connections just closed are remembered.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// The kernel may take a moment to release the port.
async fn bind_patiently(address: SocketAddr) -> io::Result<TcpSocket> {
    for _ in 0..200 {
        match bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => sleep(Duration::from_millis(10)).await,
            other => return other,
        }
    }
    bind(address)
}
