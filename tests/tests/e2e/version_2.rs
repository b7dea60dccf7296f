//! What version 2 adds, from the operator's command to a real login.

use std::time::Duration;

use bastio_tests::{SshClient, SshKey, World, require_root};
use serde_json::Value;

use crate::faults::{Server, Site, until};

const LIMIT: Duration = Duration::from_secs(40);

/// A site with one server that has sshd, and alice with a key and nothing else.
fn alice_at<'w>(world: &'w World) -> (Site<'w>, Server, SshClient<'w>) {
    let site = Site::start(world);
    let server = site.enrol(site.host("web-1"));
    let key = SshKey::generate(world, "alice", &["ed25519"]).unwrap();
    let file = key.public_file().display().to_string();
    site.done(&["user", "add", "alice", "--key", &file]);
    (site, server, SshClient::new(world, &key))
}

/// Whether a login succeeds. One that sshd refuses after the key (a locked account) ends without a
/// word; that sshd is there is shown by the logins that succeed.
fn logs_in(alice: &SshClient<'_>, server: &Server) -> bool {
    alice.run("alice", server.host.ip(), "true").unwrap().success()
}

#[test]
fn a_grant_with_a_policy_ends_at_its_end() {
    require_root!();
    let world = World::new().unwrap();
    let (site, server, alice) = alice_at(&world);
    site.done(&["sudo-policy", "add", "who", "--command", "/usr/bin/id"]);
    let words =
        ["grant", "add", "alice", "--on", "web-1", "--sudo-policy", "who", "--until", "25s"];
    site.done(&words);
    assert!(logs_in(&alice, &server));
    let run = |remote: &str| alice.run("alice", server.host.ip(), remote).unwrap();
    assert_eq!(run("sudo -n /usr/bin/id -u").stdout.trim(), "0");
    assert!(!run("sudo -n /usr/bin/cat /etc/shadow").success(), "more than the policy gives");
    let in_use = site.bastio(&["sudo-policy", "rm", "who"]);
    assert_eq!(in_use.code(), Some(1), "{}", in_use.stderr);
    until(LIMIT, "alice is out", || !logs_in(&alice, &server));
    until(LIMIT, "the grant has left the model", || {
        site.backend.ask(&["grant", "ls"]).unwrap() == Value::Array(Vec::new())
    });
    site.done(&["sudo-policy", "rm", "who"]);
}

#[test]
fn somebody_is_locked_out_thrown_out_and_let_in_again() {
    require_root!();
    let world = World::new().unwrap();
    let (site, server, alice) = alice_at(&world);
    site.done(&["grant", "add", "alice", "--on", "web-1"]);
    let mut session =
        alice.command("alice", server.host.ip(), "echo in; exec sleep 600").spawn().unwrap();
    until(LIMIT, "alice is in", || {
        server.host.try_exec(&["pgrep", "-u", "alice", "sleep"]).unwrap().success()
    });
    site.done(&["user", "lock", "alice"]);
    assert!(!logs_in(&alice, &server));
    site.done(&["user", "end-sessions", "alice"]);
    session.wait(LIMIT).unwrap();
    site.done(&["user", "unlock", "alice"]);
    assert!(logs_in(&alice, &server));
}

#[test]
fn a_change_by_hand_is_found_and_put_right() {
    require_root!();
    let world = World::new().unwrap();
    let (site, server, alice) = alice_at(&world);
    site.done(&["grant", "add", "alice", "--on", "web-1"]);
    site.done(&["server", "check", "web-1"]);
    server.host.exec(&["rm", "/home/alice/.ssh/authorized_keys"]).unwrap();
    assert!(!logs_in(&alice, &server));
    let differs = site.bastio(&["server", "check", "web-1"]);
    assert_eq!(differs.code(), Some(1), "{}\n{}", differs.stdout, differs.stderr);
    assert!(differs.stdout.contains("add-key"), "{}", differs.stdout);
    assert!(!logs_in(&alice, &server), "a check changes nothing");
    site.done(&["server", "sync", "web-1"]);
    assert!(logs_in(&alice, &server));
    site.done(&["server", "check", "web-1"]);
    let report = site.backend.ask(&["server", "report", "web-1"]).unwrap();
    let users = report["users"].as_array().unwrap();
    let found = users.iter().find(|user| user["name"] == "alice").expect("alice");
    assert!(found["managed"] == true && found["keys"].as_array().unwrap().len() == 1, "{found}");
}

#[test]
fn a_home_goes_into_quarantine() {
    require_root!();
    let world = World::new().unwrap();
    let (site, server, alice) = alice_at(&world);
    site.done(&["grant", "add", "alice", "--on", "web-1"]);
    alice.run("alice", server.host.ip(), "echo mine > work").unwrap();
    site.done(&["user", "rm", "alice", "--home", "quarantine", "--yes"]);
    assert!(!logs_in(&alice, &server));
    assert!(!server.host.try_exec(&["test", "-e", "/home/alice"]).unwrap().success());
    let kept = server.host.exec(&["find", "/home/.bastio-quarantine", "-name", "work"]).unwrap();
    assert_eq!(kept.stdout.lines().count(), 1, "{}", kept.stdout);
}
