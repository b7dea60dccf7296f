//! Signed orders over the whole path, and what a stolen connector can do with the root processor: nothing.
//!
//! The stolen connector is this test's hand on the processor's pipe. Its orders are signed by `tests/v2/order.py`, with
//! the backend's own key where that is the point.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bastio_tests::{Finished, Host, Running, SshKey, World, binary, fleet, require_root};
use serde_json::{Value, json};

use crate::faults::{Server, Site};

const LIMIT: Duration = Duration::from_secs(40);
const LOG: &str = "/var/log/stolen.log";

/// The hand on the pipe.
struct Stolen {
    socket: UnixStream,
    processor: Running,
    /// Whom the processor says it obeys.
    obeys: Value,
}

impl Stolen {
    /// Starts the server's processor; its own agent must have ended.
    fn start(host: &Host) -> Self {
        let (socket, theirs) = UnixStream::pair().unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let processor = host.command("/usr/bin/bastio-agent").arg("processor");
        let processor = processor.stdin(OwnedFd::from(theirs)).log_to(LOG).spawn().unwrap();
        let mut stolen = Self { socket, processor, obeys: Value::Null };
        loop {
            let word = stolen.receive();
            match word["type"].as_str().unwrap() {
                "ready" => return stolen,
                "obeys" => stolen.obeys = word["obeys"].clone(),
                other => assert_eq!(other, "feedback", "{word}"),
            }
        }
    }

    fn last_sequence(&self) -> u64 {
        self.obeys["last_sequence"].as_u64().unwrap()
    }

    fn receive(&mut self) -> Value {
        let mut len = 0;
        loop {
            let mut byte = [0];
            self.socket.read_exact(&mut byte).unwrap();
            match byte {
                [b':'] => break,
                [digit] => len = len * 10 + usize::from(digit - b'0'),
            }
        }
        let mut body = vec![0; len + 1];
        self.socket.read_exact(&mut body).unwrap();
        serde_json::from_slice(&body[..len]).unwrap()
    }

    fn ask(&mut self, body: &str) -> (u64, String) {
        self.socket.write_all(format!("{}:{body},", body.len()).as_bytes()).unwrap();
        let answer = self.receive();
        assert_eq!(answer["type"], "feedback", "{answer}");
        (answer["status"].as_u64().unwrap(), answer["feedback"].as_str().unwrap().to_owned())
    }

    #[track_caller]
    fn refuses(&mut self, body: &str, words: &str) {
        let (status, text) = self.ask(body);
        assert!(status == 500 && text.contains(words), "{status} {text}");
    }

    fn stop(mut self) {
        drop(self.socket);
        self.processor.wait(LIMIT).unwrap();
    }
}

/// A signer of orders.
struct Signer<'w> {
    world: &'w World,
    key: String,
    server: String,
}

impl Signer<'_> {
    fn order(&self, sequence: u64, not_after: &str, payload: &str) -> String {
        let target = binary("bastio").unwrap().ancestors().nth(2).map(PathBuf::from).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("v2/order.py");
        let command = self.world.command(target.join("venv/bin/python")).arg(script);
        let command = command.args([&self.key, &self.server, &sequence.to_string(), not_after]);
        command.arg(payload).check().unwrap().stdout
    }

    fn with(&self, key: &str, server: &str) -> Self {
        Self { world: self.world, key: key.to_owned(), server: server.to_owned() }
    }
}

fn action(mid: &str, name: &str, user: &str) -> String {
    let sudo = if name == "add-user" { r#","sudo":true"# } else { "" };
    format!(r#"{{"type":"action","mid":"{mid}","action":"{name}","username":"{user}"{sudo}}}"#)
}

fn pinned(host: &Host, key: &str) -> String {
    let config = String::from_utf8(host.read_file("/etc/bastio/agent.toml").unwrap()).unwrap();
    let line = config.lines().find_map(|line| line.strip_prefix(&format!("{key} = ")));
    line.expect(key).trim_matches('"').to_owned()
}

fn databases(host: &Host) -> Vec<Vec<u8>> {
    let files = ["/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow"];
    files.iter().map(|file| host.read_file(file).unwrap()).collect()
}

/// A site with one server on which alice is, and the file of a key.
fn site(world: &World) -> (Site<'_>, Server, String) {
    let site = Site::start(world);
    let server = site.enrol(site.host("web-1").without_sshd());
    let key = SshKey::generate(world, "key", &["ed25519"]).unwrap();
    let key = key.public_file().display().to_string();
    add(&site, "alice", &key);
    (site, server, key)
}

/// Adds a person on the server, once its agent is connected.
#[track_caller]
fn add(site: &Site<'_>, user: &str, key: &str) -> Finished {
    site.backend.wait_connected(1, LIMIT).unwrap();
    site.done(&["user", "add", user, "--key", key, "--on", "web-1"])
}

#[test]
fn a_stolen_connector_gets_nothing_done() {
    require_root!();
    let world = World::new().unwrap();
    let (site, Server { host, mut agent }, key) = site(&world);
    assert_eq!(pinned(&host, "require_signed"), "true");
    let detail = site.backend.ask(&["server", "show", "web-1"]).unwrap();
    for (fact, begin) in [("kernel", "Linux "), ("agent_version", env!("CARGO_PKG_VERSION"))] {
        assert!(detail["facts"][fact].as_str().unwrap().starts_with(begin), "{detail}");
    }
    assert_eq!(detail["facts"]["hostname"], "web-1");
    assert!(agent.stop(LIMIT).unwrap().success());

    let state = site.backend.state_folder();
    let genuine = Signer {
        world: &world,
        key: state.join("signing_key").display().to_string(),
        server: pinned(&host, "server_id"),
    };
    let mut stolen = Stolen::start(&host);
    let last = stolen.last_sequence();
    assert!(last >= 1, "alice with her key: {}", stolen.obeys);
    let before = databases(&host);
    let add_eve = action("e", "add-user", "eve");
    let good = genuine.order(last + 1, "+600", &add_eve);
    for name in ["add-user", "remove-user"] {
        stolen.refuses(&action("p", name, "alice"), "not signed");
    }
    stolen.refuses(
        &genuine.with("seed:1", &genuine.server).order(last + 1, "+600", &add_eve),
        "signature",
    );
    stolen.refuses(&genuine.with(&genuine.key, "4711").order(last + 1, "+600", &add_eve), "4711");
    stolen.refuses(&good.replacen("eve", "mal", 1), "signature");
    stolen.refuses(&genuine.order(last, "+600", &add_eve), "obeyed already");
    let spelled = format!("{} ", add_eve);
    stolen.refuses(&genuine.order(last + 1, "+600", &spelled), "understands");
    stolen.refuses(&genuine.order(last + 1, "1700000000", &add_eve), "was good until");
    // Behind it nothing is obeyed on this connection: what came too late comes again.
    stolen.refuses(&good, "was good until");
    assert_eq!(databases(&host), before, "something happened");
    assert!(!host.exists("/home/eve").unwrap());
    let log = String::from_utf8(host.read_file(LOG).unwrap()).unwrap();
    assert_eq!(log.matches("an order was refused").count(), 7, "{log}");
    assert_eq!(log.matches("an action was refused").count(), 2, "{log}");
    stolen.stop();
    let mut stolen = Stolen::start(&host);

    // What the backend's key has signed for this server, now, and never before: that is obeyed, once.
    assert_eq!(stolen.ask(&good).0, 200);
    stolen.refuses(&good, "obeyed already");
    stolen.stop();
    let mut stolen = Stolen::start(&host);
    assert_eq!(stolen.last_sequence(), last + 1, "the number survives");
    stolen.refuses(&good, "obeyed already");
    let remove = action("r", "remove-user", "eve");
    assert_eq!(stolen.ask(&genuine.order(last + 20, "+600", &remove)).0, 200);
    stolen.stop();

    // The backend, whose numbers fell behind, learns of it and is obeyed again.
    let _agent = fleet::agent_command(&host).spawn_ready(LIMIT).unwrap();
    add(&site, "bob", &key);
    let is_there = |name: &str| host.try_exec(&["id", name]).unwrap().success();
    assert!(is_there("bob") && !is_there("eve"));
}

#[test]
fn agents_follow_the_backend_to_its_next_signing_key() {
    require_root!();
    let world = World::new().unwrap();
    let (mut site, Server { host, mut agent }, key) = site(&world);
    let state = site.backend.state_folder();
    let old_key = world.folder().join("old_key");
    world.write_file(&old_key, world.read_file(state.join("signing_key")).unwrap()).unwrap();
    let is_kept = || world.read_file(state.join("signing_key.old-1")).is_ok();
    let config = world.folder().join("backend.toml");
    let rotate = || {
        let command = world.command(binary("bastio-backend").unwrap()).arg("--config");
        command.arg(&config).arg("rotate-signing-key").run().unwrap()
    };
    let refused = rotate();
    assert!(
        !refused.success() && refused.stderr.contains("another backend uses"),
        "{}",
        refused.stderr
    );
    assert!(site.backend.process().stop(LIMIT).unwrap().success());
    let told = rotate().stdout;
    assert!(told.contains("signing key: SHA256:"), "{told}");
    site.backend.restart().unwrap();
    add(&site, "bob", &key);
    let log = fleet::agent_log(&host).unwrap();
    assert!(log.contains("another key signs orders from now on"), "{log}");
    assert_eq!(pinned(&host, "require_signed"), "true");

    // Both start anew: the agent remembers, the backend forgets the key that nobody needs.
    assert!(is_kept());
    site.backend.restart().unwrap();
    assert!(!is_kept());
    assert!(agent.stop(LIMIT).unwrap().success());
    let mut agent = fleet::agent_command(&host).spawn_ready(LIMIT).unwrap();
    add(&site, "carol", &key);
    assert!(agent.stop(LIMIT).unwrap().success());

    let mut stolen = Stolen::start(&host);
    let last = stolen.last_sequence();
    let by_old = Signer {
        world: &world,
        key: old_key.display().to_string(),
        server: pinned(&host, "server_id"),
    };
    stolen.refuses(&by_old.order(last + 1, "+600", &action("e", "add-user", "eve")), "signature");
    let back =
        json!({"type": "rotate-signing-key", "mid": "m", "key": pinned(&host, "signing_key")});
    stolen.refuses(&by_old.order(last + 1, "+600", &back.to_string()), "signature");
    stolen.stop();
}
