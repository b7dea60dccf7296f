//! Benchmarks of the whole product against floors, in isolated servers on this machine. Prints tables
//! and fails when a promise is broken. Must not know the programs' code: it runs them as they ship.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what a benchmark is for"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bastio_tests::fleet::{self, Backend};
use bastio_tests::{Host, LabError, Running, World, binary};
use thiserror::Error;

mod accounts;
mod agents;
mod client;
mod footprint;
mod journal;
mod plan;
mod processor;
mod round_trip;
mod soak;
mod trace;

/// Time for an agent to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// Why a benchmark ended without figures, or with bad ones.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The isolated servers did not work.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A request to the backend failed.
    #[error("the backend refused or did not answer: {0}")]
    Backend(#[from] Box<ureq::Error>),
    /// A server answered an action with a failure.
    #[error("an action failed: {0}")]
    Action(String),
    /// A file could not be read or written.
    #[error("{0}: {1}")]
    File(&'static str, std::io::Error),
    /// A child process of the benchmark did not do its part.
    #[error("{0}")]
    Child(String),
    /// A figure is over its limit.
    #[error("promise broken: {0}")]
    OverLimit(String),
}

/// One backend and one server with a connected agent.
struct Fleet<'world> {
    backend: Backend<'world>,
    host: Host,
    agent: Running,
}

impl<'world> Fleet<'world> {
    fn start(world: &'world World) -> Result<Self, BenchError> {
        let backend = Backend::start(world)?;
        let host = world.host("web-1").binary(agent_program()?).home_on_disk().start()?;
        let agent = fleet::enroll_and_start(&host, &backend.enroll_key("bench")?)?;
        backend.wait_connected(1, CONNECT_LIMIT)?;
        Ok(Self { backend, host, agent })
    }
}

/// A benchmark prints its table, and fails when it cannot or when a promise is broken.
type Run = fn() -> Result<(), BenchError>;

const ALL: [(&str, Run); 6] = [
    ("round-trip", round_trip::run),
    ("journal", journal::run),
    ("accounts", accounts::run),
    ("footprint", footprint::run),
    ("soak", soak::run),
    ("plan", plan::run),
];

fn main() -> ExitCode {
    let wanted = std::env::args().nth(1);
    if wanted.as_deref() == Some("agents") {
        let arguments: Vec<String> = std::env::args().skip(2).collect();
        return ended(agents::run(&arguments).err());
    }
    if wanted.as_deref() == Some("trace") {
        return ended(trace::run().err());
    }
    let chosen = ALL.iter().filter(|(name, _)| wanted.as_ref().is_none_or(|it| it == name));
    if chosen.clone().count() == 0 {
        let names = ALL.map(|(name, _)| name).join(", ");
        eprintln!("no such benchmark; there are: {names} (none: all of them)");
        return ExitCode::from(2);
    }
    // One promise that is broken must not hide the next.
    ended(chosen.filter_map(|(_, run)| run().err()))
}

fn ended(errors: impl IntoIterator<Item = BenchError>) -> ExitCode {
    let broken = errors.into_iter().inspect(|error| eprintln!("error: {error}")).count();
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The agent's program: what `BASTIO_AGENT` names, e.g. the one of a package; otherwise the one of its own build profile,
/// which has its folder beside that of this program.
fn agent_program() -> Result<PathBuf, LabError> {
    if let Some(path) = std::env::var_os("BASTIO_AGENT") {
        return Ok(PathBuf::from(path));
    }
    let path = binary("bastio-bench")?.with_file_name("../agent/bastio-agent");
    path.canonicalize().map_err(|_| LabError::Missing {
        what: format!("the program {}", path.display()),
        hint: "build it first: cargo build --profile agent -p bastio-agent".into(),
    })
}

/// Fails with a broken promise.
fn over(is_over: bool, text: impl FnOnce() -> String) -> Result<(), BenchError> {
    if is_over { Err(BenchError::OverLimit(text())) } else { Ok(()) }
}
