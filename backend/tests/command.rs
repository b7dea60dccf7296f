//! The command `bastio-backend` as people and service managers use it: output, files, signals,
//! exit codes.

// Clippy's exemption for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bastio-backend"));
    command.env_clear().env("BASTIO_BACKEND_LOG", "warn");
    command
}

fn run(arguments: &[&str]) -> Output {
    command().args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

struct Running {
    child: Child,
    ports: serde_json::Value,
}

/// Starts a backend and waits for its ports.
fn serve(state: &Path, configure: impl FnOnce(&mut Command)) -> Running {
    let mut serve = command();
    serve.args(["serve", "--ssh-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
    serve.arg("--state").arg(state).stdout(Stdio::piped()).stderr(Stdio::piped());
    configure(&mut serve);
    let mut child = serve.spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Ok(ports) = std::fs::read_to_string(state.join("listen.json")) {
            return Running { child, ports: serde_json::from_str(&ports).unwrap() };
        }
        if Instant::now() > end || child.try_wait().unwrap().is_some() {
            let _ = child.kill();
            panic!("no backend: {}", text(&child.wait_with_output().unwrap().stderr));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Running {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    fn stop(self, signal: Signal) -> Output {
        self.signal(signal);
        self.child.wait_with_output().unwrap()
    }

    fn address(&self, port: &str) -> &str {
        self.ports[port].as_str().unwrap()
    }
}

fn get(address: &str, path: &str) -> String {
    authorized_get(address, path, "none")
}

fn authorized_get(address: &str, path: &str, token: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = "Host: b\r\nConnection: close\r\nAuthorization: Bearer";
    write!(stream, "GET {path} HTTP/1.1\r\n{head} {token}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn help_teaches_and_version_tells() {
    let help = run(&["--help"]);
    assert!(help.status.success());
    let help = text(&help.stdout);
    for word in ["bastio login", "bastio-agent enroll", "ssh.listen", "legacy.sha1", "Exit codes"] {
        assert!(help.contains(word), "{word} is not in the help");
    }
    let version = run(&["--version"]);
    assert!(text(&version.stdout).starts_with("bastio-backend "));
}

#[test]
fn bad_configuration_is_named_and_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backend.toml");
    let path = file.to_str().unwrap();
    for (config, named) in [("ssh.port = 7", "port"), ("legacy.sha1 = true", "legacy.listen")] {
        std::fs::write(&file, config).unwrap();
        for action in ["check", "serve"] {
            let output = run(&["--config", path, action]);
            assert_eq!(output.status.code(), Some(2), "{action}");
            let said = text(&output.stderr);
            assert!(said.contains(named), "{said}");
        }
    }
    assert_eq!(run(&["--config", "/nonexistent", "check"]).status.code(), Some(2));
    assert_eq!(run(&["frobnicate"]).status.code(), Some(2));
    std::fs::write(&file, "ssh.listen = \"127.0.0.1:99\"").unwrap();
    let good = run(&["--config", path, "check"]);
    assert!(good.status.success());
    assert!(text(&good.stdout).contains("127.0.0.1:99"));
}

#[test]
fn token_is_printed_on_the_first_start_only() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let first = serve(&state, |_| {});
    let url = first.address("url").to_owned();
    let key = get(first.address("http"), "/api/external/backend/host_key?type=ed25519");
    assert!(key.starts_with("HTTP/1.1 200"), "{key}");
    assert!(key.contains("ssh-ed25519 "), "{key}");
    let output = first.stop(Signal::SIGTERM);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(!state.join("listen.json").exists());
    let said = text(&output.stdout);
    let tokens: Vec<_> = said.lines().filter_map(|it| it.strip_prefix("admin token: ")).collect();
    assert_eq!(tokens.len(), 1, "{said}");
    assert!(tokens[0].starts_with("bst_") && !tokens[0].contains(' '));
    assert!(said.contains("host key: SHA256:"), "{said}");
    assert!(said.contains(&format!("bastio login {url}")), "{said}");
    assert!(!text(&output.stderr).contains("bst_"));

    let output = serve(&state, |_| {}).stop(Signal::SIGINT);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn killed_backend_starts_again_and_its_old_ports_are_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let first = serve(&state, |_| {});
    let output = first.stop(Signal::SIGKILL);
    assert_eq!(output.status.code(), None);
    assert!(state.join("listen.json").exists());
    // Without ports to bind the second start fails, after it has tidied up.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let path = state.to_str().unwrap();
    let failed = run(&["serve", "--state", path, "--ssh-listen", &address]);
    assert_eq!(failed.status.code(), Some(1), "{}", text(&failed.stderr));
    assert!(text(&failed.stderr).contains(&address));
    assert!(!state.join("listen.json").exists());
    let output = serve(&state, |_| {}).stop(Signal::SIGTERM);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn second_backend_on_the_same_state_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let first = serve(&state, |_| {});
    let state = state.to_str().unwrap();
    let second = run(&[
        "serve",
        "--state",
        state,
        "--ssh-listen",
        "127.0.0.1:0",
        "--http-listen",
        "127.0.0.1:0",
    ]);
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("another backend uses"), "{}", text(&second.stderr));
    assert_eq!(first.stop(Signal::SIGTERM).status.code(), Some(0));
}

#[test]
fn legacy_port_and_sha1_warning() {
    let folder = tempfile::tempdir().unwrap();
    let backend = serve(&folder.path().join("state"), |command| {
        command.env("BASTIO_BACKEND_LEGACY_LISTEN", "127.0.0.1:0");
        command.env("BASTIO_BACKEND_LEGACY_SHA1", "true");
    });
    let mut greeting = String::new();
    let legacy = TcpStream::connect(backend.address("legacy")).unwrap();
    BufReader::new(legacy).read_line(&mut greeting).unwrap();
    assert!(greeting.starts_with("SSH-2.0-bastio_"), "{greeting}");
    let key = get(backend.address("http"), "/api/external/backend/host_key");
    assert!(key.contains(r#"{"payload":"ssh-rsa AAAA"#), "{key}");
    let output = backend.stop(Signal::SIGTERM);
    assert!(text(&output.stderr).contains("LEGACY.SHA1 IS ON"), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("legacy host key: SHA256:"));
}

#[test]
fn systemd_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let receive = || {
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        text(&buffer[..length]).trim().to_owned()
    };
    let backend = serve(&folder.path().join("state"), |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    });
    assert_eq!(receive(), "READY=1");
    assert_eq!(receive(), "WATCHDOG=1");
    assert_eq!(receive(), "WATCHDOG=1");
    let output = backend.stop(Signal::SIGTERM);
    assert_eq!(output.status.code(), Some(0));
    while receive() != "STOPPING=1" {}
}

#[test]
fn a_lost_admin_token_is_replaced_beside_a_running_backend_and_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let path = state.to_str().unwrap();
    let new_token = || {
        let output = run(&["admin-token", "--state", path]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let said = text(&output.stdout);
        said.lines().find_map(|it| it.strip_prefix("admin token: ")).unwrap().to_owned()
    };
    let early = run(&["admin-token", "--state", path]);
    assert_eq!(early.status.code(), Some(1));
    assert!(text(&early.stderr).contains("bastio-backend serve"), "{}", text(&early.stderr));
    assert!(!state.exists(), "a folder that was mistyped is not made");

    let backend = serve(&state, |_| {});
    let beside = new_token();
    let log = authorized_get(backend.address("http"), "/api/v1/log", &beside);
    assert!(log.starts_with("HTTP/1.1 200"), "{log}");
    assert!(log.contains(r#""actor":"admin-token""#), "{log}");
    assert!(log.contains(r#""detail":"admin-2, role admin""#), "{log}");
    backend.stop(Signal::SIGTERM);

    let without = new_token();
    let backend = serve(&state, |_| {});
    for token in [&beside, &without] {
        let status = authorized_get(backend.address("http"), "/api/v1/status", token);
        assert!(status.contains(r#""host_key":"SHA256:"#), "{status}");
    }
    assert_eq!(backend.stop(Signal::SIGTERM).status.code(), Some(0));
}
