//! Messages of version 1 of the wire: the five actions and their feedback, as JSON.
//!
//! This file must not know frames, queues or accounts. Texts that cannot be parsed keep their
//! message id, so that whoever reads them can answer.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::{
    KeyPolicy, MessageId, MessageIdError, PublicKey, PublicKeyError, Username, UsernameError,
};

/// Any message of version 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Backend to agent.
    Action(ActionMessage),
    /// Agent to backend.
    Feedback(FeedbackMessage),
}

/// What the backend asks an agent to do, for one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionMessage {
    /// Echoed by the feedback.
    pub mid: MessageId,
    /// The account.
    pub username: Username,
    /// What to do with it.
    pub action: Action,
}

/// The five actions of version 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make the account; with sudo rights or without.
    AddUser {
        /// Whether the account may use sudo.
        sudo: bool,
    },
    /// Remove the account with its home.
    RemoveUser,
    /// Give or take sudo rights.
    UpdateUser {
        /// Whether the account may use sudo.
        sudo: bool,
    },
    /// Let a key log in.
    AddKey {
        /// The key.
        public_key: PublicKey,
    },
    /// Let a key log in no more.
    RemoveKey {
        /// The key; compared by its blob, never by its comment.
        public_key: PublicKey,
    },
}

/// The agent's answer to one action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "feedback")]
pub struct FeedbackMessage {
    /// The id of the message answered.
    pub mid: MessageId,
    /// How it ended.
    pub status: Status,
    /// One text for people.
    pub feedback: String,
}

/// How an action ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub enum Status {
    /// 200: done.
    Done,
    /// 300: nothing to do, it was so already.
    Unchanged,
    /// 400: defined by the original, used by nobody.
    Refused,
    /// 500: not done.
    Failed,
}

/// A body that is no message, with its id if it has a usable one.
#[derive(Debug, Error)]
#[error("{fault}")]
pub struct MessageError {
    /// The `mid`, when one could be read.
    pub mid: Option<MessageId>,
    /// What is wrong.
    pub fault: MessageFault,
}

/// What is wrong with a message.
#[derive(Debug, Error)]
pub enum MessageFault {
    /// Not JSON, not UTF-8, not an object, too deep, or text behind the object.
    #[error("the message is not one JSON object: {0}")]
    NotAnObject(serde_json::Error),
    /// `type` is absent or none of `action`, `feedback`.
    #[error("the type of a message is \"action\" or \"feedback\"")]
    UnknownType,
    /// `action` is absent or none of the five.
    #[error("unknown action; known are add-user, remove-user, update-user, add-key, remove-key")]
    UnknownAction,
    /// No usable `mid`.
    #[error(transparent)]
    MessageId(#[from] MessageIdError),
    /// A member that this message needs is absent.
    #[error("the message has no {0}")]
    MissingMember(&'static str),
    /// A member is of the wrong JSON type. Nothing is guessed: the text "false" is no `false`.
    #[error("{member} must be {expected}")]
    WrongType {
        /// The member's name.
        member: &'static str,
        /// The JSON type wanted.
        expected: &'static str,
    },
    /// `username` is no login name.
    #[error("username: {0}")]
    Username(#[from] UsernameError),
    /// `public_key` is no key that may be used.
    #[error("public_key: {0}")]
    PublicKey(#[from] PublicKeyError),
    /// `status` is none of 200, 300, 400, 500.
    #[error("a status is one of 200, 300, 400, 500")]
    UnknownStatus,
}

impl Message {
    /// Parses the body of a frame. Members may stand in any order, the last of several of one
    /// name counts, unknown ones are ignored.
    ///
    /// # Errors
    /// [`MessageError`], with the message's id where it has one.
    pub fn parse(body: &[u8], policy: &KeyPolicy) -> Result<Self, MessageError> {
        let members = Members::parse(body).map_err(|fault| MessageError { mid: None, fault })?;
        let mid = members.mid();
        let parsed =
            mid.clone().map_err(MessageFault::from).and_then(|mid| members.message(mid, policy));
        parsed.map_err(|fault| MessageError { mid: mid.ok(), fault })
    }
}

impl ActionMessage {
    /// The JSON body of this message.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let (action, sudo, public_key) = match &self.action {
            Action::AddUser { sudo } => ("add-user", Some(*sudo), None),
            Action::RemoveUser => ("remove-user", None, None),
            Action::UpdateUser { sudo } => ("update-user", Some(*sudo), None),
            Action::AddKey { public_key } => ("add-key", None, Some(public_key.to_string())),
            Action::RemoveKey { public_key } => ("remove-key", None, Some(public_key.to_string())),
        };
        let wire = WireAction {
            kind: "action",
            mid: &self.mid,
            action,
            username: &self.username,
            sudo,
            public_key,
        };
        serde_json::to_vec(&wire).expect("strings, booleans and checked raw JSON always serialise")
    }

    /// The answer to this message.
    #[must_use]
    pub fn reply(&self, status: Status, feedback: impl Into<String>) -> FeedbackMessage {
        FeedbackMessage { mid: self.mid.clone(), status, feedback: feedback.into() }
    }
}

impl Action {
    /// The action's name on the wire.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::AddUser { .. } => "add-user",
            Self::RemoveUser => "remove-user",
            Self::UpdateUser { .. } => "update-user",
            Self::AddKey { .. } => "add-key",
            Self::RemoveKey { .. } => "remove-key",
        }
    }
}

impl FeedbackMessage {
    /// The JSON body of this message.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and checked raw JSON always serialise")
    }
}

impl Status {
    /// The status as its number.
    #[must_use]
    pub fn code(self) -> u16 {
        self.into()
    }

    /// Whether the account is now as the action wanted it (200 or 300).
    #[must_use]
    pub fn is_success(self) -> bool {
        matches!(self, Self::Done | Self::Unchanged)
    }
}

impl From<Status> for u16 {
    fn from(status: Status) -> Self {
        match status {
            Status::Done => 200,
            Status::Unchanged => 300,
            Status::Refused => 400,
            Status::Failed => 500,
        }
    }
}

impl TryFrom<u16> for Status {
    type Error = &'static str;

    fn try_from(code: u16) -> Result<Self, Self::Error> {
        match code {
            200 => Ok(Self::Done),
            300 => Ok(Self::Unchanged),
            400 => Ok(Self::Refused),
            500 => Ok(Self::Failed),
            _ => Err("a status is one of 200, 300, 400, 500"),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code())
    }
}

/// The members of an action in the order in which they are written.
#[derive(Serialize)]
struct WireAction<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    mid: &'a MessageId,
    action: &'static str,
    username: &'a Username,
    #[serde(skip_serializing_if = "Option::is_none")]
    sudo: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
}

/// The members of a JSON object, each still unparsed.
struct Members<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Members<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, MessageFault> {
        serde_json::from_slice(body).map(Self).map_err(MessageFault::NotAnObject)
    }

    fn mid(&self) -> Result<MessageId, MessageIdError> {
        self.0.get("mid").ok_or(MessageIdError::Missing).and_then(|raw| MessageId::from_json(raw))
    }

    fn message(&self, mid: MessageId, policy: &KeyPolicy) -> Result<Message, MessageFault> {
        match self.string("type").map_err(|_| MessageFault::UnknownType)?.as_str() {
            "action" => self.action(mid, policy).map(Message::Action),
            "feedback" => self.feedback(mid).map(Message::Feedback),
            _ => Err(MessageFault::UnknownType),
        }
    }

    fn action(&self, mid: MessageId, policy: &KeyPolicy) -> Result<ActionMessage, MessageFault> {
        let name = self.string("action").map_err(|_| MessageFault::UnknownAction)?;
        let username = Username::parse(&self.string("username")?)?;
        let action = match name.as_str() {
            "add-user" => Action::AddUser { sudo: self.boolean("sudo")? },
            "remove-user" => Action::RemoveUser,
            "update-user" => Action::UpdateUser { sudo: self.boolean("sudo")? },
            "add-key" => Action::AddKey { public_key: self.public_key(policy)? },
            // A key that policy forbids must still be removable.
            "remove-key" => Action::RemoveKey { public_key: self.public_key(&KeyPolicy::ANY)? },
            _ => return Err(MessageFault::UnknownAction),
        };
        Ok(ActionMessage { mid, username, action })
    }

    fn feedback(&self, mid: MessageId) -> Result<FeedbackMessage, MessageFault> {
        let code: u16 = self.member("status", "an integer")?;
        let status = Status::try_from(code).map_err(|_| MessageFault::UnknownStatus)?;
        Ok(FeedbackMessage { mid, status, feedback: self.string("feedback")? })
    }

    fn public_key(&self, policy: &KeyPolicy) -> Result<PublicKey, MessageFault> {
        Ok(PublicKey::parse(&self.string("public_key")?, policy)?)
    }

    fn string(&self, member: &'static str) -> Result<String, MessageFault> {
        self.member(member, "a string")
    }

    fn boolean(&self, member: &'static str) -> Result<bool, MessageFault> {
        self.member(member, "true or false")
    }

    fn member<T: Deserialize<'a>>(
        &self,
        member: &'static str,
        expected: &'static str,
    ) -> Result<T, MessageFault> {
        let raw = self.0.get(member).ok_or(MessageFault::MissingMember(member))?;
        serde_json::from_str(raw.get()).map_err(|_| MessageFault::WrongType { member, expected })
    }
}

#[cfg(test)]
mod tests;
