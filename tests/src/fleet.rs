//! The product as its operators run it: a backend in a world, its console, and an agent on a server. Knows the command
//! lines and files of the three programs, none of their code.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use serde_json::Value;

use crate::{Host, LabError, PlacedCommand, Running, World, binary};

/// Time for a program to say that it is ready.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// Time between two looks at who is connected; the API has nothing to wait on for that.
const LOOK_EVERY: Duration = Duration::from_millis(25);
const AGENT_LOG: &str = "/var/log/bastio-agent.log";

/// A running backend with its administrator's token. Dropping it kills it; its state stays in the world.
#[derive(Debug)]
pub struct Backend<'world> {
    world: &'world World,
    process: Running,
    token: String,
}

/// What a new server needs to enrol.
#[derive(Clone)]
pub struct EnrollKey {
    /// Where the backend is.
    pub backend: String,
    /// Fingerprint of its host key, to be pinned.
    pub host_key: String,
    /// The API key itself.
    pub secret: String,
}

impl std::fmt::Debug for EnrollKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrollKey").field("backend", &self.backend).finish_non_exhaustive()
    }
}

impl<'world> Backend<'world> {
    /// Writes a configuration, starts the backend on its usual ports and waits until it is ready. Servers know it as
    /// `backend`.
    ///
    /// # Errors
    /// [`LabError`] when it does not start.
    pub fn start(world: &'world World) -> Result<Self, LabError> {
        Self::start_with(world, "")
    }

    /// [`Backend::start`] with more lines in the configuration file (TOML tables).
    ///
    /// # Errors
    /// [`LabError`] when it does not start.
    pub fn start_with(world: &'world World, configuration: &str) -> Result<Self, LabError> {
        let state = state_folder(world);
        let text = format!(
            "state = \"{}\"\n[http]\npublic_url = \"http://backend:2358\"\n{configuration}",
            state.display()
        );
        world.write_file(config_file(world), text)?;
        let process = Self::command(world)?.spawn_ready(READY_LIMIT)?;
        let log = world.read_file(log_file(world))?;
        let token = String::from_utf8_lossy(&log)
            .lines()
            .find_map(|line| line.split_once("admin token: "))
            .map(|(_, token)| token.trim().to_owned());
        let token = token.ok_or_else(|| LabError::Missing {
            what: "the line `admin token: ...` in the backend's output".into(),
            hint: format!("look at {}", log_file(world).display()),
        })?;
        Ok(Self { world, process, token })
    }

    /// The command that starts the backend.
    ///
    /// # Errors
    /// [`LabError::Missing`] when it has not been built.
    pub fn command(world: &World) -> Result<PlacedCommand<'_>, LabError> {
        let command = world.command(binary("bastio-backend")?);
        Ok(command.arg("--config").arg(config_file(world)).arg("serve").log_to(log_file(world)))
    }

    /// Starts it again with the state that is there, after it has ended or been killed.
    ///
    /// # Errors
    /// [`LabError`] when it does not start.
    pub fn restart(&mut self) -> Result<(), LabError> {
        self.process.kill()?;
        self.process = Self::command(self.world)?.spawn_ready(READY_LIMIT)?;
        Ok(())
    }

    /// The backend's process.
    pub fn process(&mut self) -> &mut Running {
        &mut self.process
    }

    /// What it has logged.
    ///
    /// # Errors
    /// [`LabError::System`] when the log can't be read.
    pub fn log(&self) -> Result<String, LabError> {
        let bytes = self.world.read_file(log_file(self.world))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The administrator's token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The URL of the API, seen from the world.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.world.address(2358))
    }

    /// The console's command `bastio`, logged in as administrator.
    ///
    /// # Errors
    /// [`LabError::Missing`] when it has not been built.
    pub fn console(&self, words: &[&str]) -> Result<PlacedCommand<'world>, LabError> {
        let command = self.world.command(binary("bastio")?);
        Ok(command.env("BASTIO_URL", self.url()).env("BASTIO_TOKEN", &self.token).args(words))
    }

    /// Runs a console command that must succeed, and returns its answer as JSON.
    ///
    /// # Errors
    /// [`LabError::Failed`] when it fails or its answer is no JSON.
    pub fn ask(&self, words: &[&str]) -> Result<Value, LabError> {
        let finished = self.console(words)?.args(["--output", "json"]).check()?;
        serde_json::from_str(&finished.stdout).map_err(|error| LabError::Failed {
            command: finished.command,
            status: format!("its answer is no JSON: {error}"),
            output: finished.stdout,
        })
    }

    /// Makes an API key that new servers enrol with.
    ///
    /// # Errors
    /// [`LabError::Failed`] when the backend refuses.
    pub fn enroll_key(&self, name: &str) -> Result<EnrollKey, LabError> {
        let answer = self.ask(&["api-key", "add", name, "--role", "enroll"])?;
        let text = |path: &str| {
            let value = answer.pointer(path).and_then(Value::as_str).map(str::to_owned);
            value.ok_or_else(|| LabError::Missing {
                what: format!("{path} in the answer to `bastio api-key add`"),
                hint: "the console and this lab do not fit together".into(),
            })
        };
        Ok(EnrollKey {
            backend: text("/enroll/backend")?,
            host_key: text("/enroll/host_key")?,
            secret: text("/secret")?,
        })
    }

    /// Waits until this many servers are connected.
    ///
    /// # Errors
    /// [`LabError::TimedOut`] after `limit`.
    pub fn wait_connected(&self, servers: u64, limit: Duration) -> Result<(), LabError> {
        let doing = format!("wait for {servers} agents");
        self.wait_status(&doing, limit, |number| number("connected") == servers)
    }

    /// Waits until `bastio status` shows what is wanted: `done` gets a function from a field to its number.
    ///
    /// # Errors
    /// [`LabError::TimedOut`] after `limit`.
    pub fn wait_status(
        &self,
        doing: &str,
        limit: Duration,
        done: impl Fn(&dyn Fn(&str) -> u64) -> bool,
    ) -> Result<(), LabError> {
        let start = Instant::now();
        loop {
            let status = self.ask(&["status"])?;
            let number =
                |field: &str| status.get(field).and_then(Value::as_u64).unwrap_or(u64::MAX);
            if done(&number) {
                return Ok(());
            }
            if start.elapsed() > limit {
                return Err(LabError::TimedOut {
                    doing: format!("{doing}; it is: {status}"),
                    limit,
                });
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Where it keeps its state, in the world.
    #[must_use]
    pub fn state_folder(&self) -> PathBuf {
        state_folder(self.world)
    }

    /// Lets it run on after this process has ended.
    pub fn leave_running(self) {
        self.process.leave_running();
    }
}

/// Makes the account that the agent's connector runs as; a package would do that.
///
/// # Errors
/// [`LabError::Failed`] when useradd refuses.
pub fn prepare_agent(host: &Host) -> Result<(), LabError> {
    host.exec(&[
        "useradd",
        "--system",
        "--no-create-home",
        "--shell",
        "/usr/sbin/nologin",
        "bastio",
    ])
    .map(drop)
}

/// The command that enrols a server (its agent reads the API key from its input).
#[must_use]
pub fn enroll_command<'host>(host: &'host Host, key: &EnrollKey) -> PlacedCommand<'host> {
    enroll_command_as(host, key, host.name())
}

/// The same under another name.
#[must_use]
pub fn enroll_command_as<'host>(
    host: &'host Host,
    key: &EnrollKey,
    name: &str,
) -> PlacedCommand<'host> {
    let command = host.command("bastio-agent").args(["enroll", "--backend", &key.backend]);
    let command = command.args(["--name", name, "--host-key", &key.host_key]);
    command.args(["--api-key-file", "-"]).input(key.secret.as_bytes())
}

/// The same for an agent that will reach the backend's agents' port at another address, e.g. through a proxy.
#[must_use]
pub fn enroll_through<'host>(
    host: &'host Host,
    key: &EnrollKey,
    address: SocketAddr,
) -> PlacedCommand<'host> {
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    enroll_command(host, key).args(["--host", &ip, "--port", &port])
}

/// The command that starts a server's agent.
#[must_use]
pub fn agent_command(host: &Host) -> PlacedCommand<'_> {
    as_its_unit_does(host.command("bastio-agent").arg("start")).log_to(AGENT_LOG)
}

/// Sets the environment that the agent's unit sets, so that it is tried and measured as it ships.
#[must_use]
pub fn as_its_unit_does(command: PlacedCommand<'_>) -> PlacedCommand<'_> {
    let unit = include_str!("../../systemd/bastio-processor.service");
    let set = unit.lines().filter_map(|line| line.strip_prefix("Environment=")?.split_once('='));
    set.fold(command, |command, (name, value)| command.env(name, value))
}

/// Prepares, enrols and starts the agent of a server that shows the program `bastio-agent` in `/usr/bin`.
///
/// # Errors
/// [`LabError`] when any of it fails.
pub fn enroll_and_start(host: &Host, key: &EnrollKey) -> Result<Running, LabError> {
    prepare_agent(host)?;
    enroll_command(host, key).check()?;
    agent_command(host).spawn_ready(READY_LIMIT)
}

/// What a server's agent has logged.
///
/// # Errors
/// [`LabError::System`] when there is no log.
pub fn agent_log(host: &Host) -> Result<String, LabError> {
    host.read_file(AGENT_LOG).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// The agent's unprivileged half, a child of the program that [`agent_command`] starts; none while there is none.
#[must_use]
pub fn connector(agent: &Running) -> Option<Pid> {
    let agent = agent.pid();
    let children = std::fs::read_to_string(format!("/proc/{agent}/task/{agent}/children")).ok()?;
    children.split_whitespace().find_map(|child| {
        let words = std::fs::read(format!("/proc/{child}/cmdline")).ok()?;
        let is_connector = words.split(|byte| *byte == 0).any(|word| word == b"connector");
        is_connector.then(|| child.parse().ok().map(Pid::from_raw)).flatten()
    })
}

fn state_folder(world: &World) -> PathBuf {
    world.folder().join("backend")
}

fn config_file(world: &World) -> PathBuf {
    world.folder().join("backend.toml")
}

fn log_file(world: &World) -> PathBuf {
    world.folder().join("backend.log")
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_halves_of_the_agent_keep_memory_alike() {
        let connector = include_str!("../../systemd/bastio-agent.service");
        let processor = include_str!("../../systemd/bastio-processor.service");
        let set = |unit: &'static str| {
            unit.lines().filter(|line| line.starts_with("Environment=")).collect::<Vec<_>>()
        };
        assert_eq!(set(connector), set(processor));
        assert_eq!(set(processor).len(), 1);
    }
}
