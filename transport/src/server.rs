//! The server side: listens, limits what strangers may take, and hands every logged-in client's
//! subsystem to the caller. Who may log in is the caller's decision ([`Authenticate`]).

mod connection;
mod failures;
mod gate;
mod handler;
mod pacer;
mod tally;
mod writer;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::ssh_key;
use russh::{MethodKind, MethodSet, SshId};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use self::connection::Keeper;
use self::gate::{Bounds, Crowded, Gate, refuse};
pub use self::tally::{Handshake, Tally};
pub use self::writer::ServerWriter;
pub use crate::algorithms::Algorithms;
use crate::channel::{InboundBudget, Reader};
use crate::client::plain;
use crate::ending::Link;
use crate::error::ServeError;
use crate::keys::{PrivateKey, PublicKeyBlob};
use crate::wire::tune;

/// The environment variable with the version of the protocol inside the subsystem.
pub(crate) const PROTOCOL_VARIABLE: &str = "BASTIO_PROTOCOL";
/// russh sends a keepalive after each interval of silence and gives up at the first interval's end
/// at which more than `keepalive_max` are unanswered: a silent client is dropped after
/// interval * (max + 1) = 30 s * 2 = 60 s. Any answer counts, a refusal too, so an agent that
/// itself sends no keepalives is never cut while it lives.
const KEEPALIVE_MAX: usize = 1;
/// Unacknowledged TCP data ends the connection after this time.
const TCP_LIMIT: Duration = Duration::from_secs(60);
/// SSH window offered to a client in bytes: what may be on its way beyond the inbound budget.
const WINDOW: u32 = 128 * 1024;
/// A key exchange every 4 hours: with 10,000 agents that is less than one a second.
const REKEY_AFTER: Duration = Duration::from_secs(4 * 60 * 60);
/// Connections that wait to be accepted, at most; the system lets as many wait as `net.core.somaxconn` says (listen(2)). A
/// fleet comes back all at once, and whom the queue has no room for asks again after 1 s, 3 s, 7 s (RFC 6298).
const BACKLOG: u32 = 65_535;
/// Pauses after a failed accept, e.g. because no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Limit for all connections to end at shutdown; each takes less (see `connection`).
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// A boxed future, for traits that are used as objects or with generics.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Decides who may log in.
pub trait Authenticate: Send + Sync + 'static {
    /// What is known about a client once it is logged in.
    type Identity: Send + 'static;

    /// Whether `key` may log in as `user`. Called when a client offers a key and again when it has
    /// proved to hold it, so the result must not be counted as a login. RSA keys below 2048 bits
    /// never get here. Time limit: [`ServerConfig::login_grace`], then as [`Unsure`].
    fn authenticate<'a>(
        &'a self,
        user: &'a str,
        key: &'a PublicKeyBlob,
        peer: SocketAddr,
    ) -> BoxFuture<'a, Result<Option<Self::Identity>, Unsure>>;
}

/// Nobody can tell now whose key it is. The client is cut off without an answer, so that it comes back soon: a refusal
/// would keep it away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsure;

/// What a server offers and how much it lets clients take.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Host keys; exactly one RSA key unless the algorithms are [`Algorithms::Modern`].
    pub host_keys: Vec<PrivateKey>,
    /// The server identifies itself as `SSH-2.0-bastio_VERSION`.
    pub version: String,
    /// What to offer.
    pub algorithms: Algorithms,
    /// The only subsystem. Default `bastio-agent`.
    pub subsystem: String,
    /// Most handshakes at a time. Default 100.
    pub max_startups: usize,
    /// Most connections that wait for theirs; further ones are asked to come back later. Default 16384.
    pub max_waiting: usize,
    /// Longest wait for a handshake to begin. Default 12 s.
    pub wait_limit: Duration,
    /// Most connections that are not logged in of one source (an IPv4 address or an IPv6 /64).
    /// Default 20.
    pub max_startups_per_source: usize,
    /// Connections without a login that one source may make in a minute. Default 300.
    pub max_failures_per_source: u32,
    /// Time to log in, and again as much to open the subsystem. Default 20 s.
    pub login_grace: Duration,
    /// A silent client is asked for a sign of life after this time and dropped after twice as
    /// long. Default 30 s, so 60 s.
    pub keepalive_interval: Duration,
    /// Longest time a write may take without progress. Default 30 s.
    pub stall_limit: Duration,
    /// How much received data may wait for each session's reader.
    pub inbound: InboundBudget,
    /// Where connections are counted. A clone counts in the same place.
    pub tally: Arc<Tally>,
}

impl ServerConfig {
    /// A configuration with the default limits.
    pub fn new(
        host_keys: Vec<PrivateKey>,
        version: impl Into<String>,
        algorithms: Algorithms,
    ) -> Self {
        Self {
            host_keys,
            version: version.into(),
            algorithms,
            subsystem: "bastio-agent".to_owned(),
            max_startups: 100,
            max_waiting: 16_384,
            wait_limit: Duration::from_secs(12),
            max_startups_per_source: 20,
            max_failures_per_source: 300,
            login_grace: Duration::from_secs(20),
            keepalive_interval: Duration::from_secs(30),
            stall_limit: Duration::from_secs(30),
            inbound: InboundBudget::default(),
            tally: Arc::default(),
        }
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            handshakes: self.max_startups,
            waiting: self.max_waiting,
            each: self.max_startups_per_source,
            failures: self.max_failures_per_source,
        }
    }

    fn identification(&self) -> String {
        format!("SSH-2.0-bastio_{}", plain(&self.version))
    }

    fn for_russh(&self) -> russh::server::Config {
        let mut methods = MethodSet::empty();
        methods.push(MethodKind::PublicKey);
        let keys = self.host_keys.iter();
        russh::server::Config {
            server_id: SshId::Standard(self.identification().into()),
            methods,
            // OpenSSH always asks with the method `none` first.
            auth_rejection_time_initial: Some(Duration::ZERO),
            keys: keys.map(|key| ssh_key::PrivateKey::clone(key.inner())).collect(),
            limits: russh::Limits { rekey_time_limit: REKEY_AFTER, ..Default::default() },
            window_size: WINDOW,
            channel_buffer_size: 1,
            preferred: self.algorithms.for_server(),
            // Silent agents are normal; dead ones are found by keepalives, stuck writes by the wire.
            inactivity_timeout: None,
            keepalive_interval: Some(self.keepalive_interval),
            keepalive_max: KEEPALIVE_MAX,
            ..Default::default()
        }
    }
}

/// A client that is logged in and has opened the subsystem.
#[derive(Debug)]
pub struct ServerSession<I> {
    /// What [`Authenticate`] knows about the client.
    pub identity: I,
    /// The SSH user name it logged in with. A version-1 agent sends its API key here: a secret.
    pub user: LoginName,
    /// Its address.
    pub peer: SocketAddr,
    /// Its SSH identification, e.g. `SSH-2.0-bastio-0.1.2`; from the client, so not to be trusted.
    pub client_version: String,
    /// The version of the protocol it speaks, if it told one.
    pub protocol: Option<u32>,
    /// Data from the client.
    pub reader: Reader,
    /// Data to the client.
    pub writer: ServerWriter,
    /// Owns the connection: dropping it cuts the connection.
    pub link: Link,
}

/// An SSH user name; `Debug` hides it, as version-1 agents put their API key there.
#[derive(Clone, PartialEq, Eq)]
pub struct LoginName(String);

impl LoginName {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for LoginName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LoginName(hidden)")
    }
}

/// A bound listening socket.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Binds the address; port 0 takes any free one. As many connections wait to be accepted as the system lets wait.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Who starts again finds the port free, though connections of before are still being forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG).map(Self)
    }

    /// The address really bound.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// What all connections of one server share.
struct Shared<A: Authenticate> {
    config: ServerConfig,
    russh: Arc<russh::server::Config>,
    authenticator: Arc<A>,
    sessions: mpsc::Sender<ServerSession<A::Identity>>,
    shutdown: CancellationToken,
}

impl<A: Authenticate> Shared<A> {
    fn new(
        config: ServerConfig,
        authenticator: Arc<A>,
        sessions: mpsc::Sender<ServerSession<A::Identity>>,
        shutdown: CancellationToken,
    ) -> Self {
        Self { russh: Arc::new(config.for_russh()), config, authenticator, sessions, shutdown }
    }
}

/// Serves until `shutdown`, then says goodbye to every client and waits for all connections to end
/// (10 s at most). Each session goes to `sessions`; a client whose session finds no room there
/// within 5 s is refused.
pub async fn serve<A: Authenticate>(
    listener: Listener,
    config: ServerConfig,
    authenticator: Arc<A>,
    sessions: mpsc::Sender<ServerSession<A::Identity>>,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    config.algorithms.check_host_keys(&config.host_keys)?;
    let gate = Gate::new(config.bounds(), Arc::clone(&config.tally));
    let shared = Arc::new(Shared::new(config, authenticator, sessions, shutdown));
    let mut connections = JoinSet::new();
    let mut pause = ACCEPT_PAUSE;
    loop {
        let accepted = tokio::select! {
            () = shared.shutdown.cancelled() => break,
            Some(done) = connections.join_next() => {
                note_panic(done);
                continue;
            }
            accepted = listener.0.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                pause = ACCEPT_PAUSE;
                admit(&shared, &gate, &mut connections, socket, peer);
            }
            Err(error) => {
                warn!(%error, "cannot accept connections, trying again");
                tokio::select! {
                    () = sleep(pause) => {}
                    () = shared.shutdown.cancelled() => break,
                }
                pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
            }
        }
    }
    drop(listener);
    end_all(connections).await;
    Ok(())
}

fn admit<A: Authenticate>(
    shared: &Arc<Shared<A>>,
    gate: &Gate,
    connections: &mut JoinSet<()>,
    socket: TcpStream,
    peer: SocketAddr,
) {
    let refusal = match gate.enter(peer.ip()) {
        Ok(startup) => {
            tune(&socket, TCP_LIMIT);
            let keeper = Keeper::new(Arc::clone(shared), peer);
            connections.spawn(keeper.wait_and_run(socket, startup));
            return;
        }
        Err(Crowded(wait)) => wait,
    };
    debug!(address = %peer, wait = ?refusal, "too many connections that are not logged in");
    shared.config.tally.note(Handshake::Crowded);
    if let Some(turn) = gate.turn_to_refuse() {
        connections.spawn(refuse(socket, shared.config.identification(), refusal, Some(turn)));
    }
}

async fn end_all(mut connections: JoinSet<()>) {
    info!(connections = connections.len(), "SSH server is stopping");
    let all = async {
        while let Some(done) = connections.join_next().await {
            note_panic(done);
        }
    };
    if timeout(SHUTDOWN_LIMIT, all).await.is_err() {
        warn!(connections = connections.len(), "connections did not end in time");
        connections.shutdown().await;
    }
}

fn note_panic(done: Result<(), tokio::task::JoinError>) {
    if let Err(error) = done {
        error!(%error, "the task of a connection failed");
    }
}

/// Serves one client on any kind of stream, for tests with paused time.
#[cfg(test)]
pub(crate) async fn serve_one<A: Authenticate, S>(
    config: ServerConfig,
    authenticator: Arc<A>,
    sessions: mpsc::Sender<ServerSession<A::Identity>>,
    socket: S,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let peer: SocketAddr = (std::net::Ipv4Addr::LOCALHOST, 1).into();
    let gate = Gate::new(config.bounds(), Arc::clone(&config.tally));
    let startup = gate.enter(peer.ip()).expect("the first one fits");
    let shared = Shared::new(config, authenticator, sessions, CancellationToken::new());
    Keeper::new(Arc::new(shared), peer).run(socket, startup).await;
}
