//! The account that is never locked out, with real logins: what a sync may not do to it at all, and what only stands once
//! it is confirmed. This side plays the connector.

use std::time::Instant;

use bastio_protocol::{
    AbsolutePath, Action, ActionMessage, KeyGrant, KeyPolicy, MessageId, PublicKey, Removal, Sudo,
    WantedAccount, WantedState,
};

use super::confirm::{link_up, word};
use super::sync::{name, sync};
use super::*;

/// How long a confirmation may take: long enough for a login on a busy machine.
const WITHIN: Duration = Duration::from_secs(10);

struct Rig<'w> {
    world: &'w World,
    host: Host,
    key: SshKey,
}

impl<'w> Rig<'w> {
    /// A server where admin, who is never locked out, has sudo rights and a key.
    fn new(world: &'w World) -> (Self, Connector) {
        let host = server(world, "web-1").start().unwrap();
        let key = SshKey::generate(world, "admin", &["ed25519"]).unwrap();
        let rig = Self { world, host, key };
        let mut connector = rig.processor();
        let (status, text, _) = sync(&mut connector, &state(admin(&rig.key), None), false);
        assert_eq!(status, 200, "{text}");
        assert!(rig.gets_in(&rig.key) && rig.is_admin());
        (rig, connector)
    }

    fn processor(&self) -> Connector {
        let settings = [("BREAK_GLASS", "admin"), ("CONFIRM_WITHIN", "10"), ("REMOVAL", "delete")];
        Connector::start_with(&self.host, &settings)
    }

    fn gets_in(&self, key: &SshKey) -> bool {
        SshClient::new(self.world, key).run("admin", self.host.ip(), "true").unwrap().success()
    }

    fn is_admin(&self) -> bool {
        let groups = self.host.exec(&["id", "-nG", "admin"]).unwrap().stdout;
        groups.split_whitespace().any(|group| group == "sudo")
    }

    #[track_caller]
    fn comes_back(&self) {
        let until = Instant::now() + LIMIT;
        while !(self.gets_in(&self.key) && self.is_admin()) {
            let log = self.host.read_file("/var/log/processor.log").unwrap();
            assert!(Instant::now() < until, "{}", String::from_utf8_lossy(&log));
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn admin(key: &SshKey) -> WantedAccount {
    let key = PublicKey::parse(key.public(), &KeyPolicy::ANY).unwrap();
    let keys = [KeyGrant::plain(key)].into();
    WantedAccount { sudo: Sudo::Plain, keys, ..WantedAccount::default() }
}

/// Admin as said, and another account.
fn state(admin: WantedAccount, other: Option<&str>) -> WantedState {
    let other = other.map(|other| (name(other), WantedAccount::default()));
    WantedState {
        accounts: other.into_iter().chain([(name("admin"), admin)]).collect(),
        allow_no_admin: true,
        removal: Some(Removal::Delete),
        ..WantedState::default()
    }
}

/// Neither keys nor rights, and a shell that ends at once.
fn stripped() -> WantedState {
    let mut nothing = WantedAccount::default();
    nothing.spec.shell = Some(AbsolutePath::parse("/usr/sbin/nologin").unwrap());
    state(nothing, None)
}

#[test]
fn no_sync_locks_ends_or_removes_it_and_the_rest_is_done() {
    require_root!();
    let world = World::new().unwrap();
    let (rig, mut connector) = Rig::new(&world);
    let good = admin(&rig.key);
    let mut without = state(good.clone(), Some("cid"));
    without.accounts.remove(&name("admin"));
    let bad = [
        ("ann", state(WantedAccount { locked: true, ..good.clone() }, Some("ann"))),
        ("bob", state(WantedAccount { until: Some(1), ..good.clone() }, Some("bob"))),
        ("cid", without),
    ];
    for (other, wanted) in bad {
        let (status, text, detail) = sync(&mut connector, &wanted, false);
        assert_eq!(status, 500, "{text}");
        assert!(text.contains("admin is the break-glass account"), "{text}");
        let whom: Vec<_> = detail.failures.iter().map(|it| it.username.clone()).collect();
        assert_eq!(whom, [Some(name("admin"))]);
        assert!(line(&rig.host, "/etc/passwd", other).is_some(), "{other}: the rest is done");
        assert!(rig.gets_in(&rig.key) && rig.is_admin(), "{text}");
    }
    let wanted = Box::new(WantedAccount { locked: true, ..good });
    let action = Action::SetUser { wanted };
    let message = ActionMessage { mid: MessageId::from("m"), username: name("admin"), action };
    let body = message.to_json();
    let frame = [format!("{}:", body.len()).as_bytes(), &body, b","].concat();
    connector.socket.write_all(&frame).unwrap();
    expect_like(&connector.answer(), 500, "never locks, ends or removes");
    assert!(rig.gets_in(&rig.key) && rig.is_admin());
    connector.finish();
}

#[test]
fn a_sync_that_strips_it_is_undone_and_one_that_is_confirmed_stays() {
    require_root!();
    let world = World::new().unwrap();
    let (rig, mut connector) = Rig::new(&world);
    let begun = Instant::now();
    let (status, text, _) = sync(&mut connector, &stripped(), false);
    assert_eq!(status, 200, "{text}");
    assert!(!rig.gets_in(&rig.key) && !rig.is_admin());
    rig.comes_back();
    let waited = begun.elapsed();
    eprintln!("let in again after {} ms", waited.as_millis());
    assert!(waited >= WITHIN, "{waited:?}");
    link_up(&mut connector);
    while !word(&mut connector, "drift").to_string().contains("rolled back, since no new") {}

    let second = SshKey::generate(&world, "second", &["ed25519"]).unwrap();
    let (status, text, _) = sync(&mut connector, &state(admin(&second), None), false);
    assert_eq!(status, 200, "{text}");
    word(&mut connector, "reconnect");
    link_up(&mut connector);
    std::thread::sleep(WITHIN + Duration::from_secs(2));
    assert!(rig.gets_in(&second) && !rig.gets_in(&rig.key));
    connector.finish();
}

#[test]
fn what_was_not_confirmed_while_the_processor_was_down_is_undone_at_its_start() {
    require_root!();
    let world = World::new().unwrap();
    let (rig, mut connector) = Rig::new(&world);
    assert_eq!(sync(&mut connector, &stripped(), false).0, 200);
    assert!(!rig.gets_in(&rig.key));
    connector.processor.kill().unwrap();
    std::thread::sleep(WITHIN + Duration::from_secs(1));
    assert!(!rig.gets_in(&rig.key), "nobody is there to bring it back");
    let connector = rig.processor();
    assert!(rig.gets_in(&rig.key) && rig.is_admin(), "before the first word");
    connector.finish();
}
