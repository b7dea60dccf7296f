//! How a command ends: the exit codes, and every way to fail with what to do about it.
//!
//! Must not know how anything is printed.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::client::ClientError;
use crate::key_input::KeyInputError;
use crate::login_file::LoginFileError;
use crate::policy_file::PolicyFileError;
use crate::settings::SettingsError;
use crate::token::TokenError;

/// Everything was done.
pub const ALL_DONE: u8 = 0;
/// Some server failed or did not answer in time, or the backend refused the request.
pub const SOME_FAILED: u8 = 1;
/// The command, its files or the login are not usable; nothing was sent.
pub const USAGE: u8 = 2;
/// The backend cannot be reached.
pub const UNREACHABLE: u8 = 3;

/// The edit waits for another operator's approval.
pub const PROPOSED: u8 = 4;

/// How a command that was carried out ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All done, or done as far as servers are there.
    AllDone,
    /// A server failed or did not answer in time, or the answer to a question was no.
    SomeFailed,
}

impl Ending {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::AllDone => ALL_DONE,
            Self::SomeFailed => SOME_FAILED,
        }
    }
}

/// Why a command was not carried out.
#[derive(Debug, Error)]
pub enum Failure {
    /// The arguments contradict each other or the facts.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: &'static str,
    },
    /// No usable backend or token.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The stored login cannot be read or written.
    #[error(transparent)]
    LoginFile(#[from] LoginFileError),
    /// The token that was typed is none.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A key file is not usable.
    #[error(transparent)]
    Keys(#[from] KeyInputError),
    /// A policy file is not usable.
    #[error(transparent)]
    PolicyFile(#[from] PolicyFileError),
    /// The person has no such key.
    #[error("{user} has no key {key}")]
    NoSuchKey {
        /// The person.
        user: String,
        /// What was asked for.
        key: String,
    },
    /// The backend refused, or was not there.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The edit was taken, then the backend was gone.
    #[error("revision {revision} was taken, but the backend is out of reach since: {source}")]
    Lost {
        /// The edit's revision.
        revision: i64,
        /// The last thing that was seen.
        source: ClientError,
    },
    /// The output could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// A file is there already.
    #[error("{} is there already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is no export of the audit log.
    #[error("{} is no export of a log: {reason}", path.display())]
    NotAnExport {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Failure {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage { .. }
            | Self::Settings(_)
            | Self::LoginFile(_)
            | Self::Token(_)
            | Self::Keys(_)
            | Self::PolicyFile(_)
            | Self::Exists { .. }
            | Self::Read { .. }
            | Self::NotAnExport { .. } => USAGE,
            Self::Client(error) if error.is_unreachable() => UNREACHABLE,
            Self::Client(error) if error.proposal().is_some() => PROPOSED,
            Self::Lost { .. } => UNREACHABLE,
            Self::Client(_) | Self::NoSuchKey { .. } | Self::Output(_) | Self::Write { .. } => {
                SOME_FAILED
            }
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } => Some((*hint).to_owned()),
            Self::Settings(error) => error.hint(),
            Self::LoginFile(error) => error.hint(),
            Self::Keys(error) => error.hint(),
            Self::PolicyFile(error) => error.hint().map(str::to_owned),
            Self::Client(error) => error.hint(),
            Self::Token(_) => Some(
                "a token is one line that the backend printed at its first start, or that \
                 `bastio api-key add NAME --role admin` printed"
                    .to_owned(),
            ),
            Self::NoSuchKey { user, .. } => Some(format!("see: bastio key ls {user}")),
            Self::Lost { .. } => {
                Some("the work goes on once the backend is back; see: bastio status".to_owned())
            }
            Self::Exists { .. } => Some("give another name, or --force to replace it".to_owned()),
            Self::NotAnExport { .. } => {
                Some("make one with: bastio log export --file FILE".to_owned())
            }
            Self::Output(_) | Self::Write { .. } | Self::Read { .. } => None,
        }
    }
}
