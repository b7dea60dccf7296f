//! Servers about which somebody must decide: set up anew under their name, or two machines with one key. Nothing is
//! inherited silently, and afterwards the right one comes back by itself.

use super::rivals::copy_of;
use super::*;

/// Until an agent that was told to wait is back: half a minute, and by chance up to half as long again.
const BACK: Duration = Duration::from_secs(90);

#[test]
fn a_server_set_up_anew_waits_for_a_decision_and_then_takes_its_own_place() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let mut old = site.server("web-1");
    let (_, file) = person(&world, "alice");
    site.done(&["user", "add", "alice", "--key", &file, "--on", "web-1", "--sudo"]);
    assert!(old.has_account("alice"));
    old.agent.stop(LIMIT).unwrap();

    let host = site.host("fresh").without_sshd().start().unwrap();
    fleet::prepare_agent(&host).unwrap();
    let enrolled = fleet::enroll_command_as(&host, &site.key, "web-1").check().unwrap();
    let told = format!("{}{}", enrolled.stdout, enrolled.stderr);
    assert!(told.contains("once an operator has decided"), "{told}");
    let agent = fleet::agent_command(&host).spawn_ready(LIMIT).unwrap();
    let new = Server { host, agent };
    until(LIMIT, "the new one was told to wait", || new.link()["retry_in"].as_u64() >= Some(20));
    let list = site.done(&["server", "ls"]).stdout;
    let line = list.lines().find(|line| line.starts_with("web-1-2")).unwrap_or(&list);
    assert!(line.contains("undecided"), "{list}");
    let shown = site.done(&["server", "show", "web-1-2"]).stdout;
    assert!(shown.contains("bastio server replace web-1 --with web-1-2"), "{shown}");
    assert!(!new.has_account("alice"), "rights are not inherited by a name");

    site.done(&["server", "replace", "web-1", "--with", "web-1-2", "--no-wait"]);
    site.wait_presence("web-1", "connected", BACK);
    site.wait_answered(LIMIT);
    assert!(new.has_account("alice") && new.keys("alice").is_some());
    let shown = site.show("web-1");
    assert_eq!((&shown["failed"], shown.get("questions")), (&0.into(), None), "{shown}");
    // The old one, should it ever be switched on again, is a stranger.
    old.restart_agent();
    old.wait_log("refused the login", LIMIT);
}

#[test]
fn both_machines_with_one_key_are_cut_until_somebody_has_decided_where_that_is_the_policy() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start_with(&world, "[limits]\nrivals = \"cut\"\n");
    let first = site.server("web-1");
    let mut second = copy_of(&site, &first);
    until(LIMIT, "the list tells it", || site.done(&["server", "ls"]).stdout.contains("undecided"));
    site.wait_presence("web-1", "offline", LIMIT);
    let shown = site.done(&["server", "show", "web-1"]).stdout;
    for address in [first.host.ip(), second.host.ip()] {
        assert!(shown.contains(&address.to_string()), "{shown}");
    }
    let (_, file) = person(&world, "alice");
    site.done(&["user", "add", "alice", "--key", &file, "--on", "web-1", "--no-wait"]);
    second.agent.stop(LIMIT).unwrap();
    assert!(!first.has_account("alice"), "nothing before the decision");

    site.done(&["server", "accept", "web-1", "--no-wait"]);
    site.wait_presence("web-1", "connected", BACK);
    site.wait_answered(LIMIT);
    assert!(first.has_account("alice") && !second.has_account("alice"));
    let log = site.done(&["log", "--server", "web-1", "--limit", "100"]).stdout;
    assert!(log.contains("server.rivals") && log.contains("server.accept"), "{log}");
}
