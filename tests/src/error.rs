//! What can go wrong while building or using a lab. Every variant says what was being done.

use std::io;
use std::time::Duration;

/// A failure of the lab itself, or of a command that had to succeed in it.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The operating system refused something.
    #[error("{doing}: {source}")]
    System {
        /// What was being done.
        doing: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A command ran and did not succeed.
    #[error("{command} failed ({status}): {output}")]
    Failed {
        /// The command with its arguments.
        command: String,
        /// Exit code or signal.
        status: String,
        /// What it said.
        output: String,
    },
    /// Something did not happen in time.
    #[error("{doing}: not done after {limit:?}")]
    TimedOut {
        /// What was waited for.
        doing: String,
        /// How long was waited.
        limit: Duration,
    },
    /// A file or tool that the lab needs is missing.
    #[error("{what} is missing; {hint}")]
    Missing {
        /// What is missing.
        what: String,
        /// What to do about it.
        hint: String,
    },
}

impl LabError {
    /// Wraps a system error with what was being done; for `map_err`.
    pub(crate) fn doing<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        move |source| Self::System { doing, source: source.into() }
    }
}
