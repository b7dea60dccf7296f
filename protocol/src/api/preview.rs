//! What an edit would do before it is done, and how far each server is: the bodies of `bastio plan`
//! and of every edit that is only tried. Must not know how either is worked out.

use serde::{Deserialize, Serialize};

use super::{ActionReport, Presence, Question};
use crate::{ServerName, Username};

/// Header of a request that asks what an edit would do: with the value `yes`, nothing is done.
pub const DRY_RUN_HEADER: &str = "bastio-dry-run";
/// Header of a request for an edit that is only to be made when the model is at that revision still.
pub const IF_REVISION_HEADER: &str = "bastio-if-revision";
/// Header of a request whose sender knows that the edit concerns much of the fleet, or locks somebody out: with the
/// value `yes-really` it is done all the same.
pub const CONFIRM_HEADER: &str = "bastio-confirm";

/// What an edit does to the servers, worked out and not yet done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// Every server that would be told something, by name.
    pub servers: Vec<ServerPreview>,
    /// All of it in numbers.
    pub blast: BlastRadius,
    /// What the model would become, one line for each edit of it, where one request asks for several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edits: Vec<String>,
    /// Why this edit needs a confirmation; empty when it needs none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stops: Vec<String>,
    /// For what this edit needs another operator; empty when it needs none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approval: Vec<String>,
}

/// What one server would be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerPreview {
    /// The server.
    pub server: ServerName,
    /// Whether its agent is connected.
    pub presence: Presence,
    /// What it would be told, in order.
    pub steps: Vec<StepPreview>,
    /// Whether nobody would be left there who has sudo rights and a key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub last_admin_lost: bool,
}

/// One thing that a server would be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepPreview {
    /// The account.
    pub username: Username,
    /// `add-user`, `remove-key`, `set-user`...
    pub action: String,
    /// More about it, for people: `SHA256:...`, `with sudo`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// How much of the fleet an edit concerns. An account on two servers counts twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlastRadius {
    /// Servers that would be told something.
    pub servers: u32,
    /// Servers that there are.
    pub of: u32,
    /// Login names concerned.
    pub logins: u32,
    /// Accounts that come.
    pub gained: u32,
    /// Accounts that go or can no longer log in.
    pub lost: u32,
    /// Accounts that get sudo rights.
    pub sudo_gained: u32,
    /// Accounts that lose sudo rights.
    pub sudo_lost: u32,
    /// Servers that would be left without anybody who has sudo rights and a key.
    pub last_admin_lost: u32,
}

/// How far one server is. `GET /plan?server=NAME`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerPlan {
    /// The server.
    pub server: ServerName,
    /// Whether its agent is connected.
    pub presence: Presence,
    /// Last time its agent was seen connected.
    pub last_seen: Option<i64>,
    /// The last revision of the model that the server has all of.
    pub in_sync_at: i64,
    /// What it has still to be told or to answer, and what it failed to take.
    pub open: Vec<ActionReport>,
    /// Whether it differs from what it should be, as its agent says, and is not to be left so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drifted: bool,
    /// Whether it differs still although it was brought back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_drifting: bool,
    /// What somebody must decide about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub questions: Vec<Question>,
}
