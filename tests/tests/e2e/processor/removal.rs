//! Removing accounts: sessions end, homes go when they are the account's own, and access is shut first.

use super::*;

/// A process of alice's that does not end when asked, and starts others.
const STUBBORN: &str = "trap '' TERM HUP; sleep 1000 & while :; do sleep 1000; done";

/// Returns when the script has begun.
fn spawn_as_alice(host: &Host, script: &str) -> Running {
    let script = format!(": > /tmp/begun; {script}");
    let running = host
        .command("setpriv")
        .args(["--reuid=alice", "--regid=alice", "--init-groups", "sh", "-c", &script])
        .spawn()
        .unwrap();
    host.command("sh")
        .args(["-c", "until [ -e /tmp/begun ]; do sleep 0.02; done; rm /tmp/begun"])
        .check()
        .unwrap();
    running
}

#[test]
fn running_processes_and_sessions_end() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").start().unwrap();
    let key = SshKey::generate(&world, "alice", &["ed25519"]).unwrap();
    let mut connector = Connector::start(&host);
    connector.add_user("alice", false);
    connector.add_key("alice", key.public());
    let mut gentle = spawn_as_alice(&host, "exec sleep 1000");
    let mut stubborn = spawn_as_alice(&host, STUBBORN);
    let other = host.command("sleep").arg("1000").spawn().unwrap();
    let ssh = SshClient::new(&world, &key);
    assert!(
        ssh.run("alice", host.ip(), "nohup sleep 1000 >/dev/null 2>&1 & echo ok")
            .unwrap()
            .success()
    );

    expect(connector.remove_user("alice"), 200, "alice was removed successfully");
    assert!(gentle.wait(Duration::from_secs(1)).is_ok());
    assert!(stubborn.wait(Duration::from_secs(1)).is_ok());
    assert!(!host.exists("/home/alice").unwrap());
    let mut other = other;
    assert_eq!(other.ended().unwrap(), None);
    assert_eq!(alive(&host, 1000), "");
    assert!(!ssh.can_log_in("alice", host.ip()).unwrap());
}

/// The processes of an account that still run. One that has ended and waits for its parent to look (state `Z`, perhaps
/// with further letters) runs no more.
fn alive(host: &Host, uid: u32) -> String {
    let all = host.exec(&["ps", "-eo", "uid=,stat=,comm="]).unwrap().stdout;
    let runs = |line: &&str| {
        let mut words = line.split_ascii_whitespace();
        words.next() == Some(uid.to_string().as_str())
            && words.next().is_some_and(|state| !state.starts_with('Z'))
    };
    all.lines().filter(runs).collect()
}

#[test]
fn more_processes_than_file_descriptors_end_too() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let mut connector = Connector::start(&host);
    connector.add_user("alice", false);
    let script = "i=0; while [ $i -lt 400 ]; do sleep 1000 & i=$((i+1)); done; \
                  : > /tmp/all; wait";
    let _many = spawn_as_alice(&host, script);
    let until = "until [ -e /tmp/all ]; do sleep 0.05; done";
    host.command("sh").args(["-c", until]).limit(Duration::from_secs(60)).check().unwrap();
    let few = "prlimit --pid $(pidof bastio-agent) --nofile=256";
    host.exec(&["sh", "-ec", few]).unwrap();
    expect(connector.remove_user("alice"), 200, "alice was removed successfully");
    assert_eq!(alive(&host, 1000), "");
}

#[test]
fn processes_under_other_ids_of_the_account_end_too() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let mut connector = Connector::start(&host);
    connector.add_user("alice", false);
    host.exec(&["sh", "-c", "echo alice:300000:10 > /etc/subuid"]).unwrap();
    let sleep = |ids: &[&str]| {
        host.command("setpriv").args(ids).args(["--clear-groups", "sleep", "1000"]).spawn().unwrap()
    };
    let mut of_user_namespace = sleep(&["--reuid=300007"]);
    let mut with_her_rights = sleep(&["--ruid=2000", "--euid=1000"]);
    let mut not_hers = sleep(&["--reuid=300010"]);
    expect(connector.remove_user("alice"), 200, "alice was removed successfully");
    assert!(of_user_namespace.wait(Duration::from_secs(1)).is_ok());
    assert!(with_her_rights.wait(Duration::from_secs(1)).is_ok());
    assert_eq!(not_hers.ended().unwrap(), None);
}

#[test]
fn nothing_runs_later_in_the_name_of_a_removed_account() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let mut connector = Connector::start(&host);
    connector.add_user("alice", false);
    let plant = "mkdir -p /var/spool/cron/crontabs /var/spool/cron/atjobs /var/lib/systemd/linger; \
                 cd /var/spool/cron; echo '* * * * * true' > crontabs/alice; echo x > crontabs/bob; \
                 echo x > atjobs/a1; echo x > atjobs/b1; chown alice crontabs/alice atjobs/a1; \
                 : > /var/lib/systemd/linger/alice";
    host.exec(&["sh", "-ec", plant]).unwrap();
    expect(connector.remove_user("alice"), 200, "alice was removed successfully");
    let left = "cd /var/spool/cron; echo crontabs/* atjobs/* /var/lib/systemd/linger/*";
    let left = host.exec(&["sh", "-c", left]).unwrap().stdout;
    assert_eq!(left.trim(), "crontabs/bob atjobs/b1 /var/lib/systemd/linger/*");
}

#[test]
fn keys_go_even_when_the_account_database_is_locked() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let key = SshKey::generate(&world, "alice", &["ed25519"]).unwrap();
    let mut connector = Connector::start(&host);
    connector.add_user("alice", false);
    connector.add_key("alice", key.public());
    host.exec(&["mv", "/usr/sbin/usermod", "/usr/sbin/usermod.real"]).unwrap();
    host.write_file("/usr/sbin/usermod", "#!/bin/sh\nexit 1\n").unwrap();
    host.exec(&["chmod", "755", "/usr/sbin/usermod"]).unwrap();
    expect_like(&connector.remove_user("alice"), 500, "cannot update the account database");
    assert_eq!(host.read_file("/home/alice/.ssh/authorized_keys").unwrap(), b"");
}

#[test]
fn a_fork_bomb_is_ended_or_access_stays_closed() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let mut connector = Connector::start(&host);
    connector.add_user("alice", false);
    // Each generation ends at once and leaves a child behind: a moving target.
    let _bomb = spawn_as_alice(
        &host,
        "trap '' TERM; exec perl -e '$SIG{TERM} = sub {}; while (1) { fork and exit }'",
    );
    let found = connector.remove_user("alice");
    match found.0 {
        200 => assert_eq!(line(&host, "/etc/passwd", "alice"), None),
        _ => {
            expect_like(
                &found,
                500,
                "access of alice is closed, but the account could not be removed",
            );
            assert!(line(&host, "/etc/shadow", "alice").unwrap().ends_with(":1:"));
        }
    }
    eprintln!("fork bomb: {} {}", found.0, found.1);
}

#[test]
fn a_removal_that_cannot_finish_leaves_access_closed_until_it_is_added_again() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").start().unwrap();
    let key = SshKey::generate(&world, "alice", &["ed25519"]).unwrap();
    let ssh = SshClient::new(&world, &key);
    let mut connector = Connector::start(&host);
    connector.add_user("alice", false);
    connector.add_key("alice", key.public());
    assert!(ssh.can_log_in("alice", host.ip()).unwrap());
    host.exec(&["mv", "/usr/sbin/userdel", "/usr/sbin/userdel.real"]).unwrap();
    host.write_file("/usr/sbin/userdel", "#!/bin/sh\necho 'userdel: cannot lock' >&2\nexit 1\n")
        .unwrap();
    host.exec(&["chmod", "755", "/usr/sbin/userdel"]).unwrap();

    let text = "access of alice is closed, but the account could not be removed: userdel: cannot update the account \
                database; is it locked, read-only or full? (userdel: cannot lock)";
    expect(connector.remove_user("alice"), 500, text);
    assert!(!ssh.run("alice", host.ip(), "true").unwrap().success());
    assert_eq!(host.read_file("/home/alice/.ssh/authorized_keys").unwrap(), b"");
    // Even with the key back, the account has expired.
    connector.add_key("alice", key.public());
    assert!(!ssh.run("alice", host.ip(), "true").unwrap().success());
    expect(
        connector.add_user("alice", false),
        200,
        "alice already exists; its access was opened again",
    );
    assert!(ssh.can_log_in("alice", host.ip()).unwrap(), "{}", host.sshd_log().unwrap());
    host.exec(&["mv", "/usr/sbin/userdel.real", "/usr/sbin/userdel"]).unwrap();
    expect(connector.remove_user("alice"), 200, "alice was removed successfully");
}

#[test]
fn an_expiry_date_of_an_administrators_stays() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let mut connector = Connector::start(&host);
    connector.add_user("alice", false);
    host.exec(&["usermod", "--expiredate", "2020-01-01", "alice"]).unwrap();
    let before = databases(&host);
    expect(connector.add_user("alice", false), 300, "alice already exists");
    assert_eq!(databases(&host), before);
}

#[test]
fn a_home_that_is_not_the_accounts_own_is_left() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let mut connector = Connector::start(&host);
    for (change, reason) in [
        ("mv /home/alice /srv/alice; ln -s /srv/alice /home/alice", "is no real folder"),
        ("chown games /home/alice", "belongs to uid 5"),
        ("usermod -d / alice", "/ is no folder of one person"),
        ("usermod -d /srv alice", "/srv is no folder of one person"),
        ("useradd -M -d /home/alice/sub svc", "holds the home of svc"),
        (
            "mv /home/alice /srv/x; mkdir /srv/y; mv /srv/x /srv/y/alice; ln -s /srv/y /srv/z; usermod -d /srv/z/alice alice",
            "symbolic link",
        ),
    ] {
        expect(connector.add_user("alice", false), 200, "alice was created successfully");
        host.exec(&["sh", "-ec", change]).unwrap();
        let found = connector.remove_user("alice");
        expect_like(&found, 200, "alice was removed successfully; its home was left: ");
        expect_like(&found, 200, reason);
        assert_eq!(line(&host, "/etc/passwd", "alice"), None, "{change}");
        assert!(host.exists("/etc/passwd").unwrap() && host.exists("/srv").unwrap());
        host.try_exec(&["userdel", "svc"]).unwrap();
        host.exec(&["sh", "-c", "rm -rf /home/alice /srv/*"]).unwrap();
    }
}

/// Somebody makes an account of that name while useradd is failing.
#[test]
fn a_failed_add_user_takes_no_account_without_the_mark_back() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let mut connector = Connector::start(&host);
    host.exec(&["mv", "/usr/sbin/useradd", "/usr/sbin/useradd.real"]).unwrap();
    let script =
        "#!/bin/sh\nfor name; do :; done\n/usr/sbin/useradd.real -m -U \"$name\"\nexit 1\n";
    host.write_file("/usr/sbin/useradd", script).unwrap();
    host.exec(&["chmod", "755", "/usr/sbin/useradd"]).unwrap();
    let refused = connector.add_user("alice", false);
    expect_like(&refused, 500, "there is an account alice now that is not in the group");
    expect_like(&refused, 500, "userdel alice");
    assert!(line(&host, "/etc/passwd", "alice").is_some());
    assert!(host.exists("/home/alice").unwrap());
    expect_like(&connector.remove_user("alice"), 500, "alice");
    assert!(line(&host, "/etc/passwd", "alice").is_some(), "it is not ours");
}

#[test]
fn homes_are_kept_unless_the_configuration_or_the_action_says_otherwise() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    for (user, rule, said, text, home_stays) in [
        ("ann", "", "", "; its home was kept: /home/ann", true),
        ("bea", "keep", "", "; its home was kept: /home/bea", true),
        ("cat", "delete", "", "", false),
        ("dan", "quarantine", "", "; its home was moved to quarantine: /home/.bastio-q", false),
        ("eve", "lock", "", "; the account stays, locked, with its home /home/eve", true),
        ("fay", "delete", r#","removal":"keep""#, "; its home was kept: /home/fay", true),
        ("gus", "", r#","removal":"delete""#, "", false),
    ] {
        let mut connector = Connector::start_removing(&host, rule);
        expect_like(&connector.add_user(user, true), 200, "was created successfully");
        let found = connector.ask("remove-user", user, said);
        expect_like(&found, 200, &format!("{user} was removed successfully{text}"));
        assert_eq!(host.exists(format!("/home/{user}")).unwrap(), home_stays, "{user}");
        let is_locked = rule == "lock";
        assert_eq!(line(&host, "/etc/passwd", user).is_some(), is_locked, "{user}");
        assert!(!line(&host, "/etc/group", "sudo").unwrap().ends_with(user), "{user}");
        connector.finish();
    }
    assert!(line(&host, "/etc/shadow", "eve").unwrap().ends_with(":1:"));
}

#[test]
fn homes_in_quarantine_go_when_their_days_are_over() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let plant = "install -d -m 700 /home/.bastio-quarantine; cd /home/.bastio-quarantine; \
                 for home in ann-1500-1700000000 bob-1501-$(date +%s); do \
                 mkdir -p $home/a/b; echo x > $home/a/b/c; done; chown 1500 ann*; chown 1501 bob*";
    host.exec(&["bash", "-ec", plant]).unwrap();
    let connector = Connector::start(&host);
    let gone = "until [ ! -e /home/.bastio-quarantine/ann-1500-1700000000 ]; do sleep 0.05; done";
    host.command("sh").args(["-c", gone]).limit(Duration::from_secs(20)).check().unwrap();
    connector.finish();
    let left = host.exec(&["ls", "/home/.bastio-quarantine"]).unwrap().stdout;
    assert!(left.starts_with("bob-1501-") && left.lines().count() == 1, "{left}");
    let log = String::from_utf8(host.read_file("/var/log/processor.log").unwrap()).unwrap();
    assert!(log.contains("its days in quarantine are over"), "{log}");
}

#[test]
fn a_key_that_could_not_be_cleared_does_not_come_back_with_its_home() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").start().unwrap();
    let key = SshKey::generate(&world, "alice", &["ed25519"]).unwrap();
    let mut connector = Connector::start_removing(&host, "keep");
    let gets_in = || SshClient::new(&world, &key).can_log_in("alice", host.ip()).unwrap();
    expect_like(&connector.add_user("alice", false), 200, "created");
    expect_like(&connector.add_key("alice", key.public()), 200, "added");
    assert!(gets_in());
    // sshd takes it; the processor writes into no file that has another name.
    host.exec(&["ln", "/home/alice/.ssh/authorized_keys", "/home/alice/again"]).unwrap();
    let removed = connector.remove_user("alice");
    expect_like(&removed, 200, "its home was kept: /home/alice; ");
    let words = r#","wanted":{}"#;
    for answer in [connector.add_user("alice", false), connector.ask("set-user", "alice", words)] {
        expect_like(&answer, 500, "/home/alice/.ssh/authorized_keys");
        assert!(line(&host, "/etc/passwd", "alice").is_none() && !gets_in());
    }
    host.exec(&["rm", "/home/alice/again"]).unwrap();
    expect_like(&connector.add_user("alice", false), 200, "created");
    assert!(host.exists("/home/alice/.bashrc").unwrap() && !gets_in());
    expect_like(&connector.add_key("alice", key.public()), 200, "added");
    assert!(gets_in());
    connector.finish();
}
