//! A cable is pulled: both sides notice by themselves, and the server gets what it missed.

use super::*;

/// The agent's promise.
const DEAD_PEER: Duration = Duration::from_secs(45);

#[test]
fn a_partition_is_noticed_on_both_sides_and_made_up_for_afterwards() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let server = site.server("web-1");
    let (key, file) = person(&world, "alice");
    site.done(&["user", "add", "bob", "--key", &file, "--on", "web-1"]);
    let connected = server.link();
    assert_eq!(connected["state"], "connected", "{connected}");
    server.host.set_cable(false).unwrap();
    let pulled = Instant::now();
    server.wait_log("the backend no longer answers", DEAD_PEER);
    eprintln!("the agent noticed after {:?}", pulled.elapsed());
    assert_eq!(server.link()["state"], "disconnected");
    site.wait_presence(
        "web-1",
        "offline",
        Duration::from_secs(70).saturating_sub(pulled.elapsed()),
    );
    eprintln!("the backend noticed after {:?}", pulled.elapsed());

    let told = site.done(&["user", "add", "alice", "--key", &file, "--on", "web-1"]);
    assert!(told.stderr.contains("offline, will follow when it is back: web-1"), "{}", told.stderr);
    assert!(told.stdout.contains("offline"), "{}", told.stdout);
    site.done(&["user", "rm", "bob", "--yes"]);
    assert!(!server.has_account("alice") && server.has_account("bob"));

    server.host.set_cable(true).unwrap();
    site.wait_presence("web-1", "connected", Duration::from_secs(45));
    site.wait_answered(LIMIT);
    assert!(!server.has_account("bob"));
    assert!(server.keys("alice").unwrap().contains(key.public().rsplit_once(' ').unwrap().0));
    assert_eq!(server.link()["state"], "connected");
}
