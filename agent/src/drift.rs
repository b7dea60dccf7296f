//! Drift: what others change on this server of what bastio manages.
//!
//! `spot` says which places are watched, `watch` is told by the kernel, `pace` says when to look, `look` compares what
//! is with what is meant. This room must not know actions, the pipe, or the backend.

use bastio_protocol::Username;
use serde::Deserialize;

mod look;
mod pace;
pub mod spot;
mod watch;

pub use look::Drift;
pub use watch::{Seen, Watcher};

/// What a change is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// The account databases.
    Accounts,
    /// Rules of sudo.
    Sudo,
    /// The configuration of sshd.
    Sshd,
    /// One account's home and key files.
    Account(Username),
}

/// What is done about drift.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// It is reported.
    #[default]
    Report,
    /// It is put right at once, and reported.
    Heal,
}

impl Policy {
    /// The name in configurations.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Heal => "heal",
        }
    }
}
