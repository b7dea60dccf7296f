//! What the processor is asked to do: something for one account, or for the whole server. And how
//! much of it may be done where nothing can be written down.

use std::time::{SystemTime, UNIX_EPOCH};

use bastio_protocol::{
    Action, ActionMessage, FeedbackMessage, HostMessage, HostRequest, MessageId, Status,
};

use crate::pipe::ToProcessor;

/// A message that is answered by one feedback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Work {
    /// About one account.
    Action(ActionMessage),
    /// About the whole server.
    Host(HostMessage),
}

/// How much is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Everything.
    All,
    /// What closes access, and nothing else.
    Closing,
}

/// What a message does to access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// None: it only looks.
    Looks,
    /// It closes access, or leaves it as it is.
    Closes,
    /// It may do both.
    Both,
    /// It opens access.
    Opens,
}

impl Work {
    /// The message on the pipe or in the journal, if it is work.
    pub(super) fn from_message(message: ToProcessor) -> Option<Self> {
        match message {
            ToProcessor::Action(action) => Some(Self::Action(action)),
            ToProcessor::Host(host) => Some(Self::Host(host)),
            ToProcessor::Order(_) | ToProcessor::Link(_) | ToProcessor::Delivered { .. } => None,
        }
    }

    /// Its id.
    pub(super) fn mid(&self) -> &MessageId {
        match self {
            Self::Action(action) => &action.mid,
            Self::Host(host) => &host.mid,
        }
    }

    /// What it asks for, as on the wire.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Action(action) => action.action.name(),
            Self::Host(host) => host.request.name(),
        }
    }

    /// Its JSON body.
    pub(super) fn to_json(&self) -> Vec<u8> {
        match self {
            Self::Action(action) => action.to_json(),
            Self::Host(host) => host.to_json(),
        }
    }

    /// The answer to it.
    pub(super) fn reply(&self, status: Status, text: impl Into<String>) -> FeedbackMessage {
        match self {
            Self::Action(action) => action.reply(status, text),
            Self::Host(host) => host.reply(status, text),
        }
    }

    /// What it does to access.
    pub(super) fn effect(&self) -> Effect {
        match self {
            Self::Action(action) => match &action.action {
                Action::SetUser { .. } => Effect::Both,
                action if action.only_opens() => Effect::Opens,
                _ => Effect::Closes,
            },
            Self::Host(host) => match &host.request {
                HostRequest::ReportState | HostRequest::Sync { dry_run: true, .. } => Effect::Looks,
                HostRequest::Sync { dry_run: false, .. } => Effect::Both,
            },
        }
    }
}

/// The time, in seconds since the Unix epoch.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
