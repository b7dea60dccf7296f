//! The root processor against the real account tools: every state of the actions, hostile homes, full disks, stops.
//!
//! The processor runs inside an isolated server with one end of a socket pair as its standard input; this side plays
//! the connector.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bastio_tests::{Host, Running, SshClient, SshKey, World, binary, require_root};
use nix::sys::signal::Signal;

mod break_glass;
mod confirm;
mod crash;
mod drift;
mod hostile;
mod journal;
mod keys_complete;
mod plain_sudo;
mod removal;
mod sync;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
/// Tells the processor that the backend has its oldest answer.
const DELIVERED: &[u8] = br#"30:{"type":"delivered","count":1},"#;
const LIMIT: Duration = Duration::from_secs(60);

/// A connector that is only the test's hand on the pipe.
struct Connector {
    socket: UnixStream,
    processor: Running,
}

impl Connector {
    /// Starts a processor on the server that deletes homes: what deleting must not touch is what
    /// most of these tests look at.
    fn start(host: &Host) -> Self {
        Self::start_removing(host, "delete")
    }

    /// The same with another rule for homes; none when empty.
    fn start_removing(host: &Host, removal: &str) -> Self {
        Self::start_with(host, &[("REMOVAL", removal)])
    }

    /// The same with any settings: variables without `BASTIO_AGENT_`.
    fn start_with(host: &Host, settings: &[(&str, &str)]) -> Self {
        Self::start_and_take(host, settings).0
    }

    /// Starts it once more; with the answers that an earlier connector did not deliver.
    fn start_again(host: &Host) -> (Self, Vec<serde_json::Value>) {
        Self::start_and_take(host, &[("REMOVAL", "delete")])
    }

    fn start_and_take(host: &Host, settings: &[(&str, &str)]) -> (Self, Vec<serde_json::Value>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(LIMIT)).unwrap();
        if !host.try_exec(&["id", "bastio"]).unwrap().success() {
            host.exec(&["useradd", "--system", "bastio"]).unwrap();
        }
        let mut processor = host.command("/usr/bin/bastio-agent");
        for (name, value) in settings {
            processor = processor.env(format!("BASTIO_AGENT_{name}"), value);
        }
        let processor = processor
            .arg("processor")
            .stdin(OwnedFd::from(theirs))
            .log_to("/var/log/processor.log")
            .spawn()
            .unwrap();
        let mut connector = Self { socket: ours, processor };
        // What an earlier connector did not deliver stands before the first word.
        let mut left = Vec::new();
        loop {
            let word = connector.receive().expect("a first word");
            if word["type"] == "ready" {
                return (connector, left);
            }
            left.push(word);
            connector.socket.write_all(DELIVERED).unwrap();
        }
    }

    /// Ends it when the processor has taken note of everything said.
    fn finish(mut self) {
        self.socket.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(self.receive(), None);
        self.processor.wait(LIMIT).unwrap();
    }

    fn send(&mut self, action: &str, user: &str, rest: &str) {
        let body = format!(
            r#"{{"type":"action","mid":"m","action":"{action}","username":"{user}"{rest}}}"#
        );
        self.socket.write_all(format!("{}:{body},", body.len()).as_bytes()).unwrap();
    }

    /// The next message that is about an action, or says how the processor is; `None` at the end.
    fn receive(&mut self) -> Option<serde_json::Value> {
        loop {
            let word = self.next_word()?;
            if word["type"] != "drift" && word["type"] != "reconnect" {
                return Some(word);
            }
        }
    }

    /// The next message; `None` at the end.
    fn next_word(&mut self) -> Option<serde_json::Value> {
        let mut len = 0;
        loop {
            let mut byte = [0];
            let read = match self.socket.read(&mut byte) {
                // A socket closed with something unread in it ends with a reset.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
                read => read.unwrap(),
            };
            match byte {
                _ if read == 0 => return None,
                [b':'] => break,
                [digit] => len = len * 10 + usize::from(digit - b'0'),
            }
        }
        let mut body = vec![0; len + 1];
        self.socket.read_exact(&mut body).unwrap();
        Some(serde_json::from_slice(&body[..len]).unwrap())
    }

    fn answer(&mut self) -> (u64, String) {
        let message = self.receive().expect("an answer");
        assert_eq!(message["type"], "feedback");
        assert_eq!(message["mid"], "m");
        // A processor that is stopping takes no word any more.
        let _ = self.socket.write_all(DELIVERED);
        (message["status"].as_u64().unwrap(), message["feedback"].as_str().unwrap().to_owned())
    }

    fn ask(&mut self, action: &str, user: &str, rest: &str) -> (u64, String) {
        self.send(action, user, rest);
        self.answer()
    }

    fn add_user(&mut self, user: &str, sudo: bool) -> (u64, String) {
        self.ask("add-user", user, &format!(r#","sudo":{sudo}"#))
    }

    fn update_user(&mut self, user: &str, sudo: bool) -> (u64, String) {
        self.ask("update-user", user, &format!(r#","sudo":{sudo}"#))
    }

    fn remove_user(&mut self, user: &str) -> (u64, String) {
        self.ask("remove-user", user, "")
    }

    fn add_key(&mut self, user: &str, key: &str) -> (u64, String) {
        self.ask("add-key", user, &format!(r#","public_key":"{key}""#))
    }

    fn remove_key(&mut self, user: &str, key: &str) -> (u64, String) {
        self.ask("remove-key", user, &format!(r#","public_key":"{key}""#))
    }

    /// Every action on one account, each of which must be refused with this text.
    #[track_caller]
    fn refuses_all(&mut self, user: &str, text: &str) {
        for (status, found) in [
            self.add_user(user, false),
            self.add_user(user, true),
            self.update_user(user, true),
            self.update_user(user, false),
            self.add_key(user, KEY),
            self.remove_key(user, KEY),
            self.remove_user(user),
        ] {
            assert_eq!(status, 500, "{found}");
            assert!(found.contains(text), "{found}");
        }
    }
}

#[track_caller]
fn expect(found: (u64, String), status: u16, text: &str) {
    assert_eq!(found, (u64::from(status), text.to_owned()));
}

#[track_caller]
fn expect_like(found: &(u64, String), status: u16, text: &str) {
    assert_eq!(found.0, u64::from(status), "{}", found.1);
    assert!(found.1.contains(text), "{}", found.1);
}

fn server<'w>(world: &'w World, name: &str) -> bastio_tests::HostBuilder<'w> {
    world.host(name).binary(binary("bastio-agent").unwrap())
}

/// The account databases, byte for byte.
fn databases(host: &Host) -> Vec<Vec<u8>> {
    ["passwd", "shadow", "group", "gshadow"]
        .iter()
        .map(|name| host.read_file(format!("/etc/{name}")).unwrap())
        .collect()
}

/// The line of an account in a database.
fn line(host: &Host, database: &str, name: &str) -> Option<String> {
    let text = String::from_utf8(host.read_file(database).unwrap()).unwrap();
    text.lines().find(|line| line.starts_with(&format!("{name}:"))).map(str::to_owned)
}

/// Owner, group and mode of a path on the server, links not followed.
fn owner_and_mode(host: &Host, path: &str) -> (u32, u32, u32) {
    let metadata = host.within(|| std::fs::symlink_metadata(path)).unwrap().unwrap();
    (metadata.uid(), metadata.gid(), metadata.permissions().mode() & 0o7777)
}

/// In the databases and in her home.
#[track_caller]
fn assert_alice_is_as_made(host: &Host) {
    let shadow = line(host, "/etc/shadow", "alice").unwrap();
    assert!(shadow.starts_with("alice:*:"), "{shadow}");
    let passwd = line(host, "/etc/passwd", "alice").unwrap();
    assert!(passwd.ends_with(":/home/alice:/bin/bash"), "{passwd}");
    let managed = line(host, "/etc/group", "bastio-managed").unwrap();
    assert!(managed.ends_with(":alice"), "{managed}");
    assert!(line(host, "/etc/group", "alice").is_some());
    let (uid, gid, _) = owner_and_mode(host, "/home/alice");
    assert!(uid >= 1000);
    assert_eq!(owner_and_mode(host, "/home/alice/.ssh"), (uid, gid, 0o700));
    assert_eq!(owner_and_mode(host, "/home/alice/.ssh/authorized_keys"), (uid, gid, 0o600));
}

#[test]
fn an_account_lives_from_its_first_key_to_its_removal() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").sudo_without_password().start().unwrap();
    let key = SshKey::generate(&world, "alice", &["ed25519"]).unwrap();
    let ssh = SshClient::new(&world, &key);
    let mut connector = Connector::start(&host);

    expect(connector.add_key("alice", key.public()), 500, "alice does not exist");
    expect(connector.remove_key("alice", key.public()), 500, "alice does not exist");
    expect(connector.update_user("alice", true), 500, "alice does not exist");
    expect(connector.remove_user("alice"), 300, "alice does not exist");
    expect(connector.add_user("alice", false), 200, "alice was created successfully");
    assert_alice_is_as_made(&host);
    expect(connector.add_user("alice", false), 300, "alice already exists");

    assert!(!ssh.can_log_in("alice", host.ip()).unwrap());
    expect(connector.add_key("alice", key.public()), 200, "added public key to alice successfully");
    assert!(ssh.can_log_in("alice", host.ip()).unwrap(), "{}", host.sshd_log().unwrap());
    let exists = format!("public key `{}` for alice already exists", key.public());
    expect(connector.add_key("alice", key.public()), 300, &exists);

    let sudo = || ssh.run("alice", host.ip(), "sudo -n id -u").unwrap().success();
    assert!(!sudo());
    expect(
        connector.update_user("alice", true),
        200,
        "alice was added to the sudo group successfully",
    );
    expect(
        connector.update_user("alice", true),
        200,
        "alice was added to the sudo group successfully",
    );
    assert!(sudo());
    expect(
        connector.update_user("alice", false),
        200,
        "alice was removed from the sudo group successfully",
    );
    expect(connector.update_user("alice", false), 300, "alice is not a member of the sudo group");
    assert!(!sudo());
    expect(
        connector.add_user("alice", true),
        200,
        "alice already exists; its sudo rights were changed",
    );
    assert!(sudo());

    let commented = format!(
        "{} another comment",
        key.public().rsplit_once(' ').map_or(key.public(), |(k, _)| k)
    );
    expect(
        connector.remove_key("alice", &commented),
        200,
        "removed public key from alice successfully",
    );
    expect(connector.remove_key("alice", &commented), 300, "public key for alice does not exist");
    assert!(!ssh.can_log_in("alice", host.ip()).unwrap());

    expect(connector.remove_user("alice"), 200, "alice was removed successfully");
    for database in ["/etc/passwd", "/etc/shadow", "/etc/group"] {
        assert_eq!(line(&host, database, "alice"), None, "{database}");
    }
    assert!(!host.exists("/home/alice").unwrap());
    expect(connector.remove_user("alice"), 300, "alice does not exist");
    expect(connector.add_user("alice", true), 200, "alice was created successfully");
    assert!(line(&host, "/etc/group", "sudo").unwrap().ends_with(":alice"));
}

#[test]
fn accounts_that_are_not_ours_are_left_alone() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    host.exec(&["useradd", "-m", "-U", "admin"]).unwrap();
    // Marked by mistake: the system's own accounts are refused all the same.
    host.exec(&["groupadd", "--system", "bastio-managed"]).unwrap();
    host.exec(&["usermod", "-aG", "bastio-managed", "daemon"]).unwrap();
    host.exec(&["usermod", "-aG", "bastio-managed", "root"]).unwrap();
    let mut connector = Connector::start(&host);
    let before = databases(&host);
    connector
        .refuses_all("admin", "admin exists already and is not managed by bastio; to hand it over");
    connector.refuses_all("nobody", "nobody exists already and is not managed by bastio");
    for system in ["root", "daemon"] {
        connector
            .refuses_all(system, "is an account of the system itself, which bastio never touches");
    }
    assert_eq!(databases(&host), before);
    assert!(!host.exists("/home/admin/.ssh").unwrap());
    // What the hint says works.
    host.exec(&["usermod", "--append", "--groups", "bastio-managed", "admin"]).unwrap();
    expect(connector.add_user("admin", false), 300, "admin already exists");
}

#[test]
fn nothing_is_made_where_something_is_in_the_way() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    host.exec(&["groupadd", "bob"]).unwrap();
    host.exec(&["install", "-d", "-o", "games", "/home/carol"]).unwrap();
    host.within(|| symlink("/nowhere", "/home/dave")).unwrap().unwrap();
    let mut connector = Connector::start(&host);
    let before = databases(&host);
    expect_like(
        &connector.add_user("bob", false),
        500,
        "a group bob exists already; remove it (groupdel bob)",
    );
    expect_like(
        &connector.add_user("carol", false),
        500,
        "a folder is left over at /home/carol, it belongs to games; move it away and try again",
    );
    expect_like(
        &connector.add_user("dave", false),
        500,
        "a folder is left over at /home/dave, it belongs to root",
    );
    host.exec(&["groupdel", "sudo"]).unwrap();
    let without_sudo = databases(&host);
    expect_like(
        &connector.add_user("erin", true),
        500,
        "this host has neither a group sudo nor wheel",
    );
    assert_eq!(databases(&host), without_sudo);
    assert_ne!(without_sudo, before);
    expect(connector.add_user("erin", false), 200, "erin was created successfully");
    expect_like(
        &connector.update_user("erin", true),
        500,
        "this host has neither a group sudo nor wheel",
    );
    expect(connector.update_user("erin", false), 300, "erin is not a member of the sudo group");
    host.exec(&["groupadd", "--system", "wheel"]).unwrap();
    expect(
        connector.update_user("erin", true),
        200,
        "erin was added to the sudo group successfully",
    );
    assert!(line(&host, "/etc/group", "wheel").unwrap().ends_with(":erin"));
}

#[test]
fn a_missing_home_is_told_and_the_account_can_still_be_removed() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let mut connector = Connector::start(&host);
    connector.add_user("alice", false);
    host.exec(&["rm", "-r", "/home/alice"]).unwrap();
    for found in [
        connector.add_user("alice", false),
        connector.add_key("alice", KEY),
        connector.remove_key("alice", KEY),
    ] {
        expect_like(&found, 500, "the home /home/alice is missing; make it again");
    }
    expect(
        connector.update_user("alice", true),
        200,
        "alice was added to the sudo group successfully",
    );
    expect(connector.remove_user("alice"), 200, "alice was removed successfully");
    assert_eq!(line(&host, "/etc/passwd", "alice"), None);
}

#[test]
fn a_failing_tool_leaves_no_half_made_account() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let mut connector = Connector::start(&host);
    connector.add_user("first", false);
    // useradd(8) makes the account before the home: it fails with 12 when it cannot make that.
    host.exec(&["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", "/home"]).unwrap();
    let before = databases(&host);
    expect_like(
        &connector.add_user("alice", false),
        500,
        "useradd: cannot make or remove the home folder",
    );
    assert_eq!(databases(&host), before);
    host.exec(&["umount", "/home"]).unwrap();
    expect(connector.add_user("alice", false), 200, "alice was created successfully");
}

/// Takes as long as a tool may: half a minute.
#[test]
fn a_tool_that_never_ends_is_killed_and_the_next_action_works() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let mut connector = Connector::start(&host);
    connector.add_user("alice", false);
    host.exec(&["mv", "/usr/sbin/usermod", "/usr/sbin/usermod.real"]).unwrap();
    host.write_file("/usr/sbin/usermod", "#!/bin/sh\nsleep 1000 &\nsleep 1000\n").unwrap();
    host.exec(&["chmod", "755", "/usr/sbin/usermod"]).unwrap();
    let text = "usermod: did not end within 30 s and was killed; is the account database locked?";
    expect(connector.update_user("alice", true), 500, text);
    assert!(!host.exec(&["ps", "-eo", "comm="]).unwrap().stdout.contains("sleep"));
    host.exec(&["mv", "/usr/sbin/usermod.real", "/usr/sbin/usermod"]).unwrap();
    expect(
        connector.update_user("alice", true),
        200,
        "alice was added to the sudo group successfully",
    );
}

#[test]
fn a_full_disk_tears_nothing() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").home_tmpfs_size(256 << 10).without_sshd().start().unwrap();
    let mut connector = Connector::start(&host);
    connector.add_user("alice", false);
    connector.add_key("alice", KEY);
    let file = "/home/alice/.ssh/authorized_keys";
    let keys = host.read_file(file).unwrap();
    let before = databases(&host);
    let names = || host.exec(&["ls", "-A", "/home/alice/.ssh"]).unwrap().stdout;
    let full = host.write_file("/home/filler", vec![b'x'; 1 << 20]).unwrap_err();
    assert!(full.to_string().contains("No space left"), "{full}");

    let other = KEY.replace("BQYHCAkK", "BQYHCAkL");
    let no_space = format!(
        "no space left for {file}; the old file is unchanged; free some space and try again"
    );
    expect(connector.add_key("alice", &other), 500, &no_space);
    assert_eq!(host.read_file(file).unwrap(), keys);
    assert_eq!(names(), "authorized_keys\n");
    // Room for the home and nothing in it: what was made is taken back.
    let used = host.exec(&["df", "--output=iused", "/home"]).unwrap().stdout;
    let used: u64 = used.split_whitespace().next_back().unwrap().parse().unwrap();
    host.exec(&["mount", "-o", &format!("remount,nr_inodes={}", used + 1), "/home"]).unwrap();
    expect_like(&connector.add_user("bob", false), 500, "no space left for /home/bob/.ssh");
    assert_eq!(databases(&host), before);
    assert!(!host.exists("/home/bob").unwrap());

    host.exec(&["mount", "-o", "remount,nr_inodes=1000", "/home"]).unwrap();
    host.exec(&["rm", "/home/filler"]).unwrap();
    expect(connector.add_key("alice", &other), 200, "added public key to alice successfully");
    expect(connector.add_user("bob", false), 200, "bob was created successfully");
}

#[test]
fn a_stop_finishes_the_action_in_hand_and_answers_it() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    host.exec(&["mv", "/usr/sbin/useradd", "/usr/sbin/useradd.real"]).unwrap();
    // A tool that takes its time, and says when it has begun.
    let script = "#!/bin/sh\n: > /run/begun\nsleep 1\nexec /usr/sbin/useradd.real \"$@\"\n";
    host.write_file("/usr/sbin/useradd", script).unwrap();
    host.exec(&["chmod", "755", "/usr/sbin/useradd"]).unwrap();
    host.exec(&["/usr/sbin/useradd.real", "--system", "bastio"]).unwrap();
    let mut connector = Connector::start(&host);
    connector.send("add-user", "alice", r#","sudo":false"#);
    connector.send("add-user", "later", r#","sudo":false"#);
    host.command("sh")
        .args(["-c", "until [ -e /run/begun ]; do sleep 0.02; done"])
        .check()
        .unwrap();
    connector.processor.signal(Signal::SIGTERM).unwrap();
    expect(connector.answer(), 200, "alice was created successfully");
    assert_eq!(connector.receive().unwrap()["type"], "stopping");
    assert_eq!(connector.receive(), None);
    assert!(connector.processor.wait(Duration::from_secs(5)).unwrap().success());
    assert_eq!(line(&host, "/etc/passwd", "later"), None);
}

#[test]
fn an_idle_processor_stops_at_once_sleeps_soundly_and_is_small() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let mut connector = Connector::start(&host);
    connector.add_user("alice", false);
    let pid = connector.processor.pid();
    let wake_ups = || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        tasks
            .map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).unwrap())
            .flat_map(|status| {
                let counts =
                    status.lines().filter_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
                counts.map(|count| count.trim().parse::<u64>().unwrap()).collect::<Vec<_>>()
            })
            .sum::<u64>()
    };
    std::thread::sleep(Duration::from_millis(500));
    let before = wake_ups();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(wake_ups(), before);
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    // Its own memory: the pages of the program itself say nothing in a test build.
    let own = rollup.lines().find_map(|line| line.strip_prefix("Pss_Anon:")).unwrap();
    let own: u64 = own.trim().trim_end_matches(" kB").parse().unwrap();
    eprintln!("own memory of an idle processor (test build): {own} kB");
    assert!(own < 3 * 1024, "{rollup}");
    let status: serde_json::Value =
        serde_json::from_slice(&host.read_file("/run/bastio-agent/status.json").unwrap()).unwrap();
    assert_eq!(status["actions"]["done"], 1);
    connector.processor.signal(Signal::SIGINT).unwrap();
    assert_eq!(connector.receive().unwrap()["type"], "stopping");
    assert!(connector.processor.wait(Duration::from_secs(2)).unwrap().success());
}

#[test]
fn a_foreign_account_may_not_connect() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    host.exec(&["useradd", "--system", "bastio"]).unwrap();
    let socket = "/run/processor.sock";
    let _processor = host
        .command("/usr/bin/bastio-agent")
        .args(["processor", "--listen", socket])
        .log_to("/var/log/processor.log")
        .spawn_ready(Duration::from_secs(10))
        .unwrap();
    assert_eq!(owner_and_mode(&host, socket).2, 0o600);
    // Even with the mode lost, the kernel tells who is there.
    host.exec(&["chmod", "666", socket]).unwrap();
    let program = r#"use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die "no: $!";
        my $b = '{"type":"action","mid":"m","action":"add-user","username":"' . $ARGV[1] . '","sudo":true}';
        $s->printflush(length($b) . ":$b,"); while ($s->sysread(my $a, 1000)) { print $a; last if $a =~ /$ARGV[1]/ }"#;
    let connect = |who: &str, user: &str| {
        let words = [
            "setpriv",
            "--reuid",
            who,
            "--regid",
            "nogroup",
            "--clear-groups",
            "perl",
            "-e",
            program,
            socket,
            user,
        ];
        host.try_exec(&words).unwrap().stdout
    };
    assert_eq!(connect("nobody", "mallory"), "");
    assert_eq!(line(&host, "/etc/passwd", "mallory"), None);
    assert!(connect("bastio", "alice").contains("alice was created successfully"));
    assert!(connect("root", "bob").contains("bob was created successfully"));
    let log = String::from_utf8(host.read_file("/var/log/processor.log").unwrap()).unwrap();
    assert!(log.contains("uid 65534 may not connect"), "{log}");
}
