//! Values of the configuration that have a rule: built checked, passed as they are.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use bastio_protocol::{GroupName, Username};
use serde::Deserialize;

/// A number of connections, 1 to 100 000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub struct Limit(usize);

/// How much is kept, 1 to 1 000 000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub struct Count(u32);

/// A share, 1 to 100 percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub struct Percent(u8);

/// A time of 1 to 3600 whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub struct Seconds(u16);

/// `http://` or `https://`, a host, perhaps a port and a path; no slash at the end.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PublicUrl(String);

/// What becomes of sessions of one agent from two places: a machine and its copy, or a stolen key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RivalPolicy {
    /// The new one takes over, as an agent does whose address has changed.
    #[default]
    Newest,
    /// The new one is refused as long as the old one is there.
    First,
    /// Both are cut, and refused until an operator has decided.
    Cut,
}

/// What needs a second operator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NeededFor {
    /// Nothing.
    #[default]
    None,
    /// What makes root on a server.
    Root,
}

/// A time of 1 to 365 whole days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub struct Days(u16);

impl Default for Days {
    fn default() -> Self {
        Self(7)
    }
}

impl Days {
    /// The time, in seconds.
    #[must_use]
    pub fn seconds(self) -> i64 {
        i64::from(self.0) * 86_400
    }
}

impl TryFrom<u32> for Days {
    type Error = &'static str;

    fn try_from(number: u32) -> Result<Self, Self::Error> {
        match u16::try_from(number) {
            Ok(days @ 1..=365) => Ok(Self(days)),
            _ => Err("a time is a number of days from 1 to 365"),
        }
    }
}

/// Login names, with commas between them; none by default. Never `root`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SystemNames(BTreeSet<Username>);

impl SystemNames {
    /// The names.
    #[must_use]
    pub fn get(&self) -> BTreeSet<Username> {
        self.0.clone()
    }
}

/// Groups: a list, or one text with commas between them, as in a variable; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Words")]
pub struct RootGroups(BTreeSet<GroupName>);

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Words {
    List(Vec<String>),
    Text(String),
}

impl RootGroups {
    /// The groups.
    #[must_use]
    pub fn get(&self) -> BTreeSet<GroupName> {
        self.0.clone()
    }
}

impl TryFrom<Words> for RootGroups {
    type Error = &'static str;

    fn try_from(words: Words) -> Result<Self, Self::Error> {
        let words = match words {
            Words::List(words) => words,
            Words::Text(text) => text.split(',').map(str::to_owned).collect(),
        };
        let words = words.iter().map(|word| word.trim()).filter(|word| !word.is_empty());
        let groups = words.map(GroupName::parse).collect::<Result<BTreeSet<_>, _>>();
        groups.map(Self).map_err(|_| "names of groups are wanted, as a list")
    }
}

impl TryFrom<String> for SystemNames {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let names = words.map(Username::parse).collect::<Result<BTreeSet<_>, _>>();
        let names = names.map_err(|_| "login names are wanted, with commas between them")?;
        if names.iter().any(|name| name.as_str() == "root") {
            return Err("root is never anybody's login");
        }
        Ok(Self(names))
    }
}

impl Limit {
    pub(super) const DEFAULT_RAIL: Self = Self(20);
    pub(super) const DEFAULT_STARTUPS: Self = Self(100);
    pub(super) const DEFAULT_WAITING: Self = Self(16_384);
    pub(super) const DEFAULT_STARTUPS_PER_SOURCE: Self = Self(20);
    pub(super) const DEFAULT_FAILURES_PER_SOURCE: Self = Self(300);
    pub(super) const DEFAULT_SESSIONS_PER_KEY: Self = Self(8);
    pub(super) const DEFAULT_LOGINS_PER_KEY: Self = Self(10);

    /// The number.
    #[must_use]
    pub fn get(self) -> usize {
        self.0
    }
}

impl TryFrom<u32> for Limit {
    type Error = &'static str;

    fn try_from(number: u32) -> Result<Self, Self::Error> {
        match usize::try_from(number) {
            Ok(number @ 1..=100_000) => Ok(Self(number)),
            _ => Err("a limit of connections is a number from 1 to 100000"),
        }
    }
}

impl Count {
    pub(super) const DEFAULT_REVISIONS: Self = Self(1000);

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Count {
    type Error = &'static str;

    fn try_from(number: u32) -> Result<Self, Self::Error> {
        match number {
            1..=1_000_000 => Ok(Self(number)),
            _ => Err("what is kept is a number from 1 to 1000000"),
        }
    }
}

impl Percent {
    pub(super) const DEFAULT_RAIL: Self = Self(50);

    /// The share.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u32> for Percent {
    type Error = &'static str;

    fn try_from(number: u32) -> Result<Self, Self::Error> {
        match u8::try_from(number) {
            Ok(percent @ 1..=100) => Ok(Self(percent)),
            _ => Err("a share is a number of percent from 1 to 100"),
        }
    }
}

impl Seconds {
    pub(super) const DEFAULT_LOGIN_GRACE: Self = Self(20);
    pub(super) const DEFAULT_ANSWER_WITHIN: Self = Self(120);
    pub(super) const DEFAULT_TAKE_WITHIN: Self = Self(30);
    pub(super) const DEFAULT_KEEPALIVE: Self = Self(30);
    pub(super) const DEFAULT_VALID_FOR: Self = Self(600);

    /// The time.
    #[must_use]
    pub fn get(self) -> Duration {
        Duration::from_secs(self.0.into())
    }
}

impl TryFrom<u32> for Seconds {
    type Error = &'static str;

    fn try_from(number: u32) -> Result<Self, Self::Error> {
        match u16::try_from(number) {
            Ok(seconds @ 1..=3600) => Ok(Self(seconds)),
            _ => Err("a time limit is a number of seconds from 1 to 3600"),
        }
    }
}

impl PublicUrl {
    /// The URL, without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PublicUrl {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const RULE: &str = "a URL begins with http:// or https:// and a host, and has no ? or #";
        let url = text.trim_end_matches('/');
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let host = rest.and_then(|rest| rest.split('/').next()).unwrap_or_default();
        let odd = |c: char| c.is_whitespace() || c.is_control() || "?#@\"<>\\".contains(c);
        if host.is_empty() || host.starts_with(':') || url.contains(odd) {
            return Err(RULE);
        }
        Ok(Self(url.to_owned()))
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
