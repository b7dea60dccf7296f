//! Why the model was not read or edited, and what to do about it.

use bastio_protocol::{PublicKeyError, ServerName, TargetError, Username};
use thiserror::Error;

use crate::store::StoreError;

/// Why the model was not read or edited.
#[derive(Debug, Error)]
pub enum FleetError {
    /// No server of that name.
    #[error("there is no server named {0}")]
    NoSuchServer(ServerName),
    /// No person of that name.
    #[error("there is no user named {0}")]
    NoSuchUser(Username),
    /// No grant of that number.
    #[error("there is no grant {0}")]
    NoSuchGrant(i64),
    /// The person has no such key.
    #[error("{user} has no key {fingerprint}")]
    NoSuchKey {
        /// The person.
        user: Username,
        /// The fingerprint asked for.
        fingerprint: String,
    },
    /// No edit of that number.
    #[error("there is no revision {0}")]
    NoSuchRevision(i64),
    /// Another server has that name.
    #[error("there is a server named {0} already")]
    NameTaken(ServerName),
    /// A key line that is no usable key.
    #[error("key {number}: {fault}")]
    BadKey {
        /// Its place in the request, counted from 1.
        number: usize,
        /// What is wrong.
        fault: PublicKeyError,
    },
    /// A request to add no key at all.
    #[error("the request holds no key")]
    NoKeys,
    /// No label.
    #[error(transparent)]
    BadLabel(TargetError),
    /// A text for people with line breaks or other control characters, or a very long one.
    #[error("{what} must be one line of at most {limit} bytes")]
    BadText {
        /// Which text.
        what: &'static str,
        /// Longest text, in bytes.
        limit: usize,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl FleetError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoSuchServer(_) => Some("`bastio server ls` shows every server"),
            Self::NoSuchUser(_) => Some("`bastio user ls` shows every user"),
            Self::NoSuchGrant(_) => Some("`bastio grant ls` shows every grant with its number"),
            Self::NoSuchKey { .. } => Some("`bastio key ls USER` shows the user's fingerprints"),
            Self::NoSuchRevision(_) => Some("revisions are numbered by the edits of the model"),
            Self::NameTaken(_) => Some("choose another name, or rename the other server first"),
            Self::BadKey { .. } => Some("nothing was changed; correct the key and repeat"),
            Self::NoKeys => Some("give at least one public key line"),
            Self::BadLabel(_) | Self::BadText { .. } | Self::Store(_) => None,
        }
    }
}
