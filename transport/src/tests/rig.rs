//! What the tests share: keys, an authenticator with a list, a running server.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    Algorithms, Authenticate, BoxFuture, ClientConfig, HostKeyPin, KeyKind, Listener, PrivateKey,
    PublicKeyBlob, Reader, ServeError, ServerConfig, ServerSession, Subsystem, Unsure, connect,
    serve,
};

/// No test takes longer.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

pub(super) async fn bounded<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work).await.expect("the test took too long")
}

pub(super) fn ed25519() -> PrivateKey {
    PrivateKey::generate(KeyKind::Ed25519).unwrap()
}

/// An RSA key made by ssh-keygen, which is quick also in a debug build.
pub(super) fn rsa(bits: u32) -> PrivateKey {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    keygen(&path, &["-t", "rsa", "-b", &bits.to_string()]);
    PrivateKey::read(&path).unwrap()
}

pub(super) fn keygen(path: &Path, options: &[&str]) {
    let made = Command::new("ssh-keygen")
        .args(options)
        .args(["-q", "-N", "", "-f"])
        .arg(path)
        .status()
        .expect("these tests need OpenSSH's ssh-keygen");
    assert!(made.success());
}

pub(super) fn pin(key: &PrivateKey) -> HostKeyPin {
    HostKeyPin::new(key.public())
}

/// Knows keys; counts the questions.
#[derive(Default)]
pub(super) struct Known {
    keys: HashSet<PublicKeyBlob>,
    pub(super) asked: AtomicUsize,
    pub(super) users: Mutex<HashSet<String>>,
}

impl Known {
    pub(super) fn of(keys: &[&PrivateKey]) -> Self {
        Self { keys: keys.iter().map(|key| key.public()).collect(), ..Self::default() }
    }
}

impl Authenticate for Known {
    type Identity = String;

    fn authenticate<'a>(
        &'a self,
        user: &'a str,
        key: &'a PublicKeyBlob,
        _: SocketAddr,
    ) -> BoxFuture<'a, Result<Option<String>, Unsure>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.users.lock().unwrap().insert(user.to_owned());
            assert_ne!(user, "panic", "a test asked for this panic");
            if user == "unsure" {
                return Err(Unsure);
            }
            Ok(self.keys.contains(key).then(|| key.fingerprint()))
        })
    }
}

/// A running server and what it hands over.
pub(super) struct Rig {
    pub(super) address: SocketAddr,
    pub(super) host_key: PrivateKey,
    pub(super) known: Arc<Known>,
    pub(super) sessions: mpsc::Receiver<ServerSession<String>>,
    pub(super) stop: CancellationToken,
    pub(super) server: JoinHandle<Result<(), ServeError>>,
}

impl Rig {
    /// A server with the default configuration, changed by `change`.
    pub(super) async fn with(
        host_key: PrivateKey,
        algorithms: Algorithms,
        known: &[&PrivateKey],
        change: impl FnOnce(&mut ServerConfig),
    ) -> Self {
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let mut config = ServerConfig::new(vec![host_key.clone()], "0.2.0", algorithms);
        change(&mut config);
        let known = Arc::new(Known::of(known));
        let (sender, sessions) = mpsc::channel(4);
        let stop = CancellationToken::new();
        let serving = serve(listener, config, Arc::clone(&known), sender, stop.clone());
        Self { address, host_key, known, sessions, stop, server: tokio::spawn(serving) }
    }

    pub(super) async fn new(known: &[&PrivateKey]) -> Self {
        Self::with(ed25519(), Algorithms::Modern, known, |_| {}).await
    }

    pub(super) fn client(&self) -> ClientConfig {
        let pins = vec![pin(&self.host_key)];
        ClientConfig::new("127.0.0.1", self.address.port(), "agent", "9.8.7", pins)
    }

    /// Both ends of a new session.
    pub(super) async fn session(
        &mut self,
        config: &ClientConfig,
        key: &PrivateKey,
    ) -> (Subsystem, ServerSession<String>) {
        let connection = connect(config, key).await.unwrap();
        let client = connection.open_subsystem("bastio-agent").await.unwrap();
        let server = self.sessions.recv().await.unwrap();
        (client, server)
    }

    /// Ends the server and all its connections.
    pub(super) async fn end(self) {
        self.stop.cancel();
        self.server.await.unwrap().unwrap();
    }
}

/// Reads until `count` bytes are there.
pub(super) async fn read_exactly(reader: &mut Reader, count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < count {
        let piece = reader.recv().await.expect("the data ended early");
        assert!(!piece.is_empty());
        all.extend(piece);
    }
    assert_eq!(all.len(), count, "more data than expected");
    all
}

/// Bytes that show when something is lost, doubled or swapped.
pub(super) fn pattern(count: usize) -> Vec<u8> {
    let byte = |n: usize| (n.wrapping_mul(2_654_435_761) >> 11) as u8;
    (0..count).map(byte).collect()
}
