//! The agent's package: upgrade, removal, purge. Access of people stays through all of it.

use bastio_tests::fleet::Backend;
use bastio_tests::{World, require_root};

use crate::rig::{
    LIMIT, NEW, OLD, UNITS, add_person, agent_host, are_active, can_sudo, dpkg_install, enroll,
    main_pid, show, wait_for,
};

#[test]
fn upgrade_takes_over_and_what_an_administrator_decided_stays() {
    require_root!();
    let world = World::new().unwrap();
    let backend = Backend::start(&world).unwrap();
    let host = agent_host(&world, &backend, OLD);
    let ssh = add_person(&world, &backend, "alice");
    let before = UNITS.map(|unit| main_pid(&host, unit));
    dpkg_install(&host, NEW);
    wait_for("both halves are the new ones", || {
        let now = UNITS.map(|unit| main_pid(&host, unit));
        are_active(&host) && now.iter().zip(&before).all(|(now, before)| now != before)
    });
    backend.wait_connected(1, LIMIT).unwrap();
    assert!(can_sudo(&ssh, "alice", &host));
    let bob = add_person(&world, &backend, "bob");
    assert!(can_sudo(&bob, "bob", &host));

    // A stopped and disabled agent stays so.
    host.exec(&["systemctl", "disable", "--now", UNITS[0]]).unwrap();
    dpkg_install(&host, NEW);
    assert_eq!(show(&host, UNITS[0], "ActiveState"), "inactive");
    assert_eq!(show(&host, UNITS[0], "UnitFileState"), "disabled");
}

#[test]
fn removal_keeps_people_and_purge_keeps_their_homes() {
    require_root!();
    let world = World::new().unwrap();
    let backend = Backend::start(&world).unwrap();
    let host = agent_host(&world, &backend, NEW);
    let ssh = add_person(&world, &backend, "alice");
    ssh.run("alice", host.ip(), "echo mine > file").unwrap();
    let account = || host.exec(&["getent", "passwd", "alice"]).unwrap().stdout;
    let keys = || host.read_file("/home/alice/.ssh/authorized_keys").unwrap();
    let before = (account(), keys());

    host.exec(&["dpkg", "--remove", "bastio-agent"]).unwrap();
    backend.wait_connected(0, LIMIT).unwrap();
    assert!(can_sudo(&ssh, "alice", &host));
    assert_eq!((account(), keys()), before);
    assert!(
        host.exists("/etc/bastio/agent.key").unwrap(),
        "a removed package keeps its configuration"
    );

    // Installed again it goes on where it was.
    dpkg_install(&host, NEW);
    backend.wait_connected(1, LIMIT).unwrap();

    host.exec(&["dpkg", "--purge", "bastio-agent"]).unwrap();
    for path in
        ["/etc/bastio", "/var/lib/bastio-agent", "/run/bastio-agent", "/usr/bin/bastio-agent"]
    {
        assert!(!host.exists(path).unwrap(), "{path} is left behind");
    }
    assert!(can_sudo(&ssh, "alice", &host));
    assert_eq!((account(), keys()), before);
    assert_eq!(host.read_file("/home/alice/file").unwrap(), b"mine\n");
    let failed = host.exec(&["systemctl", "list-units", "--failed", "--plain", "--no-legend"]);
    assert_eq!(failed.unwrap().stdout.trim(), "");

    // From the beginning, with a key of its own under the old name: an operator says that it is the same server. The
    // accounts are known by their group.
    dpkg_install(&host, NEW);
    enroll(&host, &backend.enroll_key("again").unwrap());
    let replace = ["server", "replace", "web-1", "--with", "web-1-2", "--no-wait"];
    backend.console(&replace).unwrap().check().unwrap();
    host.exec(&["systemctl", "start", UNITS[0]]).unwrap();
    backend.wait_connected(1, LIMIT).unwrap();
}
