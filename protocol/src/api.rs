//! The bodies of the HTTP API under `/api/v1`, shared by the backend and its clients.
//!
//! Times are whole seconds since the Unix epoch. This file must not know how requests travel or
//! how anything is stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    AccountSpec, Detail, DriftMessage, KeyOptions, PublicKey, Removal, ServerName, Status,
    SudoCommand, Target, Username, WantedAccount,
};

/// Labels of a server: name to value.
pub type Labels = BTreeMap<String, String>;

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// What is wrong, in one sentence.
    pub error: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
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
    /// Set by operators.
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
    /// Whether it differs from what it should be, as its agent says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drifted: bool,
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

/// A person. `GET /users`, `GET /users/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Unique name; the login name where a grant names no other.
    pub name: Username,
    /// Name for people; may be empty.
    pub full_name: String,
    /// Mail address; may be empty.
    pub mail: String,
    /// Whether the person may log in.
    #[serde(default)]
    pub state: UserState,
    /// What the accounts of the person's own name must be.
    #[serde(default, skip_serializing_if = "AccountSpec::is_empty")]
    pub spec: AccountSpec,
    /// Added at.
    pub created: i64,
    /// The keys that log in.
    pub keys: Vec<Key>,
    /// Where the person may log in.
    pub grants: Vec<Grant>,
}

/// A key of a person. `GET /users/{name}/keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// `SHA256:...`
    pub fingerprint: String,
    /// The whole key with its comment.
    pub public_key: PublicKey,
    /// Options in front of it everywhere.
    #[serde(default, skip_serializing_if = "KeyOptions::is_empty")]
    pub options: KeyOptions,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// Added at.
    pub created: i64,
}

/// Whether a person may log in at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserState {
    /// As the grants say.
    #[default]
    Active,
    /// Nowhere, until unlocked; accounts and homes stay.
    Locked,
}

/// What a grant says beyond who, where and plain sudo. Servers whose agent speaks version 1 refuse
/// everything of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// The sudo policy that it gives, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudo_policy: Option<PolicyName>,
    /// Options in front of the person's keys there.
    #[serde(default, skip_serializing_if = "KeyOptions::is_empty")]
    pub key_options: KeyOptions,
    /// Whether an account of that name that bastio did not make is managed from now on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub take_over: bool,
}

/// Name of a sudo policy: as that of a server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PolicyName(String);

impl Terms {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl PolicyName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for PolicyName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        ServerName::parse(text)
            .map(|_| Self(text.to_owned()))
            .map_err(|_| "a policy's name has letters, digits, and - . _ inside")
    }
}

impl TryFrom<String> for PolicyName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PolicyName> for String {
    fn from(name: PolicyName) -> Self {
        name.0
    }
}

impl std::fmt::Display for PolicyName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A named sudo policy. `GET /sudo-policies`, `POST /sudo-policies`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedPolicy {
    /// Unique name.
    pub name: PolicyName,
    /// Absolute commands with their arguments as sudoers(5) has them; empty means all.
    #[serde(default)]
    pub commands: Vec<SudoCommand>,
    /// As whom; empty means everybody.
    #[serde(default)]
    pub run_as: Vec<Username>,
    /// Whether the account's own password is asked for.
    #[serde(default)]
    pub password: bool,
}

/// How a person is removed. `DELETE /users/{name}?home=keep`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveUser {
    /// What becomes of accounts and homes; each server's own rule when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<Removal>,
}

/// A person to add. `POST /users`: user, keys and, with `on`, a grant in one go. For a person who
/// exists already, keys and grant are added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// Unique name.
    pub name: Username,
    /// Name for people.
    #[serde(default)]
    pub full_name: String,
    /// Mail address.
    #[serde(default)]
    pub mail: String,
    /// Key lines.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Where to log in: names or a label selector.
    #[serde(default)]
    pub on: Option<Target>,
    /// Whether with sudo rights there.
    #[serde(default)]
    pub sudo: bool,
    /// More about the grant.
    #[serde(default, skip_serializing_if = "Terms::is_empty")]
    pub terms: Terms,
    /// What the accounts of the person's own name must be.
    #[serde(default, skip_serializing_if = "AccountSpec::is_empty")]
    pub spec: AccountSpec,
    /// Why, for the audit log.
    #[serde(default)]
    pub reason: String,
}

/// Changes of a person. `PATCH /users/{name}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateUser {
    /// New name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_name: Option<String>,
    /// New mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail: Option<String>,
    /// Sudo rights for every grant of this person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudo: Option<bool>,
    /// Lock or unlock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<UserState>,
    /// What the accounts of the person's own name must be; what is absent stays.
    #[serde(default, skip_serializing_if = "AccountSpec::is_empty")]
    pub spec: AccountSpec,
}

/// Keys to add. `POST /users/{name}/keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewKeys {
    /// Key lines; all are added or none.
    pub keys: Vec<String>,
    /// Options in front of them everywhere.
    #[serde(default, skip_serializing_if = "KeyOptions::is_empty")]
    pub options: KeyOptions,
    /// When they end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
}

/// Who may log in where. `GET /grants`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Number for `DELETE /grants/{id}`.
    pub id: i64,
    /// The person.
    pub user: Username,
    /// The servers.
    pub on: Target,
    /// Login name there.
    pub login: Username,
    /// Whether with sudo rights.
    pub sudo: bool,
    /// More about it.
    #[serde(default, skip_serializing_if = "Terms::is_empty")]
    pub terms: Terms,
    /// Why.
    pub reason: String,
    /// Made at.
    pub created: i64,
}

/// A grant to make. `POST /grants`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewGrant {
    /// The person.
    pub user: Username,
    /// The servers.
    pub on: Target,
    /// Login name; the person's name when absent.
    #[serde(default)]
    pub login: Option<Username>,
    /// Whether with sudo rights.
    #[serde(default)]
    pub sudo: bool,
    /// More about it.
    #[serde(default, skip_serializing_if = "Terms::is_empty")]
    pub terms: Terms,
    /// Why.
    #[serde(default)]
    pub reason: String,
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
}

/// A new API key with its secret, shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedApiKey {
    /// The key.
    #[serde(flatten)]
    pub key: ApiKey,
    /// The secret: the bearer token, or the `api_key` of an enrolment.
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

/// A row of the audit log. `GET /log?limit=N&user=U&server=S`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// Rising number.
    pub id: i64,
    /// When.
    pub at: i64,
    /// Who: `key:NAME`, `agent:NAME` or `backend`.
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
    /// Servers that differ from what they should be, as their agents say.
    #[serde(default)]
    pub drifted: u32,
}
