//! Why a proposal is not kept, not carried out or not ended, and what to do about it.

use bastio_protocol::api::ProposalState;
use thiserror::Error;

use super::{Gains, MOST_OPEN};
use crate::access::AccessError;
use crate::store::StoreError;

/// Why a proposal is not kept, not carried out or not ended.
#[derive(Debug, Error)]
pub enum ApprovalError {
    /// No such number.
    #[error("there is no proposal {0}")]
    NoSuch(i64),
    /// It waits no more.
    #[error("proposal {0} does not wait any more: it is {state}", state = .1.name())]
    Ended(i64, ProposalState),
    /// By who proposed it.
    #[error("whoever proposed something cannot approve it")]
    Own,
    /// The approver has registered no key.
    #[error("no operator key is registered for the API key {0}")]
    NoKey(String),
    /// The signature is not the registered key's.
    #[error("the signature is not that of your registered operator key")]
    BadSignature,
    /// Something else was signed than what waits.
    #[error("what was signed is not what waits: look at the proposal again")]
    OtherStatement,
    /// The time in it is not now.
    #[error("what was signed says another time than the backend's: look at both clocks")]
    Clock,
    /// The key is registered for another API key.
    #[error(
        "this operator key is registered for another API key: each operator needs one of their own"
    )]
    KeyOfAnother,
    /// Whoever asks has no API key.
    #[error("this is for API keys")]
    NoApiKey,
    /// A reason that is no line.
    #[error("the reason must be one line of at most 1000 bytes")]
    BadReason,
    /// Too many wait.
    #[error("{MOST_OPEN} proposals wait already")]
    TooMany,
    /// It needs another operator itself.
    #[error("this needs another operator's approval: {0}")]
    Needed(Gains),
    /// A request that was only to be tried.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ApprovalError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoSuch(_) | Self::Ended(..) => Some("`bastio proposal ls` shows all of them"),
            Self::Own => {
                Some("another admin does, with an API key and an operator key of their own")
            }
            Self::NoKey(_) | Self::BadSignature => {
                Some("make and register one with: bastio operator key")
            }
            Self::OtherStatement => Some("nothing was done; see: bastio proposal show NUMBER"),
            Self::TooMany => Some("approve or reject some: bastio proposal ls"),
            _ => None,
        }
    }
}
