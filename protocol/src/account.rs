//! What an account must be: everything that version 2 of the wire can say about one login name.
//!
//! Pure values, parsed once. This file must not know how an account is changed, nor what it is now.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{KeyOptions, PublicKey, SudoPolicy, Username};

/// Longest path, in bytes.
const MAX_PATH: usize = 256;
/// Longest comment (GECOS field), in bytes.
const MAX_COMMENT: usize = 256;

/// One account as it must be: the whole of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WantedAccount {
    /// What the account database says.
    #[serde(default, skip_serializing_if = "AccountSpec::is_empty")]
    pub spec: AccountSpec,
    /// Whether and how it may use sudo.
    #[serde(default, skip_serializing_if = "Sudo::is_none")]
    pub sudo: Sudo,
    /// The keys that log in; at most one entry a key.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub keys: BTreeSet<KeyGrant>,
    /// When all of it ends: keys, sudo rights and the account, in seconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// Whether it is there but lets nobody in.
    #[serde(default, skip_serializing_if = "is_false")]
    pub locked: bool,
    /// Whether an account of that name that bastio did not make is to be managed from now on.
    /// Without it, such an account is refused.
    #[serde(default, skip_serializing_if = "is_false")]
    pub take_over: bool,
    /// Whether an account that was taken over is given back: bastio's key lines and its rule go, the
    /// fields of `spec` and these key lines of others come back, sudo rights mean membership of the
    /// group for sudo, and then it is managed no more. Nothing is done to one that is not managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Vec<String>>,
}

/// Fields of the account database. What is absent is the host's own choice when the account is
/// made, and left as it is later.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountSpec {
    /// Numeric id. An account that has another is refused, never renumbered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Primary group; a group of the account's own name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupName>,
    /// All supplementary groups besides bastio's own and sudo's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<BTreeSet<GroupName>>,
    /// Login shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<AbsolutePath>,
    /// GECOS field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<Comment>,
    /// Home folder. An account that has another keeps it, and that is reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<AbsolutePath>,
    /// Folder whose files a new home begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skel: Option<AbsolutePath>,
}

/// Sudo rights of one account.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sudo {
    /// None.
    #[default]
    None,
    /// What `sudo: true` of version 1 means on that server (its configuration says).
    Plain,
    /// A rule of its own.
    Policy(Box<SudoPolicy>),
}

/// A key that logs in, and how.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyGrant {
    /// The key.
    pub public_key: PublicKey,
    /// What it may be used for and from where.
    #[serde(default, skip_serializing_if = "KeyOptions::is_empty")]
    pub options: KeyOptions,
    /// When it ends, in seconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
}

/// What becomes of an account that must go, and of its home. Access ends in every case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Removal {
    /// Account and home stay, locked and without keys, rights and supplementary groups.
    Lock,
    /// The account goes, the home stays where it is.
    #[default]
    Keep,
    /// The account goes, the home is moved to a folder of root's and deleted after some days.
    Quarantine,
    /// Account and home go.
    Delete,
}

/// Name of a group: as [`Username`], and capital letters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupName(String);

/// An absolute path without `.` and `..`, colons, double slashes and control characters; at most 256 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AbsolutePath(String);

/// A GECOS field: no colon, no control character, at most 256 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Comment(String);

/// Why a text is no field of an account.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AccountFieldError {
    /// Not a group's name.
    #[error("{0:?} is no group name; use letters, digits, _, and - and . inside, 32 at most")]
    Group(String),
    /// Not a path that is taken.
    #[error("{0:?} is no absolute path without '..', ':' and '//'; at most {MAX_PATH} bytes")]
    Path(String),
    /// Not a comment.
    #[error("a comment has at most {MAX_COMMENT} bytes and no ':' or control character")]
    Comment,
}

impl WantedAccount {
    /// Whether version 1 of the wire can say all of it: an account, plain sudo or none, keys
    /// without options.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let Self { spec, sudo, keys, until, locked, take_over, release } = self;
        let plain_sudo = matches!(sudo, Sudo::None | Sudo::Plain);
        let plain_keys = keys.iter().all(|key| key.options.is_empty() && key.until.is_none());
        let plain_state = until.is_none() && !locked && !take_over && release.is_none();
        spec.is_empty() && plain_sudo && plain_keys && plain_state
    }

    /// When the key ends: its own end or the account's, whichever is first.
    #[must_use]
    pub fn key_until(&self, key: &KeyGrant) -> Option<i64> {
        earlier(self.until, key.until)
    }

    /// When the sudo rights end: the rule's own end or the account's, whichever is first.
    #[must_use]
    pub fn sudo_until(&self) -> Option<i64> {
        match &self.sudo {
            Sudo::Policy(policy) => earlier(self.until, policy.not_after),
            Sudo::None | Sudo::Plain => self.until,
        }
    }
}

/// The earlier of two ends, where absent means never.
fn earlier(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    one.into_iter().chain(other).min()
}

impl AccountSpec {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Sudo {
    /// Whether there are no rights.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

impl KeyGrant {
    /// The key without options and end.
    #[must_use]
    pub fn plain(public_key: PublicKey) -> Self {
        Self { public_key, options: KeyOptions::default(), until: None }
    }
}

impl Removal {
    /// The name on the wire and in configurations.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Keep => "keep",
            Self::Quarantine => "quarantine",
            Self::Delete => "delete",
        }
    }
}

impl GroupName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`AccountFieldError::Group`].
    pub fn parse(text: &str) -> Result<Self, AccountFieldError> {
        match Username::parse(&text.to_ascii_lowercase()) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(_) => Err(AccountFieldError::Group(text.to_owned())),
        }
    }
}

impl AbsolutePath {
    /// Parses a path.
    ///
    /// # Errors
    /// [`AccountFieldError::Path`].
    pub fn parse(text: &str) -> Result<Self, AccountFieldError> {
        let parts = text.strip_prefix('/').map(|rest| rest.split('/'));
        let good_part = |part: &str| !matches!(part, "" | "." | "..");
        let good = text.len() <= MAX_PATH
            && parts.is_some_and(|mut parts| parts.all(good_part))
            && !text.contains(|c: char| c == ':' || c.is_control());
        if good { Ok(Self(text.to_owned())) } else { Err(AccountFieldError::Path(text.to_owned())) }
    }
}

impl Comment {
    /// Parses a comment.
    ///
    /// # Errors
    /// [`AccountFieldError::Comment`].
    pub fn parse(text: &str) -> Result<Self, AccountFieldError> {
        let good =
            text.len() <= MAX_COMMENT && !text.contains(|c: char| c == ':' || c.is_control());
        if good { Ok(Self(text.to_owned())) } else { Err(AccountFieldError::Comment) }
    }
}

/// `as_str`, `Display`, and what serde uses.
macro_rules! text {
    ($type:ty) => {
        impl $type {
            /// As text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $type {
            type Error = AccountFieldError;

            fn try_from(text: String) -> Result<Self, AccountFieldError> {
                Self::parse(&text)
            }
        }

        impl From<$type> for String {
            fn from(text: $type) -> Self {
                text.0
            }
        }
    };
}

text!(GroupName);
text!(AbsolutePath);
text!(Comment);

fn is_false(value: &bool) -> bool {
    !value
}
