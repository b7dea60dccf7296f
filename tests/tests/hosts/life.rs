//! The agent's life on a host: its processes are killed, hang, and the host goes down and comes back.

use bastio_tests::fleet::Backend;
use bastio_tests::{BootedHost, World, require_root};

use crate::rig::{
    LIMIT, NEW, UNITS, add_person, agent_host, are_active, can_sudo, main_pid, order_person, show,
    wait_for,
};

/// A way for a host to go down.
type Outage<'world> = fn(&mut BootedHost<'world>);

#[test]
fn killed_halves_come_back_and_work_on() {
    require_root!();
    let world = World::new().unwrap();
    let backend = Backend::start(&world).unwrap();
    let host = agent_host(&world, &backend, NEW);
    for (unit, name) in UNITS.into_iter().zip(["alice", "bob"]) {
        let before = main_pid(&host, unit);
        host.exec(&["kill", "-9", &before]).unwrap();
        comes_back(&host, unit, &before);
        backend.wait_connected(1, LIMIT).unwrap();
        let ssh = add_person(&world, &backend, name);
        assert!(can_sudo(&ssh, name, &host), "after kill -9 of {unit}");
    }
}

#[test]
fn processor_that_hangs_is_ended_by_the_watchdog() {
    require_root!();
    let world = World::new().unwrap();
    let backend = Backend::start(&world).unwrap();
    let host = agent_host(&world, &backend, NEW);
    let folder = "/etc/systemd/system/bastio-processor.service.d";
    host.exec(&["mkdir", folder]).unwrap();
    host.write_file(format!("{folder}/watchdog.conf"), "[Service]\nWatchdogSec=30s\n").unwrap();
    host.exec(&["systemctl", "daemon-reload"]).unwrap();
    host.exec(&["systemctl", "restart", UNITS[1]]).unwrap();
    wait_for("both halves run again", || are_active(&host));
    let before = main_pid(&host, UNITS[1]);
    host.exec(&["kill", "-STOP", &before]).unwrap();
    comes_back(&host, UNITS[1], &before);
    let words = ["journalctl", "--no-pager", "--unit=bastio-processor", "--grep=Watchdog timeout"];
    assert!(host.exec(&words).unwrap().stdout.contains("Watchdog timeout (limit 30s)"));
    backend.wait_connected(1, LIMIT).unwrap();
    let ssh = add_person(&world, &backend, "alice");
    assert!(can_sudo(&ssh, "alice", &host));
}

#[test]
fn what_was_asked_while_the_host_was_off_is_done_when_it_is_back() {
    require_root!();
    let world = World::new().unwrap();
    let backend = Backend::start(&world).unwrap();
    let mut host = agent_host(&world, &backend, NEW);
    let outages: [(&str, Outage<'_>); 2] =
        [("alice", |host| host.power_off().unwrap()), ("bob", |host| host.power_cut().unwrap())];
    for (name, go_down) in outages {
        go_down(&mut host);
        // After a power cut the backend still believes in the connection.
        let ssh = order_person(&world, &backend, name, "--no-wait");
        host.power_on().unwrap();
        wait_for("the person can log in", || {
            ssh.can_log_in(name, host.ip()).is_ok_and(|can| can) && can_sudo(&ssh, name, &host)
        });
        assert!(are_active(&host));
    }
}

/// The unit has another main process than before and is active, with the other one.
fn comes_back(host: &BootedHost<'_>, unit: &str, before: &str) {
    wait_for(&format!("{unit} is back"), || {
        let now = main_pid(host, unit);
        now != before && now != "0" && are_active(host)
    });
    assert_ne!(show(host, unit, "NRestarts"), "0");
}
