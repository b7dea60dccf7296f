//! The bodies about groups of people. Must not know how they are stored.

use serde::{Deserialize, Serialize};

use super::people::{Grant, name_type};
use crate::{ServerName, Username};

name_type! {
    /// Name of a group of people: as that of a server.
    UserGroup, "a group's name has letters, digits, and - . _ inside"
}

/// Who has a grant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holder {
    /// One person.
    User(Username),
    /// Everybody in that group, also in groups inside it.
    Group(UserGroup),
}

impl Holder {
    /// The person, where it is one.
    #[must_use]
    pub fn user(&self) -> Option<&Username> {
        match self {
            Self::User(user) => Some(user),
            Self::Group(_) => None,
        }
    }

    /// The group, where it is one.
    #[must_use]
    pub fn group(&self) -> Option<&UserGroup> {
        match self {
            Self::User(_) => None,
            Self::Group(group) => Some(group),
        }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User(user) => write!(f, "user {user}"),
            Self::Group(group) => write!(f, "group {group}"),
        }
    }
}

/// Members of a group: people, and groups whose people are in it, too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Members {
    /// People.
    #[serde(default)]
    pub users: Vec<Username>,
    /// Groups.
    #[serde(default)]
    pub groups: Vec<UserGroup>,
}

/// A group of people. `GET /groups`, `GET /groups/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Unique name among groups.
    pub name: UserGroup,
    /// Its own members.
    pub members: Members,
    /// Everybody in it, also through groups inside it.
    pub people: Vec<Username>,
    /// What it was granted; what the groups that it is in were granted is theirs.
    pub grants: Vec<Grant>,
    /// Added at.
    pub created: i64,
}

/// A group that a person is in. Part of [`super::User`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The group.
    pub group: UserGroup,
    /// Through which groups inside it, the outermost first; empty for its own members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub through: Vec<UserGroup>,
}

/// A group to add. `POST /groups`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewGroup {
    /// Unique name among groups.
    pub name: UserGroup,
    /// Its members.
    #[serde(default)]
    pub members: Members,
}

/// Changes of a group. `PATCH /groups/{name}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateGroup {
    /// Members to add.
    #[serde(default)]
    pub add: Members,
    /// Members to take out.
    #[serde(default)]
    pub remove: Members,
}

/// How a group is removed. `DELETE /groups/{name}?with_grants=true`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveGroup {
    /// Whether its grants end with it; without it a group that has grants stays.
    #[serde(default)]
    pub with_grants: bool,
}
