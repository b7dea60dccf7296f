//! A person's access ends everywhere, and it can be proved: a real agent, real logins, and a server that is away.

use std::time::Duration;

use bastio_tests::{SshClient, SshKey, World, require_root};
use serde_json::Value;

use crate::faults::{Site, until};

const LIMIT: Duration = Duration::from_secs(40);

fn entry<'v>(report: &'v Value, server: &str) -> &'v Value {
    let accounts = report["accounts"].as_array().unwrap();
    accounts.iter().find(|entry| entry["server"] == server).unwrap()
}

#[test]
fn a_disabled_person_is_out_everywhere_and_each_server_has_signed_it() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let web = site.enrol(site.host("web-1"));
    let away = site.enrol(site.host("web-2").without_sshd());
    let key = SshKey::generate(&world, "alice", &["ed25519"]).unwrap();
    let file = key.public_file().display().to_string();
    let alice = SshClient::new(&world, &key);
    let logs_in = || alice.run("alice", web.host.ip(), "true").unwrap().success();
    site.done(&["user", "add", "alice", "--key", &file, "--on", "*", "--sudo", "--until", "2h"]);
    assert!(logs_in());
    let before = site.backend.ask(&["user", "proof", "alice"]).unwrap();
    assert_eq!(entry(&before, "web-1")["status"], "open", "{before}");

    let mut session =
        alice.command("alice", web.host.ip(), "echo in; exec sleep 600").spawn().unwrap();
    until(LIMIT, "alice is in", || {
        web.host.try_exec(&["pgrep", "-u", "alice", "sleep"]).unwrap().success()
    });
    away.host.set_cable(false).unwrap();
    site.wait_presence("web-2", "offline", Duration::from_secs(90));
    site.done(&["--yes-really", "user", "disable", "alice", "--reason", "left"]);
    session.wait(LIMIT).unwrap();
    assert!(!logs_in(), "nobody gets in");

    let report = site.bastio(&["--output", "json", "user", "proof", "alice"]);
    assert_eq!(report.code(), Some(1), "one server is away: {}", report.stdout);
    let found: Value = serde_json::from_str(&report.stdout).unwrap();
    let (proven, pending) = (entry(&found, "web-1"), entry(&found, "web-2"));
    assert_eq!(proven["status"], "proven", "{proven}");
    assert_eq!((&pending["status"], &pending["presence"]), (&"pending".into(), &"offline".into()));
    let left = pending["lasts_until"].as_i64().unwrap() - found["at"].as_i64().unwrap();
    assert!((3600..=7200).contains(&left), "its keys end by themselves: {left}");

    let path = world.folder().join("alice.json");
    world.write_file(&path, &report.stdout).unwrap();
    let words = ["user", "verify", path.to_str().unwrap()];
    let intact = site.done(&words);
    assert!(
        intact.stdout.starts_with("intact: alice (disabled): 1 proven, 1 pending"),
        "{}",
        intact.stdout
    );
    let altered = report.stdout.replace("\"web-1\"", "\"web-9\"");
    world.write_file(&path, &altered).unwrap();
    let altered = site.bastio(&words);
    assert_eq!(altered.code(), Some(1));
    assert!(altered.stdout.contains("alice on web-9: the entry was altered"), "{}", altered.stdout);

    away.host.set_cable(true).unwrap();
    site.wait_presence("web-2", "connected", Duration::from_secs(60));
    site.done(&["user", "proof", "alice"]);
    let whole = site.backend.ask(&["user", "proof", "alice"]).unwrap();
    assert_eq!(entry(&whole, "web-2")["status"], "proven", "{whole}");
    site.done(&["user", "enable", "alice"]);
    assert!(logs_in());
}
