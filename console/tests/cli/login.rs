//! Logging in and out, and which backend and token count.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;

use crate::backend::{Answer, Backend, nobody, status};
use crate::runner::Machine;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

/// Logs in with a token on stdin.
fn log_in(machine: &Machine, token: &str) -> Backend {
    let backend = Backend::start(vec![Answer::Json(200, status()), Answer::Json(200, status())]);
    let run = machine.run(&[], &["login", &format!("{}/", backend.url)], &format!("{token}\n"));
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), ""), "{run:?}");
    assert!(run.stderr.contains("version 0.2.0, with 3 servers"), "{run:?}");
    assert!(!run.stderr.contains(token), "{run:?}");
    backend
}

#[test]
fn a_login_is_checked_stored_for_its_owner_alone_used_and_forgotten() {
    let machine = Machine::new();
    let backend = log_in(&machine, "bst_typed");
    let file = machine.login_file();
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(file.parent().expect("a folder")), 0o700);

    assert_eq!(machine.run(&[], &["status"], "").code, Some(0));
    for seen in backend.requests() {
        assert_eq!(seen.line, "GET /api/v1/status");
        assert_eq!(seen.authorization, "Bearer bst_typed");
    }

    assert_eq!(machine.run(&[], &["logout"], "").code, Some(0));
    assert!(!file.exists());
    assert_eq!(machine.run(&[], &["logout"], "").code, Some(0));
    assert_eq!(machine.run(&[], &["status"], "").code, Some(2));
}

#[test]
fn a_token_that_the_backend_refuses_is_not_stored() {
    let machine = Machine::new();
    let backend = Backend::start(vec![Answer::Json(401, json!({"error": "unknown token"}))]);
    let run = machine.run(&[], &["login", &backend.url], "bst_wrong");
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("error: unknown token\nhint: log in with a"), "{}", run.stderr);
    assert!(!machine.login_file().exists());
    let run = machine.run(&[], &["login", &nobody()], "bst_1");
    assert_eq!(run.code, Some(3), "{run:?}");
    let run = machine.run(&[], &["login", &nobody()], "\n");
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(!machine.login_file().exists());
}

#[test]
fn flags_count_before_the_environment_before_the_login() {
    let machine = Machine::new();
    let stored = log_in(&machine, "bst_file");
    let other = Backend::start((0..3).map(|_| Answer::Json(200, status())).collect());
    let url = other.url.clone();
    let token_file = machine.file("token", "bst_flag\n");
    let from_env = [("BASTIO_URL", url.as_str()), ("BASTIO_TOKEN", "bst_env")];
    let elsewhere = [("BASTIO_URL", "http://127.0.0.1:1"), ("BASTIO_TOKEN", "bst_env")];

    assert_eq!(machine.run(&from_env, &["status"], "").code, Some(0));
    assert_eq!(machine.run(&elsewhere, &["status", "--url", &url], "").code, Some(0));
    let arguments = ["--token-file", &token_file, "status"];
    assert_eq!(machine.run(&from_env, &arguments, "").code, Some(0));
    let tokens: Vec<String> = other.requests().into_iter().map(|r| r.authorization).collect();
    assert_eq!(tokens, ["Bearer bst_env", "Bearer bst_env", "Bearer bst_flag"]);

    // The token alone from the environment, the backend from the login.
    assert_eq!(machine.run(&[("BASTIO_TOKEN", "bst_env")], &["status"], "").code, Some(0));
    let tokens: Vec<String> = stored.requests().into_iter().map(|r| r.authorization).collect();
    assert_eq!(tokens, ["Bearer bst_file", "Bearer bst_env"]);
}

#[test]
fn the_stored_token_is_not_sent_to_another_backend() {
    let machine = Machine::new();
    let stored = log_in(&machine, "bst_file");
    let run = machine.run(&[], &["--url", "http://127.0.0.1:1", "status"], "");
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("the stored login is for http://127.0.0.1:"), "{}", run.stderr);

    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    elsewhere.set_nonblocking(true).expect("set");
    let to = format!("http://{}/", elsewhere.local_addr().expect("an address"));
    let redirecting = Backend::start(vec![Answer::Redirect(to.clone())]);
    let run = machine.at(&redirecting.url, &["status"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stderr.contains(&format!("redirect to {to}")), "{}", run.stderr);
    assert!(elsewhere.accept().is_err(), "nobody came along the redirect");

    assert_eq!(machine.run(&[], &["status"], "").code, Some(0));
    assert_eq!(stored.requests().len(), 2);
}

#[test]
fn an_unusable_login_file_ends_with_2_and_advice() {
    let machine = Machine::new();
    drop(log_in(&machine, "bst_file"));
    let file = machine.login_file();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("chmod");
    let run = machine.run(&[], &["status"], "");
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("hint: make it private with: chmod 600"), "{}", run.stderr);

    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("chmod");
    fs::write(&file, "url = 'http://b'\ntoken = bst_file\n").expect("written");
    let run = machine.run(&[], &["status"], "");
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(!run.stderr.contains("bst_file"), "{}", run.stderr);
}

#[test]
fn plain_http_to_another_machine_is_warned_about() {
    let machine = Machine::new();
    // The .invalid domain never resolves (RFC 6761).
    let run = machine.run(&[], &["login", "http://backend.invalid"], "bst_1");
    assert_eq!(run.code, Some(3), "{run:?}");
    assert!(run.stderr.starts_with("warning: with http://"), "{}", run.stderr);
}
