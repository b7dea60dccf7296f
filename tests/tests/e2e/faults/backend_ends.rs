//! The backend is killed between sending and hearing: what it had not heard it sends again, in order, done once.

use super::*;

/// Where a process is held: it takes nothing more until it is let go.
fn hold(pid: Pid) {
    kill(pid, Signal::SIGSTOP).unwrap();
}

fn let_go(pid: Pid) {
    kill(pid, Signal::SIGCONT).unwrap();
}

#[test]
fn a_backend_killed_before_the_answers_sends_again_and_all_is_done_once_and_in_order() {
    require_root!();
    let world = World::new().unwrap();
    let mut site = Site::start(&world);
    let server = site.server("web-1");
    let (key, file) = person(&world, "alice");
    hold(server.agent.pid());
    site.done(&["user", "add", "alice", "--key", &file, "--on", "web-1", "--sudo", "--no-wait"]);
    site.done(&["user", "add", "bob", "--key", &file, "--on", "web-1", "--no-wait"]);
    site.done(&["user", "rm", "bob", "--yes", "--no-wait"]);
    site.wait_sent(3);

    site.backend.restart().unwrap();
    // The agent comes back by itself; everything goes out once more before anything was answered.
    site.wait_presence("web-1", "connected", LIMIT);
    site.wait_sent(3);
    assert_eq!(site.answers("web-1"), [""; 0]);
    let_go(server.agent.pid());
    site.wait_answered(LIMIT);

    let answers = site.answers("web-1");
    let begins = ["set-user: 200", "set-user: 200", "remove-user: 200"];
    assert_eq!(answers.len(), begins.len(), "{answers:?}");
    for (answer, begin) in answers.iter().zip(begins) {
        assert!(answer.starts_with(begin), "{answers:?}");
    }
    // What came a second time while the first was still in hand was not done a second time.
    assert_eq!(server.carried_out(), begins.len(), "{}", server.log());
    assert!(!server.has_account("bob"));
    assert_eq!(
        server.keys("alice").unwrap().matches(key.public().rsplit_once(' ').unwrap().0).count(),
        1
    );
    let shown = site.show("web-1");
    assert_eq!((&shown["pending"], &shown["failed"]), (&0.into(), &0.into()), "{shown}");
    assert_eq!(shown["accounts"][0]["username"], "alice", "{shown}");
    assert_eq!(shown["accounts"].as_array().unwrap().len(), 1, "{shown}");
}

#[test]
fn a_queue_survives_kill_9_of_the_backend_while_the_server_is_away() {
    require_root!();
    let world = World::new().unwrap();
    let mut site = Site::start(&world);
    let mut server = site.server("web-1");
    let (_, file) = person(&world, "alice");
    server.kill_agent();
    site.wait_presence("web-1", "offline", LIMIT);
    for user in ["alice", "bob", "carol"] {
        let told = site.done(&["user", "add", user, "--key", &file, "--on", "web-1"]);
        assert!(
            told.stderr.contains("offline, will follow when it is back: web-1"),
            "{}",
            told.stderr
        );
        site.backend.restart().unwrap();
    }
    server.restart_agent();
    site.wait_answered(LIMIT);
    let users: Vec<bool> = ["alice", "bob", "carol"].map(|user| server.keys(user).is_some()).into();
    assert_eq!(users, [true; 3], "{:?}", site.answers("web-1"));
    let names: Vec<String> =
        site.answers("web-1").iter().map(|answer| answer[..9].to_owned()).collect();
    assert_eq!(names, ["set-user:"; 3]);
}
