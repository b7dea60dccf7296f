//! Two machines with one agent key push each other out: nothing is lost, and somebody is told.

use super::*;

const FILES: [&str; 2] = ["/etc/bastio/agent.key", "/etc/bastio/agent.toml"];

/// Another machine with the same key and configuration.
pub(super) fn copy_of(site: &Site<'_>, first: &Server) -> Server {
    let host = site.host("copy").without_sshd().start().unwrap();
    fleet::prepare_agent(&host).unwrap();
    host.exec(&["mkdir", "-m", "700", "/etc/bastio"]).unwrap();
    for file in FILES {
        host.write_file(file, first.host.read_file(file).unwrap()).unwrap();
        host.exec(&["chmod", "600", file]).unwrap();
    }
    let agent = fleet::agent_command(&host).spawn_ready(LIMIT).unwrap();
    Server { host, agent }
}

#[test]
fn two_agents_with_one_key_take_turns_lose_no_action_and_are_reported() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let first = site.server("web-1");
    let mut second = copy_of(&site, &first);
    let (_, file) = person(&world, "key");
    let users: Vec<String> = (0..8).map(|number| format!("user{number}")).collect();
    for (number, user) in users.iter().enumerate() {
        // Each edit falls into another turn: after each take-over comes the next.
        site.done(&["user", "add", user, "--key", &file, "--on", "web-1", "--no-wait"]);
        let seen =
            |log: String| log.matches("another session of this agent has taken over").count();
        if number < 3 {
            until(LIMIT, "one more take-over", || seen(site.backend.log().unwrap()) > number);
        }
    }
    site.wait_answered(LIMIT);
    // Every action got its answer, and each was done on one of them.
    let answers = site.answers("web-1");
    assert_eq!(answers.len(), users.len(), "{answers:?}");
    assert!(answers.iter().all(|answer| !answer.contains(": 500")), "{answers:?}");
    for user in &users {
        assert!(
            first.has_account(user) || second.has_account(user),
            "{user} is nowhere: {answers:?}"
        );
    }
    let log = site.backend.log().unwrap();
    assert!(log.contains("do two machines use one agent key?"), "{log}");
    let rows = site.done(&["log", "--server", "web-1", "--limit", "1000"]).stdout;
    let warning = rows.lines().find(|row| row.contains("server.rivals")).unwrap_or(&rows);
    assert!(warning.contains("taken over by a session from"), "{warning}");

    // With the copy gone there is peace, and the right one does all there is to do.
    second.agent.stop(LIMIT).unwrap();
    site.wait_presence("web-1", "connected", LIMIT);
    until(LIMIT, "the right agent is back", || first.link()["state"] == "connected");
    site.done(&["user", "add", "alice", "--key", &file, "--on", "web-1"]);
    site.wait_answered(LIMIT);
    assert!(first.has_account("alice") && !second.has_account("alice"));
}
