//! The whole backend from its start to its stop, in a temporary state folder.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::config::Flags;

const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn config(state: &Path) -> Config {
    let mut config = Config { state: state.to_owned(), ..Config::default() };
    config.ssh.listen = LOCAL;
    config.http.listen = LOCAL;
    config
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn first_start_makes_what_is_missing_and_shows_the_token_once() {
    let parent = tempfile::tempdir().unwrap();
    let state = parent.path().join("state");
    let mut with_legacy = config(&state);
    with_legacy.legacy.listen = Some(LOCAL);
    let first = Backend::start(&with_legacy).await.unwrap();
    let welcome = first.welcome();
    assert!(welcome.admin_token.as_ref().unwrap().expose().starts_with("bst_"));
    assert!(!format!("{welcome:?}").contains("bst_"), "the token shows in debug output");
    let keys = (welcome.host_key.clone(), welcome.legacy_host_key.clone());
    assert!(keys.1.is_some());
    assert_eq!(mode(&state), 0o700);
    for file in ["bastio.db", "lock", "ssh_host_ed25519_key", "ssh_host_rsa_key"] {
        assert_eq!(mode(&state.join(file)), 0o600, "{file}");
    }
    drop(first);
    let second = Backend::start(&with_legacy).await.unwrap();
    assert!(second.welcome().admin_token.is_none());
    assert_eq!((second.welcome().host_key.clone(), second.welcome().legacy_host_key.clone()), keys);
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_announced_while_it_serves() {
    let parent = tempfile::tempdir().unwrap();
    let state = parent.path().join("state");
    let backend = Backend::start(&config(&state)).await.unwrap();
    let announced = state.join("listen.json");
    assert!(!announced.exists());
    let stop = CancellationToken::new();
    let listening = backend.welcome().listening.clone();
    let stopping = stop.clone();
    let running = tokio::spawn(async move { backend.run(&stopping).await });
    let ready = async {
        while !announced.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ready).await.unwrap();
    let text = std::fs::read_to_string(&announced).unwrap();
    assert!(text.contains(&listening.ssh.to_string()), "{text}");
    assert!(text.contains(&format!("http://{}", listening.http)), "{text}");
    stop.cancel();
    running.await.unwrap().unwrap();
    assert!(!announced.exists());
    Backend::start(&config(&state)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_backends_do_not_share_a_state_folder() {
    let parent = tempfile::tempdir().unwrap();
    let _first = Backend::start(&config(&parent.path().join("state"))).await.unwrap();
    let error = Backend::start(&config(&parent.path().join("state"))).await.unwrap_err();
    assert!(matches!(error, ServeError::State(StateError::InUse(_))), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn token_is_kept_for_the_start_that_succeeds() {
    let parent = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind(LOCAL).await.unwrap();
    let address = taken.local_addr().unwrap();
    let mut ssh_taken = config(&parent.path().join("state"));
    ssh_taken.ssh.listen = address;
    let error = Backend::start(&ssh_taken).await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    let mut http_taken = config(&parent.path().join("state"));
    http_taken.http.listen = address;
    let error = Backend::start(&http_taken).await.unwrap_err();
    assert!(matches!(error, ServeError::Http { .. }), "{error}");
    let backend = Backend::start(&config(&parent.path().join("state"))).await.unwrap();
    assert!(backend.welcome().admin_token.is_some());
}

#[tokio::test]
async fn url_is_the_public_one_or_one_that_can_be_reached() {
    let everywhere: SocketAddr = "0.0.0.0:2358".parse().unwrap();
    let url = reachable(everywhere);
    assert!(url.ends_with(":2358") && !url.starts_with("0.0.0.0"), "{url}");
    assert_eq!(reachable("[::1]:7".parse().unwrap()), "[::1]:7");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backend.toml");
    std::fs::write(&file, "http.public_url = \"https://b.example/\"").unwrap();
    let loaded = Config::load(&Flags { file: Some(file), ..Flags::default() }).unwrap();
    let http = TcpListener::bind(LOCAL).await.unwrap();
    let listening = listening(&loaded, &[], &http).unwrap();
    assert_eq!(listening.url, "https://b.example");
}
