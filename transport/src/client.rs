//! The client side: dials, checks the host key against its pins, logs in with one key and opens
//! one subsystem. Retries, pauses and what is said in the subsystem belong to the caller.

mod handler;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use russh::client::{AuthResult, Handle};
use russh::keys::{HashAlg, PrivateKeyWithHashAlg};
use russh::{ChannelId, Disconnect, SshId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use self::handler::{ClientHandler, Seen};
use crate::algorithms;
use crate::channel::{Inbound, InboundBudget, Reader};
use crate::ending::{CloseReason, Ending, Goodbye, Link};
use crate::error::{ConnectError, SendError};
use crate::keys::{HostKeyPin, PrivateKey};
use crate::wire::{Wire, tune};

/// Unacknowledged TCP data ends the connection after this time.
const TCP_LIMIT: Duration = Duration::from_secs(45);
/// russh sends a keepalive after each interval of silence and gives up at the first interval's end
/// at which more than `keepalive_max` of them are unanswered. So a peer that falls silent is
/// noticed after interval * (max + 1) = 15 s * 3 = 45 s: keepalives at 15 s and 30 s, the end at 45 s.
const KEEPALIVE_MAX: usize = 2;
/// SSH window offered to the peer in bytes: what may be on its way beyond the inbound budget.
const WINDOW: u32 = 128 * 1024;
/// A key exchange every 4 hours is enough for a few bytes a minute.
const REKEY_AFTER: Duration = Duration::from_secs(4 * 60 * 60);

/// Where to connect and how.
#[derive(Clone)]
pub struct ClientConfig {
    /// Name or address of the host.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The address of this machine to connect from; the system's choice when absent.
    pub source: Option<IpAddr>,
    /// SSH user name. A backend of version 1 wants the API key here, so `Debug` hides it.
    pub username: String,
    /// Version of the agent: it identifies itself as `SSH-2.0-bastio-agent_VERSION`.
    pub version: String,
    /// Version of the protocol inside the subsystem, told to the host as the environment variable
    /// `BASTIO_PROTOCOL`. `None` says nothing, as version 1 did.
    pub protocol: Option<u32>,
    /// The host must have one of these keys.
    pub host_keys: Vec<HostKeyPin>,
    /// Also offer SHA-1 (group-exchange-sha1, hmac-sha1, ssh-rsa), for very old hosts. Default off.
    pub legacy_sha1: bool,
    /// Limit for everything up to the login. Default 20 s.
    pub connect_timeout: Duration,
    /// A silent peer is asked for a sign of life after this time, and taken for dead after three
    /// times as long. Default 15 s, so 45 s.
    pub keepalive_interval: Duration,
    /// Longest time a write may take without progress. Default 30 s.
    pub stall_limit: Duration,
    /// How much received data may wait for the reader.
    pub inbound: InboundBudget,
}

impl ClientConfig {
    /// A configuration with the default limits.
    pub fn new(
        host: impl Into<String>,
        port: u16,
        username: impl Into<String>,
        version: impl Into<String>,
        host_keys: Vec<HostKeyPin>,
    ) -> Self {
        Self {
            host: host.into(),
            port,
            source: None,
            username: username.into(),
            version: version.into(),
            protocol: None,
            host_keys,
            legacy_sha1: false,
            connect_timeout: Duration::from_secs(20),
            keepalive_interval: Duration::from_secs(15),
            stall_limit: Duration::from_secs(30),
            inbound: InboundBudget::default(),
        }
    }

    fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn for_russh(&self) -> russh::client::Config {
        russh::client::Config {
            client_id: SshId::Standard(
                format!("SSH-2.0-bastio-agent_{}", plain(&self.version)).into(),
            ),
            limits: russh::Limits { rekey_time_limit: REKEY_AFTER, ..Default::default() },
            window_size: WINDOW,
            channel_buffer_size: 1,
            preferred: algorithms::for_client(&self.host_keys, self.legacy_sha1),
            keepalive_interval: Some(self.keepalive_interval),
            keepalive_max: KEEPALIVE_MAX,
            ..Default::default()
        }
    }
}

impl std::fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientConfig")
            .field("address", &self.address())
            .field("host_keys", &self.host_keys)
            .finish_non_exhaustive()
    }
}

/// RFC 4253 section 4.2: printable ASCII without space or minus.
pub(crate) fn plain(version: &str) -> String {
    let plain = |c: char| c.is_ascii_graphic() && c != '-';
    version.chars().map(|c| if plain(c) { c } else { '_' }).take(100).collect()
}

/// A connection that is logged in. Dropping it cuts it.
#[derive(Debug)]
pub struct Connection {
    handle: SharedHandle,
    link: Link,
    ending: Ending,
    reader: Reader,
    answer: oneshot::Receiver<bool>,
    seen: Arc<Seen>,
    config: ClientConfig,
}

/// russh's handle, without its `Debug`.
#[derive(Clone)]
struct SharedHandle(Arc<Handle<ClientHandler>>);

impl std::fmt::Debug for SharedHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handle")
    }
}

/// Connects, checks the host key and logs in, all within [`ClientConfig::connect_timeout`].
pub async fn connect(config: &ClientConfig, key: &PrivateKey) -> Result<Connection, ConnectError> {
    let work = async {
        let socket = dial(config).await?;
        tune(&socket, TCP_LIMIT);
        establish(config, key, socket).await
    };
    within(config, Box::pin(work)).await
}

async fn within<T>(
    config: &ClientConfig,
    work: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    let after = config.connect_timeout;
    timeout(after, work)
        .await
        .unwrap_or_else(|_| Err(ConnectError::TimedOut { address: config.address(), after }))
}

/// Tries the host's addresses one after the other; each gets its share of the time.
async fn dial(config: &ClientConfig) -> Result<TcpStream, ConnectError> {
    let unreachable =
        |detail: String| ConnectError::Unreachable { address: config.address(), detail };
    let found = tokio::net::lookup_host((config.host.as_str(), config.port)).await;
    let addresses: Vec<_> = found.map_err(|e| unreachable(e.to_string()))?.collect();
    let share = config.connect_timeout / u32::try_from(addresses.len().max(1)).unwrap_or(1);
    let mut detail = "the name has no address".to_owned();
    for address in addresses {
        match timeout(share, open_from(config.source, address)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => detail = error.to_string(),
            Err(_) => detail = "no answer".to_owned(),
        }
    }
    Err(unreachable(detail))
}

async fn open_from(source: Option<IpAddr>, address: SocketAddr) -> std::io::Result<TcpStream> {
    let Some(source) = source else { return TcpStream::connect(address).await };
    let socket = if source.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.bind((source, 0).into())?;
    socket.connect(address).await
}

/// The part above TCP. When it fails or is dropped, `link` cuts the socket and so ends russh's task.
pub(crate) async fn establish<S>(
    config: &ClientConfig,
    key: &PrivateKey,
    socket: S,
) -> Result<Connection, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ending = Ending::new();
    let link = Link::new(ending.clone());
    let wire = Wire::new(socket, ending.clone(), config.stall_limit);
    let (inbound, reader) = Inbound::new(config.inbound, ending.clone());
    let seen = Arc::new(Seen::default());
    let (tell, answer) = oneshot::channel();
    let handler = ClientHandler::new(
        config.host_keys.clone(),
        Arc::clone(&seen),
        ending.clone(),
        inbound,
        tell,
    );
    let failed = |error: russh::Error| seen.explain(config, &error);
    let mut handle = russh::client::connect_stream(Arc::new(config.for_russh()), wire, handler)
        .await
        .map_err(failed)?;
    log_in(config, key, &mut handle, &seen).await?;
    let handle = SharedHandle(Arc::new(handle));
    let speaker = handle.clone();
    let link = link.with_goodbye(Box::new(move |goodbye: Goodbye| {
        Box::pin(async move {
            let text = &goodbye.text;
            let _ = speaker.0.disconnect(Disconnect::ByApplication, text, "").await;
        })
    }));
    Ok(Connection { handle, link, ending, reader, answer, seen, config: config.clone() })
}

async fn log_in(
    config: &ClientConfig,
    key: &PrivateKey,
    handle: &mut Handle<ClientHandler>,
    seen: &Seen,
) -> Result<(), ConnectError> {
    for hash in signatures(config, key, handle).await {
        let key = PrivateKeyWithHashAlg::new(Arc::clone(key.inner()), hash);
        let result = handle
            .authenticate_publickey(config.username.as_str(), key)
            .await
            .map_err(|error| seen.explain(config, &error))?;
        match result {
            AuthResult::Success => return Ok(()),
            // russh reports the end of the connection as a refusal, too.
            AuthResult::Failure { .. } if handle.is_closed() => {
                return Err(seen.explain(config, &russh::Error::Disconnect));
            }
            AuthResult::Failure { .. } => {}
        }
    }
    Err(match seen.retry_after() {
        Some(retry_after) => ConnectError::Paced { retry_after },
        None => ConnectError::LoginRefused { address: config.address() },
    })
}

/// The signatures to try, best first. An Ed25519 key has just one.
async fn signatures(
    config: &ClientConfig,
    key: &PrivateKey,
    handle: &Handle<ClientHandler>,
) -> Vec<Option<HashAlg>> {
    if !key.is_rsa() {
        return vec![None];
    }
    // A host that does not say what it knows is asked for the best one.
    let best = match handle.best_supported_rsa_hash().await {
        Ok(Some(Some(hash))) => hash,
        _ => HashAlg::Sha512,
    };
    let mut all = vec![Some(best)];
    if config.legacy_sha1 {
        all.push(None);
    }
    all
}

impl Connection {
    /// Opens the subsystem within [`ClientConfig::connect_timeout`]. There is one for each
    /// connection; when it is refused, the connection ends.
    pub async fn open_subsystem(self, name: &str) -> Result<Subsystem, ConnectError> {
        let config = self.config.clone();
        within(&config, Box::pin(self.open(name))).await
    }

    /// Ends the connection, as [`Link::close`] does.
    pub async fn close(self) -> CloseReason {
        self.link.close().await
    }

    async fn open(self, name: &str) -> Result<Subsystem, ConnectError> {
        let refused = || ConnectError::SubsystemRefused {
            address: self.config.address(),
            name: name.to_owned(),
        };
        let failed = |error: russh::Error| match error {
            russh::Error::ChannelOpenFailure(_) => refused(),
            other => self.seen.explain(&self.config, &other),
        };
        // The channel object is dropped at the end of this function: an unread one would stop the
        // session. The data comes through the handler.
        let channel = self.handle.0.channel_open_session().await.map_err(failed)?;
        if let Some(protocol) = self.config.protocol {
            let value = protocol.to_string();
            let said = channel.set_env(false, crate::server::PROTOCOL_VARIABLE, value);
            said.await.map_err(failed)?;
        }
        let asked = channel.request_subsystem(true, name);
        asked.await.map_err(failed)?;
        match self.answer.await {
            Ok(true) => {}
            Ok(false) => return Err(refused()),
            Err(_) => return Err(failed(russh::Error::Disconnect)),
        }
        let writer = ClientWriter {
            handle: self.handle.clone(),
            channel: channel.id(),
            ending: self.ending.clone(),
            stall_limit: self.config.stall_limit,
        };
        Ok(Subsystem { reader: self.reader, writer, link: self.link })
    }
}

/// An open subsystem: what is received, what is sent, and the connection itself.
#[derive(Debug)]
pub struct Subsystem {
    /// Data from the host.
    pub reader: Reader,
    /// Data to the host.
    pub writer: ClientWriter,
    /// Owns the connection: dropping it cuts the connection.
    pub link: Link,
}

impl Subsystem {
    /// The three parts, for separate tasks.
    pub fn split(self) -> (Reader, ClientWriter, Link) {
        (self.reader, self.writer, self.link)
    }
}

/// Sends to the host. Clones write to the same channel.
#[derive(Debug, Clone)]
pub struct ClientWriter {
    handle: SharedHandle,
    channel: ChannelId,
    ending: Ending,
    stall_limit: Duration,
}

impl ClientWriter {
    /// Queues data for the host: one call, one SSH data packet, as long as the peer's window and
    /// its largest packet (usually 32 KiB) allow; else russh splits it. Ok means queued (up to ten
    /// packets are), not received: see [`ClientWriter::confirm`]. Waits for room up to the stall
    /// limit, then cuts the connection. May be cancelled while it waits; then nothing was queued.
    pub async fn send(&self, data: impl Into<Bytes>) -> Result<(), SendError> {
        let data = data.into();
        if data.is_empty() {
            return Ok(());
        }
        let sent = self.handle.0.data(self.channel, data);
        self.limited(async { sent.await.map_err(|_| SendError::Closed) }).await
    }

    /// Asks the host for an answer (`keepalive@openssh.com`) and waits for it. As SSH keeps the
    /// order, the answer proves that everything sent before reached the host's SSH layer. It does
    /// not prove that the program behind it has read, stored or done it.
    pub async fn confirm(&self) -> Result<(), SendError> {
        let asked = self.handle.0.send_global_request("keepalive@openssh.com", &[], true);
        self.limited(async {
            match asked.await {
                // Hosts usually refuse this request, and that is an answer.
                Ok(_) | Err(russh::Error::RequestDenied) => Ok(()),
                Err(_) => Err(SendError::Closed),
            }
        })
        .await
    }

    async fn limited(
        &self,
        work: impl Future<Output = Result<(), SendError>>,
    ) -> Result<(), SendError> {
        if self.ending.reason().is_some() {
            return Err(SendError::Closed);
        }
        timeout(self.stall_limit, work).await.unwrap_or_else(|_| {
            self.ending.cut(CloseReason::PeerStalled);
            Err(SendError::Stalled)
        })
    }
}

#[cfg(test)]
impl ClientWriter {
    /// Asks for new session keys, as russh does by itself after hours or a gigabyte.
    pub(crate) async fn rekey(&self) {
        self.handle.0.rekey_soon().await.unwrap();
    }
}

#[cfg(test)]
impl Connection {
    /// Opens the subsystem, then asks for it again: on the same channel and on another one. Says
    /// which of the two were granted.
    pub(crate) async fn ask_for_more(self, name: &str) -> [bool; 2] {
        use russh::ChannelMsg::{Failure, Success};
        let mut channel = self.handle.0.channel_open_session().await.unwrap();
        channel.request_subsystem(true, name).await.unwrap();
        let answer = async |channel: &mut russh::Channel<_>| loop {
            match channel.wait().await {
                Some(Success) => break true,
                Some(Failure) => break false,
                Some(_) => {}
                None => panic!("no answer"),
            }
        };
        assert!(answer(&mut channel).await);
        channel.request_subsystem(true, name).await.unwrap();
        let same = answer(&mut channel).await;
        let other = self.handle.0.channel_open_session().await.is_ok();
        self.close().await;
        [same, other]
    }
}
