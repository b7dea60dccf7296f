//! SIGTERM to a running agent: at once when idle, and never in the middle of an account.

use super::*;

/// How long an idle agent may take.
const AT_ONCE: Duration = Duration::from_secs(2);

#[test]
fn an_idle_agent_stops_at_once_and_leaves_no_process() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let mut server = site.server("web-1");
    let connector = server.connector();
    assert!(server.agent.stop(AT_ONCE).unwrap().success());
    assert!(!is_running(connector));
    let left = server.host.exec(&["ps", "-eo", "comm="]).unwrap().stdout;
    assert!(!left.contains("bastio"), "{left}");
    site.wait_presence("web-1", "offline", LIMIT);
    assert!(!server.log().contains("ERROR"), "{}", server.log());
}

#[test]
fn an_agent_that_cannot_connect_stops_at_once_too() {
    require_root!();
    let world = World::new().unwrap();
    let mut site = Site::start(&world);
    let mut server = site.server("web-1");
    site.backend.process().kill().unwrap();
    until(LIMIT, "the agent notices", || server.link()["state"] == "disconnected");
    assert!(server.agent.stop(AT_ONCE).unwrap().success());
    let left = server.host.exec(&["ps", "-eo", "comm="]).unwrap().stdout;
    assert!(!left.contains("bastio"), "{left}");
}

#[test]
fn a_stop_during_useradd_finishes_the_account_and_answers_it() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let mut server = site.enrol(site.host("web-1"));
    let held = HeldUseradd::install(&server.host);
    let (key, file) = person(&world, "alice");
    site.done(&["user", "add", "alice", "--key", &file, "--on", "web-1", "--no-wait"]);
    held.wait_begun();
    site.done(&["user", "add", "bob", "--key", &file, "--on", "web-1", "--no-wait"]);
    site.wait_sent(2);
    server.agent.signal(Signal::SIGTERM).unwrap();
    server.wait_log("asked to stop", LIMIT);
    assert_eq!(server.agent.ended().unwrap(), None);
    held.let_go();
    assert!(server.agent.wait(LIMIT).unwrap().success());
    let answers = site.answers("web-1");
    assert_eq!(answers, ["set-user: 200 2 changes on alice"]);
    assert!(server.has_account("alice") && server.host.exists("/home/alice/.ssh").unwrap());

    assert!(!server.has_account("bob"));

    // What was not begun is asked for again.
    server.restart_agent();
    site.wait_answered(LIMIT);
    for user in ["alice", "bob"] {
        assert!(SshClient::new(&world, &key).can_log_in(user, server.host.ip()).unwrap());
    }
    assert_eq!(site.answers("web-1").len(), 2);
}
