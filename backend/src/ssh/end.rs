//! Why sessions end, for the log and for what follows. This file must not know how a session works.

use std::time::Duration;

use bastio_protocol::{MessageError, NetstringError};
use thiserror::Error;

use super::session::UNASKED_LIMIT;
use crate::dispatch::{DispatchError, EndReason};

/// Why a session ended.
#[derive(Debug, Error)]
pub(super) enum End {
    /// The agent has closed it, or the connection is lost.
    #[error("the agent has gone")]
    Gone,
    /// This backend stops.
    #[error("the backend stops")]
    Stopped,
    /// Dispatch wants it to end.
    #[error("{}", why(*.0))]
    Dispatch(EndReason),
    /// The agent owed an answer for too long.
    #[error("no answer for {} s, {unanswered} actions will be sent again", limit.as_secs())]
    Silent {
        /// How long it had.
        limit: Duration,
        /// How many answers it owed.
        unanswered: usize,
    },
    /// The agent refused an order as too old; nothing of it counts as answered.
    #[error("the agent's clock is beyond the time limit of orders; they will be sent again")]
    Late,
    /// What the agent sent is no feedback.
    #[error("the agent sent garbage: {0}")]
    Garbage(#[from] Garbage),
    /// Dispatch or its store refused.
    #[error(transparent)]
    Failed(#[from] DispatchError),
}

fn why(reason: EndReason) -> &'static str {
    match reason {
        EndReason::TakenOver => "another session of this agent has taken over",
        EndReason::Removed => "the server was removed",
        EndReason::KeyReplaced => "the agent's key was replaced",
        EndReason::Adrift => "this backend cannot reach its database; another may",
        EndReason::Contested => "another machine uses the agent's key, and somebody must decide",
    }
}

/// What an agent may not send.
#[derive(Debug, Error)]
pub(super) enum Garbage {
    /// Not a frame.
    #[error(transparent)]
    Frame(#[from] NetstringError),
    /// A frame without a message.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A hello that is none.
    #[error("a hello that cannot be read: {0}")]
    Hello(serde_json::Error),
    /// A drift that is none.
    #[error("a drift that cannot be read: {0}")]
    Drift(serde_json::Error),
    /// A message that only a backend sends.
    #[error("an action message; agents answer, they do not ask")]
    Action,
    /// More answers to nothing than any agent has.
    #[error("more than {UNASKED_LIMIT} answers that nobody waits for")]
    Unasked,
}
