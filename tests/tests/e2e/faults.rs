//! Faults over the whole path: a console command, a real backend, real agent processes, real accounts, the stock ssh.
//!
//! Each test is a site of its own: a backend, its console, and servers with agents. Waits are for events and bounded.

use std::path::Path;
use std::time::{Duration, Instant};

use bastio_tests::fleet::{self, Backend, EnrollKey};
use bastio_tests::{
    Finished, Host, HostBuilder, Proxy, Running, SshClient, SshKey, World, binary, require_root,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

mod accounts;
mod agent_ends;
mod backend_ends;
mod confirm;
mod database;
mod doubts;
mod hostile_homes;
mod line;
mod partition;
mod refused;
mod rivals;
mod stop;
mod unprivileged;

/// For everything that should take far less, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(40);

/// A backend and what new servers enrol with.
pub(crate) struct Site<'w> {
    pub(crate) world: &'w World,
    pub(crate) backend: Backend<'w>,
    pub(crate) key: EnrollKey,
}

/// A server with its agent.
pub(crate) struct Server {
    pub(crate) host: Host,
    pub(crate) agent: Running,
}

impl<'w> Site<'w> {
    pub(crate) fn start(world: &'w World) -> Self {
        Self::start_with(world, "")
    }

    /// With more lines in the backend's configuration.
    pub(crate) fn start_with(world: &'w World, configuration: &str) -> Self {
        let backend = Backend::start_with(world, configuration).unwrap();
        let key = backend.enroll_key("servers").unwrap();
        Self { world, backend, key }
    }

    /// A server that shows the agent's program and has enrolled nowhere.
    pub(crate) fn host(&self, name: &str) -> HostBuilder<'w> {
        self.world.host(name).binary(binary("bastio-agent").unwrap())
    }

    /// A new server without sshd, enrolled and connected.
    fn server(&self, name: &str) -> Server {
        self.enrol(self.host(name).without_sshd())
    }

    pub(crate) fn enrol(&self, host: HostBuilder<'_>) -> Server {
        let host = host.start().unwrap();
        let agent = fleet::enroll_and_start(&host, &self.key).unwrap();
        self.started(Server { host, agent })
    }

    /// The same, with a proxy between agent and backend.
    fn enrol_through(&self, host: HostBuilder<'_>, proxy: &Proxy) -> Server {
        let host = host.start().unwrap();
        fleet::prepare_agent(&host).unwrap();
        fleet::enroll_through(&host, &self.key, proxy.address()).check().unwrap();
        let agent = fleet::agent_command(&host).spawn_ready(LIMIT).unwrap();
        self.started(Server { host, agent })
    }

    fn started(&self, server: Server) -> Server {
        self.wait_presence(server.host.name(), "connected", LIMIT);
        server
    }

    /// A proxy to the port of the agents.
    fn proxy(&self) -> Proxy {
        Proxy::start(self.world, self.world.address(2357)).unwrap()
    }

    /// A console command, however it ends.
    pub(crate) fn bastio(&self, words: &[&str]) -> Finished {
        self.backend.console(words).unwrap().run().unwrap()
    }

    /// A console command that must end with 0.
    #[track_caller]
    pub(crate) fn done(&self, words: &[&str]) -> Finished {
        let finished = self.bastio(words);
        assert_eq!(finished.code(), Some(0), "{}\n{}", finished.stdout, finished.stderr);
        finished
    }

    /// A console command that must end with 1, with this text in its table.
    #[track_caller]
    fn fails(&self, words: &[&str], text: &str) {
        let finished = self.bastio(words);
        assert_eq!(finished.code(), Some(1), "{}\n{}", finished.stdout, finished.stderr);
        assert!(finished.stdout.contains("failed"), "{}", finished.stdout);
        assert!(finished.stdout.contains(text), "no {text:?} in: {}", finished.stdout);
    }

    /// What `bastio server show` says, as JSON.
    fn show(&self, server: &str) -> Value {
        self.backend.ask(&["server", "show", server]).unwrap()
    }

    #[track_caller]
    pub(crate) fn wait_presence(&self, server: &str, presence: &str, limit: Duration) {
        until(limit, &format!("{server} is {presence}"), || {
            self.show(server)["presence"] == presence
        });
    }

    /// Waits until every action has been answered.
    fn wait_answered(&self, limit: Duration) {
        self.backend
            .wait_status("wait for all answers", limit, |n| n("queued") + n("sent") == 0)
            .unwrap();
    }

    /// Waits until so many actions have been sent and not answered.
    fn wait_sent(&self, count: u64) {
        self.backend
            .wait_status("wait for actions to go out", LIMIT, |n| n("sent") == count)
            .unwrap();
    }

    /// How a server's actions ended, oldest first, as `bastio log` tells: `add-user: 200 alice was ...`.
    fn answers(&self, server: &str) -> Vec<String> {
        let rows = self.backend.ask(&["log", "--server", server, "--limit", "1000"]).unwrap();
        let mut rows = rows.as_array().unwrap().clone();
        rows.sort_by_key(|row| row["id"].as_i64());
        rows.iter()
            .filter(|row| row["action"].as_str().unwrap().starts_with("action."))
            .map(|row| row["detail"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl Server {
    fn log(&self) -> String {
        fleet::agent_log(&self.host).unwrap()
    }

    #[track_caller]
    fn wait_log(&self, text: &str, limit: Duration) {
        let found = Instant::now();
        while !self.log().contains(text) {
            assert!(found.elapsed() < limit, "no {text:?} in the agent's log:\n{}", self.log());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// The link to the backend, as the status file tells.
    fn link(&self) -> Value {
        let status = self.host.read_file("/run/bastio-agent/status.json").unwrap();
        serde_json::from_slice::<Value>(&status).unwrap()["link"].clone()
    }

    /// The connector, when it runs.
    #[track_caller]
    pub(crate) fn connector(&self) -> Pid {
        let start = Instant::now();
        loop {
            if let Some(pid) = fleet::connector(&self.agent) {
                return pid;
            }
            assert!(start.elapsed() < LIMIT, "no connector");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Kills the connector; `start` will make a new one, whose first attempt to connect comes at once.
    fn kill_connector(&self) {
        let old = self.connector();
        kill(old, Signal::SIGKILL).unwrap();
        until(LIMIT, "a new connector", || {
            fleet::connector(&self.agent).is_some_and(|new| new != old)
        });
    }

    /// Kills both processes, as a crash of the whole server would.
    fn kill_agent(&mut self) {
        let connector = self.connector();
        self.agent.kill().unwrap();
        // The end of its parent may have ended it already.
        let _ = kill(connector, Signal::SIGKILL);
        until(LIMIT, "the connector has ended", || !is_running(connector));
    }

    fn restart_agent(&mut self) {
        self.agent = fleet::agent_command(&self.host).spawn_ready(LIMIT).unwrap();
    }

    /// The person's key file, if there is one.
    fn keys(&self, user: &str) -> Option<String> {
        let file = format!("/home/{user}/.ssh/authorized_keys");
        let there = self.host.exists(&file).unwrap();
        there.then(|| String::from_utf8(self.host.read_file(&file).unwrap()).unwrap())
    }

    /// Whether a real login of that person's key succeeds.
    pub(crate) fn lets_in(&self, client: &SshClient<'_>, user: &str) -> bool {
        client.run(user, self.host.ip(), "true").unwrap().success()
    }

    fn has_account(&self, user: &str) -> bool {
        self.host.try_exec(&["id", user]).unwrap().success()
    }

    /// Each action that was carried out and answered, as the processor logged it.
    fn carried_out(&self) -> usize {
        self.log().lines().filter(|line| line.contains("action done")).count()
    }
}

/// A `useradd` that says when it has begun and then waits to be let go, in place of the real one.
struct HeldUseradd<'h>(&'h Host);

impl<'h> HeldUseradd<'h> {
    const SCRIPT: &'static str =
        "#!/bin/sh\n: > /run/begun\nread -r go < /run/go\nexec /usr/sbin/useradd.real \"$@\"\n";

    fn install(host: &'h Host) -> Self {
        host.exec(&["cp", "-a", "/usr/sbin/useradd", "/usr/sbin/useradd.real"]).unwrap();
        host.exec(&["mkfifo", "/run/go"]).unwrap();
        host.write_file("/usr/sbin/useradd.held", Self::SCRIPT).unwrap();
        host.exec(&["chmod", "755", "/usr/sbin/useradd.held"]).unwrap();
        host.exec(&["mv", "/usr/sbin/useradd.held", "/usr/sbin/useradd"]).unwrap();
        Self(host)
    }

    fn wait_begun(&self) {
        let script = "until [ -e /run/begun ]; do sleep 0.02; done";
        self.0.command("sh").args(["-c", script]).limit(LIMIT).check().unwrap();
    }

    /// Lets the one that waits go on; later ones are the real program.
    fn let_go(self) {
        self.0.exec(&["mv", "/usr/sbin/useradd.real", "/usr/sbin/useradd.back"]).unwrap();
        self.0.exec(&["cp", "-a", "/usr/sbin/useradd.back", "/usr/sbin/useradd.real"]).unwrap();
        self.0.exec(&["mv", "/usr/sbin/useradd.back", "/usr/sbin/useradd"]).unwrap();
        self.0.command("sh").args(["-c", "echo > /run/go"]).limit(LIMIT).check().unwrap();
    }
}

/// Time between two looks at something that cannot be waited for.
const LOOK_EVERY: Duration = Duration::from_millis(25);

#[track_caller]
pub(crate) fn until(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

fn is_running(pid: Pid) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn person(world: &World, name: &str) -> (SshKey, String) {
    let key = SshKey::generate(world, name, &["ed25519"]).unwrap();
    let file = key.public_file().display().to_string();
    (key, file)
}

/// The account databases, byte for byte.
fn databases(host: &Host) -> Vec<Vec<u8>> {
    let files = ["/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow"];
    files.iter().map(|file| host.read_file(Path::new(file)).unwrap()).collect()
}
