//! One listening port: takes the sessions that the transport hands over, gives each its own task,
//! and ends them all when the backend stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bastio_transport::{Algorithms, Listener, PrivateKey, ServeError, ServerConfig, Tally, serve};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, warn};

use super::host::Host;
use super::login::Login;
use super::rivals::PerKey;
use crate::config::{Limits, RivalPolicy};
use crate::dispatch::Dispatch;
use crate::signing::Orders;
use crate::store::Store;

/// Actions unanswered on the main port: enough to hide the way to and fro.
const WINDOW: usize = 16;
/// On the legacy port: an original agent takes a netstring only in one piece, and SSH's window is
/// sure to have room for a whole one only when nothing else is on its way.
const LEGACY_WINDOW: usize = 1;
/// Sessions that wait for their task; each login waits for room at most for the transport's limit.
const ARRIVING: usize = 64;
/// For sessions to end when the backend stops.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Who a port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortKind {
    /// Agents of today: modern algorithms.
    Main,
    /// Version-1 agents: one RSA host key, no SHA-1.
    Legacy,
    /// Version-1 agents as installed in 2013: with SHA-1.
    LegacySha1,
}

/// A bound port, ready to serve.
#[derive(Debug)]
pub struct Port {
    kind: PortKind,
    listener: Listener,
    config: ServerConfig,
    answer_within: Duration,
    rivals: RivalPolicy,
    per_key: PerKey,
    parts: (Dispatch, Store, Orders),
}

/// Why a port does not serve.
#[derive(Debug, Error)]
pub enum PortError {
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The transport refused.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

impl PortKind {
    fn algorithms(self) -> Algorithms {
        match self {
            Self::Main => Algorithms::Modern,
            Self::Legacy => Algorithms::LegacyRsa,
            Self::LegacySha1 => Algorithms::LegacySha1,
        }
    }

    fn is_legacy(self) -> bool {
        match self {
            Self::Main => false,
            Self::Legacy | Self::LegacySha1 => true,
        }
    }

    fn window(self) -> usize {
        if self.is_legacy() { LEGACY_WINDOW } else { WINDOW }
    }
}

impl Port {
    /// Binds `address`. Connections wait in the system's queue until [`Port::serve`].
    ///
    /// # Errors
    /// [`PortError::Bind`].
    pub async fn bind(
        kind: PortKind,
        address: SocketAddr,
        host_key: PrivateKey,
        limits: &Limits,
        parts: (Dispatch, Store, Orders),
    ) -> Result<Self, PortError> {
        let listener =
            Listener::bind(address).map_err(|source| PortError::Bind { address, source })?;
        let version = env!("CARGO_PKG_VERSION");
        let mut config = ServerConfig::new(vec![host_key], version, kind.algorithms());
        config.max_startups = limits.max_startups.get();
        config.max_waiting = limits.max_waiting.get();
        config.max_startups_per_source = limits.max_startups_per_source.get();
        let failures = limits.max_failures_per_source.get();
        config.max_failures_per_source = u32::try_from(failures).unwrap_or(u32::MAX);
        config.login_grace = limits.login_grace.get();
        config.stall_limit = limits.take_within.get();
        config.keepalive_interval = limits.keepalive.get();
        let (arrivals, live) = (limits.max_logins_per_key.get(), limits.max_sessions_per_key.get());
        let per_key = PerKey { arrivals, live };
        let (answer_within, rivals) = (limits.answer_within(), limits.rivals);
        Ok(Self { kind, listener, config, answer_within, rivals, per_key, parts })
    }

    /// What becomes of its connections, under its name.
    #[must_use]
    pub fn tally(&self) -> (&'static str, Arc<Tally>) {
        let name = if self.kind.is_legacy() { "legacy" } else { "main" };
        (name, Arc::clone(&self.config.tally))
    }

    /// The address really bound.
    ///
    /// # Errors
    /// What the system said.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`, then ends all sessions, in 5 s at most.
    ///
    /// # Errors
    /// [`PortError::Serve`] when the transport cannot start.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), PortError> {
        let Self { kind, listener, config, answer_within, rivals, per_key, parts } = self;
        let (arriving, mut arrived) = mpsc::channel(ARRIVING);
        let login = Arc::new(Login::new(parts.0.clone()));
        let mut transport = tokio::spawn(serve(listener, config, login, arriving, stop.clone()));
        let (legacy, window) = (kind.is_legacy(), kind.window());
        let host = Host::new(legacy, window, (answer_within, rivals, per_key), parts, stop.clone());
        let host = Arc::new(host);
        let mut sessions = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                session = arrived.recv() => match session {
                    Some(session) => {
                        let span = host.span(&session);
                        let own = Arc::clone(&host).own(Box::new(session));
                        sessions.spawn(own.instrument(span));
                    }
                    // The transport has ended by itself.
                    None => break,
                },
                Some(ended) = sessions.join_next() => note_panic(ended),
            }
        }
        drop(arrived);
        let ending = async {
            while let Some(ended) = sessions.join_next().await {
                note_panic(ended);
            }
            (&mut transport).await
        };
        match timeout(STOP_LIMIT, ending).await {
            Ok(Ok(served)) => Ok(served?),
            Ok(Err(failed)) => {
                error!(error = %failed, "the SSH server failed");
                Ok(())
            }
            Err(_) => {
                warn!(sessions = sessions.len(), "sessions did not end in time and are cut");
                sessions.shutdown().await;
                transport.abort();
                Ok(())
            }
        }
    }
}

fn note_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        error!(%error, "the task of a session failed");
    }
}
