//! Keys outside of homes on a whole host: the processor, closed in as its unit has it, asks sshd, makes it read a
//! changed configuration, and logs in through systemd.

use std::os::unix::fs::MetadataExt as _;

use bastio_agent::accounts::Account;
use bastio_agent::keys_on_disk::{self, Owner};
use bastio_agent::sshd::Shape;
use bastio_protocol::{KeyGrant, KeyOptions, KeyPolicy, PublicKey, Username};
use bastio_tests::fleet::Backend;
use bastio_tests::{BootedHost, SshClient, SshKey, World, require_root};

use nix::unistd::{Gid, Uid};

use crate::rig::{LIMIT, NEW, add_person, agent_host_of, are_active, can_sudo, logs_in, wait_for};

const FILE: &str = "/etc/ssh/authorized_keys.d/alice";

/// What the processor has logged.
fn log(host: &BootedHost<'_>) -> String {
    host.exec(&["journalctl", "-u", "bastio-processor", "-o", "cat", "--no-pager"]).unwrap().stdout
}

#[test]
fn a_closed_in_processor_moves_keys_and_proves_it_by_a_login_on_bookworm() {
    moves_keys("bookworm");
}

#[test]
fn a_closed_in_processor_moves_keys_and_proves_it_by_a_login_on_bullseye() {
    moves_keys("bullseye");
}

#[test]
fn a_closed_in_processor_moves_keys_and_proves_it_by_a_login_on_trixie() {
    moves_keys("trixie");
}

fn moves_keys(release: &str) {
    require_root!();
    let world = World::new().unwrap();
    let backend = Backend::start(&world).unwrap();
    let host = agent_host_of(&world, &backend, NEW, release);
    let ssh = add_person(&world, &backend, "alice");
    let home = "/home/alice/.ssh/authorized_keys";
    let config = "/etc/bastio/agent.toml";
    let enrolled = String::from_utf8(host.read_file(config).unwrap()).unwrap();
    for (lines, is_managed) in [("keys = 'managed'\n", true), ("", false)] {
        host.write_file(config, format!("{lines}{enrolled}")).unwrap();
        host.exec(&["systemctl", "restart", "bastio-processor"]).unwrap();
        let log = log(&host);
        let (proof, mode) = ("a probe login of alice", if is_managed { "managed" } else { "home" });
        assert_eq!(log.matches(proof).count(), if is_managed { 1 } else { 2 }, "{mode}: {log}");
        let text = |path| host.read_file(path).unwrap_or_default();
        // Keys move once the agent's own way back is confirmed.
        wait_for("the keys move", || {
            text(FILE).is_empty() != is_managed && text(home).is_empty() == is_managed
        });
        wait_for("a login", || logs_in(&ssh, "alice", &host));
        // Others get theirs where keys lie now.
        wait_for("the agent is back", || are_active(&host));
        backend.wait_connected(1, LIMIT).unwrap();
        let other = add_person(&world, &backend, mode);
        assert!(can_sudo(&other, mode, &host));
    }
}

/// Debian 11 has OpenSSH 8.4, which takes ends for local standard time; from October to April Sydney has another.
#[test]
fn an_old_sshd_ends_keys_when_they_are_to_end() {
    require_root!();
    let world = World::new().unwrap();
    let host = BootedHost::start(&world, "web-1", "bullseye").unwrap();
    host.exec(&["ln", "-sf", "/usr/share/zoneinfo/Australia/Sydney", "/etc/localtime"]).unwrap();
    host.exec(&["systemctl", "restart", "ssh"]).unwrap();
    host.exec(&["useradd", "-m", "-s", "/bin/bash", "-p", "*", "alice"]).unwrap();
    let key = SshKey::generate(&world, "alice", &["ed25519"]).unwrap();
    let ssh = SshClient::new(&world, &key);
    let public_key = PublicKey::parse(key.public(), &KeyPolicy::ANY).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_secs()).unwrap();
    for (until, is_in) in [(now + 1800, true), (now - 1800, false), (now + 120, true)] {
        let grant = KeyGrant {
            public_key: public_key.clone(),
            options: KeyOptions::default(),
            until: Some(until),
        };
        let line = host.within(|| set(&grant)).unwrap();
        assert!(line.starts_with("expiry-time=\"2") && !line.contains("Z\""), "{line}");
        assert_eq!(ssh.can_log_in("alice", host.ip()).unwrap(), is_in, "{line}");
    }
}

/// Sets alice's keys as reconciling does; the line that was written.
fn set(grant: &KeyGrant) -> String {
    let home = std::fs::metadata("/home/alice").unwrap();
    let account = Account {
        name: Username::parse("alice").unwrap(),
        owner: Owner { uid: Uid::from_raw(home.uid()), gid: Gid::from_raw(home.gid()) },
        home: "/home/alice".into(),
        is_system: false,
        is_managed: true,
    };
    let shape = Shape::of_account(&account.name);
    keys_on_disk::set_keys(&account, &shape, std::slice::from_ref(grant)).unwrap();
    assert_eq!(keys_on_disk::ours(&account, &shape).unwrap(), std::slice::from_ref(grant));
    std::fs::read_to_string("/home/alice/.ssh/authorized_keys").unwrap()
}
