//! Accounts in full on whole hosts: every field of them, what keys may do, and the ways in which accounts go. The processor is
//! the packaged one, closed in as its unit has it.

use bastio_tests::fleet::Backend;
use bastio_tests::{BootedHost, SshClient, SshKey, World, require_root};

use crate::rig::{
    NEW, add_person, agent_host_of, are_active, can_sudo, done, errors, logs_in, stat,
};

#[test]
fn accounts_with_all_their_fields_on_bookworm() {
    all_of_accounts("bookworm");
}

#[test]
fn accounts_with_all_their_fields_on_bullseye() {
    all_of_accounts("bullseye");
}

#[test]
fn accounts_with_all_their_fields_on_trixie() {
    all_of_accounts("trixie");
}

fn all_of_accounts(release: &str) {
    require_root!();
    let world = World::new().unwrap();
    let backend = Backend::start(&world).unwrap();
    let host = agent_host_of(&world, &backend, NEW, release);
    let alice = has_all_fields(&world, &backend, &host);
    keys_do_what_they_may(&world, &backend, &host, &alice);
    goes_without_the_home(&backend, &host, &alice);
    goes_with_the_home(&world, &backend, &host);
    loses_rights_and_is_kept_locked(&world, &backend, &host);
    assert!(are_active(&host));
    assert_eq!(errors(&host), "");
}

fn passwd(host: &BootedHost<'_>, name: &str) -> String {
    host.exec(&["getent", "passwd", name]).unwrap().stdout.trim().to_owned()
}

fn groups(host: &BootedHost<'_>, name: &str) -> Vec<String> {
    let listed = host.exec(&["id", "-nG", name]).unwrap().stdout;
    let mut groups: Vec<String> = listed.split_whitespace().map(str::to_owned).collect();
    groups.sort();
    groups
}

/// The account exactly as asked for, and then as asked for otherwise.
fn has_all_fields<'world>(
    world: &'world World,
    backend: &Backend<'_>,
    host: &BootedHost<'_>,
) -> SshClient<'world> {
    host.exec(&["mkdir", "/etc/skel.team"]).unwrap();
    host.write_file("/etc/skel.team/rules", "read me\n").unwrap();
    let key = SshKey::generate(world, "alice", &["ed25519"]).unwrap();
    let file = key.public_file();
    let who = ["user", "add", "alice", "--key", file.to_str().unwrap(), "--on", "web-1"];
    let what = ["--uid", "5001", "--group", "staff", "--groups", "games", "--shell", "/bin/sh"];
    let more = ["--comment", "Alice A", "--skel", "/etc/skel.team"];
    done(backend, &[&who[..], &what, &more].concat());
    assert_eq!(passwd(host, "alice"), "alice:x:5001:50:Alice A:/home/alice:/bin/sh");
    assert_eq!(groups(host, "alice"), ["bastio-managed", "games", "staff"]);
    assert_eq!(stat(host, "/home/alice/rules"), "644 alice:staff");
    let ssh = SshClient::new(world, &key);
    assert!(logs_in(&ssh, "alice", host));

    let otherwise = ["--shell", "/bin/bash", "--groups", "audio,games", "--comment", "Alice B"];
    done(backend, &[&["user", "update", "alice"], &otherwise[..]].concat());
    assert_eq!(passwd(host, "alice"), "alice:x:5001:50:Alice B:/home/alice:/bin/bash");
    assert_eq!(groups(host, "alice"), ["audio", "bastio-managed", "games", "staff"]);
    let run = ssh.run("alice", host.ip(), "echo $SHELL; cat rules; echo mine > work").unwrap();
    assert_eq!(run.stdout, "/bin/bash\nread me\n", "{}", run.stderr);
    ssh
}

/// A key that runs one command, and one that only counts from elsewhere.
fn keys_do_what_they_may(
    world: &World,
    backend: &Backend<'_>,
    host: &BootedHost<'_>,
    whole: &SshClient<'_>,
) {
    let with = |name: &str, options: &str| {
        let key = SshKey::generate(world, name, &["ed25519"]).unwrap();
        let file = key.public_file();
        done(backend, &["key", "add", "alice", file.to_str().unwrap(), "--options", options]);
        SshClient::new(world, &key)
    };
    let bound = with("bound", r#"restrict,command="/usr/bin/id -un""#);
    assert_eq!(bound.run("alice", host.ip(), "cat rules").unwrap().stdout, "alice\n");
    let elsewhere = with("elsewhere", r#"from="192.0.2.0/24""#);
    assert!(!logs_in(&elsewhere, "alice", host));
    let here = with("here", r#"from="10.0.0.0/8""#);
    assert!(logs_in(&here, "alice", host) && logs_in(whole, "alice", host));
}

/// The home stays when the account goes.
fn goes_without_the_home(backend: &Backend<'_>, host: &BootedHost<'_>, alice: &SshClient<'_>) {
    done(backend, &["user", "rm", "alice", "--home", "keep", "--yes"]);
    assert!(!host.try_exec(&["getent", "passwd", "alice"]).unwrap().success());
    assert_eq!(host.read_file("/home/alice/work").unwrap(), b"mine\n");
    assert!(!logs_in(alice, "alice", host));
}

fn goes_with_the_home(world: &World, backend: &Backend<'_>, host: &BootedHost<'_>) {
    let bob = add_person(world, backend, "bob");
    assert!(logs_in(&bob, "bob", host));
    let deep = "mkdir -p a/b/c && touch a/b/c/d && chmod 0 a/b";
    assert!(bob.run("bob", host.ip(), deep).unwrap().success());
    done(backend, &["user", "rm", "bob", "--home", "delete", "--yes", "--yes-really"]);
    assert!(!host.try_exec(&["getent", "passwd", "bob"]).unwrap().success());
    assert!(!host.exists("/home/bob").unwrap());
}

fn loses_rights_and_is_kept_locked(world: &World, backend: &Backend<'_>, host: &BootedHost<'_>) {
    let carol = add_person(world, backend, "carol");
    assert!(can_sudo(&carol, "carol", host));
    done(backend, &["user", "update", "carol", "--no-sudo", "--yes-really"]);
    assert!(!can_sudo(&carol, "carol", host) && logs_in(&carol, "carol", host));
    assert_eq!(groups(host, "carol"), ["bastio-managed", "carol"]);
    done(backend, &["user", "update", "carol", "--sudo"]);
    assert!(can_sudo(&carol, "carol", host));
    done(backend, &["user", "rm", "carol", "--home", "lock", "--yes", "--yes-really"]);
    assert!(!passwd(host, "carol").is_empty() && host.exists("/home/carol").unwrap());
    let shadow = host.exec(&["getent", "shadow", "carol"]).unwrap().stdout;
    assert_eq!(shadow.split(':').nth(7), Some("1"), "it has ended long ago: {shadow}");
    assert!(!groups(host, "carol").contains(&"sudo".to_owned()));
    assert!(!logs_in(&carol, "carol", host));
}
