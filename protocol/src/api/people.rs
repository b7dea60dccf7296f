//! The bodies about people: keys, grants, sudo policies. Must not know how they are stored.

use serde::{Deserialize, Serialize};

use crate::{
    AccountSpec, KeyOptions, PublicKey, Removal, ServerName, SudoCommand, Target, Username,
};

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
