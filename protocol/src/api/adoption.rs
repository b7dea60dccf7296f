//! The bodies about what is on a server already, and is to become somebody's. Must not know how it is
//! found or taken.

use serde::{Deserialize, Serialize};

use crate::{FoundUser, Username};

/// An account that was found on a server. `GET /servers/{name}/adoption?request=ID`, where the
/// request is a report that the server has answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The account with its keys.
    pub account: FoundUser,
    /// Whether it is a member of the group for sudo.
    pub sudo: bool,
    /// Whose it may be, the likeliest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<Match>,
    /// Whose it has become.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted_by: Option<Username>,
}

/// Somebody whose account it may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// The person.
    pub user: Username,
    /// Why.
    pub by: Vec<MatchRule>,
}

/// Why an account may be somebody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MatchRule {
    /// A key of the person logs in to it.
    Key,
    /// It has the person's name.
    Login,
    /// The comment of a key is the person's mail address.
    Mail,
}

/// An account to be taken over. `POST /servers/{name}/adoption`, answered with a [`super::Change`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adopt {
    /// The account.
    pub login: Username,
    /// Who has it from now on.
    pub user: Username,
    /// The report in which it was seen.
    pub request: i64,
    /// Whether sudo rights that it has are taken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_sudo: bool,
    /// Why, for the audit log.
    #[serde(default)]
    pub reason: String,
}
