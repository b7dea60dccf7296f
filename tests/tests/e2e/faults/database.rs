//! The disk under the backend's database is full while agents answer: nothing counts that is not stored, and
//! everything is there once there is space again.

use super::*;

#[test]
fn with_a_full_disk_no_answer_is_taken_and_nothing_is_lost_or_done_twice() {
    require_root!();
    let world = World::new().unwrap();
    let state = world.folder().join("backend").display().to_string();
    let shell = |script: &str| {
        world.command("sh").args(["-c", script]).env("S", &state).check().unwrap();
    };
    shell("mkdir -m 700 \"$S\" && mount -t tmpfs -o size=24m,mode=0700 state \"$S\"");
    let site = Site::start(&world);
    let server = site.server("web-1");
    let (_, file) = person(&world, "alice");
    site.done(&["user", "add", "alice", "--key", &file, "--on", "web-1"]);
    kill(server.agent.pid(), Signal::SIGSTOP).unwrap();
    site.done(&["user", "add", "bob", "--key", &file, "--on", "web-1", "--no-wait"]);
    site.wait_sent(1);
    shell("cat /dev/zero > \"$S/fill\" 2>&1; true");

    let refused = site.bastio(&["user", "add", "carol", "--key", &file, "--on", "web-1"]);
    assert_eq!(refused.code(), Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("has no space left"), "{}", refused.stderr);
    assert!(refused.stderr.contains("free space on the disk"), "{}", refused.stderr);
    kill(server.agent.pid(), Signal::SIGCONT).unwrap();
    until(LIMIT, "an answer was not taken", || {
        site.backend.log().unwrap().contains("the agent's session was closed")
    });
    assert_eq!(site.backend.ask(&["status"]).unwrap()["failed"], 0);

    shell("rm \"$S/fill\"");
    site.wait_answered(Duration::from_secs(90));
    assert!(server.has_account("bob") && server.keys("bob").is_some());
    // What the backend could not keep it asks for again, and finds done.
    let log = server.log();
    let done = |status: &str| {
        let is = |line: &&str| line.contains("action done") && line.contains(status);
        log.lines().filter(is).count()
    };
    assert_eq!(done("status=200"), 2, "each has an effect once:\n{log}");
    assert_eq!(done("status=200") + done("status=300"), server.carried_out(), "{log}");
    assert_eq!(site.backend.ask(&["status"]).unwrap()["failed"], 0);
    site.done(&["user", "add", "carol", "--key", &file, "--on", "web-1"]);
    assert!(server.has_account("carol"));
}
