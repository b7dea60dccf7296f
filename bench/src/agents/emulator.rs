//! The child process with all emulated agents: does what it is asked and tells when it has happened. Must not know what
//! is measured.

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bastio_protocol::VerifyingKey;
use bastio_transport::{ClientConfig, HostKeyPin, KeyKind, PrivateKey};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::agent::{Agent, Happened, Shared};
use super::stranger;
use super::talk::{self, Ask, Counts, Setup, Tell};
use crate::BenchError;

/// Connections that enrol at a time.
const ENROLLERS: usize = 4;
/// Happenings that wait to be looked at.
const HAPPENINGS: usize = 1024;
/// Bodies that are kept as a sample.
const SAMPLE: usize = 16;

/// What is being waited for.
#[derive(Default)]
enum Waiting {
    #[default]
    Nothing,
    Up {
        at: Vec<Option<u64>>,
        missing: usize,
    },
    Moved {
        /// The node that they leave.
        node: usize,
        at: Vec<u64>,
        missing: usize,
    },
    Answers {
        orders: usize,
        given: Vec<usize>,
        at: Vec<u64>,
        missing: usize,
        sample: Vec<String>,
    },
}

struct Emulator {
    agents: Vec<Agent>,
    count: usize,
    /// Which node has greeted each agent last.
    served_by: Vec<Option<usize>>,
    shared: Arc<Shared>,
    happened: mpsc::Receiver<Happened>,
    waiting: Waiting,
    counts: Counts,
    targets: Vec<SocketAddr>,
    strangers: JoinSet<()>,
}

/// Runs until its input ends.
pub fn run() -> Result<(), BenchError> {
    talk::raise_open_files().map_err(|error| BenchError::Child(format!("open files: {error}")))?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| BenchError::File("a runtime", error))?;
    let ended = runtime.block_on(serve(questions()));
    if let Err(error) = &ended {
        tell(&Tell::Failed { why: error.to_string() });
    }
    runtime.shutdown_background();
    ended
}

/// The lines of the input, read by a thread of its own.
pub fn questions() -> mpsc::Receiver<Ask> {
    let (sender, questions) = mpsc::channel(4);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let Ok(ask) = serde_json::from_str(&line) else { break };
            if sender.blocking_send(ask).is_err() {
                break;
            }
        }
    });
    questions
}

/// One line of the output.
pub fn tell(tell: &Tell) {
    let line = serde_json::to_string(tell).expect("numbers and texts always serialise");
    let mut output = std::io::stdout().lock();
    // Without a listener the input ends, too.
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}

async fn serve(mut questions: mpsc::Receiver<Ask>) -> Result<(), BenchError> {
    let Some(Ask::Setup(setup)) = questions.recv().await else {
        return Err(BenchError::Child("the first line is no setup".to_owned()));
    };
    let mut emulator = Emulator::new(&setup)?;
    tell(&Tell::Ready);
    loop {
        tokio::select! {
            ask = questions.recv() => match ask {
                Some(ask) => emulator.asked(ask).await?,
                None => return Ok(()),
            },
            Some(happened) = emulator.happened.recv() => emulator.note(happened),
        }
    }
}

impl Emulator {
    fn new(setup: &Setup) -> Result<Self, BenchError> {
        let (events, happened) = mpsc::channel(HAPPENINGS);
        let shared = Arc::new(Shared {
            events,
            dials: Semaphore::new(0),
            faults: setup.faults,
            signing_key: OnceLock::new(),
            obeyed: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            doubled: AtomicU64::new(0),
            crashes: AtomicU64::new(0),
            connected: AtomicUsize::new(0),
        });
        let failed = |error: &dyn std::fmt::Display| BenchError::Child(error.to_string());
        let pin = HostKeyPin::new(setup.host_key.parse().map_err(|error| failed(&error))?);
        let config = |number: usize, target: SocketAddr| {
            let (host, pins) = (target.ip().to_string(), vec![pin.clone()]);
            let mut config = ClientConfig::new(host, target.port(), "emulated", "0.0.0", pins);
            config.source = Some(talk::source(number));
            config.protocol = Some(bastio_protocol::V2);
            // The servers under test ask for the signs of life.
            config.keepalive_interval = std::time::Duration::from_secs(3600);
            config
        };
        let agent = |number| {
            let key = PrivateKey::generate(KeyKind::Ed25519).map_err(|error| failed(&error))?;
            let targets = setup.targets.iter().copied().enumerate();
            let mut nodes: Vec<_> =
                targets.map(|(node, target)| (node, config(number, target))).collect();
            // As many begin at each.
            let places = nodes.len().max(1);
            nodes.rotate_left(number % places);
            Ok(Agent::new(number, nodes, key, Arc::clone(&shared)))
        };
        let agents = (0..setup.count).map(agent).collect::<Result<Vec<_>, BenchError>>()?;
        let (count, waiting, counts) = (setup.count, Waiting::Nothing, Counts::default());
        let (targets, strangers) = (setup.targets.clone(), JoinSet::new());
        let served_by = vec![None; count];
        Ok(Self { agents, count, served_by, shared, happened, waiting, counts, targets, strangers })
    }

    async fn asked(&mut self, ask: Ask) -> Result<(), BenchError> {
        match ask {
            Ask::Enroll { url, api_key } => {
                let keys: Vec<String> =
                    self.agents.iter().map(|agent| agent.key.public_line()).collect();
                let work = tokio::task::spawn_blocking(move || enroll(&url, &api_key, &keys));
                let joined = work.await.map_err(|_| BenchError::Child("enrolment".to_owned()))?;
                let (seconds, signing_key) = joined?;
                let _ = self.shared.signing_key.set(signing_key);
                tell(&Tell::Enrolled { seconds });
            }
            Ask::Connect { parallel } => {
                self.await_up();
                self.shared.dials.add_permits(parallel);
                for agent in self.agents.drain(..) {
                    tokio::spawn(agent.live());
                }
            }
            Ask::AwaitUp => {
                // From now on they come as fast as they are let in.
                self.shared.dials.add_permits(self.count);
                self.await_up();
                tell(&Tell::Ready);
            }
            Ask::Expect { agents, orders } => {
                let (given, at) = (vec![0; self.count], vec![0; self.count]);
                let sample = Vec::new();
                self.waiting = Waiting::Answers { orders, given, at, missing: agents, sample };
                tell(&Tell::Ready);
            }
            Ask::HalfOpen { count } => {
                if let Some(target) = self.targets.first() {
                    self.strangers = stranger::crowd(*target, count);
                }
                tell(&Tell::Ready);
            }
            Ask::AwaitMoved { node } => {
                let missing = self.served_by.iter().filter(|by| **by == Some(node)).count();
                self.waiting = Waiting::Moved { node, at: Vec::new(), missing };
                tell(&Tell::Ready);
                self.tell_if_done();
            }
            Ask::Count => tell(&Tell::Counts(self.count())),
            Ask::Setup(_) | Ask::FanOut { .. } => {
                return Err(BenchError::Child("this is no question for the emulator".to_owned()));
            }
        }
        Ok(())
    }

    fn await_up(&mut self) {
        self.waiting = Waiting::Up { at: vec![None; self.count], missing: self.count };
    }

    fn count(&self) -> Counts {
        let of = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Counts {
            connected: self.shared.connected.load(Ordering::Relaxed),
            obeyed: of(&self.shared.obeyed),
            repeated: of(&self.shared.repeated),
            doubled: of(&self.shared.doubled),
            crashes: of(&self.shared.crashes),
            ..self.counts
        }
    }

    fn note(&mut self, happened: Happened) {
        match (happened, &mut self.waiting) {
            (Happened::Down { paced }, _) => {
                self.counts.downs += usize::from(!paced);
                self.counts.paced += usize::from(paced);
            }
            (Happened::Served { agent, node }, waiting) => {
                let Some(by) = self.served_by.get_mut(agent) else { return };
                let before = by.replace(node);
                if let Waiting::Moved { node: left, at, missing } = waiting
                    && before == Some(*left)
                    && node != *left
                {
                    at.push(talk::micros());
                    *missing -= 1;
                }
            }
            (Happened::Up(agent), Waiting::Up { at, missing }) => {
                if let Some(at) = at.get_mut(agent).filter(|at| at.is_none()) {
                    *at = Some(talk::micros());
                    *missing -= 1;
                }
            }
            (
                Happened::Answered { agent, at: now, body },
                Waiting::Answers { orders, given, at, missing, sample },
            ) => {
                sample.extend(body.filter(|_| sample.len() < SAMPLE));
                let (Some(given), Some(at)) = (given.get_mut(agent), at.get_mut(agent)) else {
                    return;
                };
                *given += 1;
                *at = now;
                if given == orders {
                    *missing = missing.saturating_sub(1);
                }
            }
            (Happened::Up(_) | Happened::Answered { .. }, _) => {}
        }
        self.tell_if_done();
    }

    fn tell_if_done(&mut self) {
        let (Waiting::Up { missing: 0, .. }
        | Waiting::Moved { missing: 0, .. }
        | Waiting::Answers { missing: 0, .. }) = self.waiting
        else {
            return;
        };
        match std::mem::take(&mut self.waiting) {
            Waiting::Up { at, .. } => tell(&Tell::Up { at: at.into_iter().flatten().collect() }),
            Waiting::Moved { at, .. } => tell(&Tell::Moved { at }),
            Waiting::Answers { at, sample, .. } => {
                let at = at.into_iter().filter(|at| *at != 0).collect();
                tell(&Tell::Answered { at, sample });
            }
            Waiting::Nothing => {}
        }
    }
}

/// Enrols all keys through the API, one request each; how long it took, and the backend's signing key.
fn enroll(url: &str, api_key: &str, keys: &[String]) -> Result<(f64, String), BenchError> {
    let begin = Instant::now();
    let share = keys.len().div_ceil(ENROLLERS).max(1);
    let mut signing_key = None;
    std::thread::scope(|scope| {
        let parts = keys.chunks(share).enumerate();
        let threads: Vec<_> = parts
            .map(|(part, keys)| scope.spawn(move || enroll_some(url, api_key, part * share, keys)))
            .collect();
        threads.into_iter().try_for_each(|thread| {
            let joined = thread.join().map_err(|_| BenchError::Child("enrolment".to_owned()))?;
            signing_key = joined?;
            Ok::<(), BenchError>(())
        })
    })?;
    let key: Option<VerifyingKey> =
        signing_key.and_then(|line| serde_json::from_value(Value::String(line)).ok());
    let key = key.ok_or_else(|| BenchError::Child("no signing key was told".to_owned()))?;
    Ok((begin.elapsed().as_secs_f64(), key.fingerprint()))
}

/// Enrols these keys, the first of them the agent of that number.
fn enroll_some(
    url: &str,
    api_key: &str,
    first: usize,
    keys: &[String],
) -> Result<Option<String>, BenchError> {
    let client = ureq::Agent::new_with_defaults();
    let mut signing_key = None;
    for (number, key) in (first..).zip(keys) {
        let name = format!("srv-{number:05}");
        let body = json!({ "api_key": api_key, "public_key": key, "name": name });
        let request = client.post(format!("{url}/api/external/server/upload_key"));
        let mut answer = request.send_json(body).map_err(Box::new)?;
        let answer: Value = answer.body_mut().read_json().map_err(Box::new)?;
        let told = answer.pointer("/server/signing_key").and_then(Value::as_str);
        signing_key = told.map(str::to_owned);
    }
    Ok(signing_key)
}
