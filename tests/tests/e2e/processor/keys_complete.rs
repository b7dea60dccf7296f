//! Every shape of a real sshd: where it reads keys, what it makes of their options, and managed mode.

use bastio_agent::accounts::Account;
use bastio_agent::keys_on_disk::{self, Owner};
use bastio_agent::sshd::{self, Shape};
use bastio_protocol::{KeyGrant, KeyOptions, KeyPolicy, PublicKey, Username};
use nix::unistd::{Gid, Uid};

use super::confirm::{link_up, word};
use super::*;

mod unconfirmed;

const ADDITION: &str = "/etc/ssh/sshd_config.d/10-bastio.conf";
const MANAGED: &str = "/etc/ssh/authorized_keys.d/alice";

/// A server whose sshd has these lines in its configuration, a processor on it, and a person's key.
struct Rig<'w> {
    world: &'w World,
    host: Host,
    key: SshKey,
    _sshd: Running,
}

impl<'w> Rig<'w> {
    fn new(world: &'w World, name: &str, lines: &str) -> Self {
        let host = server(world, name).without_sshd().start().unwrap();
        host.exec(&["ssh-keygen", "-A"]).unwrap();
        host.exec(&["mkdir", "-p", "/run/sshd", "/etc/bastio"]).unwrap();
        host.write_file("/etc/ssh/sshd_config.d/50-test.conf", lines).unwrap();
        let sshd = host.command("/usr/sbin/sshd").args(["-D", "-e", "-o", "LogLevel=VERBOSE"]);
        let sshd = sshd.log_to("/var/log/sshd.log").spawn_ready(LIMIT).unwrap();
        let key = SshKey::generate(world, name, &["ed25519"]).unwrap();
        Self { world, host, key, _sshd: sshd }
    }

    fn ssh(&self, remote: &str) -> bastio_tests::Finished {
        SshClient::new(self.world, &self.key).run("alice", self.host.ip(), remote).unwrap()
    }

    #[track_caller]
    fn gets_in(&self, expected: bool) {
        let client = SshClient::new(self.world, &self.key);
        let until = std::time::Instant::now() + LIMIT;
        loop {
            match client.can_log_in("alice", self.host.ip()) {
                // While sshd reads its configuration anew nobody listens.
                Err(error) if error.to_string().contains("refused") => {
                    assert!(std::time::Instant::now() < until, "{error}");
                    std::thread::sleep(Duration::from_millis(50));
                }
                got_in => {
                    let log = self.text("/var/log/sshd.log");
                    return assert_eq!(got_in.unwrap(), expected, "{log}");
                }
            }
        }
    }

    /// Runs a processor with this line in its configuration until it is ready, with alice's account.
    fn processor(&self, line: &str) -> Connector {
        self.host.write_file("/etc/bastio/agent.toml", line).unwrap();
        self.host.exec(&["chmod", "0600", "/etc/bastio/agent.toml"]).unwrap();
        Connector::start(&self.host)
    }

    fn log(&self) -> String {
        self.text("/var/log/processor.log")
    }

    fn has(&self, path: &str) -> bool {
        self.host.exists(path).unwrap()
    }

    fn text(&self, path: &str) -> String {
        String::from_utf8(self.host.read_file(path).unwrap()).unwrap()
    }

    /// Sets all keys of alice as reconciling does.
    fn set(&self, options: &str, until: Option<i64>) {
        let (uid, gid, _) = owner_and_mode(&self.host, "/home/alice");
        let account = Account {
            name: Username::parse("alice").unwrap(),
            owner: Owner { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid) },
            home: "/home/alice".into(),
            is_system: false,
            is_managed: true,
        };
        let public_key = PublicKey::parse(self.key.public(), &KeyPolicy::ANY).unwrap();
        let grant = KeyGrant { public_key, options: KeyOptions::parse(options).unwrap(), until };
        let (set, read) = self
            .host
            .within(|| {
                let shape = Shape::of_account(&account.name);
                let set = keys_on_disk::set_keys(&account, &shape, std::slice::from_ref(&grant));
                (set, keys_on_disk::ours(&account, &shape))
            })
            .unwrap();
        set.unwrap();
        assert_eq!(read.unwrap(), [grant]);
    }
}

#[test]
fn keys_let_in_and_keep_out_wherever_sshd_reads_them() {
    require_root!();
    let world = World::new().unwrap();
    let shapes = [
        ("two", "AuthorizedKeysFile .ssh/one .ssh/two\n", "/home/alice/.ssh/one"),
        (
            "folder",
            "AuthorizedKeysFile /etc/ssh/k/%u/keys .ssh/authorized_keys\n",
            "/etc/ssh/k/alice/keys",
        ),
        (
            "match",
            "Match User alice\nAuthorizedKeysFile /etc/ssh/m/%u\nMatch User bob\nAuthorizedKeysFile none\n",
            "/etc/ssh/m/alice",
        ),
        (
            "home",
            "AuthorizedKeysFile %h/keys\nAuthorizedKeysCommand /bin/true\nAuthorizedKeysCommandUser nobody\n",
            "/home/alice/keys",
        ),
    ];
    for (name, lines, file) in shapes {
        let rig = Rig::new(&world, name, lines);
        let mut connector = rig.processor("");
        expect(connector.add_user("alice", false), 200, "alice was created successfully");
        rig.gets_in(false);
        assert_eq!(connector.add_key("alice", rig.key.public()).0, 200, "{name}");
        assert!(rig.text(file).ends_with(" bastio:managed\n"), "{name}");
        rig.gets_in(true);
        assert_eq!(connector.remove_key("alice", rig.key.public()).0, 200, "{name}");
        rig.gets_in(false);
        assert_eq!(connector.add_key("alice", rig.key.public()).0, 200, "{name}");
        assert_eq!(connector.remove_user("alice").0, 200, "{name}");
        assert!(!rig.has(file) || rig.text(file).is_empty(), "{name}");
        let warned = rig.log().contains("/bin/true names, too (AuthorizedKeysCommand)");
        assert_eq!(warned, name == "home", "{}", rig.log());
        connector.finish();
    }
}

#[test]
fn keys_that_wait_for_a_name_let_nobody_in() {
    require_root!();
    let world = World::new().unwrap();
    let shapes = [
        ("plain", "AuthorizedKeysFile /etc/ssh/waiting/%u .ssh/authorized_keys\n"),
        ("group", "Match Group bastio-managed\nAuthorizedKeysFile /etc/ssh/waiting/%u\n"),
        ("user", "Match User alice\nAuthorizedKeysFile /etc/ssh/waiting/alice\n"),
    ];
    for (name, lines) in shapes {
        let rig = Rig::new(&world, name, lines);
        let mut connector = rig.processor("");
        let file = "/etc/ssh/waiting/alice";
        rig.host.exec(&["mkdir", "/etc/ssh/waiting"]).unwrap();
        rig.host.write_file(file, format!("{}\n", rig.key.public())).unwrap();
        let refused = connector.add_user("alice", false);
        expect_like(&refused, 500, "/etc/ssh/waiting/alice has keys of others");
        assert!(!rig.host.try_exec(&["id", "alice"]).unwrap().success(), "{name}");
        assert!(!rig.has("/home/alice"), "{name}");
        rig.gets_in(false);
        // What bastio wrote for a former account of that name is its own to take away.
        let ours = format!("{} bastio:managed\n", rig.key.public());
        rig.host.write_file(file, ours).unwrap();
        expect(connector.add_user("alice", false), 200, "alice was created successfully");
        rig.gets_in(false);
        assert_eq!(connector.add_key("alice", rig.key.public()).0, 200, "{name}");
        rig.gets_in(true);
        connector.finish();
    }
}

#[test]
fn a_file_that_all_share_outlives_each_of_them() {
    require_root!();
    let world = World::new().unwrap();
    let lines = "AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/all/keys\n";
    let rig = Rig::new(&world, "shared", lines);
    let mut connector = rig.processor("");
    rig.host.exec(&["mkdir", "/etc/ssh/all"]).unwrap();
    rig.host.write_file("/etc/ssh/all/keys", format!("{}\n", rig.key.public())).unwrap();
    assert_eq!(connector.add_user("bob", false).0, 200);
    assert_eq!(connector.add_user("alice", false).0, 200);
    rig.gets_in(true);
    assert_eq!(connector.remove_user("bob").0, 200);
    rig.gets_in(true);
    connector.finish();
}

#[test]
fn numeric_ids_missing_homes_and_closed_folders() {
    require_root!();
    let world = World::new().unwrap();
    let rig =
        Rig::new(&world, "ids", "AuthorizedKeysFile /etc/ssh/by-id/%U .ssh/authorized_keys\n");
    let mut connector = rig.processor("");
    assert_eq!(connector.add_user("alice", false).0, 200);
    let (uid, _, _) = owner_and_mode(&rig.host, "/home/alice");
    let file = format!("/etc/ssh/by-id/{uid}");
    rig.host.exec(&["mv", "/home/alice", "/home/gone"]).unwrap();
    assert_eq!(connector.add_key("alice", rig.key.public()).0, 200);
    assert_eq!(owner_and_mode(&rig.host, &file), (0, 0, 0o644));
    rig.gets_in(true);
    rig.host.exec(&["chmod", "0775", "/etc/ssh/by-id"]).unwrap();
    rig.gets_in(false);
    expect_like(
        &connector.remove_key("alice", rig.key.public()),
        500,
        "by-id can be written by others than root",
    );
    rig.host.exec(&["chmod", "0755", "/etc/ssh/by-id"]).unwrap();
    assert_eq!(connector.remove_key("alice", rig.key.public()).0, 200);
    rig.gets_in(false);
    rig.host.exec(&["mv", "/home/gone", "/home/alice"]).unwrap();
    rig.host.exec(&["mount", "--bind", "/etc/ssh/by-id", "/etc/ssh/by-id"]).unwrap();
    rig.host.exec(&["mount", "-o", "remount,bind,ro", "/etc/ssh/by-id"]).unwrap();
    // The next place that sshd reads does.
    assert_eq!(connector.add_key("alice", rig.key.public()).0, 200);
    assert!(rig.has("/home/alice/.ssh/authorized_keys"));
    rig.gets_in(true);
    connector.finish();
}

#[test]
fn where_nothing_can_be_written_it_says_why() {
    require_root!();
    let world = World::new().unwrap();
    let rig = Rig::new(&world, "none", "AuthorizedKeysFile none\n");
    let mut connector = rig.processor("");
    assert_eq!(connector.add_user("alice", false).0, 200);
    expect_like(&connector.add_key("alice", rig.key.public()), 500, "AuthorizedKeysFile none");
    connector.finish();
    let rig = Rig::new(&world, "ro", "AuthorizedKeysFile /etc/ssh/ro/%u\n");
    let mut connector = rig.processor("");
    assert_eq!(connector.add_user("alice", false).0, 200);
    rig.host.exec(&["mount", "--bind", "/etc/ssh/ro", "/etc/ssh/ro"]).unwrap();
    rig.host.exec(&["mount", "-o", "remount,bind,ro", "/etc/ssh/ro"]).unwrap();
    let found = connector.add_key("alice", rig.key.public());
    expect_like(&found, 500, "cannot change /etc/ssh/ro/alice: its file system is read-only");
    connector.finish();
}

#[test]
fn sshd_does_what_the_options_say() {
    require_root!();
    let world = World::new().unwrap();
    let rig = Rig::new(&world, "options", "");
    let mut connector = rig.processor("");
    assert_eq!(connector.add_user("alice", false).0, 200);
    connector.finish();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_secs()).unwrap();

    rig.set("command=\"echo \\\"forced, with a comma\\\"\"", None);
    assert_eq!(rig.ssh("id").stdout, "forced, with a comma\n");
    rig.set("from=\"192.0.2.0/24\"", None);
    rig.gets_in(false);
    rig.set(&format!("from=\"!192.0.2.1,{}\"", world.ip()), None);
    rig.gets_in(true);
    rig.set("restrict", None);
    assert!(rig.ssh("true").success());
    let tty = |rig: &Rig<'_>| {
        let command = rig.world.command("ssh");
        let known =
            format!("UserKnownHostsFile={}", rig.world.folder().join("known_hosts").display());
        let options = ["-tt", "-F", "none", "-o", "BatchMode=yes", "-o", &known, "-i"];
        let command = command.args(options).arg(rig.key.private_file());
        command.args(["-l", "alice", &rig.host.ip().to_string(), "tty"]).run().unwrap()
    };
    assert!(!tty(&rig).stdout.contains("/dev/pts"), "{:?}", tty(&rig));
    rig.set("restrict,pty", Some(now + 3600));
    assert!(tty(&rig).stdout.contains("/dev/pts"), "{:?}", tty(&rig));
    rig.set("", Some(now - 1));
    rig.gets_in(false);
    rig.set("", None);
    rig.gets_in(true);

    let report = rig.host.within(sshd::report).unwrap();
    assert_eq!(report["authorizedkeysfile"], ".ssh/authorized_keys .ssh/authorized_keys2");
    assert!(report["version"].starts_with("OpenSSH "), "{report:?}");
    assert_eq!((report["port"].as_str(), report["usepam"].as_str()), ("22", "yes"));
}

#[test]
fn managed_mode_goes_on_and_off_without_losing_a_key() {
    require_root!();
    let world = World::new().unwrap();
    let rig = Rig::new(&world, "managed", "");
    let mut connector = rig.processor("");
    assert_eq!(connector.add_user("alice", false).0, 200);
    assert_eq!(connector.add_key("alice", rig.key.public()).0, 200);
    connector.finish();
    let in_home = "/home/alice/.ssh/authorized_keys";
    let before = rig.text(in_home);
    rig.host.write_file(in_home, format!("# mine\n{before}")).unwrap();
    rig.host.exec(&["chown", "alice:alice", in_home]).unwrap();

    let mut connector = rig.processor("keys = 'managed'\n");
    assert!(rig.log().contains("a probe login of alice"), "{}", rig.log());
    link_up(&mut connector);
    connector.remove_user("nobody-there");
    assert_eq!((rig.text(MANAGED), rig.text(in_home).as_str()), (before.clone(), "# mine\n"));
    assert_eq!(owner_and_mode(&rig.host, MANAGED), (0, 0, 0o644));
    rig.gets_in(true);
    // A person without a usable home has keys now.
    rig.host.exec(&["chmod", "0777", "/home/alice"]).unwrap();
    assert_eq!(connector.add_key("alice", KEY).0, 200);
    rig.gets_in(true);
    rig.host.exec(&["chmod", "0755", "/home/alice"]).unwrap();
    assert_eq!(connector.remove_key("alice", KEY).0, 200);
    connector.finish();
    rig.processor("keys = 'managed'\n").finish();

    rig.processor("").finish();
    assert!(!rig.has(ADDITION), "{}", rig.log());
    assert_eq!(rig.text(in_home), format!("# mine\n{before}"));
    assert_eq!(rig.text(MANAGED), "");
    rig.gets_in(true);
}

#[test]
fn managed_mode_is_taken_back_when_nobody_gets_in() {
    require_root!();
    let world = World::new().unwrap();
    let failing = [
        ("allow", "AllowUsers nobody\n", "a probe login of alice failed"),
        ("first", "", "another AuthorizedKeysFile stands before"),
        ("include", "", "add this as its first line: Include /etc/ssh/sshd_config.d/*.conf"),
    ];
    for (name, lines, why) in failing {
        let rig = Rig::new(&world, name, lines);
        let mut connector = rig.processor("");
        assert_eq!(connector.add_user("alice", false).0, 200);
        assert_eq!(connector.add_key("alice", rig.key.public()).0, 200);
        connector.finish();
        let before = rig.text("/home/alice/.ssh/authorized_keys");
        match name {
            "first" => {
                let lines = "AuthorizedKeysFile .ssh/authorized_keys\n";
                rig.host.write_file("/etc/ssh/sshd_config.d/00-first.conf", lines).unwrap();
            }
            "include" => {
                rig.host.exec(&["sed", "-i", "/^Include/d", "/etc/ssh/sshd_config"]).unwrap();
            }
            _ => {}
        }
        rig.processor("keys = 'managed'\n").finish();
        let log = rig.log();
        assert!(log.contains("changed back") && log.contains(why), "{name}: {log}");
        assert!(!rig.has(ADDITION), "{name}");
        assert_eq!(rig.text("/home/alice/.ssh/authorized_keys"), before, "{name}");
        assert!(!rig.has(MANAGED) || rig.text(MANAGED).is_empty(), "{name}");
        assert!(!rig.has("/var/lib/bastio-agent/sshd.pending"), "{name}");
        rig.gets_in(name != "allow");
    }
}

#[test]
fn a_switch_that_was_cut_off_is_taken_back_at_the_next_start() {
    require_root!();
    let world = World::new().unwrap();
    let rig = Rig::new(&world, "cut", "");
    let mut connector = rig.processor("");
    assert_eq!(connector.add_user("alice", false).0, 200);
    assert_eq!(connector.add_key("alice", rig.key.public()).0, 200);
    connector.finish();
    let addition =
        "# bastio: managed, do not edit\nAuthorizedKeysFile /etc/ssh/authorized_keys.d/%u\n";
    rig.host.write_file(ADDITION, addition).unwrap();
    rig.host.write_file("/var/lib/bastio-agent/sshd.pending", "").unwrap();
    rig.processor("").finish();
    assert!(!rig.has(ADDITION) && !rig.has("/var/lib/bastio-agent/sshd.pending"));
    rig.gets_in(true);
}
