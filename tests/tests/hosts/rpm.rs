//! The .rpm of the agent. There is no machine of that family here, so rpm installs into the root of a Debian host that is
//! switched off, where its scripts run; then the host is booted.

use bastio_tests::fleet::Backend;
use bastio_tests::{BootedHost, World, require_root};

use crate::rig::{LIMIT, NEW, OLD, UNITS, add_person, are_active, can_sudo, enroll, package, show};

#[test]
fn installs_upgrades_and_leaves_people_alone() {
    require_root!();
    let world = World::new().unwrap();
    let backend = Backend::start(&world).unwrap();
    let mut host = BootedHost::new(&world, "web-1", "bookworm").unwrap();
    let rpm = |host: &BootedHost<'_>, words: &[&str]| {
        // Its needs are packages of another family; they are looked at below.
        let command = world.command("rpm").arg("--root").arg(host.disk()).args(words);
        let done = command.limit(LIMIT).check().unwrap();
        assert!(!done.stderr.contains("scriptlet failed"), "{}", done.stderr);
        done.stdout
    };
    let file = |version: &str| package(&format!("bastio-agent-{version}-1.x86_64.rpm"));
    let (old, new) = (file(OLD), file(NEW));
    rpm(&host, &["--install", "--nodeps", old.to_str().unwrap()]);
    let needs = rpm(&host, &["--query", "--requires", "bastio-agent"]);
    assert!(needs.contains("shadow-utils") && needs.contains("glibc >= 2.28"), "{needs}");

    host.power_on().unwrap();
    assert_eq!(UNITS.map(|unit| show(&host, unit, "ActiveState")), ["inactive", "inactive"]);
    assert_eq!(show(&host, UNITS[0], "UnitFileState"), "enabled");
    enroll(&host, &backend.enroll_key("web-1").unwrap());
    host.exec(&["systemctl", "start", UNITS[0]]).unwrap();
    backend.wait_connected(1, LIMIT).unwrap();
    let ssh = add_person(&world, &backend, "alice");
    assert!(can_sudo(&ssh, "alice", &host));

    host.power_off().unwrap();
    rpm(&host, &["--upgrade", "--nodeps", new.to_str().unwrap()]);
    assert!(rpm(&host, &["--query", "bastio-agent"]).contains(NEW));
    host.power_on().unwrap();
    backend.wait_connected(1, LIMIT).unwrap();
    assert!(are_active(&host));

    host.power_off().unwrap();
    rpm(&host, &["--erase", "bastio-agent"]);
    host.power_on().unwrap();
    assert!(!host.exists("/usr/bin/bastio-agent").unwrap());
    assert!(host.exists("/etc/bastio/agent.key").unwrap());
    assert!(can_sudo(&ssh, "alice", &host));
}
