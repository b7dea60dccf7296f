//! Managed mode that nobody confirms: what was before comes back, over a crash, too, and nobody loses a way in.

use super::*;

const LINES: &str = "keys = 'managed'\nconfirm_within = 5\n";
const WITHIN: Duration = Duration::from_secs(5);
const IN_HOME: &str = "/home/alice/.ssh/authorized_keys";
const ROLLED_BACK: &str = "rolled back, since no new connection came within 5 s";

/// A server where alice has a key at home; her key file.
fn at_home<'w>(world: &'w World, name: &str) -> (Rig<'w>, String) {
    let rig = Rig::new(world, name, "");
    let mut connector = rig.processor("");
    assert_eq!(connector.add_user("alice", false).0, 200);
    assert_eq!(connector.add_key("alice", rig.key.public()).0, 200);
    connector.finish();
    let before = rig.text(IN_HOME);
    (rig, before)
}

impl Rig<'_> {
    #[track_caller]
    fn is_taken_back(&self) {
        let until = std::time::Instant::now() + LIMIT;
        while self.has(ADDITION) {
            assert!(std::time::Instant::now() < until, "{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn managed_mode_that_no_connection_confirms_is_taken_back_and_told() {
    require_root!();
    let world = World::new().unwrap();
    let (rig, before) = at_home(&world, "unconfirmed");
    let mut connector = rig.processor(LINES);
    assert!(rig.has(ADDITION), "{}", rig.log());
    assert!(rig.text(IN_HOME).contains(&before), "nothing has moved yet");
    rig.gets_in(true);
    rig.is_taken_back();
    // Said when it is done.
    link_up(&mut connector);
    while !word(&mut connector, "drift").to_string().contains(ROLLED_BACK) {}
    assert!(rig.log().contains(ROLLED_BACK), "{}", rig.log());
    assert_eq!(rig.text(IN_HOME), before);
    assert!(!rig.has(MANAGED) || rig.text(MANAGED).is_empty());
    rig.gets_in(true);
    connector.finish();

    let mut connector = rig.processor(LINES);
    link_up(&mut connector);
    connector.remove_user("nobody-there");
    std::thread::sleep(WITHIN + Duration::from_secs(2));
    assert!(rig.has(ADDITION), "{}", rig.log());
    assert_eq!((rig.text(MANAGED), rig.text(IN_HOME)), (before, String::new()));
    rig.gets_in(true);
    connector.finish();
}

#[test]
fn a_crash_before_managed_mode_is_confirmed_changes_nothing_about_that() {
    require_root!();
    let world = World::new().unwrap();
    // Started again when the time is over, and before.
    for (name, pause) in [("late", WITHIN + Duration::from_secs(1)), ("soon", Duration::ZERO)] {
        let (rig, before) = at_home(&world, name);
        let mut connector = rig.processor(LINES);
        assert_eq!(connector.add_key("alice", KEY).0, 200);
        connector.processor.kill().unwrap();
        assert!(rig.has(ADDITION), "{}", rig.log());
        std::thread::sleep(pause);
        let connector = rig.processor(LINES);
        assert!(pause.is_zero() || !rig.has(ADDITION), "before the first word: {}", rig.log());
        rig.is_taken_back();
        connector.finish();
        let after = rig.text(IN_HOME);
        assert!(after.contains(before.trim_end()) && after.contains(KEY), "{after}");
        assert!(rig.text(MANAGED).is_empty());
        rig.gets_in(true);
    }
}

#[test]
fn sshd_is_not_changed_when_that_takes_a_way_from_the_break_glass_account() {
    require_root!();
    let world = World::new().unwrap();
    let (rig, _) = at_home(&world, "glass");
    let mut connector = rig.processor("keys = 'managed'\n");
    link_up(&mut connector);
    connector.finish();
    // Nobody's of bastio, and let in by a line of root's in the folder that is read only now.
    rig.host.exec(&["useradd", "-m", "-s", "/bin/bash", "-p", "*", "admin"]).unwrap();
    let admin = SshKey::generate(&world, "admin", &["ed25519"]).unwrap();
    let line = format!("{}\n", admin.public());
    rig.host.write_file("/etc/ssh/authorized_keys.d/admin", line).unwrap();
    rig.host.exec(&["chmod", "0644", "/etc/ssh/authorized_keys.d/admin"]).unwrap();
    let logs_in = || SshClient::new(&world, &admin).run("admin", rig.host.ip(), "true").unwrap();
    assert!(logs_in().success());
    rig.processor("break_glass = 'admin'\n").finish();
    let log = rig.log();
    assert!(log.contains("would not let admin, the break-glass account, in"), "{log}");
    assert!(rig.has(ADDITION));
    rig.gets_in(true);
    assert!(logs_in().success(), "{log}");
}
