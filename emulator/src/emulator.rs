//! The emulator on the network: starts and stops it.

use crate::clock::Clock;
use crate::emulation::Emulation;
use crate::random::Random;
use crate::server::Server;
use crate::settings::Settings;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

/// A running emulator: an [`Emulation`] that listens. Dropping it stops it.
pub struct Emulator {
    server: Arc<Server>,
}

impl Deref for Emulator {
    type Target = Emulation;

    fn deref(&self) -> &Emulation {
        self.server.emulation()
    }
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator").field("url", &self.url()).finish_non_exhaustive()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.server.stop();
    }
}

impl Emulator {
    /// Starts listening; requests are served by the tokio runtime of the caller.
    ///
    /// # Errors
    /// The address can't be listened on.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        Self::listen(Emulation::new(settings, Clock::machine(), Random::system())).await
    }

    /// Starts listening for an emulation, where its settings say. It goes on answering in process too.
    ///
    /// # Errors
    /// The address can't be listened on.
    #[expect(clippy::unused_async, reason = "async makes sure that there is a runtime")]
    pub async fn listen(emulation: Emulation) -> io::Result<Self> {
        Ok(Self { server: Server::start(emulation)? })
    }

    /// The base URL, without a slash at the end, of both login and Graph.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Closes all connections and refuses new ones, keeping the port. Requests in flight still have their effect.
    ///
    /// # Errors
    /// The port was taken by someone else meanwhile.
    pub async fn down(&self) -> io::Result<()> {
        self.server.down().await
    }

    /// Listens again on the same port.
    ///
    /// # Errors
    /// The port was taken by someone else meanwhile.
    pub async fn up(&self) -> io::Result<()> {
        self.server.up().await
    }

    /// Stops, and waits until nothing runs any more.
    pub async fn shutdown(self) {
        self.server.shutdown().await;
    }
}
