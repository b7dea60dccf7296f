//! Messages as JSON: the five actions of version 1, those that version 2 adds, and their feedback.
//!
//! This file must not know frames, queues or accounts. Texts that cannot be parsed keep their
//! message id, so that whoever reads them can answer.

use std::borrow::{Borrow, Cow};
use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::{
    Detail, HostMessage, HostRequest, KeyPolicy, MessageId, MessageIdError, PublicKey,
    PublicKeyError, Receipt, Removal, Username, UsernameError, WantedAccount, WantedError,
    WantedState,
};

/// Any message but hellos, orders and drift.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Backend to agent, about one account.
    Action(ActionMessage),
    /// Backend to agent, about the whole server (version 2).
    Host(HostMessage),
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

/// The five actions of version 1, and what version 2 adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make the account; with sudo rights or without.
    AddUser {
        /// Whether the account may use sudo.
        sudo: bool,
    },
    /// Remove the account.
    RemoveUser {
        /// What becomes of it and its home; the server's own rule when absent (version 2).
        removal: Option<Removal>,
    },
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
    /// Make the account exactly this, whatever it was before (version 2).
    SetUser {
        /// All of it.
        wanted: Box<WantedAccount>,
    },
    /// Let nobody in as this account, and keep everything else (version 2).
    LockUser,
    /// Undo a lock (version 2).
    UnlockUser,
    /// End the account's sessions and processes (version 2).
    EndSessions,
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
    /// The same for programs (version 2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Box<Detail>>,
    /// What the server's root processor signs about the state that is left (version 2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Box<Receipt>>,
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
    /// `action` is absent or unknown.
    #[error(
        "unknown action; known are add-user, remove-user, update-user, add-key, remove-key, \
         set-user, lock-user, unlock-user, end-sessions, sync, report-state"
    )]
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
    /// A member's content is not understood, or there is more in it than this program knows.
    #[error("{member}: {reason}")]
    Content {
        /// The member's name.
        member: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// What is wanted does not fit together, or a key in it is not good enough.
    #[error("wanted: {0}")]
    Wanted(#[from] WantedError),
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
        let mut wire = WireAction {
            kind: "action",
            mid: &self.mid,
            action: self.action.name(),
            username: &self.username,
            sudo: None,
            public_key: None,
            wanted: None,
            removal: None,
        };
        match &self.action {
            Action::AddUser { sudo } | Action::UpdateUser { sudo } => wire.sudo = Some(*sudo),
            Action::AddKey { public_key } | Action::RemoveKey { public_key } => {
                wire.public_key = Some(public_key.to_string());
            }
            Action::SetUser { wanted } => wire.wanted = Some(wanted),
            Action::RemoveUser { removal } => wire.removal = *removal,
            Action::LockUser | Action::UnlockUser | Action::EndSessions => {}
        }
        serde_json::to_vec(&wire).expect("strings, booleans and checked raw JSON always serialise")
    }

    /// The answer to this message.
    #[must_use]
    pub fn reply(&self, status: Status, feedback: impl Into<String>) -> FeedbackMessage {
        FeedbackMessage::new(self.mid.clone(), status, feedback)
    }
}

impl Action {
    /// The action's name on the wire.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::AddUser { .. } => "add-user",
            Self::RemoveUser { .. } => "remove-user",
            Self::UpdateUser { .. } => "update-user",
            Self::AddKey { .. } => "add-key",
            Self::RemoveKey { .. } => "remove-key",
            Self::SetUser { .. } => "set-user",
            Self::LockUser => "lock-user",
            Self::UnlockUser => "unlock-user",
            Self::EndSessions => "end-sessions",
        }
    }

    /// Whether it can only give access, and never takes any: a set-user may do both.
    #[must_use]
    pub fn only_opens(&self) -> bool {
        match self {
            Self::AddUser { .. }
            | Self::AddKey { .. }
            | Self::UpdateUser { sudo: true }
            | Self::UnlockUser => true,
            Self::RemoveUser { .. }
            | Self::RemoveKey { .. }
            | Self::UpdateUser { sudo: false }
            | Self::SetUser { .. }
            | Self::LockUser
            | Self::EndSessions => false,
        }
    }
}

impl FeedbackMessage {
    /// A plain answer: a status and a text.
    #[must_use]
    pub fn new(mid: MessageId, status: Status, feedback: impl Into<String>) -> Self {
        Self { mid, status, feedback: feedback.into(), detail: None, receipt: None }
    }

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
    #[serde(skip_serializing_if = "Option::is_none")]
    wanted: Option<&'a WantedAccount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    removal: Option<Removal>,
}

/// The members of a JSON object, each still unparsed.
#[derive(Deserialize)]
struct Members<'a>(#[serde(borrow)] BTreeMap<Name<'a>, &'a RawValue>);

/// The name of a member, where it stands in the message if it can.
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl Borrow<str> for Name<'_> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'a> Members<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, MessageFault> {
        serde_json::from_slice(body).map_err(MessageFault::NotAnObject)
    }

    fn mid(&self) -> Result<MessageId, MessageIdError> {
        self.0.get("mid").ok_or(MessageIdError::Missing).and_then(|raw| MessageId::from_json(raw))
    }

    fn message(&self, mid: MessageId, policy: &KeyPolicy) -> Result<Message, MessageFault> {
        match self.string("type").map_err(|_| MessageFault::UnknownType)?.as_str() {
            "action" => self.action_or_host(mid, policy),
            "feedback" => self.feedback(mid).map(Message::Feedback),
            _ => Err(MessageFault::UnknownType),
        }
    }

    fn action_or_host(&self, mid: MessageId, policy: &KeyPolicy) -> Result<Message, MessageFault> {
        let name = self.string("action").map_err(|_| MessageFault::UnknownAction)?;
        let request = match name.as_str() {
            "sync" => {
                let wanted: Box<WantedState> = self.wanted()?;
                wanted.check(policy)?;
                HostRequest::Sync { wanted, dry_run: self.flag("dry_run")? }
            }
            "report-state" => HostRequest::ReportState,
            name => return self.action(mid, name, policy).map(Message::Action),
        };
        Ok(Message::Host(HostMessage { mid, request }))
    }

    fn action(
        &self,
        mid: MessageId,
        name: &str,
        policy: &KeyPolicy,
    ) -> Result<ActionMessage, MessageFault> {
        let username = Username::parse(&self.string("username")?)?;
        let action = match name {
            "add-user" => Action::AddUser { sudo: self.boolean("sudo")? },
            "remove-user" => Action::RemoveUser { removal: self.content("removal")? },
            "update-user" => Action::UpdateUser { sudo: self.boolean("sudo")? },
            "add-key" => Action::AddKey { public_key: self.public_key(policy)? },
            // A key that policy forbids must still be removable.
            "remove-key" => Action::RemoveKey { public_key: self.public_key(&KeyPolicy::ANY)? },
            "set-user" => {
                let wanted: Box<WantedAccount> = self.wanted()?;
                wanted.check(policy)?;
                Action::SetUser { wanted }
            }
            "lock-user" => Action::LockUser,
            "unlock-user" => Action::UnlockUser,
            "end-sessions" => Action::EndSessions,
            _ => return Err(MessageFault::UnknownAction),
        };
        Ok(ActionMessage { mid, username, action })
    }

    fn feedback(&self, mid: MessageId) -> Result<FeedbackMessage, MessageFault> {
        let code: u16 = self.member("status", "an integer")?;
        let status = Status::try_from(code).map_err(|_| MessageFault::UnknownStatus)?;
        let detail = self.content("detail")?;
        // One that cannot be read proves nothing; the answer counts all the same.
        let receipt = self.content("receipt").unwrap_or_default();
        Ok(FeedbackMessage { mid, status, feedback: self.string("feedback")?, detail, receipt })
    }

    fn public_key(&self, policy: &KeyPolicy) -> Result<PublicKey, MessageFault> {
        Ok(PublicKey::parse(&self.string("public_key")?, policy)?)
    }

    fn string(&self, member: &'static str) -> Result<String, MessageFault> {
        self.member(member, "a string")
    }

    fn wanted<T: DeserializeOwned>(&self) -> Result<T, MessageFault> {
        self.content("wanted")?.ok_or(MessageFault::MissingMember("wanted"))
    }

    /// An optional member with members of its own, which are closed.
    fn content<T: DeserializeOwned>(
        &self,
        member: &'static str,
    ) -> Result<Option<T>, MessageFault> {
        let Some(raw) = self.0.get(member) else { return Ok(None) };
        let wrong = |reason| MessageFault::Content { member, reason };
        // serde would read a list as an object without names.
        if raw.get().starts_with('[') {
            return Err(wrong("a list is none".to_owned()));
        }
        serde_json::from_str(raw.get()).map(Some).map_err(|error| wrong(error.to_string()))
    }

    /// An optional `true` or `false`.
    fn flag(&self, member: &'static str) -> Result<bool, MessageFault> {
        if self.0.contains_key(member) { self.boolean(member) } else { Ok(false) }
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
