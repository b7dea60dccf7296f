//! The bodies about people: keys, grants, sudo policies. Must not know how they are stored.

use serde::{Deserialize, Serialize};

use super::groups::{Holder, Membership};

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
    /// The numeric id of the accounts of the person's own name, where all servers have the same: as
    /// `spec` says, or given out by the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Added at.
    pub created: i64,
    /// The keys that log in.
    pub keys: Vec<Key>,
    /// Where the person may log in, also through groups.
    pub grants: Vec<Grant>,
    /// The groups that the person is in, also through groups inside them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Membership>,
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
    /// Whose edit brought it, and by what: `key:ops`, `key:ops, a policy file`. Empty when that was before it was
    /// noted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub origin: String,
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
    /// Nowhere, until enabled: no keys, no sudo rights, and the sessions were ended; accounts and homes stay.
    Disabled,
}

impl UserState {
    /// The name, as in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Locked => "locked",
            Self::Disabled => "disabled",
        }
    }
}

/// Why a person is disabled or enabled. `POST /users/{name}/disable`, `POST /users/{name}/enable`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateReason {
    /// For the audit log.
    #[serde(default)]
    pub reason: String,
}

/// What a grant says beyond who, where and plain sudo. Servers whose agent speaks version 1 refuse
/// everything of it but the begin, which is the backend's to keep.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// When it begins; at once when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<i64>,
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

/// A name that looks like that of a server, and what is said of a text that does not.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $refusal:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = &'static str;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                ServerName::parse(text).map(|_| Self(text.to_owned())).map_err(|_| $refusal)
            }
        }

        impl TryFrom<String> for $name {
            type Error = &'static str;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
pub(super) use name_type;

name_type! {
    /// Name of a sudo policy: as that of a server.
    PolicyName, "a policy's name has letters, digits, and - . _ inside"
}

impl Terms {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
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
    /// The person, as `user`, or the group, as `group`.
    #[serde(flatten)]
    pub holder: Holder,
    /// The servers.
    pub on: Target,
    /// Login name there; for groups each person's own name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<Username>,
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
    /// The person, as `user`, or the group, as `group`.
    #[serde(flatten)]
    pub holder: Holder,
    /// The servers.
    pub on: Target,
    /// Login name; each person's own name when absent.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::UserGroup;

    fn new_grant(text: &str) -> Result<NewGrant, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn a_grant_is_one_persons_or_one_groups() {
        let alices = new_grant(r#"{"user":"alice","on":"*"}"#).expect("a person's");
        assert_eq!(alices.holder.user().map(Username::as_str), Some("alice"));
        let text = serde_json::to_string(&alices).expect("JSON");
        assert_eq!(text, r#"{"user":"alice","on":"*","login":null,"sudo":false,"reason":""}"#);
        let ops = new_grant(r#"{"on":"*","group":"ops","sudo":true}"#).expect("a group's");
        assert_eq!(ops.holder.group().map(UserGroup::as_str), Some("ops"));
        for wrong in [
            r#"{"on":"*"}"#,
            r#"{"user":"alice","group":"ops","on":"*"}"#,
            r#"{"group":"ops","user":"alice","on":"*"}"#,
            r#"{"user":"alice","on":"*","color":"red"}"#,
            r#"{"user":"alice","on":""}"#,
            r#"{"user":"alice"}"#,
            r#"{"group":"two words","on":"*"}"#,
        ] {
            assert!(new_grant(wrong).is_err(), "{wrong}");
        }
    }
}
