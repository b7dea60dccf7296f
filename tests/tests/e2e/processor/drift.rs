//! What others change behind bastio's back is told within a second, and put right where that is the policy. What has come
//! to its end ends. This side plays the connector of a backend that is connected.

use std::time::Instant;

use serde_json::{Value, json};

use super::*;

const KEYS: &str = "/home/alice/.ssh/authorized_keys";
/// Another key.
const OTHER: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4e";
/// Drift is told within a second; a busy machine gets more.
const SOON: Duration = Duration::from_secs(5);
/// Longer than a look waits.
const QUIET: Duration = Duration::from_millis(1500);

impl Connector {
    fn say(&mut self, body: &str) {
        self.socket.write_all(format!("{}:{body},", body.len()).as_bytes()).unwrap();
    }

    /// A new connection to the backend is up.
    fn link_up(&mut self) {
        self.say(r#"{"type":"link","link":{"state":"connected","backend":"b:1","since":1}}"#);
    }

    /// Makes an account exactly so.
    fn set_user(&mut self, user: &str, wanted: &str) {
        let (status, text) = self.ask("set-user", user, &format!(r#","wanted":{wanted}"#));
        assert!(status == 200 || status == 300, "{status} {text}");
    }

    /// The next word of this kind.
    #[track_caller]
    fn word(&mut self, kind: &str) -> Value {
        loop {
            let word = self.next_word().expect(kind);
            if word["type"] == kind {
                return word;
            }
        }
    }

    /// The next drift, which comes soon.
    #[track_caller]
    fn drift(&mut self, what: &str) -> Value {
        let begun = Instant::now();
        let drift = self.word("drift");
        let waited = begun.elapsed();
        eprintln!("{what}: told after {} ms", waited.as_millis());
        assert!(waited < SOON, "{what}: {waited:?}");
        drift
    }

    /// Nothing is said for a while.
    #[track_caller]
    fn is_quiet(&mut self, what: &str) {
        self.socket.set_read_timeout(Some(QUIET)).unwrap();
        let mut byte = [0];
        let read = self.socket.read(&mut byte);
        self.socket.set_read_timeout(Some(LIMIT)).unwrap();
        let error = read.expect_err(what);
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{what}");
    }
}

fn kinds(drift: &Value) -> Vec<&str> {
    let changes = drift["detail"]["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
    changes.iter().map(|change| change["kind"].as_str().unwrap()).collect()
}

fn is_empty(drift: &Value) -> bool {
    drift["detail"] == json!({})
}

/// Alice with a key, a rule and a shell, as bastio means her to be; all is told and quiet.
fn alice(host: &Host, settings: &[(&str, &str)]) -> Connector {
    let mut connector = Connector::start_with(host, settings);
    let wanted = format!(
        r#"{{"spec":{{"shell":"/bin/sh"}},"sudo":{{"policy":{{}}}},"keys":[{{"public_key":"{KEY}"}}]}}"#
    );
    connector.set_user("alice", &wanted);
    connector.link_up();
    let first = connector.drift("a new connection");
    assert!(is_empty(&first), "{first}");
    connector.is_quiet("our own writes are no drift");
    connector
}

fn sh(host: &Host, script: &str) {
    host.exec(&["sh", "-c", script]).unwrap();
}

#[test]
fn drift_is_told_within_a_second_and_so_is_its_end() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").start().unwrap();
    let mut connector = alice(&host, &[]);
    let keep = "cp -a /home/alice/.ssh/authorized_keys /root/keys; cp -a /etc/sudoers.d/bastio-alice /root/rule";
    sh(&host, keep);
    let back = "cp -a /root/rule /etc/sudoers.d/bastio-alice";
    for (what, change, kind, undo) in [
        ("a key removed", format!(": > {KEYS}"), "add-key", format!("cp -a /root/keys {KEYS}")),
        ("the key file gone", format!("rm {KEYS}"), "add-key", format!("cp -a /root/keys {KEYS}")),
        (
            "the whole folder gone",
            "mv /home/alice/.ssh /home/alice/other".to_owned(),
            "add-key",
            "mv /home/alice/other /home/alice/.ssh".to_owned(),
        ),
        (
            "the rule gone",
            "rm /etc/sudoers.d/bastio-alice".to_owned(),
            "grant-sudo",
            back.to_owned(),
        ),
        (
            "another rule",
            "echo '# more' >> /etc/sudoers.d/bastio-alice".to_owned(),
            "grant-sudo",
            back.to_owned(),
        ),
        (
            "another shell",
            "usermod -s /bin/bash alice".to_owned(),
            "modify-user",
            "usermod -s /bin/sh alice".to_owned(),
        ),
    ] {
        sh(&host, &change);
        let drift = connector.drift(what);
        assert_eq!(drift["healed"], false);
        assert_eq!(kinds(&drift), [kind], "{what}: {drift}");
        connector.is_quiet("the same is told once");
        // A new connection hears of it, too.
        connector.link_up();
        assert_eq!(kinds(&connector.drift("a new connection")), [kind]);
        sh(&host, &undo);
        let over = connector.drift("put right by hand");
        assert!(is_empty(&over), "{what}: {over}");
    }
}

#[test]
fn an_account_that_is_gone_is_told() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let mut connector = alice(&host, &[]);
    sh(&host, "userdel alice");
    let drift = connector.drift("userdel");
    // Her home and rule are left.
    let text = drift.to_string();
    assert!(text.contains("create-user") || text.contains("/home/alice"), "{drift}");
}

#[test]
fn drift_is_put_right_where_that_is_the_policy() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").sudo_without_password().start().unwrap();
    let mut connector = alice(&host, &[("DRIFT", "heal")]);
    let keys = host.read_file(KEYS).unwrap();
    let rule = host.read_file("/etc/sudoers.d/bastio-alice").unwrap();
    for (what, change, kind) in [
        ("a key removed", format!(": > {KEYS}"), "add-key"),
        ("the rule gone", "rm /etc/sudoers.d/bastio-alice".to_owned(), "grant-sudo"),
        ("another shell", "usermod -s /bin/bash alice".to_owned(), "modify-user"),
    ] {
        sh(&host, &change);
        let drift = connector.drift(what);
        assert_eq!((&drift["healed"], kinds(&drift)), (&json!(true), vec![kind]), "{what}");
        connector.is_quiet("nothing is left");
    }
    assert_eq!(host.read_file(KEYS).unwrap(), keys);
    assert_eq!(host.read_file("/etc/sudoers.d/bastio-alice").unwrap(), rule);
    assert!(line(&host, "/etc/passwd", "alice").unwrap().ends_with(":/bin/sh"));
}

#[test]
fn a_key_that_others_add_is_told_and_stays() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let mut connector = alice(&host, &[("DRIFT", "heal")]);
    sh(&host, &format!("echo '{OTHER} mallory' >> {KEYS}"));
    let drift = connector.drift("a foreign key");
    assert_eq!((&drift["healed"], kinds(&drift).len()), (&json!(false), 0), "{drift}");
    let warning = drift["detail"]["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("alice: a key that others added logs in: SHA256:"), "{warning}");
    assert!(String::from_utf8(host.read_file(KEYS).unwrap()).unwrap().contains("mallory"));
}

#[test]
fn what_is_not_ours_is_no_drift() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let mut connector = alice(&host, &[]);
    for change in [
        "useradd -m bob && usermod -s /bin/sh bob && userdel -r bob",
        "echo '# a remark' >> /etc/sudoers",
        "echo 'bob ALL=(ALL) ALL' > /etc/sudoers.d/bob && chmod 440 /etc/sudoers.d/bob",
        "echo x > /home/alice/.ssh/known_hosts",
        "echo x > /home/alice/.bash_history; touch /etc/motd",
        "echo '# a remark' >> /home/alice/.ssh/authorized_keys",
    ] {
        sh(&host, change);
        connector.is_quiet(change);
    }
}

#[test]
fn somebody_who_writes_in_a_loop_holds_up_nobody() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").without_sshd().start().unwrap();
    let mut connector = alice(&host, &[]);
    let script =
        format!("while :; do echo x > {KEYS}; echo y > {KEYS}.new; mv {KEYS}.new {KEYS}; done");
    let mut flood = host.command("sh").args(["-c", &script]).spawn().unwrap();
    connector.drift("the flood");
    let begun = Instant::now();
    for number in 0..5 {
        let (status, text) = connector.add_user(&format!("user{number}"), false);
        assert_eq!(status, 200, "{text}");
    }
    eprintln!("five accounts in {} ms during a flood", begun.elapsed().as_millis());
    sh(&host, "rm /etc/sudoers.d/bastio-alice");
    while !kinds(&connector.drift("a rule during a flood")).contains(&"grant-sudo") {}
    let before = ticks(&connector);
    std::thread::sleep(Duration::from_secs(3));
    let used = ticks(&connector) - before;
    eprintln!("{used} ticks of the processor in 3 s of flood");
    assert!(used < 150, "{used} ticks of the processor in 3 s");
    flood.kill().unwrap();
}

/// Time that the processor has used, in hundredths of a second (proc(5)).
fn ticks(connector: &Connector) -> u64 {
    let stat =
        std::fs::read_to_string(format!("/proc/{}/stat", connector.processor.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn an_account_ends_on_time_with_its_sessions() {
    require_root!();
    let world = World::new().unwrap();
    let host = server(&world, "web-1").sudo_without_password().start().unwrap();
    let key = SshKey::generate(&world, "alice", &["ed25519"]).unwrap();
    let ssh = SshClient::new(&world, &key);
    let mut connector = Connector::start(&host);
    let now = || std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let until = now() + 8;
    let wanted = format!(
        r#"{{"sudo":{{"policy":{{}}}},"keys":[{{"public_key":"{}"}}],"until":{until}}}"#,
        key.public()
    );
    connector.set_user("alice", &wanted);
    let mut session =
        ssh.command("alice", host.ip(), ": > /tmp/begun; sleep 1000").spawn().unwrap();
    while !host.exists("/tmp/begun").unwrap() {
        assert!(now() < until, "the session has not begun in time");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!session.wait(Duration::from_secs(20)).unwrap().success());
    let ended = now();
    eprintln!("the session ended {} s after the end", ended.saturating_sub(until));
    assert!((until..until + 5).contains(&ended), "{until} {ended}");
    assert!(!ssh.can_log_in("alice", host.ip()).unwrap());
    assert!(!host.exists("/etc/sudoers.d/bastio-alice").unwrap());
    let keys = String::from_utf8(host.read_file(KEYS).unwrap()).unwrap();
    assert!(!keys.contains("ssh-ed25519"), "{keys}");
    connector.finish();
}
