//! A scripted version-1 agent at our backend: enrolment over HTTP, the legacy port, all five actions, and what it
//! cannot do.

use std::io::{Read, Write};
use std::time::Duration;

use bastio_tests::fleet::{Backend, enroll_and_start};
use bastio_tests::{Finished, PlacedCommand, SshKey, World, binary, require_root};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{LIMIT, Peer, script};

const LEGACY: &str = "[legacy]\nlisten = \"0.0.0.0:2359\"\n";
const LEGACY_SHA1: &str = "[legacy]\nlisten = \"0.0.0.0:2359\"\nsha1 = true\n";
/// What the backend's log says about SHA-1.
const LOUD: &str = "LEGACY.SHA1 IS ON";

/// A backend and the key files of a scripted agent.
struct Old<'world> {
    world: &'world World,
    backend: Backend<'world>,
    api_key: String,
}

impl<'world> Old<'world> {
    fn new(world: &'world World, configuration: &str) -> Self {
        let backend = Backend::start_with(world, configuration).unwrap();
        let api_key = backend.enroll_key("old").unwrap().secret;
        Self { world, backend, api_key }
    }

    /// `agent.py` with the private key of that name.
    fn script(&self, key: &str, command: &str) -> PlacedCommand<'world> {
        let key = self.world.folder().join(key);
        script(self.world, "agent.py").arg("-k").arg(key).arg(command)
    }

    fn url(&self) -> String {
        format!("{}/api/external/", self.backend.url())
    }

    fn upload(&self, key: &str, api_key: &str, words: &[&str]) -> Finished {
        let upload = self.script(key, "upload-key").args(["--url", &self.url()]);
        upload.args(["--api-key", api_key]).args(words).run().unwrap()
    }

    /// Makes a key and uploads it; the server is then called `name`.
    fn enrol(&self, key: &str, name: &str) {
        self.script(key, "generate-key").check().unwrap();
        let before = self.names();
        let upload = self.upload(key, &self.api_key, &[]);
        assert_eq!(
            upload.stdout, "{\"event\": \"upload\", \"status\": 200}\n",
            "{}",
            upload.stderr
        );
        let mut after = self.names();
        after.retain(|name| !before.contains(name));
        assert_eq!(after.len(), 1);
        self.backend.ask(&["server", "rename", &after[0], name]).unwrap();
    }

    fn names(&self) -> Vec<String> {
        let servers = self.backend.ask(&["server", "ls"]).unwrap();
        let names = servers.as_array().unwrap().iter().map(|server| server["name"].as_str());
        names.map(|name| name.unwrap().to_owned()).collect()
    }

    fn start_command(&self, key: &str, words: &[&str]) -> PlacedCommand<'world> {
        let ip = self.world.ip().to_string();
        let start = self.script(key, "start").args(["--url", &self.url(), "--host", &ip]);
        start.args(["--port", "2359", "--api-key", &self.api_key]).args(words)
    }

    fn start(&self, key: &str, words: &[&str]) -> Peer {
        Peer::start(self.start_command(key, words))
    }

    /// A person's RSA key, the only kind that such an agent knows.
    fn rsa_key(&self, name: &str) -> (SshKey, String) {
        let key = SshKey::generate(self.world, name, &["rsa", "-b", "2048"]).unwrap();
        let file = key.public_file().to_str().unwrap().to_owned();
        (key, file)
    }
}

/// The actions of an edit at a server, each as name, status and feedback.
fn reported(change: &Value, server: &str) -> Vec<(String, u64, String)> {
    let servers = change["servers"].as_array().unwrap();
    let server = servers.iter().find(|found| found["server"] == server).unwrap();
    let text = |action: &Value, name: &str| action[name].as_str().unwrap().to_owned();
    let actions = server["actions"].as_array().unwrap().iter();
    actions
        .map(|action| {
            let status = action["status"].as_u64().unwrap();
            (text(action, "action"), status, text(action, "feedback"))
        })
        .collect()
}

/// Has `words` typed, and expects these actions to arrive and their feedbacks to be shown.
fn edit(old: &Old<'_>, agent: &mut Peer, words: &[&str], expected: &[(&str, &str)]) -> Vec<Value> {
    let change = old.backend.ask(words).unwrap();
    assert_eq!(change["complete"], true, "{change}");
    let expected: Vec<_> =
        expected.iter().map(|(action, text)| ((*action).into(), 200, (*text).into())).collect();
    assert_eq!(reported(&change, "old-1"), expected, "{words:?}");
    let arrived: Vec<Value> = expected.iter().map(|_| agent.until("action").0).collect();
    for (event, (action, status, _)) in arrived.iter().zip(&expected) {
        assert_eq!((&event["action"], &event["status"]), (&json!(action), &json!(status)));
        assert_eq!(event["username"], "alice");
    }
    arrived.into_iter().map(|mut event| event["message"].take()).collect()
}

/// All five actions, typed at the console, at an agent that has just been enrolled as `old-1`.
fn five_actions(old: &Old<'_>, agent: &mut Peer) {
    let (first, first_file) = old.rsa_key("first");
    let (second, second_file) = old.rsa_key("second");
    let bare = |key: &SshKey| key.public().rsplit_once(' ').unwrap().0.to_owned();
    let created = ("add-user", "alice was created successfully");
    let added = ("add-key", "added public key to alice successfully");

    let words = ["user", "add", "alice", "--key", &first_file, "--on", "old-1", "--sudo"];
    let messages = edit(old, agent, &words, &[created, added]);
    assert_eq!(messages[0]["sudo"], true);
    assert_eq!(messages[1]["public_key"], bare(&first), "it compares texts: no comment");
    let no_sudo = ("update-user", "alice was removed from the sudo group successfully");
    let messages =
        edit(old, agent, &["user", "update", "alice", "--no-sudo", "--yes-really"], &[no_sudo]);
    assert_eq!(messages[0]["sudo"], false);
    let sudo = ("update-user", "alice was added to the sudo group successfully");
    edit(old, agent, &["user", "update", "alice", "--sudo"], &[sudo]);
    let messages = edit(old, agent, &["key", "add", "alice", &second_file], &[added]);
    assert_eq!(messages[0]["public_key"], bare(&second));
    let gone = ("remove-key", "removed public key from alice successfully");
    let messages = edit(old, agent, &["key", "rm", "alice", &first_file], &[gone]);
    assert_eq!(messages[0]["public_key"], bare(&first));
    let removed = ("remove-user", "alice was removed successfully");
    edit(old, agent, &["user", "rm", "alice", "--yes-really"], &[removed]);

    let log = old.backend.console(&["log"]).unwrap().check().unwrap().stdout;
    for (action, text) in [created, added, no_sudo, sudo, gone, removed] {
        assert!(log.contains(&format!("{action}: 200 {text}")), "{log}");
    }
    agent.process.signal(Signal::SIGTERM).unwrap();
    assert_eq!(agent.until("stopped").0["users"], json!({}));
    assert!(agent.process.wait(LIMIT).unwrap().success());
    let servers = old.backend.console(&["server", "ls"]).unwrap().check().unwrap().stdout;
    let row = servers.lines().find(|line| line.starts_with("old-1")).unwrap();
    assert!(!row.contains("never"), "{servers}");
}

#[test]
fn all_five_actions_from_the_console() {
    require_root!();
    let world = World::new().unwrap();
    let old = Old::new(&world, LEGACY);
    old.enrol("agent.key", "old-1");
    let mut agent = old.start("agent.key", &[]);
    let (connected, _) = agent.until("connected");
    assert_eq!(connected["mac"].as_str().unwrap().split('-').nth(1), Some("sha2"), "{connected}");
    old.backend.wait_connected(1, LIMIT).unwrap();
    five_actions(&old, &mut agent);
    let log = old.backend.log().unwrap();
    assert!(!log.contains(LOUD) && !log.contains(&old.api_key), "{log}");
}

#[test]
fn all_five_actions_with_the_libraries_of_2013() {
    require_root!();
    let world = World::new().unwrap();
    let mut old = Old::new(&world, LEGACY_SHA1);
    assert_eq!(old.backend.log().unwrap().matches(LOUD).count(), 1);
    old.backend.restart().unwrap();
    assert_eq!(old.backend.log().unwrap().matches(LOUD).count(), 2, "said at every start");
    old.enrol("agent.key", "old-1");
    let mut agent = old.start("agent.key", &["--pinned"]);
    let (connected, _) = agent.until("connected");
    assert_eq!(connected["mac"], "hmac-sha1", "{connected}");
    assert_eq!(connected["host_key"], "ssh-rsa", "{connected}");
    old.backend.wait_connected(1, LIMIT).unwrap();
    // The same port serves what is newer, without SHA-1.
    old.enrol("newer.key", "newer");
    let mut newer = old.start("newer.key", &[]);
    let (connected, _) = newer.until("connected");
    assert!(connected["mac"].as_str().unwrap().contains("sha2"), "{connected}");
    old.backend.wait_connected(2, LIMIT).unwrap();
    five_actions(&old, &mut agent);
}

#[test]
fn sha1_alone_is_refused_unless_it_is_switched_on() {
    require_root!();
    let world = World::new().unwrap();
    let old = Old::new(&world, LEGACY);
    old.enrol("agent.key", "old-1");
    let ended = old.start_command("agent.key", &["--pinned", "--connections", "1"]).run().unwrap();
    assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
    assert!(!ended.stdout.contains("\"connected\""), "{}", ended.stdout);
    assert!(ended.stdout.contains("no acceptable"), "{}", ended.stdout);
    let servers = old.backend.ask(&["server", "ls"]).unwrap();
    assert_eq!(servers[0]["presence"], "never-seen");
}

#[test]
fn without_the_legacy_port_there_is_no_rsa_host_key() {
    require_root!();
    let world = World::new().unwrap();
    let old = Old::new(&world, "");
    old.enrol("agent.key", "old-1");
    let ended = old.start_command("agent.key", &[]).run().unwrap();
    assert_eq!(ended.code(), Some(1));
    assert!(ended.stderr.contains("HTTP Error 404"), "{}", ended.stderr);
    let refused = world.connect(world.address(2359)).unwrap_err();
    assert!(refused.to_string().contains("refused"), "{refused}");
}

/// What the old agent cannot do fails there with the reason, and is done by the new one beside it.
#[test]
fn what_version_1_does_not_know_is_refused_with_the_reason() {
    require_root!();
    let world = World::new().unwrap();
    let old = Old::new(&world, LEGACY);
    old.enrol("agent.key", "old-1");
    let mut agent = old.start("agent.key", &[]);
    let program = binary("bastio-agent").unwrap();
    let host = world.host("new-1").binary(program).without_sshd().start().unwrap();
    let _new = enroll_and_start(&host, &old.backend.enroll_key("new").unwrap()).unwrap();
    old.backend.wait_connected(2, LIMIT).unwrap();

    let (_, rsa) = old.rsa_key("rsa");
    let words = ["user", "add", "jean-luc", "--key", &rsa, "--on", "old-1,new-1"];
    let table = old.backend.console(&words).unwrap().run().unwrap();
    assert_eq!(table.code(), Some(1), "{table:?}");
    let why = "not sent: this server's agent speaks version 1, which knows no login names with '-'";
    let row = |name: &str| table.stdout.lines().find(|line| line.starts_with(name)).unwrap();
    assert!(row("old-1").contains("failed") && row("old-1").contains(why), "{}", table.stdout);
    assert!(row("new-1").contains("done"), "{}", table.stdout);
    host.exec(&["id", "jean-luc"]).unwrap();

    let ed25519 = SshKey::generate(&world, "ed25519", &["ed25519"]).unwrap();
    let ed25519 = ed25519.public_file().to_str().unwrap().to_owned();
    let words = ["user", "add", "alice", "--key", &ed25519, "--on", "old-1,new-1"];
    let table = old.backend.console(&words).unwrap().run().unwrap();
    assert_eq!(table.code(), Some(1), "{table:?}");
    let row = |name: &str| table.stdout.lines().find(|line| line.starts_with(name)).unwrap();
    let why = "not sent: this server's agent is the original one, which knows RSA keys only";
    assert!(row("old-1").contains(why), "{}", table.stdout);
    assert!(row("new-1").contains("done"), "{}", table.stdout);

    // None of it reached the old agent, whose connection an unknown name would have cost.
    let (action, before) = agent.until("action");
    assert_eq!((&action["action"], &action["username"]), (&json!("add-user"), &json!("alice")));
    assert!(before.iter().all(|event| event["event"] != "lost"), "{before:?}");
    agent.process.signal(Signal::SIGTERM).unwrap();
    let (stopped, before) = agent.until("stopped");
    assert_eq!(before, Vec::<Value>::new());
    assert_eq!(stopped["users"], json!({"alice": {"sudo": false, "keys": []}}));
}

/// One HTTP request with this body, by hand; the status.
fn post(world: &World, body: &str) -> u16 {
    let mut stream = world.connect(world.address(2358)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let head = "POST /api/external/server/upload_key HTTP/1.1\r\nHost: backend\r\nConnection: close\r\n\
                Content-Type: application/json";
    write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn the_upload_answers_with_the_status_codes_of_version_1() {
    require_root!();
    let world = World::new().unwrap();
    let old = Old::new(&world, LEGACY);
    let api_key = old.api_key.as_str();
    let key = |name: &str, bits: &str| {
        let key = SshKey::generate(&world, name, &["rsa", "-b", bits]).unwrap();
        key.public().rsplit_once(' ').unwrap().0.to_owned()
    };
    let (good, other, weak) = (key("good", "2048"), key("other", "2048"), key("weak", "1024"));
    let blank = json!({"api_key": api_key, "public_key": good, "old_public_key": ""});
    let with = |name: &str, value: Value| {
        let mut body = blank.clone();
        body[name] = value;
        body.to_string()
    };
    let without = |name: &str| {
        let mut body = blank.clone();
        body.as_object_mut().unwrap().remove(name);
        body.to_string()
    };
    for (expected, body) in [
        (400, String::new()),
        (400, "{}".to_owned()),
        (400, "[]".to_owned()),
        (400, "api_key=x".to_owned()),
        (400, without("api_key")),
        (400, without("public_key")),
        (400, with("api_key", Value::Null)),
        (400, with("public_key", Value::Null)),
        (400, with("public_key", json!(""))),
        (400, with("public_key", json!("ssh-rsa AAAA"))),
        (400, with("public_key", json!(weak))),
        (400, with("old_public_key", json!("ssh-rsa AAAA"))),
        (400, with("old_public_key", json!(other))),
        (403, with("api_key", json!("unknown"))),
        (403, with("api_key", json!(""))),
    ] {
        assert_eq!(post(&world, &body), expected, "{body}");
    }
    assert_eq!(old.names(), Vec::<String>::new());
    assert_eq!(post(&world, &blank.to_string()), 200);
    assert_eq!(post(&world, &blank.to_string()), 200, "the same key is the same server");
    assert_eq!(old.names().len(), 1);
}

#[test]
fn an_uploaded_key_takes_the_place_of_the_old_one() {
    require_root!();
    let world = World::new().unwrap();
    let old = Old::new(&world, LEGACY);
    old.enrol("agent.key", "old-1");
    let mut before = old.start("agent.key", &["--connections", "2"]);
    before.until("connected");
    old.backend.wait_connected(1, LIMIT).unwrap();

    old.script("new.key", "generate-key").check().unwrap();
    let new = world.folder().join("new.key").to_str().unwrap().to_owned();
    assert_eq!(old.upload("agent.key", "unknown", &["-n", &new]).code(), Some(1));
    let replaced = old.upload("agent.key", &old.api_key, &["-n", &new]);
    assert!(replaced.stdout.contains("200"), "{replaced:?}");
    assert_eq!(old.names(), ["old-1"]);

    // The session of the old key ends, and it is not let in again.
    let (lost, _) = before.until("lost");
    assert_eq!(lost["worked"], true);
    let (lost, _) = before.until("lost");
    assert_eq!(lost["worked"], false, "{lost}");
    assert!(lost["why"].as_str().unwrap().contains("Authentication"), "{lost}");
    assert_eq!(before.process.wait(LIMIT).unwrap().code(), Some(1));

    let mut after = old.start("new.key", &[]);
    after.until("connected");
    old.backend.wait_connected(1, LIMIT).unwrap();
    let (_, file) = old.rsa_key("alice");
    let words = ["user", "add", "alice", "--key", &file, "--on", "old-1"];
    let change = old.backend.ask(&words).unwrap();
    assert_eq!(reported(&change, "old-1").len(), 2, "{change}");
    assert!(after.process.stop(Duration::from_secs(5)).unwrap().success());
}
