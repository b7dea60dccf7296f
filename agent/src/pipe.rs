//! The pipe between the two processes: the closed list of what may cross it, as netstrings of JSON.
//!
//! To the processor go actions and the state of the link; to the connector go feedbacks and the
//! word that the processor stops. Nothing else exists, and each message has one spelling only:
//! a body that would be written otherwise is refused. An error here means that the other
//! process is not the one we started (or is taken over), so it ends the connection.
//! This file must not know sockets, threads or accounts; the blocking ends are in
//! the processor, the connector has its own on tokio.

use bastio_protocol::{
    ActionMessage, FeedbackMessage, KeyPolicy, Message, MessageError, Netstring, NetstringError,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Largest body on the pipe, in bytes (64 KiB): twice what the wire to the backend allows, because
/// a message that is written again may be longer than it was.
pub const PIPE_LIMIT: usize = 64 * 1024;

/// What the connector may send to the processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToProcessor {
    /// An action to carry out; answered by exactly one [`ToConnector::Feedback`], in order.
    Action(ActionMessage),
    /// The link to the backend changed. For the status file alone; never answered.
    Link(LinkState),
}

/// What the processor may send to the connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToConnector {
    /// The answer to one action.
    Feedback(FeedbackMessage),
    /// The processor takes no further action; every answer it owed stands before this.
    Stopping,
}

/// The link to the backend, as the connector sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
pub enum LinkState {
    /// Logged in, and the subsystem runs.
    Connected {
        /// The backend, as `HOST:PORT`.
        backend: String,
        /// Since when, in seconds since 1970.
        since: u64,
    },
    /// No connection.
    Disconnected {
        /// Why, for people. Keep it short (it must fit [`PIPE_LIMIT`]) and free of secrets.
        reason: String,
        /// When the next attempt begins, in seconds from now.
        retry_in: u64,
    },
}

/// Why bytes are no message of the pipe. Each of them ends the other process.
#[derive(Debug, Error)]
pub enum PipeError {
    /// The frames themselves are broken.
    #[error(transparent)]
    Frame(#[from] NetstringError),
    /// The body is no JSON object with a `type`.
    #[error("a body that is no message: {0}")]
    Json(#[from] serde_json::Error),
    /// An action or a feedback that the protocol refuses.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The type is none that may cross in this direction.
    #[error("a message of the type {0:?} may not cross the pipe in this direction")]
    UnknownKind(String),
    /// The body is not spelled as this program spells it.
    #[error("a message that this program would have spelled otherwise")]
    Spelling,
}

/// The one member by which bodies are told apart.
#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

/// The bodies that exist only on the pipe.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Control {
    Link { link: LinkState },
    Stopping,
}

impl ToProcessor {
    /// The message as a whole netstring.
    #[must_use]
    pub fn to_frame(&self) -> Vec<u8> {
        Netstring::compose(&self.to_json())
    }

    /// Parses the body of a frame. Keys are checked for their form only: whether they are good
    /// enough is decided (and answered) by the processor.
    ///
    /// # Errors
    /// [`PipeError`]; the pipe cannot be trusted any more.
    pub fn parse(body: &[u8]) -> Result<Self, PipeError> {
        let kind = serde_json::from_slice::<Kind>(body)?.kind;
        let message = match kind.as_str() {
            "action" => match Message::parse(body, &KeyPolicy::ANY)? {
                Message::Action(action) => Self::Action(action),
                Message::Feedback(_) => return Err(PipeError::UnknownKind(kind)),
            },
            "link" => match serde_json::from_slice(body)? {
                Control::Link { link } => Self::Link(link),
                Control::Stopping => return Err(PipeError::UnknownKind(kind)),
            },
            _ => return Err(PipeError::UnknownKind(kind)),
        };
        if message.to_json() == body { Ok(message) } else { Err(PipeError::Spelling) }
    }

    fn to_json(&self) -> Vec<u8> {
        match self {
            Self::Action(action) => action.to_json(),
            Self::Link(link) => control_json(&Control::Link { link: link.clone() }),
        }
    }
}

impl ToConnector {
    /// The message as a whole netstring.
    #[must_use]
    pub fn to_frame(&self) -> Vec<u8> {
        Netstring::compose(&self.to_json())
    }

    /// Parses the body of a frame.
    ///
    /// # Errors
    /// [`PipeError`]; the pipe cannot be trusted any more.
    pub fn parse(body: &[u8]) -> Result<Self, PipeError> {
        let kind = serde_json::from_slice::<Kind>(body)?.kind;
        let message = match kind.as_str() {
            "feedback" => match Message::parse(body, &KeyPolicy::ANY)? {
                Message::Feedback(feedback) => Self::Feedback(feedback),
                Message::Action(_) => return Err(PipeError::UnknownKind(kind)),
            },
            "stopping" => Self::Stopping,
            _ => return Err(PipeError::UnknownKind(kind)),
        };
        if message.to_json() == body { Ok(message) } else { Err(PipeError::Spelling) }
    }

    fn to_json(&self) -> Vec<u8> {
        match self {
            Self::Feedback(feedback) => feedback.to_json(),
            Self::Stopping => control_json(&Control::Stopping),
        }
    }
}

fn control_json(control: &Control) -> Vec<u8> {
    serde_json::to_vec(control).expect("strings and numbers always serialise")
}

#[cfg(test)]
mod tests;
