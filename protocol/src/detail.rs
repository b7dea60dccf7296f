//! What a feedback of version 2 says for programs: changes, warnings, and the state of a server.
//!
//! This file must not know how any of it was found.

use serde::{Deserialize, Serialize};

use crate::Username;

/// Details of a feedback or of a drift.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detail {
    /// What was changed, in order; with `dry_run` what would be, in the same words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<ChangeNote>,
    /// What people should know although it went well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What was not done, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<FailureNote>,
    /// Everything found on the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Box<HostReport>>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeNote {
    /// The account; absent for what concerns the whole server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<Username>,
    /// Which kind of change.
    pub kind: ChangeKind,
    /// In words, without secrets; keys appear as fingerprints.
    pub text: String,
}

/// Kinds of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// An account was made.
    CreateUser,
    /// An account of others is managed from now on.
    TakeOver,
    /// Fields of the account database were changed.
    ModifyUser,
    /// An account lets nobody in any more.
    LockUser,
    /// A locked account lets people in again.
    UnlockUser,
    /// A key logs in.
    AddKey,
    /// A key logs in with other options or another end.
    ChangeKey,
    /// A key logs in no more.
    RemoveKey,
    /// Sudo rights were given or changed.
    GrantSudo,
    /// Sudo rights were taken.
    RevokeSudo,
    /// Sessions were ended.
    EndSessions,
    /// An account was removed.
    RemoveUser,
    /// The server's own configuration was changed.
    Configure,
}

/// Something that was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailureNote {
    /// The account; absent for what concerns the whole server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<Username>,
    /// Why, and what to do.
    pub text: String,
}

/// Everything found on a server that has to do with who may log in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostReport {
    /// Accounts with a login shell or keys, and all that bastio manages.
    pub users: Vec<FoundUser>,
    /// Groups with members among them, and groups that are as good as root.
    pub groups: Vec<FoundGroup>,
    /// Lines of sudoers(5) that give rights, as `file: line`, comments left out.
    pub sudo_rules: Vec<String>,
    /// What `sshd -T` says of how people log in: name to value.
    pub sshd: std::collections::BTreeMap<String, String>,
    /// Whether something was left out because it would not have fitted a frame.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// An account that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoundUser {
    /// Login name, whatever it looks like.
    pub name: String,
    /// Numeric id.
    pub uid: u32,
    /// Primary group's numeric id.
    pub gid: u32,
    /// Home.
    pub home: String,
    /// Shell.
    pub shell: String,
    /// GECOS field.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether bastio manages it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub managed: bool,
    /// Whether it is locked or expired, as far as can be told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub locked: bool,
    /// The keys that log in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<FoundKey>,
    /// Why the keys could not be read, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys_unreadable: Option<String>,
}

/// A key that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoundKey {
    /// `SHA256:...`
    pub fingerprint: String,
    /// `ssh-ed25519`...
    pub algorithm: String,
    /// Whether bastio wrote the line.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub managed: bool,
    /// Options in front of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub options: String,
    /// What stands behind it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// The file.
    pub file: String,
}

/// A group that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoundGroup {
    /// Its name.
    pub name: String,
    /// Numeric id.
    pub gid: u32,
    /// Its members, without those whose primary group it is.
    pub members: Vec<String>,
    /// Whether its members can make themselves root (docker, lxd, disk...).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub root_equivalent: bool,
}
