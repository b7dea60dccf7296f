//! Benchmarks of the whole product against floors, in isolated servers on this machine. Prints tables
//! and fails when a promise is broken. Must not know the programs' code: it runs them as they ship.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what a benchmark is for"
)]

use std::process::ExitCode;
use std::time::Duration;

use bastio_tests::fleet::{self, Backend};
use bastio_tests::{Host, LabError, Running, World, binary};
use thiserror::Error;

mod footprint;
mod journal;
mod round_trip;

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
        let host = world.host("web-1").binary(binary("bastio-agent")?).home_on_disk().start()?;
        let agent = fleet::enroll_and_start(&host, &backend.enroll_key("bench")?)?;
        backend.wait_connected(1, CONNECT_LIMIT)?;
        Ok(Self { backend, host, agent })
    }
}

fn main() -> ExitCode {
    let wanted = std::env::args().nth(1);
    let result = match wanted.as_deref() {
        None => round_trip::run().and_then(|()| journal::run()).and_then(|()| footprint::run()),
        Some("round-trip") => round_trip::run(),
        Some("journal") => journal::run(),
        Some("footprint") => footprint::run(),
        Some(other) => {
            eprintln!(
                "no benchmark {other:?}; there are: round-trip, journal, footprint (none: all of them)"
            );
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
