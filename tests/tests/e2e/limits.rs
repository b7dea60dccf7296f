//! Limits in time are kept by sshd and sudo themselves: with the agent killed, the backend gone and the line between them
//! cut, a grant ends when it was said to end. Real logins, a real clock.

use std::time::Duration;

use bastio_tests::fleet::{Backend, enroll_and_start};
use bastio_tests::{Host, SshClient, SshKey, World, binary, require_root};

use crate::sudo::now;

/// How long the grant lasts, in seconds.
fn lasting() -> i64 {
    if std::env::var("BASTIO_PROOF").as_deref() == Ok("full") { 60 } else { 20 }
}

/// Lets somebody log in and use sudo on the server until then.
fn grant(world: &World, backend: &Backend<'_>, name: &str, key: &SshKey, until: Option<i64>) {
    let file = key.public_file();
    backend.ask(&["user", "add", name, "--key", file.to_str().unwrap()]).unwrap();
    let mut words = vec!["grant", "add", name, "--on", "web-1", "--sudo"];
    let moment = until.map(|until| {
        let date = world.command("date").args(["-u", "-d", &format!("@{until}"), "+%FT%TZ"]);
        date.check().unwrap().stdout.trim().to_owned()
    });
    words.extend(moment.iter().flat_map(|moment| ["--until", moment]));
    backend.ask(&words).unwrap();
}

/// Cuts the server off from the backend's address for good. Logins then come from another one.
fn cut_off(world: &World, host: &Host) {
    let (other, to) = ("10.77.0.2", format!("{}/32", host.ip()));
    world
        .command("ip")
        .args(["addr", "add", &format!("{other}/24"), "dev", "lab0"])
        .check()
        .unwrap();
    world.command("ip").args(["route", "add", &to, "dev", "lab0", "src", other]).check().unwrap();
    host.exec(&["ip", "route", "add", "prohibit", &format!("{}/32", world.ip())]).unwrap();
    assert!(!host.try_exec(&["bash", "-c", "exec 3<>/dev/tcp/backend/2357"]).unwrap().success());
}

#[test]
fn a_grant_ends_by_itself_with_the_agent_killed_the_line_cut_and_the_backend_gone() {
    require_root!();
    let world = World::new().unwrap();
    let mut backend = Backend::start(&world).unwrap();
    let host = world.host("web-1").sudo_without_password();
    let host = host.binary(binary("bastio-agent").unwrap()).start().unwrap();
    let mut agent = enroll_and_start(&host, &backend.enroll_key("web-1").unwrap()).unwrap();
    backend.wait_connected(1, Duration::from_secs(20)).unwrap();
    let [alice, bob] =
        ["alice", "bob"].map(|name| SshKey::generate(&world, name, &["ed25519"]).unwrap());
    grant(&world, &backend, "bob", &bob, None);
    let until = now() + lasting();
    grant(&world, &backend, "alice", &alice, Some(until));

    // Whoever could do anything about it is gone.
    agent.kill().unwrap();
    backend.process().kill().unwrap();
    let agents = || host.try_exec(&["pgrep", "-f", "bastio-agent"]).unwrap().success();
    while agents() {
        std::thread::sleep(Duration::from_millis(20));
    }
    cut_off(&world, &host);

    let [alice, bob] = [&alice, &bob].map(|key| SshClient::new(&world, key));
    let sudo = |ssh: &SshClient<'_>, name| ssh.run(name, host.ip(), "sudo -n id -u").unwrap();
    assert_eq!(sudo(&alice, "alice").stdout, "0\n", "{}", host.sshd_log().unwrap());
    assert!(now() < until, "this machine is too slow");

    // A session that is there stays, because nobody ends it; sudo refuses it by itself.
    let wait = format!("while [ $(date +%s) -le {until} ]; do sleep 0.2; done; sudo -n id -u");
    let session = alice.command("alice", host.ip(), &wait);
    let outlived = session.limit(Duration::from_secs(120)).run().unwrap();
    assert!(now() > until);
    assert_eq!((outlived.code(), outlived.stdout.as_str()), (Some(1), ""), "{outlived:?}");
    assert!(outlived.stderr.contains("a password is required"), "{outlived:?}");
    assert!(!alice.can_log_in("alice", host.ip()).unwrap());
    let log = host.sshd_log().unwrap();
    assert!(log.contains("Refused by key options"), "{log}");
    // Others are as they were.
    assert_eq!(sudo(&bob, "bob").stdout, "0\n", "{}", host.sshd_log().unwrap());
}
