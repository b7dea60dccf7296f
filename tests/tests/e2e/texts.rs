//! The texts that bastio writes for sudo and sshd, read by the real ones: they take them, and make of them what
//! bastio means.

use std::time::{SystemTime, UNIX_EPOCH};

use bastio_protocol::{
    KeyExpiry, KeyFile, KeyLineSpec, KeyOptions, KeyPolicy, PublicKey, SudoPolicy, Username,
};
use bastio_tests::{Host, SshClient, SshKey, World, require_root};
use serde_json::json;

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn policy(json: serde_json::Value) -> SudoPolicy {
    serde_json::from_value(json).unwrap()
}

/// Whether visudo takes the text; a pure check.
fn is_taken(host: &Host, text: &str) -> bool {
    let visudo = host.command("visudo").arg("-c").arg("-f").arg("-").input(text);
    visudo.run().unwrap().success()
}

/// Whether sudo would let the account run that.
fn allows(host: &Host, account: &str, wish: &[&str]) -> bool {
    host.try_exec(&[&["sudo", "-l", "-U", account], wish].concat()).unwrap().success()
}

fn give(host: &Host, account: &str, policy: &SudoPolicy) {
    let text = policy.to_sudoers(&Username::parse(account).unwrap(), None).unwrap();
    assert!(is_taken(host, &text), "{text}");
    host.write_file("/etc/sudoers.d/texts", &text).unwrap();
    host.exec(&["chmod", "440", "/etc/sudoers.d/texts"]).unwrap();
}

/// Command lines that a rule allows, or does not.
type Wishes = &'static [&'static [&'static str]];

#[test]
fn sudo_matches_commands_as_they_are_typed() {
    require_root!();
    let world = World::new().unwrap();
    let host = world.host("web-1").without_sshd().start().unwrap();
    host.exec(&["useradd", "alice"]).unwrap();
    assert!(!is_taken(&host, "alice ALL=(ALL) nonsense\n"), "visudo can refuse");
    let table: [(&str, Wishes, Wishes); 8] = [
        ("/bin/echo", &[&["/bin/echo"], &["/bin/echo", "a", "b"]], &[&["/bin/ls"]]),
        ("/bin/echo \"\"", &[&["/bin/echo"]], &[&["/bin/echo", "a"]]),
        (
            "/bin/echo a,b:c=d#e",
            &[&["/bin/echo", "a,b:c=d#e"]],
            &[&["/bin/echo", "a"], &["/bin/ls"]],
        ),
        ("/bin/echo \\*", &[&["/bin/echo", "*"]], &[&["/bin/echo", "x"]]),
        ("/bin/echo \\[a\\]\\?", &[&["/bin/echo", "[a]?"]], &[&["/bin/echo", "a?"]]),
        ("/bin/echo [a-c]? *", &[&["/bin/echo", "bz", "x/y", "z"]], &[&["/bin/echo", "dz", "x"]]),
        ("/bin/ech?", &[&["/bin/echo"]], &[&["/bin/ls"]]),
        (
            "/bin/echo ! $x ~y %z @w (v) <u> & | ; `t` {s}",
            &[&[
                "/bin/echo",
                "!",
                "$x",
                "~y",
                "%z",
                "@w",
                "(v)",
                "<u>",
                "&",
                "|",
                ";",
                "`t`",
                "{s}",
            ]],
            &[&["/bin/echo"]],
        ),
    ];
    for (command, allowed, denied) in table {
        // Beside another command, so that an unescaped comma or colon shows.
        give(&host, "alice", &policy(json!({"commands": ["/bin/true", command]})));
        for wish in allowed {
            assert!(allows(&host, "alice", wish), "{command}: {wish:?}");
        }
        for wish in denied {
            assert!(!allows(&host, "alice", wish), "{command}: {wish:?}");
        }
        assert!(allows(&host, "alice", &["/bin/true"]), "{command}");
    }
}

#[test]
fn sudoedit_is_for_the_files_that_are_named() {
    require_root!();
    let world = World::new().unwrap();
    let host = world.host("web-1").without_sshd().start().unwrap();
    host.exec(&["useradd", "alice"]).unwrap();
    give(
        &host,
        "alice",
        &policy(json!({"commands": ["/bin/true", "sudoedit /etc/hosts /etc/fstab"]})),
    );
    let edits = |files: &[&str]| {
        let editor =
            ["runuser", "-u", "alice", "--", "env", "SUDO_EDITOR=/bin/true", "sudoedit", "-n"];
        host.try_exec(&[&editor[..], files].concat()).unwrap().success()
    };
    assert!(edits(&["/etc/hosts", "/etc/fstab"]));
    for files in
        [&["/etc/passwd"][..], &["/etc/hosts"], &["/etc/hosts", "/etc/fstab", "/etc/passwd"]]
    {
        assert!(!edits(files), "{files:?}");
    }
}

#[test]
fn sudo_keeps_to_times_and_names() {
    require_root!();
    let world = World::new().unwrap();
    let host = world.host("web-1").without_sshd().start().unwrap();
    host.exec(&["useradd", "alice"]).unwrap();
    let (past, future) = (now() - 3600, now() + 3600);
    let commands = ["/bin/true", "/bin/ls"];
    for (from, until, expected) in [
        (past, future, true),
        (past - 1, past, false),
        (future, future + 1, false),
        (i64::MIN, i64::MAX, true),
    ] {
        give(
            &host,
            "alice",
            &policy(json!({"commands": commands, "not_before": from, "not_after": until})),
        );
        for command in commands {
            assert_eq!(allows(&host, "alice", &[command]), expected, "{from} {until} {command}");
        }
    }
    give(&host, "alice", &policy(json!({"commands": commands, "run_as": ["www-data", "games"]})));
    for (target, expected) in
        [("www-data", true), ("games", true), ("root", false), ("daemon", false)]
    {
        for command in commands {
            assert_eq!(allows(&host, "alice", &["-u", target, command]), expected, "{target}");
        }
    }
}

#[test]
fn words_of_sudo_are_names_in_quotes() {
    require_root!();
    let world = World::new().unwrap();
    let host = world.host("web-1").without_sshd().start().unwrap();
    for name in ["sudoedit", "sha224", "all", "defaults", "a-b", "_a", "jean.luc"] {
        host.exec(&["useradd", "--badname", name]).unwrap();
        give(&host, name, &policy(json!({"run_as": [name]})));
        assert!(allows(&host, name, &["-u", name, "/bin/ls"]), "{name}");
        assert!(!allows(&host, name, &["-u", "root", "/bin/ls"]), "{name}");
    }
}

/// Alice logs in by one key, whose line is what a test writes.
struct Login<'world> {
    host: Host,
    ssh: SshClient<'world>,
    key: PublicKey,
}

impl<'world> Login<'world> {
    fn new(world: &'world World) -> Self {
        let host = world.start_host("web-1").unwrap();
        let key = SshKey::generate(world, "alice", &["ed25519"]).unwrap();
        host.exec(&["useradd", "-m", "-U", "-p", "*", "-s", "/bin/bash", "alice"]).unwrap();
        host.exec(&["install", "-d", "-o", "alice", "-m", "700", "/home/alice/.ssh"]).unwrap();
        let parsed = PublicKey::parse(key.public(), &KeyPolicy::default()).unwrap();
        Self { host, ssh: SshClient::new(world, &key), key: parsed }
    }

    fn write(&self, options: &str, expiry: Option<KeyExpiry>) {
        let options = KeyOptions::parse(options).unwrap();
        let mut file = KeyFile::parse(b"# alice's own\n");
        file.set_ours(&[KeyLineSpec { key: self.key.clone(), options, expiry }]);
        self.host.write_file("/home/alice/.ssh/authorized_keys", file.to_bytes()).unwrap();
    }

    fn works(&self) -> bool {
        self.ssh.can_log_in("alice", self.host.ip()).unwrap()
    }
}

#[test]
fn sshd_takes_options_in_our_spelling() {
    require_root!();
    let world = World::new().unwrap();
    let login = Login::new(&world);
    let here = world.ip();
    for options in [
        "".to_owned(),
        "restrict,agent-forwarding,port-forwarding,pty,user-rc,x11-forwarding".to_owned(),
        "no-agent-forwarding,no-port-forwarding,no-pty,no-user-rc,no-x11-forwarding".to_owned(),
        format!("from=\"{here}\""),
        format!("from=\"{here}/32,!10.128.0.0/9,2001:db8::/32,*.example.org\""),
        "from=\"10.77.0.*\"".to_owned(),
        "environment=\"A_1=x=\\\"y\\\", z\",environment=\"B=\"".to_owned(),
        "permitopen=\"db-1:5432\",permitopen=\"[2001:db8::1]:*\",permitopen=\"*:80\"".to_owned(),
        "permitlisten=\"8080\",permitlisten=\"localhost:*\",permitlisten=\"*:9\"".to_owned(),
        "tunnel=\"any\"".to_owned(),
        "tunnel=\"2147483645\"".to_owned(),
        "no-touch-required,verify-required".to_owned(),
    ] {
        login.write(&options, None);
        assert!(login.works(), "{options}");
    }
    for options in ["from=\"192.0.2.1\"", "from=\"*,!10.77.0.0/16\"", "from=\"!10.77.0.*,*\""] {
        login.write(options, None);
        assert!(!login.works(), "{options}");
    }
}

#[test]
fn sshd_runs_commands_to_the_letter() {
    require_root!();
    let world = World::new().unwrap();
    let login = Login::new(&world);
    for word in ["plain", "a \\\"b\\\", c", "back\\\\slash $HOME #x", "ä = \\\\\\\"q"] {
        login.write(&format!("command=\"printf %s '{word}'\""), None);
        let output = login.ssh.run("alice", login.host.ip(), "ignored").unwrap();
        // In the text `\"` is a quote and any other backslash itself.
        assert_eq!(output.stdout, word.replace("\\\"", "\""), "{word}");
    }
}

#[test]
fn sshd_keeps_to_the_end_of_a_key() {
    require_root!();
    let world = World::new().unwrap();
    let login = Login::new(&world);
    let (past, future) = (now() - 120, now() + 120);
    for (expiry, expected) in [
        (KeyExpiry::utc(past), false),
        (KeyExpiry::utc(future), true),
        (KeyExpiry::utc(i64::MIN), false),
        (KeyExpiry::utc(i64::MAX), true),
        (KeyExpiry::local(past, 0), false),
        (KeyExpiry::local(future, 0), true),
        (KeyExpiry::local(0, -86_400), false),
    ] {
        login.write("no-pty", Some(expiry.clone()));
        assert_eq!(login.works(), expected, "{expiry}");
    }
}
