//! The agent, or a half of it, is killed: what was done and not answered is asked for again and found done.

use bastio_tests::Direction;

use super::*;

#[test]
fn an_agent_killed_between_doing_and_answering_answers_after_its_restart_once_and_the_truth() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let proxy = site.proxy();
    let mut server = site.enrol_through(site.host("web-1").without_sshd(), &proxy);
    let (key, file) = person(&world, "alice");
    proxy.hold(Direction::ToServer);
    site.done(&["user", "add", "alice", "--key", &file, "--on", "web-1", "--no-wait"]);
    until(LIMIT, "the action is done", || server.carried_out() == 1);
    let done = server.keys("alice").unwrap();

    server.kill_agent();
    // What is under way between the two is lost with the connection.
    proxy.cut();
    proxy.resume();
    assert_eq!(site.answers("web-1"), [""; 0]);
    server.restart_agent();
    site.wait_answered(LIMIT);
    let answers = site.answers("web-1");
    assert_eq!(answers, ["set-user: 200 2 changes on alice"]);
    assert_eq!(server.carried_out(), 1, "{}", server.log());
    assert_eq!(server.keys("alice"), Some(done.clone()));
    assert_eq!(done.matches(key.public().rsplit_once(' ').unwrap().0).count(), 1, "{done}");
    let shown = site.show("web-1");
    assert_eq!((&shown["pending"], &shown["failed"]), (&0.into(), &0.into()), "{shown}");
    // Behind all that: nothing came twice, and nothing is kept for another time.
    let none_came_twice = || {
        let log = site.backend.log().unwrap();
        assert!(!log.contains("feedback to "), "{log}");
    };
    site.done(&["user", "update", "alice", "--sudo"]);
    none_came_twice();
    server.kill_agent();
    server.restart_agent();
    site.wait_presence("web-1", "connected", LIMIT);
    site.done(&["user", "update", "alice", "--no-sudo", "--yes-really"]);
    none_came_twice();
    assert_eq!(server.carried_out(), 3, "{}", server.log());
}

#[test]
fn an_agent_killed_in_the_middle_of_useradd_ends_with_a_whole_account() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let mut server = site.enrol(site.host("web-1"));
    let (key, file) = person(&world, "alice");
    let held = HeldUseradd::install(&server.host);
    site.done(&["user", "add", "alice", "--key", &file, "--on", "web-1", "--no-wait"]);
    held.wait_begun();
    server.agent.kill().unwrap();
    held.let_go();
    until(LIMIT, "useradd, left alone, has ended", || server.has_account("alice"));
    server.restart_agent();
    site.wait_answered(LIMIT);
    let answers = site.answers("web-1");
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(answers[0].starts_with("set-user: 200"), "{answers:?}");
    assert!(SshClient::new(&world, &key).can_log_in("alice", server.host.ip()).unwrap());
    let shadow = String::from_utf8(server.host.read_file("/etc/shadow").unwrap()).unwrap();
    assert!(shadow.contains("\nalice:*:"), "{shadow}");
}

#[test]
fn a_killed_connector_is_replaced_and_the_queue_goes_on() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let server = site.server("web-1");
    let (_, file) = person(&world, "alice");
    let processor = server.agent.pid();
    server.kill_connector();
    site.wait_presence("web-1", "connected", LIMIT);
    site.done(&["user", "add", "alice", "--key", &file, "--on", "web-1"]);

    // And with an action in hand: it is finished, and its answer, which nobody took, is asked for again.
    let held = HeldUseradd::install(&server.host);
    site.done(&["user", "add", "bob", "--key", &file, "--on", "web-1", "--no-wait"]);
    site.done(&["user", "add", "carol", "--key", &file, "--on", "web-1", "--no-wait"]);
    held.wait_begun();
    kill(server.connector(), Signal::SIGKILL).unwrap();
    held.let_go();
    site.wait_answered(LIMIT);
    assert_eq!(server.agent.pid(), processor);
    let answers = site.answers("web-1");
    assert_eq!(answers.len(), 3, "{answers:?}");
    assert!(answers[1].contains("bob"), "{answers:?}");
    assert!(server.keys("bob").is_some() && server.keys("carol").is_some());
    assert!(
        server.log().contains("the connector ended; it will be started again"),
        "{}",
        server.log()
    );
}

#[test]
fn an_agent_that_nobody_listens_to_does_not_fall_over_it() {
    let agent = bastio_tests::binary("bastio-agent").unwrap();
    let mut check = std::process::Command::new(agent);
    check.args(["check", "--config", "/nonexistent"]);
    let (out, err) = (std::process::Stdio::piped(), std::process::Stdio::piped());
    let mut check = check.stdout(out).stderr(err).spawn().unwrap();
    drop(check.stdout.take());
    let ended = check.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!((ended.status.code(), said.as_str()), (Some(1), ""));
}
