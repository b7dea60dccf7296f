//! The bodies of the HTTP API under `/api/v1`, shared by the backend and its clients.
//!
//! Times are whole seconds since the Unix epoch. This file must not know how requests travel or
//! how anything is stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Detail, DriftMessage, ServerName, Status, Target, Username, WantedAccount, stamp};

mod adoption;
mod approvals;
mod drift;
mod groups;
mod people;
mod policy;
mod preview;
mod questions;
mod sealing;
mod time;
mod undo;

pub use adoption::{Adopt, Candidate, Match, MatchRule};
pub use approvals::{Approve, NewOperatorKey, OperatorKey, Proposal, ProposalState, Reject};
pub use drift::{DriftAnswer, DriftRule, DriftRuleInForce};
pub use groups::{
    Group, Holder, Members, Membership, NewGroup, RemoveGroup, UpdateGroup, UserGroup,
};
pub use people::{
    Grant, Key, NamedPolicy, NewGrant, NewKeys, NewUser, PolicyName, RemoveUser, StateReason,
    Terms, UpdateUser, User, UserState,
};
pub use policy::{
    Policy, PolicyGrant, PolicyGroup, PolicyKey, PolicyServer, PolicyUser, PolicyVersion, SudoRule,
};
pub use preview::{
    BlastRadius, CONFIRM_HEADER, DRY_RUN_HEADER, IF_REVISION_HEADER, Preview, ServerPlan,
    ServerPreview, StepPreview,
};
pub use questions::{Question, QuestionKind, ReplaceServer};
pub use sealing::{Unseal, Unsealed};
pub use time::Time;
pub use undo::{Revision, Undo};

/// Clocks that differ by no more than this, in seconds, count as equal.
pub const CLOCK_LIMIT: i64 = 30;

/// Labels of a server: name to value.
pub type Labels = BTreeMap<String, String>;

/// A time for people, in UTC: `2026-12-01 18:00:00`. Years beyond 1970 to 9999 become the nearest.
#[must_use]
pub fn utc(moment: i64) -> String {
    let mut text = stamp::digits(moment, 0);
    for (behind, mark) in [(12, ':'), (10, ':'), (8, ' '), (6, '-'), (4, '-')] {
        text.insert(behind, mark);
    }
    text
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// What is wrong, in one sentence.
    pub error: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The proposal that it became: it waits for another operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposal: Option<i64>,
}

/// Whether an agent's channel is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    /// Its channel is open now.
    Connected,
    /// It was connected once and is not now.
    Offline,
    /// It was enrolled and has never connected.
    NeverSeen,
}

/// A server in a list. `GET /servers`, `GET /servers/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Unique name.
    pub name: ServerName,
    /// Set by operators; those under `host/` follow from what its agent tells.
    pub labels: Labels,
    /// Whether its agent is connected.
    pub presence: Presence,
    /// Last time its agent was seen connected.
    pub last_seen: Option<i64>,
    /// Where the agent's last connection came from.
    pub address: Option<String>,
    /// What the agent calls itself in its SSH identification.
    pub agent: Option<String>,
    /// Fingerprint of the agent's key.
    pub fingerprint: String,
    /// Enrolled at.
    pub created: i64,
    /// Actions not yet answered.
    pub pending: u32,
    /// What the server should have and failed to take.
    pub failed: u32,
    /// Whether it differs from what it should be, as its agent says, and that is not to be left so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drifted: bool,
    /// What is done when it differs.
    #[serde(default, skip_serializing_if = "DriftAnswer::is_default")]
    pub drift_answer: DriftAnswer,
    /// Whether it differs still although it was brought back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_drifting: bool,
    /// How many seconds its host's clock is ahead of the backend's (behind it, below 0); only where
    /// that is more than [`CLOCK_LIMIT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_offset: Option<i64>,
    /// What somebody must decide about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub questions: Vec<Question>,
    /// The last revision of the model that it has all of.
    #[serde(default)]
    pub in_sync_at: i64,
    /// What it failed at first, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// What can be asked of a server as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RequestKind {
    /// Become exactly as wanted.
    Sync,
    /// Say what a sync would change.
    Check,
    /// Tell everything that there is.
    Report,
}

impl RequestKind {
    /// The name as in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Check => "check",
            Self::Report => "report",
        }
    }
}

/// Something to ask of a server. `POST /servers/{name}/requests`, answered with a
/// [`RequestReport`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRequest {
    /// What.
    pub kind: RequestKind,
    /// Whether a sync may leave the server without anybody who has sudo rights and a key.
    #[serde(default)]
    pub allow_no_admin: bool,
}

/// How far a request is. `GET /requests/{id}?wait=SECONDS` answers as soon as it has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestReport {
    /// Its number.
    pub id: i64,
    /// The server.
    pub server: ServerName,
    /// What is asked.
    pub kind: RequestKind,
    /// Whether the server's agent is connected.
    pub connected: bool,
    /// How far it is.
    pub state: ActionState,
    /// How often it was sent.
    pub tries: u32,
    /// The agent's status.
    pub status: Option<Status>,
    /// The agent's words.
    pub feedback: Option<String>,
    /// The same for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Box<Detail>>,
    /// Asked at.
    pub created: i64,
    /// Ended at.
    pub finished: Option<i64>,
}

/// Whose sessions to end where. `POST /users/{name}/end-sessions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndSessions {
    /// Only on these servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Target>,
}

/// One server with what is on it. `GET /servers/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerDetail {
    /// The server.
    #[serde(flatten)]
    pub server: Server,
    /// What its agent has told about it: host name, system, versions. Empty for agents of version 1.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
    /// What others have changed there, as its agent has last said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<Box<DriftMessage>>,
    /// The accounts that its agent has confirmed.
    pub accounts: Vec<Account>,
    /// Actions that failed and whose wish still stands.
    pub failures: Vec<ActionReport>,
}

/// An account as a server has confirmed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Login name.
    pub username: Username,
    /// Whether it may use sudo.
    pub sudo: bool,
    /// Fingerprints of the keys that log in.
    pub keys: Vec<String>,
    /// All of it, where that is more than a plain account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Box<WantedAccount>>,
}

/// Changes of a server. `PATCH /servers/{name}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateServer {
    /// A new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<ServerName>,
    /// Labels to set; the rest stays.
    #[serde(default)]
    pub set_labels: Labels,
    /// Labels to remove.
    #[serde(default)]
    pub unset_labels: Vec<String>,
}

/// What an edit of the model set in motion: the answer to every edit, and `GET
/// /changes/{revision}?after=PROGRESS&wait=SECONDS`, which answers as soon as `progress` is
/// larger than `after` or a server concerned came or went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The model's revision that this edit made.
    pub revision: i64,
    /// What was edited, for people.
    pub summary: String,
    /// Grows with every step that a server takes.
    pub progress: u64,
    /// Whether every server has answered every action of this edit.
    pub complete: bool,
    /// The servers concerned, by name.
    pub servers: Vec<ServerOutcome>,
    /// What is asked of a server as a whole in place of single actions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Box<RequestReport>>,
    /// What the edit would do, where it was only tried: then nothing was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<Box<Preview>>,
}

/// How far one server is with an edit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerOutcome {
    /// The server.
    pub server: ServerName,
    /// Whether its agent is connected.
    pub presence: Presence,
    /// Its actions, in order.
    pub actions: Vec<ActionReport>,
}

/// The life of one action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActionState {
    /// Waits for its turn or for the server.
    Queued,
    /// Sent, not answered.
    Sent,
    /// Answered with 200 or 300.
    Done,
    /// Answered with 400 or 500, or the server cannot take it at all.
    Failed,
}

/// One action of one server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionReport {
    /// `add-user`, `remove-user`, `update-user`, `add-key`, `remove-key`, `set-user`...
    pub action: String,
    /// The account.
    pub username: Username,
    /// How far it is.
    pub state: ActionState,
    /// How often it was sent.
    pub tries: u32,
    /// The agent's status.
    pub status: Option<Status>,
    /// The agent's words.
    pub feedback: Option<String>,
    /// The same for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Box<Detail>>,
    /// The message id on the wire.
    pub mid: String,
}

/// What an API key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Everything under `/api/v1`.
    Admin,
    /// Enrol servers, nothing else.
    Enroll,
    /// Read `/metrics`, nothing else.
    Metrics,
}

/// An API key without its secret. `GET /api-keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Unique name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Made at.
    pub created: i64,
    /// Last used at.
    pub last_used: Option<i64>,
}

/// An API key to make. `POST /api-keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewApiKey {
    /// Unique name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// SHA-256 of the secret in hexadecimal digits, where whoever asks has made it: then nobody is
    /// shown any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_sha256: Option<String>,
}

/// A new API key with its secret, shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedApiKey {
    /// The key.
    #[serde(flatten)]
    pub key: ApiKey,
    /// The secret: the bearer token, or the `api_key` of an enrolment. Empty where only its hash was
    /// given.
    pub secret: String,
    /// How an agent enrols with it, for keys of role `enroll`: the backend's URL and the
    /// fingerprint of its host key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enroll: Option<EnrollHint>,
}

impl std::fmt::Debug for CreatedApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedApiKey").field("key", &self.key).finish_non_exhaustive()
    }
}

/// What a new agent needs beside its API key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollHint {
    /// Base URL of the backend.
    pub backend: String,
    /// Fingerprint of the backend's Ed25519 host key, to be pinned.
    pub host_key: String,
}

/// A row of the audit log. `GET /log` answers with the last `limit` rows, the oldest first, each with
/// its hashes: [`crate::audit::ChainedRow`]. All of the query may be absent: `limit` (at most 1000),
/// what [`crate::audit::LogFilter`] holds, `after=ID` for the first rows behind that one instead of the
/// last ones, and with it `wait=SECONDS` (at most 30): when there are none yet, the answer comes with
/// the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// Rising number.
    pub id: i64,
    /// When.
    pub at: i64,
    /// Who: `key:NAME`, `agent:NAME`, `backend`, or `admin-token` for the owner of its state folder.
    pub actor: String,
    /// From where, for requests.
    pub from: Option<String>,
    /// What: `user.add`, `grant.remove`, `action.done`...
    pub action: String,
    /// The person or account concerned.
    pub user: Option<String>,
    /// The server concerned.
    pub server: Option<String>,
    /// Details for people.
    pub detail: String,
    /// Why, in the words of whoever did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the server answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

/// The fleet in numbers. `GET /status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Version of the backend.
    pub version: String,
    /// Fingerprint (`SHA256:...`) of the host key of the agents' port: what `bastio-agent enroll`
    /// pins.
    pub host_key: String,
    /// Revision of the model.
    pub revision: i64,
    /// Servers enrolled.
    pub servers: u32,
    /// Servers whose agent is connected.
    pub connected: u32,
    /// People.
    pub users: u32,
    /// Grants.
    pub grants: u32,
    /// Actions waiting.
    pub queued: u32,
    /// Actions sent and not answered.
    pub sent: u32,
    /// Actions that failed and whose wish still stands.
    pub failed: u32,
    /// Servers that differ from what they should be, as their agents say, and are not to be left so.
    #[serde(default)]
    pub drifted: u32,
    /// Those of them that differ still although they were brought back.
    #[serde(default)]
    pub keep_drifting: u32,
    /// Servers whose clock differs from the backend's by more than [`CLOCK_LIMIT`].
    #[serde(default)]
    pub clocks_off: u32,
    /// Servers about which somebody must decide something.
    #[serde(default)]
    pub undecided: u32,
    /// Servers that have confirmed everything, and nothing speaks against it.
    #[serde(default)]
    pub in_sync: u32,
    /// Servers to which something is on its way.
    #[serde(default)]
    pub pending_servers: u32,
    /// Servers that failed to take something.
    #[serde(default)]
    pub failed_servers: u32,
    /// Why nothing is signed, and so nothing sent to agents that obey signed actions alone; `None`
    /// when all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_read_them() {
        for (moment, text) in [
            (1_795_319_449, "2026-11-22 03:50:49"),
            (951_782_399, "2000-02-28 23:59:59"),
            (i64::MAX, "9999-12-30 23:59:59"),
        ] {
            assert_eq!(utc(moment), text);
        }
    }
}
