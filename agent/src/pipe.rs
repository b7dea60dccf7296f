//! The pipe between the two processes: the closed list of what may cross it, as netstrings of JSON.
//!
//! To the processor go actions, orders, the state of the link and how many feedbacks were delivered; to the
//! connector go feedbacks, drift, and the words that the processor begins, wants a new connection, knows an action, or
//! stops. Nothing else exists, and each message has one spelling only: a body that would be written otherwise is refused. An error here means that the other
//! process is not the one we started (or is taken over), so it ends the connection.
//! This file must not know sockets, threads or accounts; the blocking ends are in
//! the processor, the connector has its own on tokio.

use bastio_protocol::{
    ActionMessage, DriftMessage, FeedbackMessage, HostMessage, KeyPolicy, Message, MessageError,
    Netstring, NetstringError, Order, V2_LIMIT, VerifyingKey,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Largest body on the pipe, in bytes: what version 2 of the wire allows, and 64 KiB because an action
/// that is written again may be longer than it was (an order never is: it has one spelling).
pub const PIPE_LIMIT: usize = V2_LIMIT + 64 * 1024;

/// Actions in the processor's hands and feedbacks not delivered, together: the connector hands over no
/// more, and the processor ends one that does.
pub const IN_FLIGHT: usize = 4096;

/// What the connector may send to the processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToProcessor {
    /// An action to carry out; answered by exactly one [`ToConnector::Feedback`] or
    /// [`ToConnector::Answered`], in order.
    Action(ActionMessage),
    /// Something to do for the whole server; answered as an action is.
    Host(HostMessage),
    /// An order; nothing in it is to be believed before the processor has verified it. Answered as an action is.
    Order(Order),
    /// The link to the backend changed; stands before the actions of a new connection. Never answered.
    Link(LinkState),
    /// The backend has so many more feedbacks: the oldest of those that the connector got. Never answered.
    Delivered {
        /// How many.
        count: usize,
    },
}

/// What the processor may send to the connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToConnector {
    /// The first word but for feedbacks that an earlier connector did not deliver: actions may come.
    Ready,
    /// Whom the processor obeys, for the hello to the backend: before [`ToConnector::Ready`], behind each
    /// [`ToProcessor::Link`], and when it changes. Not said where no key is pinned.
    Obeys(Obeys),
    /// The answer to one action.
    Feedback(FeedbackMessage),
    /// Something that is managed was changed by others. For backends of version 2 alone; never confirmed.
    Drift(DriftMessage),
    /// Connect to the backend anew, at once: the answer is the [`ToProcessor::Link`] of the new connection.
    Reconnect,
    /// The action came again, and its feedback was handed over already.
    Answered,
    /// The processor takes no further action; every answer it owed stands before this.
    Stopping,
}

/// Whose orders the processor obeys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Obeys {
    /// The highest number of an order that it has obeyed.
    pub last_sequence: u64,
    /// Fingerprint of the key that signs; `None` when it obeys no order.
    pub signing_key: Option<String>,
    /// The key that signs the processor's receipts; `None` when it gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt_key: Option<VerifyingKey>,
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
    Delivered { count: usize },
    Ready,
    Obeys { obeys: Obeys },
    Reconnect,
    Answered,
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
                Message::Host(host) => Self::Host(host),
                Message::Feedback(_) => return Err(PipeError::UnknownKind(kind)),
            },
            "order" => Self::Order(Order::parse(body).ok_or(PipeError::UnknownKind(kind))??),
            "link" | "delivered" => match serde_json::from_slice(body)? {
                Control::Link { link } => Self::Link(link),
                Control::Delivered { count } => Self::Delivered { count },
                _ => return Err(PipeError::UnknownKind(kind)),
            },
            _ => return Err(PipeError::UnknownKind(kind)),
        };
        if message.to_json() == body { Ok(message) } else { Err(PipeError::Spelling) }
    }

    /// The message's body, without a frame around it.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        match self {
            Self::Action(action) => action.to_json(),
            Self::Host(host) => host.to_json(),
            Self::Order(order) => order.to_json(),
            Self::Link(link) => control_json(&Control::Link { link: link.clone() }),
            Self::Delivered { count } => control_json(&Control::Delivered { count: *count }),
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
                Message::Action(_) | Message::Host(_) => return Err(PipeError::UnknownKind(kind)),
            },
            "drift" => Self::Drift(DriftMessage::parse(body).ok_or(PipeError::UnknownKind(kind))??),
            "ready" => Self::Ready,
            "obeys" => match serde_json::from_slice(body)? {
                Control::Obeys { obeys } => Self::Obeys(obeys),
                _ => return Err(PipeError::UnknownKind(kind)),
            },
            "reconnect" => Self::Reconnect,
            "answered" => Self::Answered,
            "stopping" => Self::Stopping,
            _ => return Err(PipeError::UnknownKind(kind)),
        };
        if message.to_json() == body { Ok(message) } else { Err(PipeError::Spelling) }
    }

    /// The message's body, without a frame around it.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        match self {
            Self::Feedback(feedback) => feedback.to_json(),
            Self::Drift(drift) => drift.to_json(),
            Self::Obeys(obeys) => control_json(&Control::Obeys { obeys: obeys.clone() }),
            Self::Ready => control_json(&Control::Ready),
            Self::Reconnect => control_json(&Control::Reconnect),
            Self::Answered => control_json(&Control::Answered),
            Self::Stopping => control_json(&Control::Stopping),
        }
    }
}

fn control_json(control: &Control) -> Vec<u8> {
    serde_json::to_vec(control).expect("strings and numbers always serialise")
}

#[cfg(test)]
mod tests;
