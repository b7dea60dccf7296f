//! Our agent at a scripted version-1 backend: enrolment over its HTTP side, the API key, the pin.

use std::time::Duration;

use bastio_tests::fleet::{agent_command, agent_log, prepare_agent};
use bastio_tests::{Host, PlacedCommand, Running, World, binary, require_root};
use serde_json::{Value, json};

use super::{LIMIT, Peer, script};
use crate::faults::until;

pub(super) const API_KEY: &str = "0f3a-version-1-key";

/// A scripted backend and one server with our agent, enrolled and running.
pub(super) struct Rig {
    // In the order in which they are to end.
    pub(super) agent: Running,
    pub(super) backend: Peer,
    pub(super) host: Host,
    /// What `enroll` said.
    pub(super) told: String,
    /// Where the backend listens, and with which host key.
    listening: Value,
    _world: World,
}

impl Rig {
    pub(super) fn start(enrol_words: &[&str]) -> Self {
        let world = World::new().unwrap();
        let (backend, listening) = start_backend(&world, "version-1.key", &[]);
        let agent = binary("bastio-agent").unwrap();
        let host = world.host("web-1").binary(agent).without_sshd().start().unwrap();
        prepare_agent(&host).unwrap();
        let url = format!("http://{}", world.address(port(&listening, "http")));
        let ssh = port(&listening, "ssh").to_string();
        let enrol = host.command("bastio-agent").args(["enroll", "--backend", &url]);
        let enrol = enrol.args(["--port", &ssh, "--api-key-file", "-"]).args(enrol_words);
        let told = enrol.input(API_KEY).check().unwrap().stdout;
        let agent = deleting_agent(&host).spawn_ready(LIMIT).unwrap();
        let mut rig = Self { agent, backend, host, told, listening, _world: world };
        let (upload, _) = rig.backend.until("upload");
        assert_eq!(upload["status"], 200);
        let (connected, _) = rig.backend.until("connected");
        assert_eq!(connected["username"], API_KEY);
        assert!(connected["client"].as_str().unwrap().starts_with("SSH-2.0-bastio"), "{connected}");
        rig
    }

    /// Stops the agent as its service manager would and starts it anew.
    pub(super) fn restart_agent(&mut self) {
        assert!(self.agent.stop(Duration::from_secs(5)).unwrap().success());
        self.agent = deleting_agent(&self.host).spawn_ready(LIMIT).unwrap();
    }

    /// Runs a shell script on the server; it must succeed.
    pub(super) fn shell(&self, text: &str) -> String {
        self.host.command("bash").args(["-eu", "-c", text]).check().unwrap().stdout
    }
}

/// An agent that deletes homes, as agents of version 1 did.
fn deleting_agent(host: &Host) -> PlacedCommand<'_> {
    agent_command(host).env("BASTIO_AGENT_REMOVAL", "delete")
}

/// A scripted backend of the world, and its first event.
fn start_backend(world: &World, key: &str, words: &[&str]) -> (Peer, Value) {
    let ip = world.ip().to_string();
    let command = script(world, "backend.py").args(["--listen", &ip, "--api-key", API_KEY]);
    let command = command.arg("--host-key").arg(world.folder().join(key)).args(words);
    let mut backend = Peer::start(command);
    let (listening, _) = backend.until("listening");
    (backend, listening)
}

fn port(listening: &Value, name: &str) -> u16 {
    listening[name].as_u64().unwrap().try_into().unwrap()
}

#[test]
fn enrolment_keeps_the_api_key_and_pins_the_rsa_host_key() {
    require_root!();
    let mut rig = Rig::start(&["--type", "rsa", "--name", "web-1"]);
    assert!(rig.told.contains("The host key was not checked."), "{}", rig.told);
    assert!(rig.told.contains("over plain http the API key goes in clear text"), "{}", rig.told);
    let config = String::from_utf8(rig.host.read_file("/etc/bastio/agent.toml").unwrap()).unwrap();
    assert!(config.contains(&format!("api_key = \"{API_KEY}\"\n")), "{config}");
    assert!(config.contains(rig.listening["host_key"].as_str().unwrap()), "{config}");
    let modes = "stat -c '%a %U' /etc/bastio/agent.toml /etc/bastio/agent.key";
    assert_eq!(rig.shell(modes), "600 root\n600 root\n");
    assert!(rig.shell("bastio-agent generate-key --force --type rsa").contains("\nssh-rsa "));

    let answer = rig.backend.feedback(&json!({"action": "remove-user", "username": "alice"}));
    assert_eq!((answer.status, answer.text.as_str()), (300, "alice does not exist"));
    let status = rig.shell("bastio-agent status --output json");
    assert_eq!(serde_json::from_str::<Value>(&status).unwrap()["connected"], true);
    let log = agent_log(&rig.host).unwrap();
    assert!(!log.contains(API_KEY) && !rig.told.contains(API_KEY) && !status.contains(API_KEY));
    let processes = rig.host.exec(&["ps", "axe", "-o", "args="]).unwrap().stdout;
    assert!(processes.contains("bastio-agent") && !processes.contains(API_KEY), "{processes}");
    assert!(rig.agent.stop(Duration::from_secs(5)).unwrap().success());
    rig.backend.finish();
}

#[test]
fn a_full_base_url_and_a_wrong_api_key() {
    require_root!();
    let world = World::new().unwrap();
    let (mut backend, listening) = start_backend(&world, "version-1.key", &[]);
    let agent = binary("bastio-agent").unwrap();
    let host = world.host("web-1").binary(agent).without_sshd().start().unwrap();
    let url = format!("http://{}/api/external/", world.address(port(&listening, "http")));
    let enrol = |key: &str| {
        let enrol = host.command("bastio-agent").args(["enroll", "--backend", &url]);
        enrol.args(["--api-key-file", "-"]).input(key).run().unwrap()
    };
    let refused = enrol("no-such-key");
    assert_eq!(refused.code(), Some(1));
    assert!(refused.stderr.contains("refused the API key"), "{}", refused.stderr);
    assert!(!host.exists("/etc/bastio/agent.toml").unwrap());
    assert_eq!(backend.until("upload").0["status"], 403);
    let done = enrol(API_KEY);
    assert!(done.success(), "{}", done.stderr);
    assert_eq!(backend.until("upload").0["status"], 200);
    backend.finish();
}

#[test]
fn a_backend_with_another_host_key_gets_no_login() {
    require_root!();
    let Rig { mut agent, backend, host, _world: world, listening, .. } = Rig::start(&[]);
    assert!(agent.stop(LIMIT).unwrap().success());
    backend.finish();
    let ssh = port(&listening, "ssh").to_string();
    let (mut impostor, _) = start_backend(&world, "other.key", &["--ssh-port", &ssh]);
    let _agent = agent_command(&host).spawn_ready(LIMIT).unwrap();
    let (refused, before) = impostor.until("no-session");
    assert!(before.is_empty(), "{before:?}, then {refused}");
    // The impostor knows that it was left before the agent has told why.
    until(LIMIT, "the host key in the status", || {
        let status = host.try_exec(&["bastio-agent", "status"]).unwrap();
        assert_eq!(status.code(), Some(1), "{}", status.stdout);
        status.stdout.contains("host key")
    });
    assert!(agent_log(&host).unwrap().contains("host key"));
}
