//! Builds the backend from its configuration, runs it, and takes it down in order: the agents'
//! ports and sessions first, then the API, which meanwhile tells that we are not ready, and the
//! store last.
//!
//! This file must not know what any of these parts do.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bastio_protocol::{KeyPolicy, PublicKey};
use bastio_transport::PrivateKey;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::access::{self, AccessError, Secret};
use crate::cluster::{self, ClusterError};
use crate::config::{Config, ConfigError};
use crate::dispatch::Dispatch;
use crate::fleet::Fleet;
use crate::host_keys::{HostKeyError, HostKeys};
use crate::http::{self, HttpState, Site};
use crate::notify;
use crate::signing::{Credentials, KeyFiles, Orders, Signing, SigningKeyError, read_passphrase};
use crate::ssh::{Port, PortError, PortKind};
use crate::state_folder::{Listening, StateError, StateFolder};
use crate::store::{self, Store, StoreError};
use crate::unsealing::{SEALED, Unsealing};

/// For the agents' ports to end, and then for the API; each has a shorter limit of its own.
const AGENTS_STOP_LIMIT: Duration = Duration::from_secs(6);
const API_STOP_LIMIT: Duration = Duration::from_secs(3);
/// How long edits that are being written may take to come to their end.
const EDITS_STOP_LIMIT: Duration = Duration::from_secs(1);

/// A backend whose ports are bound and whose store is open.
#[derive(Debug)]
pub struct Backend {
    folder: StateFolder,
    store: Store,
    dispatch: Dispatch,
    ports: Vec<Port>,
    http: TcpListener,
    router: axum::Router,
    fleet: Fleet,
    draining: CancellationToken,
    welcome: Welcome,
}

/// What whoever started the backend should read.
#[derive(Debug)]
pub struct Welcome {
    /// The folder in use.
    pub state: PathBuf,
    /// The ports in use.
    pub listening: Listening,
    /// Fingerprint of the host key of the agents' port.
    pub host_key: String,
    /// Fingerprint of the key that signs what agents are ordered to do.
    pub signing_key: String,
    /// Fingerprint of the legacy port's host key, when there is that port.
    pub legacy_host_key: Option<String>,
    /// On the first start only: the token that opens the API. It exists nowhere else in clear.
    pub admin_token: Option<Secret>,
}

/// Why the backend does not run.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The state folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A signing key cannot be used.
    #[error("the signing key: {0}")]
    SigningKey(#[from] SigningKeyError),
    /// A secret that the configuration names cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The keys that nodes share cannot be used.
    #[error("the shared keys: {0}")]
    Cluster(#[from] ClusterError),
    /// A host key cannot be used.
    #[error(transparent)]
    HostKey(#[from] HostKeyError),
    /// The database cannot be used.
    #[error("the database: {0}")]
    Store(#[from] StoreError),
    /// The first token cannot be made.
    #[error("the admin token: {0}")]
    Access(#[from] AccessError),
    /// A port for agents cannot be used.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The port of the API cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Http {
        /// Its address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A part ended that should have run on.
    #[error("{0} has ended by itself; the log says why")]
    Ended(&'static str),
}

impl Backend {
    /// Opens the state folder, makes on the first start what is missing there, and binds all
    /// ports.
    ///
    /// # Errors
    /// [`ServeError`]; nothing keeps running then.
    pub async fn start(config: &Config) -> Result<Self, ServeError> {
        let folder = StateFolder::open(&config.state)?;
        let store = Store::open(config.store.location(folder.database())?).await?;
        let (keys, files) = keys(config, &folder, &store).await?;
        let signing = open(config, files).await;
        let dispatch = Dispatch::new(store.clone());
        let valid_for = config.orders.valid_for.get();
        let orders = Orders { signing: signing.clone(), valid_for };
        let parts = (dispatch.clone(), store.clone(), orders.clone());
        let ports = bind_ports(config, &keys, &parts).await?;
        let http = bind_http(config.http.listen).await?;
        let listening = listening(config, &ports, &http)?;
        let site = site(config, &keys, &orders, &listening);
        let draining = CancellationToken::new();
        let state = HttpState::new(store.clone(), dispatch.clone(), site)
            .with_rails(config.rails.get())
            .with_uids(config.uids.get())
            .with_system_names(config.accounts.system_names.get())
            .with_history(config.history.revisions.get())
            .with_ports(ports.iter().map(Port::tally).collect())
            .with_approvals(config.approvals.valid_for())
            .with_root_groups(config.approvals.root_groups.get())
            .with_signing(Unsealing::new(signing, store.clone(), dispatch.clone()))
            .with_draining(draining.clone());
        let fleet = state.fleet();
        let router = http::router(state);
        // After everything that can fail: a token that was made and not shown is lost.
        let admin_token = access::first_admin_token(&store).await?;
        let welcome = Welcome {
            state: folder.path().to_owned(),
            host_key: keys.ed25519.fingerprint(),
            signing_key: orders.signing.verifying_key().fingerprint(),
            legacy_host_key: listening.legacy.map(|_| keys.rsa.fingerprint()),
            listening,
            admin_token,
        };
        Ok(Self { folder, store, dispatch, ports, http, router, fleet, draining, welcome })
    }

    /// What to show to whoever started the backend.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Serves until `stop`, then ends everything within 10 s.
    ///
    /// # Errors
    /// [`ServeError::Ended`] when a part fails; the rest is taken down in order then, too.
    pub async fn run(self, stop: &CancellationToken) -> Result<(), ServeError> {
        let Self { folder, store, dispatch, ports, http, router, fleet, draining, welcome } = self;
        // Not a child of `stop`: the parts end when we say so, and before that is a failure.
        let serving = CancellationToken::new();
        let mut parts = spawn_parts(ports, fleet, dispatch.clone(), &serving);
        let (mut api, api_serving) = (JoinSet::new(), CancellationToken::new());
        let ends = api_serving.clone();
        api.spawn(async move {
            http::serve(http, router, ends).await;
            "the port of the API"
        });
        folder.announce(&welcome.listening)?;
        notify::ready();
        info!(
            ssh = %welcome.listening.ssh, http = %welcome.listening.http,
            legacy = ?welcome.listening.legacy, state = %welcome.state.display(), "ready"
        );
        let ended = watch(&mut parts, &mut api, stop).await;
        draining.cancel();
        notify::stopping();
        info!("stopping");
        if let Err(error) = folder.forget_listening() {
            warn!(%error, "listen.json is left behind");
        }
        serving.cancel();
        end(parts, AGENTS_STOP_LIMIT).await;
        api_serving.cancel();
        end(api, API_STOP_LIMIT).await;
        if tokio::time::timeout(EDITS_STOP_LIMIT, dispatch.drain()).await.is_err() {
            warn!("an edit is not written in time and is cut");
        }
        store.close().await;
        info!("stopped");
        ended.map_or(Ok(()), |part| Err(ServeError::Ended(part)))
    }
}

/// Starts everything but the API; each part returns its name when it ends.
fn spawn_parts(
    ports: Vec<Port>,
    fleet: Fleet,
    dispatch: Dispatch,
    stop: &CancellationToken,
) -> JoinSet<&'static str> {
    let mut parts = JoinSet::new();
    for port in ports {
        let stop = stop.clone();
        parts.spawn(async move {
            if let Err(error) = port.serve(stop).await {
                error!(%error, "a port for agents has failed");
            }
            "a port for agents"
        });
    }
    let stop_leases = stop.clone();
    parts.spawn(async move {
        dispatch.keep_leases(&stop_leases).await;
        "the leases of servers"
    });
    let stop = stop.clone();
    parts.spawn(async move {
        fleet.keep_time(&stop).await;
        "the end of grants"
    });
    parts
}

/// Waits for the stop, telling systemd meanwhile that we are alive; returns the part that ended
/// before it, if one does.
async fn watch(
    parts: &mut JoinSet<&'static str>,
    api: &mut JoinSet<&'static str>,
    stop: &CancellationToken,
) -> Option<&'static str> {
    let interval = notify::alive_interval();
    loop {
        let tick = async {
            match interval {
                Some(interval) => tokio::time::sleep(interval).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return None,
            Some(ended) = parts.join_next() => return Some(ended.unwrap_or("a task that failed")),
            Some(ended) = api.join_next() => return Some(ended.unwrap_or("a task that failed")),
            () = tick => notify::alive(),
        }
    }
}

async fn end(mut parts: JoinSet<&'static str>, limit: Duration) {
    let all = async { while parts.join_next().await.is_some() {} };
    if tokio::time::timeout(limit, all).await.is_err() {
        warn!("a part did not end in time and is cut");
        parts.shutdown().await;
    }
}

/// The host keys and the signing keys; on a shared database they are those of all nodes.
async fn keys(
    config: &Config,
    folder: &StateFolder,
    store: &Store,
) -> Result<(HostKeys, KeyFiles), ServeError> {
    let given = Credentials::of_process().key()?;
    if !store.is_shared() {
        let files = match given {
            Some(key) => KeyFiles::with_credential(folder.path(), key)?,
            None => KeyFiles::load_or_make(folder.path())?,
        };
        return Ok((host_keys(folder).await?, without_old(files, store).await?));
    }
    if given.is_some() {
        return Err(SigningKeyError::Shared.into());
    }
    let key = config.store.cluster_key()?;
    let joined = cluster::fetch(store, &key, folder.path()).await?;
    let made = (host_keys(folder).await?, signing_keys(folder, store).await?);
    if joined || cluster::share_first(store, &key, folder.path()).await? {
        return Ok(made);
    }
    Ok((host_keys(folder).await?, signing_keys(folder, store).await?))
}

/// The keys that sign, open if something at hand opens them.
async fn open(config: &Config, files: KeyFiles) -> Signing {
    if !files.is_sealed() {
        return Signing::new(files, None).0;
    }
    let file = config.signing.passphrase_file.clone();
    // What opens a key takes its time and its memory.
    let opening = tokio::task::spawn_blocking(move || {
        let given = match (Credentials::of_process().passphrase(), file) {
            (Ok(None), Some(file)) => read_passphrase(&file).map(Some),
            (given, _) => given,
        };
        let (given, unusable) = match given {
            Ok(given) => (given, None),
            Err(error) => (None, Some(error)),
        };
        let (signing, why) = Signing::new(files, given.as_ref());
        (signing, unusable.or(why))
    });
    let (signing, why) = match opening.await {
        Ok(opened) => opened,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    };
    match why {
        None => info!("the sealed signing key is open"),
        Some(SigningKeyError::Locked) => warn!("{SEALED}"),
        Some(error) => error!(%error, "{SEALED}"),
    }
    signing
}

async fn host_keys(folder: &StateFolder) -> Result<HostKeys, HostKeyError> {
    let path = folder.path().to_owned();
    match tokio::task::spawn_blocking(move || HostKeys::load_or_make(&path)).await {
        Ok(keys) => keys,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

async fn signing_keys(folder: &StateFolder, store: &Store) -> Result<KeyFiles, ServeError> {
    without_old(KeyFiles::load_or_make(folder.path())?, store).await
}

/// Forgets the old keys that no server needs any more.
async fn without_old(mut files: KeyFiles, store: &Store) -> Result<KeyFiles, ServeError> {
    if files.kept() > 0 {
        let mut db = store.read().await?;
        files.forget_old(&store::servers::signing_keys(&mut db).await?)?;
    }
    Ok(files)
}

async fn bind_ports(
    config: &Config,
    keys: &HostKeys,
    parts: &(Dispatch, Store, Orders),
) -> Result<Vec<Port>, PortError> {
    let bind = |kind, address, key: &PrivateKey| {
        Port::bind(kind, address, key.clone(), &config.limits, parts.clone())
    };
    let mut ports = vec![bind(PortKind::Main, config.ssh.listen, &keys.ed25519).await?];
    if let Some(address) = config.legacy.listen {
        let kind = if config.legacy.sha1 {
            warn!(
                %address,
                "LEGACY.SHA1 IS ON: this port takes SHA-1 signatures, SHA-1 key exchange and \
                 hmac-sha1, which can be broken; switch it off as soon as the agents of 2013 are \
                 replaced"
            );
            PortKind::LegacySha1
        } else {
            PortKind::Legacy
        };
        ports.push(bind(kind, address, &keys.rsa).await?);
    }
    Ok(ports)
}

async fn bind_http(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Http { address, source })
}

fn listening(config: &Config, ports: &[Port], http: &TcpListener) -> Result<Listening, ServeError> {
    let bound = |port: Option<&Port>, wanted: SocketAddr| match port.map(Port::address) {
        Some(Ok(address)) => Ok(address),
        Some(Err(source)) => Err(PortError::Bind { address: wanted, source }),
        None => Ok(wanted),
    };
    let ssh = bound(ports.first(), config.ssh.listen)?;
    let legacy = config.legacy.listen.map(|wanted| bound(ports.get(1), wanted)).transpose()?;
    let wanted = config.http.listen;
    let http = http.local_addr().map_err(|source| ServeError::Http { address: wanted, source })?;
    let url = match &config.http.public_url {
        Some(url) => url.to_string(),
        None => format!("http://{}", reachable(http)),
    };
    Ok(Listening { ssh, http, legacy, url })
}

/// An address that listens everywhere is reached by the name of this machine.
fn reachable(address: SocketAddr) -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    match name {
        Some(name) if address.ip().is_unspecified() => format!("{name}:{}", address.port()),
        _ => address.to_string(),
    }
}

fn site(config: &Config, keys: &HostKeys, orders: &Orders, listening: &Listening) -> Site {
    let key = |key: &PrivateKey| {
        PublicKey::parse(&key.public_line(), &KeyPolicy::ANY)
            .expect("the line of a key that was read is a key")
    };
    Site {
        public_url: listening.url.clone(),
        // Without the legacy port nobody who asks for this key could use it.
        rsa_host_key: config.legacy.listen.map(|_| key(&keys.rsa)),
        ed25519_host_key: key(&keys.ed25519),
        signing_key: orders.signing.verifying_key(),
        ssh_port: listening.ssh.port(),
    }
}

#[cfg(test)]
mod tests;
