//! The signing key kept apart, on a whole host: sealed under a passphrase that systemd hands over, and handed over itself.

use bastio_tests::{BootedHost, World, require_root};
use serde_json::Value;

use crate::rig::{NEW, dpkg_install, package, wait_for};

const UNIT: &str = "bastio-backend.service";
const STATE: &str = "/var/lib/bastio";
const PASSPHRASE: &str = "five words that nobody guesses";

/// A backend, and a server of its own, on one host.
struct Site<'world> {
    host: BootedHost<'world>,
    token: String,
}

impl<'world> Site<'world> {
    fn start(world: &'world World) -> Self {
        let host = BootedHost::start(world, "backend-2", "bookworm").unwrap();
        for name in ["bastio-backend", "bastio"] {
            host.copy_in(package(&format!("{name}_{NEW}-1_amd64.deb")), "/tmp/it.deb").unwrap();
            host.exec(&["dpkg", "-i", "/tmp/it.deb"]).unwrap();
        }
        host.exec(&["systemctl", "start", UNIT]).unwrap();
        let admin_token = ["sudo", "-u", "bastio-backend", "bastio-backend", "admin-token"];
        let told = host.exec(&admin_token).unwrap().stdout;
        let token = told.split_whitespace().find(|word| word.starts_with("bst_")).unwrap();
        let token = token.to_owned();
        let site = Self { host, token };
        dpkg_install(&site.host, NEW);
        let key = site.ask(&["api-key", "add", "self", "--role", "enroll"]);
        let text = |path: &str| key.pointer(path).unwrap().as_str().unwrap().to_owned();
        let enroll = ["enroll", "--backend", "http://127.0.0.1:2358", "--api-key-file", "-"];
        let enroll = site.host.command("bastio-agent").args(enroll);
        let enroll = enroll.args(["--host-key", &text("/enroll/host_key")]);
        enroll.input(text("/secret")).check().unwrap();
        site.host.exec(&["systemctl", "start", "bastio-agent"]).unwrap();
        site.connected();
        site
    }

    fn ask(&self, words: &[&str]) -> Value {
        let command = self.host.command("bastio").args(words).args(["--output", "json"]);
        let command = command.env("BASTIO_TOKEN", &self.token);
        let told = command.env("BASTIO_URL", "http://127.0.0.1:2358").check().unwrap();
        serde_json::from_str(&told.stdout).unwrap()
    }

    #[track_caller]
    fn connected(&self) {
        wait_for("the agent is connected", || self.ask(&["status"])["connected"] == 1);
    }

    /// `bastio-backend key`, as its manual says.
    #[track_caller]
    fn key(&self, word: &str) -> String {
        let words = ["-u", "bastio-backend", "bastio-backend", "key", word];
        let command = self.host.command("sudo").args(words).args(["--passphrase-file", "-"]);
        command.input(PASSPHRASE).check().unwrap().stdout
    }

    /// Encrypted for this host, as the unit says; the unit gets it from then on.
    fn hand_over(&self, name: &str, secret: impl Into<Vec<u8>>) {
        let (name_is, file) =
            (format!("--name={name}"), format!("/etc/credstore.encrypted/{name}"));
        self.host.exec(&["install", "-d", "-m", "700", "/etc/credstore.encrypted"]).unwrap();
        let encrypt = ["encrypt", "--with-key=host", &name_is, "-", &file];
        self.host.command("systemd-creds").args(encrypt).input(secret).check().unwrap();
        let folder = format!("/etc/systemd/system/{UNIT}.d");
        self.host.exec(&["mkdir", "-p", &folder]).unwrap();
        let line = format!("[Service]\nLoadCredentialEncrypted={name}\n");
        self.host.command("tee").arg(format!("{folder}/key.conf")).input(line).check().unwrap();
        self.host.exec(&["systemctl", "daemon-reload"]).unwrap();
    }

    fn has(&self, login: &str) -> bool {
        self.host.try_exec(&["id", login]).unwrap().success()
    }
}

#[test]
fn systemd_hands_over_the_passphrase_or_the_key_itself() {
    require_root!();
    let world = World::new().unwrap();
    let site = Site::start(&world);

    // Sealed, and nobody opens it: what must be signed waits.
    site.host.exec(&["systemctl", "stop", UNIT]).unwrap();
    assert!(site.key("seal").contains("sealed (Argon2id"));
    site.host.exec(&["systemctl", "start", UNIT]).unwrap();
    site.connected();
    assert!(site.ask(&["status"])["sealed"].is_string());
    site.ask(&["user", "add", "alice", "--on", "*", "--no-wait"]);
    assert!(!site.has("alice"));

    // With the passphrase it is opened by itself.
    site.hand_over("signing_passphrase", PASSPHRASE);
    site.host.exec(&["systemctl", "restart", UNIT]).unwrap();
    wait_for("alice is there", || site.has("alice"));
    assert!(site.ask(&["status"])["sealed"].is_null());

    // The key itself: no file of the state folder has it.
    site.host.exec(&["systemctl", "stop", UNIT]).unwrap();
    site.key("unseal");
    let file = format!("{STATE}/signing_key");
    let key = site.host.read_file(&file).unwrap();
    site.hand_over("signing_key", key);
    site.host.exec(&["rm", &file]).unwrap();
    site.host.exec(&["systemctl", "start", UNIT]).unwrap();
    site.connected();
    site.ask(&["user", "add", "bob", "--on", "*"]);
    assert!(site.has("bob"));
    assert!(!site.host.exists(&file).unwrap());

    // Taken away, nothing takes its place: the backend says what is missing and does not start.
    site.host.exec(&["rm", "-r", &format!("/etc/systemd/system/{UNIT}.d")]).unwrap();
    site.host.exec(&["systemctl", "daemon-reload"]).unwrap();
    site.host.try_exec(&["systemctl", "restart", UNIT]).unwrap();
    let told = || site.host.exec(&["journalctl", "--no-pager", "--unit", UNIT]).unwrap().stdout;
    let missing = "LoadCredentialEncrypted=signing_key";
    wait_for("what is missing is told", || told().contains(missing));
    assert!(!site.host.exists(&file).unwrap(), "no new key that agents would not obey");
    assert!(!told().contains(PASSPHRASE), "never logged");
}
