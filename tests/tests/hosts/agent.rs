//! The agent from its package, under systemd.

use bastio_tests::fleet::Backend;
use bastio_tests::{BootedHost, World, require_root};

use crate::rig::{
    LIMIT, NEW, UNITS, add_person, agent_host, are_active, can_sudo, dpkg_install, enroll,
    main_pid, show, wait_for,
};

#[test]
fn does_its_job_on_bookworm() {
    does_its_job("bookworm");
}

#[test]
fn does_its_job_on_bullseye() {
    does_its_job("bullseye");
}

#[test]
fn does_its_job_on_trixie() {
    does_its_job("trixie");
}

/// Installed, not started before it is enrolled, then everything that a server is for.
fn does_its_job(release: &str) {
    require_root!();
    let world = World::new().unwrap();
    let backend = Backend::start(&world).unwrap();
    let host = BootedHost::start(&world, "web-1", release).unwrap();
    dpkg_install(&host, NEW);
    let failed = host.exec(&["systemctl", "list-units", "--failed", "--plain", "--no-legend"]);
    assert_eq!(failed.unwrap().stdout.trim(), "");
    assert_eq!(UNITS.map(|unit| show(&host, unit, "ActiveState")), ["inactive", "inactive"]);
    assert_eq!(host.exec(&["systemctl", "is-enabled", UNITS[0]]).unwrap().stdout.trim(), "enabled");

    enroll(&host, &backend.enroll_key("web-1").unwrap());
    host.exec(&["systemctl", "start", "bastio-agent"]).unwrap();
    backend.wait_connected(1, LIMIT).unwrap();
    assert!(are_active(&host));
    let ssh = add_person(&world, &backend, "alice");
    assert!(can_sudo(&ssh, "alice", &host));
    backend.console(&["user", "rm", "alice", "--yes-really"]).unwrap().check().unwrap();
    assert!(!ssh.can_log_in("alice", host.ip()).unwrap());
    assert!(host.exists("/home/alice").unwrap(), "homes are kept unless said otherwise");
    assert!(!host.try_exec(&["getent", "passwd", "alice"]).unwrap().success());
}

#[test]
fn logs_each_action_with_its_fields() {
    require_root!();
    let world = World::new().unwrap();
    let backend = Backend::start(&world).unwrap();
    let host = agent_host(&world, &backend, NEW);
    add_person(&world, &backend, "alice");
    let entries = |more: &[&str]| {
        let words = ["journalctl", "--no-pager", "--output=json", "--unit=bastio-processor"];
        let found = host.exec(&[&words[..], more].concat()).unwrap().stdout;
        let lines = found.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect::<Vec<serde_json::Value>>()
    };
    wait_for("the journal has the user's actions", || {
        entries(&["F_USER=alice"]).iter().filter(|it| it["F_STATUS"] == "200").count() == 1
    });
    let actions = entries(&["F_USER=alice"]);
    let named: Vec<&str> = actions.iter().filter_map(|it| it["F_ACTION"].as_str()).collect();
    assert_eq!(named, ["set-user"]);
    assert!(actions.iter().all(|it| it["MESSAGE"] == "action done" && it["F_MID"].is_string()));
    assert!(actions[0]["F_CHANGES"].as_str().unwrap().contains("ssh-ed25519 SHA256:"));
    let whole = host.exec(&["journalctl", "--no-pager", "--output=export"]).unwrap().stdout;
    assert!(!whole.contains("PRIVATE KEY") && !whole.contains("bst_"), "a secret in the journal");
}

#[test]
fn each_half_has_the_rights_it_needs_and_no_more() {
    require_root!();
    let world = World::new().unwrap();
    let backend = Backend::start(&world).unwrap();
    let host = agent_host(&world, &backend, NEW);
    add_person(&world, &backend, "alice");
    let [connector, processor] = UNITS.map(|unit| main_pid(&host, unit));
    let status = |pid: &str, field: &str| {
        let text = host.read_file(format!("/proc/{pid}/status")).unwrap();
        let text = String::from_utf8(text).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim_start_matches(':').split_whitespace().next().unwrap().to_owned()
    };
    let uid = host.exec(&["id", "-u", "bastio"]).unwrap().stdout.trim().to_owned();
    assert_eq!((status(&connector, "Uid"), status(&processor, "Uid")), (uid, "0".to_owned()));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(&connector, set), "0000000000000000", "{set}");
    }
    // AUDIT_WRITE (29), KILL (5), FOWNER (3), DAC_OVERRIDE (1), CHOWN (0).
    assert_eq!(status(&processor, "CapBnd"), "000000002000002b");
    for pid in [&connector, &processor] {
        assert_eq!((status(pid, "NoNewPrivs"), status(pid, "Seccomp")), ("1".into(), "2".into()));
    }
    let network =
        |pid: &str| host.exec(&["readlink", &format!("/proc/{pid}/ns/net")]).unwrap().stdout;
    assert_eq!(network(&connector), network("1"));
    assert_ne!(network(&processor), network("1"));

    let modes = ["/etc/bastio/agent.toml", "/etc/bastio/agent.key", "/etc/passwd", "/etc/shadow"];
    let modes = modes.map(|file| host.exec(&["stat", "-c", "%a", file]).unwrap().stdout);
    assert_eq!(modes, ["600\n", "600\n", "644\n", "640\n"]);
    // Everyone may see how the agent is; nobody but root and the connector may talk to the processor.
    let alice = ["runuser", "-u", "alice", "--"];
    let told = host.exec(&[&alice[..], &["bastio-agent", "status"]].concat()).unwrap();
    assert!(told.stdout.contains("connected"), "{}", told.stdout);
    let socket = "/run/bastio-agent/processor.sock";
    let talk = ["bastio-agent", "connector", "--connect", socket];
    assert!(!host.try_exec(&[&alice[..], &talk].concat()).unwrap().success());
    let mode = host.exec(&["stat", "-c", "%a %U", socket]).unwrap().stdout;
    assert_eq!(mode.trim(), "600 bastio");
}
