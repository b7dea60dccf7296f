//! Whole servers: a sync makes exactly what is wanted, a dry run says the same and touches nothing, and a kill in the
//! middle changes neither.

use std::collections::BTreeMap;
use std::time::Instant;

use bastio_protocol::{
    AbsolutePath, AccountSpec, Detail, HostMessage, HostRequest, KeyGrant, KeyOptions, KeyPolicy,
    MessageId, PublicKey, Removal, Sudo, SudoPolicy, Username, WantedAccount, WantedState,
};

use super::*;

/// What is compared byte for byte: databases, rules, homes and keys.
const EVERYTHING: &str = "cd /; for f in etc/passwd etc/shadow etc/group etc/gshadow etc/subuid; do sha256sum $f; done; \
                          find etc/sudoers.d home etc/ssh -printf '%p %u %g %m %s\\n' | sort; \
                          find etc/sudoers.d home -type f -exec sha256sum {} + | sort";

pub(super) fn name(text: &str) -> Username {
    Username::parse(text).unwrap()
}

fn grant(options: &str) -> KeyGrant {
    let public_key = PublicKey::parse(KEY, &KeyPolicy::ANY).unwrap();
    KeyGrant { options: KeyOptions::parse(options).unwrap(), ..KeyGrant::plain(public_key) }
}

fn everything(host: &Host) -> String {
    host.exec(&["sh", "-c", EVERYTHING]).unwrap().stdout
}

fn send(connector: &mut Connector, mid: &str, request: HostRequest) {
    let body = HostMessage { mid: MessageId::from(mid), request }.to_json();
    let frame = [format!("{}:", body.len()).as_bytes(), &body, b","].concat();
    connector.socket.write_all(&frame).unwrap();
}

/// The answer to a request: status, text and detail.
fn ask(connector: &mut Connector, request: HostRequest) -> (u64, String, Detail) {
    send(connector, "h", request);
    let answer = connector.receive().expect("an answer");
    connector.socket.write_all(DELIVERED).unwrap();
    let text = answer["feedback"].as_str().unwrap().to_owned();
    let detail = serde_json::from_value(answer["detail"].clone()).unwrap_or_default();
    (answer["status"].as_u64().unwrap(), text, detail)
}

pub(super) fn sync(
    connector: &mut Connector,
    wanted: &WantedState,
    dry_run: bool,
) -> (u64, String, Detail) {
    ask(connector, HostRequest::Sync { wanted: Box::new(wanted.clone()), dry_run })
}

/// Three people: one with everything, an admin, and one with a restricted key.
fn people() -> WantedState {
    let policy = SudoPolicy {
        commands: Vec::new(),
        run_as: vec![name("root")],
        password: false,
        not_before: None,
        not_after: Some(4_000_000_000),
    };
    let alice = WantedAccount {
        spec: AccountSpec {
            uid: Some(4321),
            shell: Some(AbsolutePath::parse("/bin/sh").unwrap()),
            ..AccountSpec::default()
        },
        sudo: Sudo::Policy(Box::new(policy)),
        keys: [grant("")].into(),
        ..WantedAccount::default()
    };
    let bob =
        WantedAccount { sudo: Sudo::Plain, keys: [grant("")].into(), ..WantedAccount::default() };
    let carol = WantedAccount { keys: [grant("restrict")].into(), ..WantedAccount::default() };
    let accounts = [("alice", alice), ("bob", bob), ("carol", carol)];
    let accounts = accounts.map(|(it, wanted)| (name(it), wanted)).into();
    WantedState { accounts, ..WantedState::default() }
}

#[test]
fn a_stop_ends_a_long_sync_and_the_next_start_finishes_it() {
    const PEOPLE: usize = 200;
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let mut connector = Connector::start(&host);
    let person = || WantedAccount { keys: [grant("")].into(), ..WantedAccount::default() };
    let accounts = (0..PEOPLE).map(|number| (name(&format!("p{number}")), person())).collect();
    let wanted = Box::new(WantedState { accounts, ..WantedState::default() });
    let request = || HostRequest::Sync { wanted: wanted.clone(), dry_run: false };
    let made = || {
        let group = line(&host, "/etc/group", "bastio-managed").unwrap_or_default();
        group.rsplit(':').next().map_or(0, |members| members.split_terminator(',').count())
    };
    send(&mut connector, "h-1", request());
    let until = Instant::now() + LIMIT;
    while made() < 5 {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(20));
    }
    connector.processor.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    connector.processor.wait(Duration::from_secs(10)).unwrap();
    assert_eq!(connector.receive().unwrap()["type"], "stopping");
    assert_eq!(connector.receive(), None, "no answer to what is not done");
    let before = made();
    assert!(before < PEOPLE, "it was cut short: {before}");

    let (mut connector, left) = Connector::start_again(&host);
    let answers: Vec<_> = left.iter().filter(|word| word["type"] == "feedback").collect();
    assert_eq!(answers.len(), 1, "{left:?}");
    assert_eq!((&answers[0]["mid"], &answers[0]["status"]), (&"h-1".into(), &200.into()));
    assert_eq!(made(), PEOPLE);
    assert!(
        host.read_file("/home/p199/.ssh/authorized_keys").unwrap().starts_with(b"ssh-ed25519 ")
    );
    assert_eq!(sync(&mut connector, &wanted, false).0, 300, "nothing is left to do");
    connector.finish();
}

#[test]
fn a_server_becomes_what_is_wanted_and_a_dry_run_says_the_same() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").start().unwrap();
    let mut connector = Connector::start_removing(&host, "keep");
    connector.add_user("old", false);
    host.exec(&["useradd", "-m", "dave"]).unwrap();
    let mut wanted = people();

    let before = everything(&host);
    let (status, text, dry) = sync(&mut connector, &wanted, true);
    assert!(status == 200 && text.starts_with("dry run, nothing was touched: "), "{text}");
    assert_eq!(everything(&host), before, "a dry run touches nothing");
    let (status, text, real) = sync(&mut connector, &wanted, false);
    assert_eq!((status, &real.failures), (200, &Vec::new()), "{text}");
    assert_eq!(real.changes, dry.changes, "plan equals effect");
    let passwd = line(&host, "/etc/passwd", "alice").unwrap();
    assert!(passwd.starts_with("alice:x:4321:") && passwd.ends_with(":/bin/sh"), "{passwd}");
    let rule = host.exec(&["sh", "-c", "cat /etc/sudoers.d/*alice*"]).unwrap().stdout;
    assert!(rule.contains("NOPASSWD") && rule.contains("NOTAFTER=20961002070640Z"), "{rule}");
    assert!(line(&host, "/etc/group", "sudo").unwrap().ends_with("bob"));
    let keys = host.read_file("/home/carol/.ssh/authorized_keys").unwrap();
    assert!(keys.starts_with(b"restrict ssh-ed25519 "));
    assert!(line(&host, "/etc/passwd", "old").is_none() && host.exists("/home/old").unwrap());

    let after = everything(&host);
    assert_eq!(sync(&mut connector, &wanted, false).0, 300);
    assert_eq!(everything(&host), after, "nothing to do");

    wanted.accounts.insert(name("dave"), people().accounts[&name("carol")].clone());
    let (status, text, detail) = sync(&mut connector, &wanted, false);
    assert!(status == 500 && text.contains("dave exists already"), "{text}");
    assert_eq!((detail.changes.len(), detail.failures.len()), (0, 1));
    assert_eq!(everything(&host), after, "others' accounts are left alone");
    wanted.accounts.get_mut(&name("dave")).unwrap().take_over = true;
    let (status, text, _) = sync(&mut connector, &wanted, false);
    assert_eq!(status, 200, "{text}");

    let (status, text, _) = sync(&mut connector, &WantedState::default(), false);
    assert!(status == 500 && text.contains("no account with sudo rights and a key"), "{text}");
    let gone = WantedState {
        removal: Some(Removal::Delete),
        allow_no_admin: true,
        ..WantedState::default()
    };
    let (status, text, detail) = sync(&mut connector, &gone, false);
    assert_eq!((status, detail.changes.len()), (200, 4), "{text}");
    assert!(line(&host, "/etc/passwd", "alice").is_none() && !host.exists("/home/alice").unwrap());
    connector.finish();
}

#[test]
fn a_key_that_is_wanted_no_more_logs_in_by_nobodys_line() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").start().unwrap();
    let key = SshKey::generate(&world, "alice", &["ed25519"]).unwrap();
    let gets_in = || SshClient::new(&world, &key).can_log_in("alice", host.ip()).unwrap();
    let mut connector = Connector::start(&host);
    let public_key = PublicKey::parse(key.public(), &KeyPolicy::ANY).unwrap();
    let keys = [KeyGrant::plain(public_key)].into();
    let with = WantedAccount { keys, ..WantedAccount::default() };
    let mut wanted = WantedState {
        accounts: [(name("alice"), with)].into(),
        allow_no_admin: true,
        ..WantedState::default()
    };
    assert_eq!(sync(&mut connector, &wanted, false).0, 200);
    assert!(gets_in());
    // Somebody makes the line their own.
    let line = format!("{}\n", key.public().trim());
    host.write_file("/home/alice/.ssh/authorized_keys", &line).unwrap();
    assert!(gets_in());
    wanted.accounts.insert(name("alice"), WantedAccount::default());
    let (_, _, dry) = sync(&mut connector, &wanted, true);
    let (status, text, real) = sync(&mut connector, &wanted, false);
    assert_eq!(status, 200, "{text}");
    assert_eq!((dry.changes.len(), &dry.changes), (1, &real.changes), "plan equals effect");
    assert!(!gets_in());
    assert_eq!(sync(&mut connector, &wanted, false).0, 300);
    connector.finish();
}

#[test]
fn a_report_tells_accounts_keys_and_rules_and_no_secrets() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").start().unwrap();
    let mut connector = Connector::start(&host);
    sync(&mut connector, &people(), false);
    let (status, text, detail) = ask(&mut connector, HostRequest::ReportState);
    assert_eq!(status, 200, "{text}");
    let report = detail.report.unwrap();
    let users: BTreeMap<_, _> =
        report.users.iter().map(|user| (user.name.as_str(), user)).collect();
    assert!(users["alice"].managed && users["alice"].uid == 4321 && !users["alice"].locked);
    let key = &users["carol"].keys[0];
    assert_eq!((key.options.as_str(), key.managed), ("restrict", true));
    assert!(key.fingerprint.starts_with("SHA256:"));
    assert!(users.contains_key("root"));
    let sudo = report.groups.iter().find(|group| group.name == "sudo").unwrap();
    assert!(sudo.root_equivalent && sudo.members.contains(&"bob".to_owned()));
    assert!(report.sudo_rules.iter().any(|rule| rule.contains("alice")), "{:?}", report.sudo_rules);
    assert!(report.sshd.contains_key("authorizedkeysfile"), "{:?}", report.sshd);
    connector.finish();
}

#[test]
fn a_kill_in_the_middle_of_a_sync_ends_in_the_wanted_state() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let mut connector = Connector::start(&host);
    let carol = people().accounts[&name("carol")].clone();
    let accounts =
        (10..60).map(|number| (name(&format!("user-{number}")), carol.clone())).collect();
    let wanted = WantedState { accounts, ..WantedState::default() };
    let request = HostRequest::Sync { wanted: Box::new(wanted.clone()), dry_run: false };
    send(&mut connector, "first", request);
    host.exec(&["sh", "-c", "until [ -e /home/user-15 ]; do sleep 0.01; done"]).unwrap();
    connector.processor.kill().unwrap();
    assert!(line(&host, "/etc/passwd", "user-59").is_none(), "killed too late to matter");

    let (mut connector, left) = Connector::start_again(&host);
    let told: Vec<_> = left.iter().map(|answer| answer["status"].as_u64().unwrap()).collect();
    assert_eq!(told, [200], "{left:?}");
    let (status, text, _) = sync(&mut connector, &wanted, false);
    assert_eq!(status, 300, "{text}");
    for user in wanted.accounts.keys() {
        assert!(host.exists(format!("/home/{user}/.ssh/authorized_keys")).unwrap(), "{user}");
    }
    connector.finish();
}
