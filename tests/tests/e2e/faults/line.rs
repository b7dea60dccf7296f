//! The line between agent and backend is cut, dribbles, or carries one way only.

use bastio_tests::Direction;

use super::*;

/// Lengths of what still gets through before the cut: nothing, a piece of an SSH packet, one packet and a piece.
const CUTS: [usize; 3] = [0, 60, 300];

/// One server for each length, each behind a proxy of its own.
fn servers(site: &Site<'_>) -> Vec<(Proxy, Server)> {
    let start = |number: usize| {
        let proxy = site.proxy();
        let host = site.host(&format!("web-{number}")).without_sshd();
        let server = site.enrol_through(host, &proxy);
        (proxy, server)
    };
    (1..=CUTS.len()).map(start).collect()
}

/// Cuts every line in this direction while an edit is on its way.
fn cut_during(site: &Site<'_>, servers: &[(Proxy, Server)], way: Direction, edit: &[&str]) {
    for ((proxy, _), bytes) in servers.iter().zip(CUTS) {
        proxy.cut_after(way, bytes);
    }
    site.done(edit);
    for (proxy, _) in servers {
        proxy.wait_for_cuts(1, LIMIT).unwrap();
        proxy.resume();
    }
    site.wait_answered(LIMIT);
}

#[test]
fn actions_cut_in_the_middle_arrive_all_the_same_and_nothing_is_doubled() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let servers = servers(&site);
    let (_, file) = person(&world, "alice");
    let edit = ["user", "add", "alice", "--key", &file, "--on", "*", "--sudo", "--no-wait"];
    cut_during(&site, &servers, Direction::ToClient, &edit);
    for (_, server) in &servers {
        assert_eq!(server.keys("alice").unwrap().lines().count(), 1);
        let answers = site.answers(server.host.name());
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert_eq!(site.show(server.host.name())["failed"], 0);
    }
    site.done(&["user", "rm", "alice", "--yes", "--yes-really"]);
    assert!(servers.iter().all(|(_, server)| !server.has_account("alice")));
}

#[test]
fn answers_cut_in_the_middle_are_given_again_and_nothing_is_done_twice() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let servers = servers(&site);
    let (_, file) = person(&world, "alice");
    let edit = ["user", "add", "alice", "--key", &file, "--on", "*", "--no-wait"];
    cut_during(&site, &servers, Direction::ToServer, &edit);
    for (_, server) in &servers {
        assert_eq!(server.keys("alice").unwrap().lines().count(), 1);
        let answers = site.answers(server.host.name());
        assert_eq!(answers.len(), 1, "{answers:?}");
        // The first answer of each is the one that arrived in the end.
        assert!(answers[0].starts_with("set-user: 200"), "{answers:?}");
    }
}

#[test]
fn messages_in_pieces_of_one_byte_are_messages() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let proxy = site.proxy();
    proxy.one_byte_pieces();
    let server = site.enrol_through(site.host("web-1").without_sshd(), &proxy);
    let (_, file) = person(&world, "alice");
    site.done(&["user", "add", "alice", "--key", &file, "--on", "web-1", "--sudo"]);
    assert!(server.keys("alice").is_some());
    site.done(&["user", "rm", "alice", "--yes", "--yes-really"]);
    assert!(!server.has_account("alice"));
    let answers = site.answers("web-1");
    let statuses: Vec<&str> =
        answers.iter().map(|answer| answer.split(' ').nth(1).unwrap()).collect();
    assert_eq!(statuses, ["200"; 2], "{answers:?}");
    assert_eq!(proxy.accepted(), 1);
}

#[test]
fn an_answer_that_is_due_while_there_is_no_line_is_kept_until_there_is_one() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let proxy = site.proxy();
    let server = site.enrol_through(site.host("web-1").without_sshd(), &proxy);
    let held = HeldUseradd::install(&server.host);
    let (_, file) = person(&world, "alice");
    site.done(&["user", "add", "alice", "--key", &file, "--on", "web-1", "--no-wait"]);
    held.wait_begun();
    proxy.refuse();
    proxy.cut();
    site.wait_presence("web-1", "offline", LIMIT);
    held.let_go();
    until(LIMIT, "the action is done", || server.carried_out() == 1);
    proxy.resume();
    site.wait_answered(LIMIT);
    // Had the answer been lost, the second asking would have got a 300.
    let answers = site.answers("web-1");
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(answers[0].starts_with("set-user: 200"), "{answers:?}");
}
