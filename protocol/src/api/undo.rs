//! The bodies about revisions of the model and going back to one. Must not know how any is kept.

use serde::{Deserialize, Serialize};

use crate::ServerName;

/// A revision of the model. `GET /revisions?limit=NUMBER&before=REVISION`, the last first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number.
    pub revision: i64,
    /// When it was made.
    pub at: i64,
    /// Who made it, as in the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What was edited, for people.
    pub summary: String,
    /// Whether the model as of this revision is still known.
    pub known: bool,
}

/// Back to the model as of a revision. `POST /undo`, answered with a [`super::Change`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Undo {
    /// The revision.
    pub to: i64,
    /// Only what concerns this server alone: its labels, and the grants that reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerName>,
    /// Why, for the audit log.
    #[serde(default)]
    pub reason: String,
}
