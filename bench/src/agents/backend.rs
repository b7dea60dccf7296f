//! The backend as it ships, in a folder of its own, and its API as an operator uses it. Must not know what is measured.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::talk;
use crate::BenchError;

/// Time to start.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The same at how everything stands, for each action that is asked for: a look costs the backend something, too.
const LOOK_PER_ACTION: Duration = Duration::from_nanos(500);

/// A running backend; killed when dropped.
pub struct Backend {
    folder: TempDir,
    child: Child,
    token: String,
    /// Its ports.
    pub listening: Listening,
    http: ureq::Agent,
}

/// `listen.json`.
#[derive(Debug, Clone, Deserialize)]
pub struct Listening {
    /// Port of the agents.
    pub ssh: SocketAddr,
    /// Port of the API.
    pub http: SocketAddr,
}

impl Backend {
    /// Starts one with a state of its own; `extra` is configuration.
    pub fn start(extra: &str) -> Result<Self, BenchError> {
        let mut backend = Self::start_any(extra)?;
        let log = fs::read_to_string(log_file(backend.folder.path())).unwrap_or_default();
        let token = log.lines().find_map(|line| line.split_once("admin token: "));
        let token = token.map(|(_, token)| token.trim().to_owned());
        backend.token = token.ok_or_else(|| BenchError::Child("no admin token".to_owned()))?;
        Ok(backend)
    }

    /// Starts one more node beside this one.
    pub fn join(&self, extra: &str) -> Result<Self, BenchError> {
        let mut node = Self::start_any(extra)?;
        node.token.clone_from(&self.token);
        Ok(node)
    }

    fn start_any(extra: &str) -> Result<Self, BenchError> {
        let folder = TempDir::new().map_err(|error| BenchError::File("a folder", error))?;
        write_config(folder.path(), "127.0.0.1:0", "127.0.0.1:0", extra)?;
        let child = spawn(folder.path())?;
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(300)));
        let http = ureq::Agent::new_with_config(config.http_status_as_error(false).build());
        let listening = listening(folder.path())?;
        let (ssh, api) = (listening.ssh.to_string(), listening.http.to_string());
        // It comes back at the same ports.
        write_config(folder.path(), &ssh, &api, extra)?;
        Ok(Self { folder, child, token: String::new(), listening, http })
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(0)
    }

    /// Base URL of the API.
    pub fn url(&self) -> String {
        format!("http://{}", self.listening.http)
    }

    /// Stops it in order; how long that took.
    pub fn stop(&mut self) -> Result<f64, BenchError> {
        let begin = Instant::now();
        kill(Pid::from_raw(self.pid()), Signal::SIGTERM)
            .map_err(|error| BenchError::Child(format!("the backend: {error}")))?;
        self.child.wait().map_err(|error| BenchError::File("the backend", error))?;
        Ok(begin.elapsed().as_secs_f64())
    }

    /// Ends it as a crash does.
    pub fn crash(&mut self) -> Result<(), BenchError> {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        ended.map(drop).map_err(|error| BenchError::File("the backend", error))
    }

    /// Starts it again with the state that is there.
    pub fn start_again(&mut self) -> Result<(), BenchError> {
        self.child = spawn(self.folder.path())?;
        listening(self.folder.path()).map(drop)
    }

    /// The host key that agents pin.
    pub fn host_key(&self) -> Result<String, BenchError> {
        let answer = self.call("GET", "/api/external/backend/host_key?type=ed25519", None)?;
        text(&answer, "/payload")
    }

    /// An API key that agents enrol with.
    pub fn enroll_key(&self) -> Result<String, BenchError> {
        let body = json!({ "name": "bench", "role": "enroll" });
        text(&self.call("POST", "/api/v1/api-keys", Some(body))?, "/secret")
    }

    /// Adds a person with one key, without any grant.
    pub fn add_user(&self, name: &str, key: &str) -> Result<(), BenchError> {
        let body = json!({ "name": name, "keys": [key] });
        self.call("POST", "/api/v1/users", Some(body)).map(drop)
    }

    /// Lets a person log in on servers; when it was asked.
    pub fn grant(&self, user: &str, on: &str) -> Result<(u64, f64), BenchError> {
        let (begun, begin) = (talk::micros(), Instant::now());
        let body = json!({ "user": user, "on": on });
        self.ask("POST", "/api/v1/grants", Some(body))?;
        Ok((begun, begin.elapsed().as_secs_f64()))
    }

    /// Gives a person one more key, wherever the person is; how long that took.
    pub fn add_key(&self, user: &str, key: &str) -> Result<f64, BenchError> {
        let begin = Instant::now();
        let body = json!({ "keys": [key] });
        self.ask("POST", &format!("/api/v1/users/{user}/keys"), Some(body))?;
        Ok(begin.elapsed().as_secs_f64())
    }

    /// Waits until none of so many actions is queued or sent; when that was seen.
    pub fn settled(&self, actions: usize) -> Result<u64, BenchError> {
        let actions = u32::try_from(actions).unwrap_or(u32::MAX);
        let pause = LOOK_EVERY.max(LOOK_PER_ACTION.saturating_mul(actions));
        while self.outstanding()? > 0 {
            std::thread::sleep(pause);
        }
        Ok(talk::micros())
    }

    /// How many actions are queued or sent.
    pub fn outstanding(&self) -> Result<u64, BenchError> {
        let status = self.call("GET", "/api/v1/status", None)?;
        let number = |field: &str| status.get(field).and_then(Value::as_u64);
        match (number("failed"), number("queued"), number("sent")) {
            (Some(0), Some(queued), Some(sent)) => Ok(queued + sent),
            _ => Err(BenchError::Action(status.to_string())),
        }
    }

    /// How many agents all nodes serve.
    pub fn connected(&self) -> Result<u64, BenchError> {
        let status = self.call("GET", "/api/v1/status", None)?;
        let connected = status.get("connected").and_then(Value::as_u64);
        connected.ok_or_else(|| BenchError::Child(format!("a status without agents: {status}")))
    }

    fn call(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value, BenchError> {
        let text = self.ask(method, path, body)?;
        serde_json::from_str(&text)
            .map_err(|error| BenchError::Child(format!("{method} {path} answers no JSON: {error}")))
    }

    /// The answer's text. That of an edit of 10,000 servers is long, and what reads it on this machine takes its time from
    /// what is measured.
    fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Result<String, BenchError> {
        let (url, token) = (format!("{}{path}", self.url()), format!("Bearer {}", self.token));
        let sent = match body {
            Some(body) => {
                let request = self.http.post(url).header("Authorization", token);
                request.header(bastio_protocol::api::CONFIRM_HEADER, "yes-really").send_json(body)
            }
            None => self.http.get(url).header("Authorization", token).call(),
        };
        let mut answer = sent.map_err(Box::new)?;
        let status = answer.status();
        let text = answer.body_mut().with_config().limit(1 << 30).read_to_string();
        let text = text.map_err(Box::new)?;
        if status.is_success() {
            return Ok(text);
        }
        Err(BenchError::Child(format!("{method} {path} is refused: {text}")))
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("BASTIO_BENCH_LOG").is_some() {
            let log = fs::read_to_string(log_file(self.folder.path())).unwrap_or_default();
            eprintln!("{log}");
        }
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(answer: &Value, pointer: &str) -> Result<String, BenchError> {
    let text = answer.pointer(pointer).and_then(Value::as_str);
    text.map(str::to_owned).ok_or_else(|| BenchError::Child(format!("no {pointer} in {answer}")))
}

fn log_file(folder: &Path) -> PathBuf {
    folder.join("backend.log")
}

fn write_config(folder: &Path, ssh: &str, http: &str, extra: &str) -> Result<(), BenchError> {
    let state = folder.join("state");
    let text = format!(
        "state = \"{}\"\n[ssh]\nlisten = \"{ssh}\"\n[http]\nlisten = \"{http}\"\n{extra}",
        state.display()
    );
    fs::write(folder.join("backend.toml"), text).map_err(|e| BenchError::File("backend.toml", e))
}

fn spawn(folder: &Path) -> Result<Child, BenchError> {
    let program = match std::env::var_os("BASTIO_BACKEND") {
        Some(program) => PathBuf::from(program),
        None => bastio_tests::binary("bastio-backend")?,
    };
    let log = File::options().create(true).append(true).open(log_file(folder));
    let log = log.map_err(|error| BenchError::File("the backend's log", error))?;
    let errors = log.try_clone().map_err(|error| BenchError::File("the backend's log", error))?;
    let mut command = Command::new(program);
    command.arg("--config").arg(folder.join("backend.toml")).arg("serve");
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    command.spawn().map_err(|error| BenchError::File("the backend", error))
}

fn listening(folder: &Path) -> Result<Listening, BenchError> {
    let (begin, path) = (Instant::now(), folder.join("state/listen.json"));
    while begin.elapsed() < START_LIMIT {
        if let Ok(text) = fs::read(&path) {
            return serde_json::from_slice(&text)
                .map_err(|error| BenchError::Child(format!("listen.json: {error}")));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let log = fs::read_to_string(log_file(folder)).unwrap_or_default();
    Err(BenchError::Child(format!("the backend does not start:\n{log}")))
}
