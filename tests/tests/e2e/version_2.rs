//! What version 2 adds, from the operator's command to a real login.

use std::time::Duration;

use bastio_tests::{SshClient, SshKey, World, fleet, require_root};
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
fn a_grant_that_begins_later_lets_nobody_in_before() {
    require_root!();
    let world = World::new().unwrap();
    let (site, server, alice) = alice_at(&world);
    site.done(&["grant", "add", "alice", "--on", "web-1", "--from", "10s", "--until", "1h"]);
    assert!(!logs_in(&alice, &server), "before its begin");
    let listed = site.done(&["grant", "ls"]).stdout;
    assert!(listed.contains("alice"), "it is on record: {listed}");
    until(LIMIT, "alice is in", || logs_in(&alice, &server));
    let log = site.done(&["log", "--action", "grant.begin"]).stdout;
    assert_eq!(log.matches("grant.begin").count(), 1, "{log}");
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

/// What the log tells of a server's drift, oldest first.
fn told(site: &Site<'_>, server: &str) -> Vec<(String, String)> {
    let rows = site.backend.ask(&["log", "--server", server]).unwrap();
    let mut rows = rows.as_array().unwrap().clone();
    rows.sort_by_key(|row| row["id"].as_i64());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows = rows.iter().map(|row| (text(&row["action"]), text(&row["detail"])));
    rows.filter(|(action, _)| action.starts_with("drift.")).collect()
}

#[test]
fn drift_is_told_by_the_console_and_healed_where_that_is_the_policy() {
    require_root!();
    let world = World::new().unwrap();
    let (site, mut server, alice) = alice_at(&world);
    site.done(&["grant", "add", "alice", "--on", "web-1", "--sudo"]);
    assert_eq!(told(&site, "web-1"), [], "what bastio itself did is no drift");
    let by_hand = ["gpasswd", "-d", "alice", "sudo"];
    server.host.exec(&by_hand).unwrap();
    until(LIMIT, "the list tells it", || site.done(&["server", "ls"]).stdout.contains("drifted"));
    let shown = site.done(&["server", "show", "web-1"]);
    assert!(shown.stdout.contains("Drift found at"), "{}", shown.stdout);
    assert!(shown.stdout.contains("grant-sudo"), "{}", shown.stdout);
    assert!(shown.stderr.contains("bastio server sync web-1"), "{}", shown.stderr);
    let found = told(&site, "web-1");
    assert!(found.len() == 1 && found[0].0 == "drift.found", "{found:?}");
    assert!(found[0].1.contains("alice"), "{found:?}");
    site.done(&["server", "sync", "web-1"]);
    assert!(!site.done(&["server", "ls"]).stdout.contains("drifted"));

    server.agent.stop(LIMIT).unwrap();
    let heals = fleet::agent_command(&server.host).env("BASTIO_AGENT_DRIFT", "heal");
    server.agent = heals.spawn_ready(LIMIT).unwrap();
    site.backend.wait_connected(1, LIMIT).unwrap();
    // Behind the agent's first word after it came back.
    site.done(&["server", "check", "web-1"]);
    server.host.exec(&by_hand).unwrap();
    server.host.exec(&["rm", "/home/alice/.ssh/authorized_keys"]).unwrap();
    until(LIMIT, "the key is back", || logs_in(&alice, &server));
    until(LIMIT, "the rights are back", || {
        server.host.exec(&["id", "-nG", "alice"]).unwrap().stdout.contains("sudo")
    });
    until(LIMIT, "the log tells it", || {
        told(&site, "web-1").iter().any(|(action, _)| action == "drift.healed")
    });
    let shown = site.done(&["server", "show", "web-1"]);
    assert!(shown.stdout.contains("Drift put right at"), "{}", shown.stdout);
    assert!(!site.done(&["server", "ls"]).stdout.contains("drifted"));
    site.done(&["server", "check", "web-1"]);
}

#[test]
fn drift_is_healed_left_or_shown_as_the_backend_is_told() {
    require_root!();
    let world = World::new().unwrap();
    let (site, server, alice) = alice_at(&world);
    site.done(&["grant", "add", "alice", "--on", "web-1", "--sudo"]);
    site.done(&["drift", "set", "*", "leave"]);
    server.host.exec(&["gpasswd", "-d", "alice", "sudo"]).unwrap();
    until(LIMIT, "the log tells it", || told(&site, "web-1").len() == 1);
    assert!(told(&site, "web-1")[0].1.starts_with("left so by a rule"));
    assert!(site.done(&["server", "ls"]).stdout.contains("in sync"));
    // What has drifted before is healed, too, once a rule says so.
    site.done(&["drift", "set", "*", "heal"]);
    until(LIMIT, "the rights are back", || {
        server.host.exec(&["id", "-nG", "alice"]).unwrap().stdout.contains("sudo")
    });
    server.host.exec(&["rm", "/home/alice/.ssh/authorized_keys"]).unwrap();
    until(LIMIT, "the key is back", || logs_in(&alice, &server));
    let healed = |(action, _): &&(String, String)| action == "drift.heal";
    assert_eq!(told(&site, "web-1").iter().filter(healed).count(), 2);
    // Behind the end of that sync.
    site.done(&["server", "check", "web-1"]);
    // A lock by hand is for people.
    server.host.exec(&["usermod", "-L", "-e", "1", "alice"]).unwrap();
    until(LIMIT, "the list tells it", || site.done(&["server", "ls"]).stdout.contains("drifted"));
    assert!(!logs_in(&alice, &server));
    assert_eq!(told(&site, "web-1").iter().filter(healed).count(), 2);
    site.done(&["server", "sync", "web-1"]);
    assert!(logs_in(&alice, &server));
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
