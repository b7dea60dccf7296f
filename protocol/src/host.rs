//! What version 2 asks of a server as a whole, and what a server tells of itself unasked.
//!
//! This file must not know frames, queues, or how a server is looked at.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Detail, FeedbackMessage, MessageId, Removal, Status, Username, WantedAccount};

/// Something to do for the whole server. Answered by one feedback, with a [`Detail`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostMessage {
    /// Echoed by the feedback.
    pub mid: MessageId,
    /// What to do.
    pub request: HostRequest,
}

/// What can be asked of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostRequest {
    /// Become exactly this, or with `dry_run` say what would change and touch nothing.
    Sync {
        /// Everything that the server should have.
        wanted: Box<WantedState>,
        /// Touch nothing.
        dry_run: bool,
    },
    /// Tell everything that there is.
    ReportState,
}

/// Everything that one server should have. Managed accounts that are not in it go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WantedState {
    /// The accounts.
    pub accounts: BTreeMap<Username, WantedAccount>,
    /// What becomes of managed accounts that are not wanted; the server's own rule when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removal: Option<Removal>,
    /// Numeric ids that belong to people who have no account here now: never given to others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reserved_uids: BTreeMap<Username, u32>,
    /// Whether it may leave the server without any account that has sudo rights and a key,
    /// although there is one now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_no_admin: bool,
}

/// What an agent says unasked: something that is managed was changed by others. Nobody answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "drift")]
pub struct DriftMessage {
    /// When it was seen, in seconds since the Unix epoch.
    pub at: i64,
    /// Whether it was put right at once.
    pub healed: bool,
    /// What has to change to be as wanted again (what was changed, when healed), and what cannot.
    pub detail: Detail,
}

impl HostRequest {
    /// The name on the wire.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sync { .. } => "sync",
            Self::ReportState => "report-state",
        }
    }
}

impl HostMessage {
    /// The JSON body of this message.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let (wanted, dry_run) = match &self.request {
            HostRequest::Sync { wanted, dry_run } => (Some(&**wanted), *dry_run),
            HostRequest::ReportState => (None, false),
        };
        let (kind, action) = ("action", self.request.name());
        let wire = WireHost { kind, mid: &self.mid, action, wanted, dry_run };
        serde_json::to_vec(&wire).expect("texts, numbers and checked raw JSON always serialise")
    }

    /// The answer to this message.
    #[must_use]
    pub fn reply(&self, status: Status, feedback: impl Into<String>) -> FeedbackMessage {
        FeedbackMessage::new(self.mid.clone(), status, feedback)
    }
}

impl DriftMessage {
    /// The JSON body of this message.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers always serialise")
    }

    /// Parses the body of a frame. `None` when its `type` is another.
    ///
    /// # Errors
    /// As the JSON of it is wrong. Unknown members are ignored, as in a hello.
    #[must_use = "nothing else is read from the body"]
    pub fn parse(body: &[u8]) -> Option<Result<Self, serde_json::Error>> {
        crate::order::is_kind(body, "drift").then(|| serde_json::from_slice(body))
    }
}

/// The members in the order in which they are written.
#[derive(Serialize)]
struct WireHost<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    mid: &'a MessageId,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    wanted: Option<&'a WantedState>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
}

#[cfg(test)]
mod tests {
    use super::DriftMessage;
    use crate::Detail;

    #[test]
    fn drift_is_written_and_read() {
        let drift = DriftMessage { at: 7, healed: true, detail: Detail::default() };
        let text = r#"{"type":"drift","at":7,"healed":true,"detail":{}}"#;
        assert_eq!(String::from_utf8(drift.to_json()).expect("text"), text);
        assert_eq!(DriftMessage::parse(text.as_bytes()).expect("one").expect("good"), drift);
        for other in [r#"{"type":"hello"}"#, "[]", "no json", ""] {
            assert!(DriftMessage::parse(other.as_bytes()).is_none(), "{other}");
        }
        for wrong in [r#"{"type":"drift"}"#, r#"{"type":"drift","at":7,"healed":1,"detail":{}}"#] {
            assert!(DriftMessage::parse(wrong.as_bytes()).expect("one").is_err(), "{wrong}");
        }
    }
}
