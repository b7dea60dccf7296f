//! A right that somebody has through a group: from the operator's command to a real login, and gone with the membership.

use std::time::Duration;

use bastio_tests::{SshClient, SshKey, World, require_root};

use crate::faults::{Site, until};

const LIMIT: Duration = Duration::from_secs(40);

#[test]
fn members_log_in_through_their_group_and_not_without_it() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);
    let server = site.enrol(site.host("web-1"));
    let person = |name: &str| {
        let key = SshKey::generate(&world, name, &["ed25519"]).unwrap();
        let file = key.public_file().display().to_string();
        site.done(&["user", "add", name, "--key", &file]);
        SshClient::new(&world, &key)
    };
    let (alice, bob) = (person("alice"), person("bob"));
    site.done(&["group", "add", "db-admins", "--member", "bob"]);
    site.done(&["group", "add", "ops", "--member", "alice", "--group", "db-admins"]);
    // What the agent told about its server is a label of it.
    site.done(&["grant", "add", "--group", "ops", "--on", "host/os=*,host/arch!=pdp11", "--sudo"]);
    site.done(&["grant", "add", "--group", "db-admins", "--on", "web-1", "--login", "deploy"]);
    assert!(server.lets_in(&alice, "alice") && server.lets_in(&bob, "bob"));
    assert!(server.lets_in(&bob, "deploy"), "the account of the group");
    assert!(!server.lets_in(&alice, "deploy"), "of the inner group alone");
    let groups = server.host.exec(&["id", "-nG", "bob"]).unwrap().stdout;
    assert!(groups.contains("sudo"), "{groups}");
    let shown = site.done(&["user", "show", "bob"]).stdout;
    assert!(shown.contains("db-admins, ops (through db-admins)"), "{shown}");
    let labels = site.done(&["server", "show", "web-1"]).stdout;
    assert!(labels.contains("host/os=") && labels.contains("host/agent="), "{labels}");

    let circle = site.bastio(&["group", "member", "add", "db-admins", "--group", "ops"]);
    assert_eq!(circle.code(), Some(1), "{}", circle.stderr);
    assert!(circle.stderr.contains("db-admins > ops > db-admins"), "{}", circle.stderr);

    site.done(&["group", "member", "rm", "db-admins", "bob"]);
    assert!(!server.lets_in(&bob, "bob") && !server.lets_in(&bob, "deploy"));
    assert!(server.lets_in(&alice, "alice"), "nobody else loses anything");
    let kept = site.bastio(&["group", "rm", "ops", "--yes"]);
    assert_eq!(kept.code(), Some(1), "it has a grant");
    site.done(&["group", "rm", "ops", "--with-grants", "--yes", "--yes-really"]);
    until(LIMIT, "alice is out", || !server.lets_in(&alice, "alice"));
    site.done(&["server", "check", "web-1"]);
}
