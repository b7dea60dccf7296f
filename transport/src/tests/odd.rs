//! Rare circumstances: a host that paces with a banner, a client that signs with SHA-1 unasked, a
//! server without file descriptors.

use std::fs::{self, File};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use russh::keys::{HashAlg, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::server::{Handler, run_stream};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use super::rig::{Rig, bounded, ed25519, pin, rsa};
use crate::{Algorithms, ClientConfig, ConnectError, Listener, connect};

/// Refuses everybody, after a banner.
struct Busy(&'static str);

impl Handler for Busy {
    type Error = russh::Error;

    async fn authentication_banner(&mut self) -> Result<Option<String>, russh::Error> {
        Ok(Some(self.0.to_owned()))
    }
}

async fn connect_to_busy(banner: &'static str) -> ConnectError {
    let (host_key, key) = (ed25519(), ed25519());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let russh = russh::server::Config {
        keys: vec![russh::keys::PrivateKey::clone(host_key.inner())],
        auth_rejection_time: Duration::ZERO,
        ..Default::default()
    };
    let host = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let session = run_stream(Arc::new(russh), socket, Busy(banner)).await.unwrap();
        // How it ends is not of interest.
        let _ = session.await;
    });
    let config = ClientConfig::new("127.0.0.1", port, "agent", "1", vec![pin(&host_key)]);
    let error = connect(&config, &key).await.unwrap_err();
    host.await.unwrap();
    error
}

#[tokio::test]
async fn banner_can_ask_to_come_back_later() {
    bounded(async {
        let error = connect_to_busy("full house\r\nbastio-retry-after=120\r\n").await;
        let retry_after = Duration::from_secs(120);
        assert_eq!(error, ConnectError::Paced { retry_after });
        let error = connect_to_busy("welcome").await;
        assert!(matches!(error, ConnectError::LoginRefused { .. }), "{error}");
    })
    .await;
}

/// Signs as told, whatever the server says it accepts.
struct Stubborn;

impl russh::client::Handler for Stubborn {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

#[tokio::test]
async fn signature_with_sha1_is_refused_by_the_server_itself() {
    bounded(async {
        let key = rsa(2048);
        for (algorithms, hash, accepted) in [
            (Algorithms::Modern, Some(HashAlg::Sha256), true),
            (Algorithms::Modern, None, false),
            (Algorithms::LegacyRsa, None, false),
            (Algorithms::LegacySha1, None, true),
        ] {
            let rig = Rig::with(rsa(2048), algorithms, &[&key], |_| {}).await;
            let config = Arc::new(russh::client::Config::default());
            let client = russh::client::connect(config, rig.address, Stubborn).await;
            let mut client = client.unwrap();
            let key = PrivateKeyWithHashAlg::new(Arc::clone(key.inner()), hash);
            let result = client.authenticate_publickey("agent", key).await.unwrap();
            assert_eq!(result.success(), accepted, "{algorithms:?} {hash:?}");
            rig.end().await;
        }
    })
    .await;
}

const CHILD: &str = "BASTIO_TEST_FEW_FILES";

/// Runs itself in a child process, as the limit holds for a whole process.
#[test]
fn server_survives_a_lack_of_file_descriptors() {
    if std::env::var_os(CHILD).is_some() {
        return without_file_descriptors();
    }
    let name = "tests::odd::server_survives_a_lack_of_file_descriptors";
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "yes")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("served again"), "{said}");
}

fn without_file_descriptors() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(bounded(async {
        setrlimit(Resource::RLIMIT_NOFILE, 64, 64).unwrap();
        let rig = Rig::new(&[]).await;
        let mut files = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            files.push(file);
        }
        files.pop();
        // Takes the last descriptor, so the server has none for its end.
        let mut client = TcpStream::connect(rig.address).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(500), client.read_u8()).await;
        assert!(early.is_err(), "served without a descriptor");
        assert!(!rig.server.is_finished());
        files.clear();
        assert_eq!(client.read_u8().await.unwrap(), b'S');
        println!("served again");
        rig.end().await;
    }));
}

#[tokio::test]
async fn as_many_wait_to_be_accepted_as_the_system_lets_wait() {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut ask = Command::new("ss");
    ask.args(["-Hltn", "sport", "="]).arg(format!(":{port}"));
    let asked = ask.output().expect("ss, of iproute2");
    let told = String::from_utf8(asked.stdout).unwrap();
    // State, Recv-Q, Send-Q: of a listening socket that is how many may wait.
    let waiting: u32 = told.split_whitespace().nth(2).expect(&told).parse().unwrap();
    let allowed = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    assert_eq!(waiting, allowed.trim().parse::<u32>().unwrap().min(65_535), "{told}");
}
