//! What version 2 asks of a server, on whole hosts: the processor, closed in as its unit has it, changes rules, ends sessions
//! that logind has made, moves homes away, notices drift, and keeps time.

use std::time::Duration;

use bastio_tests::fleet::Backend;
use bastio_tests::{BootedHost, SshClient, SshKey, World, require_root};

use crate::rig::{
    NEW, add_person, agent_host, agent_host_of, are_active, can_sudo, done, errors, logs_in,
    main_pid, stat, wait_for,
};

const KEYS: &str = "/home/alice/.ssh/authorized_keys";

/// Whether logind knows a session of this person.
fn has_session(host: &BootedHost<'_>, name: &str) -> bool {
    let listed = host.exec(&["loginctl", "list-sessions", "--no-legend"]).unwrap().stdout;
    listed.split_whitespace().any(|word| word == name)
}

#[test]
fn a_closed_in_processor_does_all_of_version_2_on_bookworm() {
    does_all("bookworm");
}

#[test]
fn a_closed_in_processor_does_all_of_version_2_on_bullseye() {
    does_all("bullseye");
}

#[test]
fn a_closed_in_processor_does_all_of_version_2_on_trixie() {
    does_all("trixie");
}

fn does_all(release: &str) {
    require_root!();
    let world = World::new().unwrap();
    let backend = Backend::start(&world).unwrap();
    let host = agent_host_of(&world, &backend, NEW, release);
    let bob = add_person(&world, &backend, "bob");
    let alice = gives_by_a_policy(&world, &backend, &host);
    notices_drift(&backend, &host);
    ends_sessions_of_one_alone(&backend, &host, &alice, &bob);
    assert!(!logs_in(&alice, "alice", &host) && logs_in(&bob, "bob", &host));
    done(&backend, &["user", "unlock", "alice"]);
    assert!(logs_in(&alice, "alice", &host));
    moves_a_home_away(&backend, &host);

    assert_eq!(stat(&host, "/var/lib/bastio-agent"), "700 root:root");
    assert_eq!(stat(&host, "/var/lib/bastio-agent/ledger.json"), "600 root:root");
    let report = backend.ask(&["server", "report", "web-1"]).unwrap();
    let users = report["users"].as_array().unwrap();
    assert!(users.iter().any(|user| user["name"] == "bob" && user["managed"] == true), "{report}");
    assert!(can_sudo(&bob, "bob", &host));
    assert_eq!(errors(&host), "");
}

/// A rule of its own in sudoers.d, checked by visudo.
fn gives_by_a_policy<'world>(
    world: &'world World,
    backend: &Backend<'_>,
    host: &BootedHost<'_>,
) -> SshClient<'world> {
    let key = SshKey::generate(world, "alice", &["ed25519"]).unwrap();
    done(backend, &["user", "add", "alice", "--key", key.public_file().to_str().unwrap()]);
    done(backend, &["sudo-policy", "add", "who", "--command", "/usr/bin/id"]);
    done(
        backend,
        &["grant", "add", "alice", "--on", "web-1", "--sudo-policy", "who", "--until", "1d"],
    );
    let ssh = SshClient::new(world, &key);
    let run = |remote: &str| ssh.run("alice", host.ip(), remote).unwrap();
    assert_eq!(run("sudo -n /usr/bin/id -u").stdout.trim(), "0");
    assert!(!run("sudo -n /usr/bin/cat /etc/shadow").success(), "more than the policy gives");
    assert_eq!(stat(host, "/etc/sudoers.d/bastio-alice"), "440 root:root");
    ssh
}

/// The kernel tells the closed-in processor of changes in homes and in `/etc`.
fn notices_drift(backend: &Backend<'_>, host: &BootedHost<'_>) {
    let drifted = || backend.ask(&["status"]).unwrap()["drifted"].as_u64();
    for file in [KEYS, "/etc/sudoers.d/bastio-alice"] {
        assert_eq!(drifted(), Some(0), "{file}");
        host.exec(&["cp", "-a", file, "/root/kept"]).unwrap();
        host.exec(&["rm", file]).unwrap();
        wait_for("drift is told", || drifted() == Some(1));
        host.exec(&["cp", "-a", "/root/kept", file]).unwrap();
        wait_for("the end of drift is told", || drifted() == Some(0));
    }
}

fn ends_sessions_of_one_alone(
    backend: &Backend<'_>,
    host: &BootedHost<'_>,
    alice: &SshClient<'_>,
    bob: &SshClient<'_>,
) {
    let begin = |ssh: &SshClient<'_>, name: &str| {
        let session = ssh.command(name, host.ip(), "exec sleep 600").spawn().unwrap();
        let runs = || host.try_exec(&["pgrep", "-u", name, "sleep"]).unwrap().success();
        wait_for("a session", || has_session(host, name) && runs());
        session
    };
    let (mut of_alice, _of_bob) = (begin(alice, "alice"), begin(bob, "bob"));
    done(backend, &["user", "lock", "alice"]);
    done(backend, &["user", "end-sessions", "alice"]);
    of_alice.wait(Duration::from_secs(20)).unwrap();
    wait_for("logind has forgotten alice's session", || !has_session(host, "alice"));
    assert!(has_session(host, "bob"));
    assert!(host.exec(&["pgrep", "-u", "bob", "sleep"]).unwrap().success());
}

fn moves_a_home_away(backend: &Backend<'_>, host: &BootedHost<'_>) {
    host.exec(&["touch", "/home/alice/work"]).unwrap();
    done(backend, &["user", "rm", "alice", "--home", "quarantine", "--yes"]);
    assert!(!host.exists("/home/alice").unwrap() && !host.exists(KEYS).unwrap());
    assert!(!host.exists("/etc/sudoers.d/bastio-alice").unwrap());
    assert_eq!(stat(host, "/home/.bastio-quarantine"), "700 root:root");
    let found = host.exec(&["find", "/home/.bastio-quarantine", "-name", "work"]).unwrap().stdout;
    assert_eq!(found.lines().count(), 1, "{found}");
}

/// At its end an account loses its sessions by the agent's own timer.
#[test]
fn an_account_ends_on_time_and_an_idle_agent_sleeps() {
    require_root!();
    let world = World::new().unwrap();
    let backend = Backend::start(&world).unwrap();
    let host = agent_host(&world, &backend, NEW);
    let key = SshKey::generate(&world, "alice", &["ed25519"]).unwrap();
    done(&backend, &["user", "add", "alice", "--key", key.public_file().to_str().unwrap()]);
    done(&backend, &["grant", "add", "alice", "--on", "web-1", "--until", "15s"]);
    let ssh = SshClient::new(&world, &key);
    let mut session = ssh.command("alice", host.ip(), "exec sleep 600").spawn().unwrap();
    wait_for("a session", || has_session(&host, "alice"));
    session.wait(Duration::from_secs(40)).unwrap();
    assert!(!logs_in(&ssh, "alice", &host));
    assert_eq!(errors(&host), "");

    // Only what is answered for counts: the watchdog's half is 2 min, the keepalive is the connector's.
    done(
        &backend,
        &["user", "add", "bob", "--key", key.public_file().to_str().unwrap(), "--on", "*"],
    );
    std::thread::sleep(Duration::from_secs(5));
    let before = wake_ups(&host);
    std::thread::sleep(Duration::from_secs(40));
    let woken = wake_ups(&host) - before;
    eprintln!("{woken} wake-ups of the processor's threads in 40 s");
    assert!(are_active(&host));
    assert!(woken <= 8, "{woken} wake-ups in 40 s");
}

/// How often the processor's threads have gone to sleep so far.
fn wake_ups(host: &BootedHost<'_>) -> u64 {
    let pid = main_pid(host, "bastio-processor.service");
    let script = format!("cat /proc/{pid}/task/*/status");
    let text = host.exec(&["sh", "-c", &script]).unwrap().stdout;
    let counts = text.lines().filter_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    counts.map(|count| count.trim().parse::<u64>().unwrap()).sum()
}
