//! What holds with nobody there: grants that end while no agent runs and no backend is, a change that cuts off the way back,
//! a change that somebody makes by hand.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bastio_tests::fleet::{Backend, EnrollKey};
use bastio_tests::{BootedHost, Direction, Proxy, SshClient, SshKey, World, require_root};

use crate::rig::{
    LIMIT, NEW, UNITS, add_person, agent_host, can_sudo, done, dpkg_install, enroll, enroll_with,
    errors, logs_in, show, wait_for,
};

const RELEASES: [&str; 3] = ["bookworm", "bullseye", "trixie"];
/// How long a grant lasts, in seconds.
const LASTING: u64 = 60;
/// How long a confirmation may take: the least that can be set.
const WITHIN: Duration = Duration::from_secs(5);
const RULE: &str = "/etc/sudoers.d/bastio-alice";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn started<'world>(
    world: &'world World,
    key: &EnrollKey,
    name: &str,
    release: &str,
) -> BootedHost<'world> {
    let host = BootedHost::start(world, name, release).unwrap();
    dpkg_install(&host, NEW);
    enroll(&host, key);
    host.exec(&["systemctl", "start", "bastio-agent"]).unwrap();
    host
}

#[test]
fn a_grant_ends_on_every_release_with_the_agent_stopped_and_the_backend_gone() {
    require_root!();
    let world = World::new().unwrap();
    let mut backend = Backend::start(&world).unwrap();
    let key = backend.enroll_key("hosts").unwrap();
    let hosts = RELEASES.map(|release| started(&world, &key, release, release));
    backend.wait_connected(3, LIMIT).unwrap();
    let alice = SshKey::generate(&world, "alice", &["ed25519"]).unwrap();
    done(&backend, &["user", "add", "alice", "--key", alice.public_file().to_str().unwrap()]);
    let bob = add_person(&world, &backend, "bob");
    let lasting = format!("{LASTING}s");
    done(&backend, &["grant", "add", "alice", "--on", "*", "--sudo", "--until", &lasting]);
    let until = now() + LASTING;
    let alice = SshClient::new(&world, &alice);

    for host in &hosts {
        host.exec(&["systemctl", "disable", "--now", UNITS[0], UNITS[1]]).unwrap();
        assert!(!host.try_exec(&["pgrep", "-f", "/usr/bin/bastio-agent"]).unwrap().success());
    }
    backend.process().kill().unwrap();
    let wait = format!("while [ $(date +%s) -le {until} ]; do sleep 0.2; done; sudo -n id -u");
    let sessions = hosts.each_ref().map(|host| {
        assert!(can_sudo(&alice, "alice", host), "{}", host.name());
        let log = world.folder().join(format!("{}.session", host.name()));
        (alice.command("alice", host.ip(), &wait).log_to(&log).spawn().unwrap(), log)
    });
    assert!(now() < until, "this machine is too slow");
    // A session that is there stays, because nobody ends it; sudo refuses it by itself.
    for (host, (mut session, log)) in hosts.iter().zip(sessions) {
        let ended = session.wait(Duration::from_secs(LASTING + 30)).unwrap();
        let said = String::from_utf8(world.read_file(&log).unwrap()).unwrap();
        assert!(now() > until);
        assert_eq!(ended.code(), Some(1), "{}: {said}", host.name());
        assert!(said.contains("a password is required"), "{}: {said}", host.name());
        assert!(!logs_in(&alice, "alice", host), "{}", host.name());
        assert!(can_sudo(&bob, "bob", host), "others are as they were on {}", host.name());
    }
}

/// What the processor has logged.
fn log(host: &BootedHost<'_>) -> String {
    host.exec(&["journalctl", "-u", UNITS[1], "-o", "cat", "--no-pager"]).unwrap().stdout
}

/// More lines at the head of the agent's configuration, which it reads when it starts.
fn configure(host: &BootedHost<'_>, lines: &str) {
    let file = "/etc/bastio/agent.toml";
    let before = String::from_utf8(host.read_file(file).unwrap()).unwrap();
    host.write_file(file, format!("{lines}{before}")).unwrap();
    host.exec(&["systemctl", "restart", "bastio-processor"]).unwrap();
}

#[test]
fn what_cuts_off_the_way_back_is_undone_under_systemd() {
    require_root!();
    let world = World::new().unwrap();
    let backend = Backend::start(&world).unwrap();
    let proxy = Proxy::start(&world, world.address(2357)).unwrap();
    let host = BootedHost::start(&world, "web-1", "bookworm").unwrap();
    dpkg_install(&host, NEW);
    let (ip, port) = (proxy.address().ip().to_string(), proxy.address().port().to_string());
    let key = backend.enroll_key("web-1").unwrap();
    enroll_with(&host, &key, &["--host", &ip, "--port", &port]);
    configure(&host, &format!("break_glass = \"admin\"\nconfirm_within = {}\n", WITHIN.as_secs()));
    host.exec(&["systemctl", "start", "bastio-agent"]).unwrap();
    backend.wait_connected(1, LIMIT).unwrap();
    let admin = add_person(&world, &backend, "admin");
    let access = || {
        let files = ["/home/admin/.ssh/authorized_keys", "/etc/group"];
        files.map(|file| host.read_file(file).unwrap())
    };
    // A new account takes nothing from anybody: only from now on changes must be confirmed.
    assert!(!log(&host).contains("must be confirmed by a new connection"));
    let add_key = |name: &str| {
        let key = SshKey::generate(&world, name, &["ed25519"]).unwrap();
        let file = key.public_file();
        let words = ["key", "add", "admin", file.to_str().unwrap(), "--no-wait"];
        backend.console(&words).unwrap().run().unwrap();
    };
    add_key("first");
    wait_for("what was done first is confirmed", || {
        log(&host).contains("confirmed by a new connection") && {
            let ledger = host.read_file("/var/lib/bastio-agent/ledger.json").unwrap();
            !String::from_utf8(ledger).unwrap().contains("\"guard\":{")
        }
    });
    backend.wait_connected(1, LIMIT).unwrap();
    let before = access();

    // The order still arrives; nothing comes back, and no new connection gets anywhere.
    proxy.hold(Direction::ToServer);
    add_key("more");
    wait_for("the change", || access() != before);
    let changed = Instant::now();
    wait_for("the way back", || access() == before);
    let waited = changed.elapsed();
    eprintln!("rolled back after {} ms", waited.as_millis());
    assert!(waited + Duration::from_secs(1) > WITHIN, "{waited:?}");
    wait_for("the log says so", || {
        log(&host).contains("rolled back, since no new connection came")
    });
    assert!(can_sudo(&admin, "admin", &host));
    proxy.resume();
    wait_for("the backend learns of it", || {
        let shown = backend.ask(&["server", "show", "web-1"]).unwrap().to_string();
        shown.contains("rolled back, since no new connection came")
    });
}

#[test]
fn what_is_changed_by_hand_is_put_right_under_systemd() {
    require_root!();
    let world = World::new().unwrap();
    let backend = Backend::start(&world).unwrap();
    let host = agent_host(&world, &backend, NEW);
    configure(&host, "drift = \"heal\"\nsudo.plain = \"nopasswd\"\n");
    wait_for("the agent is back", || show(&host, UNITS[0], "ActiveState") == "active");
    backend.wait_connected(1, LIMIT).unwrap();
    let alice = add_person(&world, &backend, "alice");
    let keys = "/home/alice/.ssh/authorized_keys";
    for (what, change, file) in [
        ("a key taken away", format!(": > {keys}"), keys),
        ("the key file gone", format!("rm {keys}"), keys),
        ("the folder gone", "rm -r /home/alice/.ssh".to_owned(), keys),
        ("another rule", format!("echo '# more' >> {RULE}"), RULE),
    ] {
        let before = host.read_file(file).unwrap();
        let begun = Instant::now();
        host.exec(&["sh", "-c", &change]).unwrap();
        while host.read_file(file).ok().as_ref() != Some(&before) {
            assert!(begun.elapsed() < LIMIT, "{what}: {}", log(&host));
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{what}: put right after {} ms", begun.elapsed().as_millis());
    }
    assert!(can_sudo(&alice, "alice", &host));
    let rows = || backend.ask(&["log", "--server", "web-1"]).unwrap().to_string();
    wait_for("the log tells of it", || rows().contains("drift.healed"));
    assert_eq!(errors(&host), "");
}
