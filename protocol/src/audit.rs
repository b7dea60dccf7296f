//! The chain of the audit log: rows, their hashes, which rows somebody asks for, and the head of an
//! export. Whoever holds an export can verify it without the backend.
//!
//! Must not know where rows are kept or how they travel.

mod verify;

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use ring::digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::api::AuditRow;
use crate::{ServerName, Status, Username};

pub use verify::{Fault, Place, Scope, Summary, Verdict, Verifier};

/// What the first row's predecessor hashes to.
pub const GENESIS: &str = "";

/// The version of exports that this program writes and reads.
pub const EXPORT_VERSION: u32 = 1;

/// A row with the hashes that chain it to the row before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainedRow {
    /// The row.
    #[serde(flatten)]
    pub row: AuditRow,
    /// Hash of the row before, in hexadecimal digits; [`GENESIS`] for the first row.
    #[serde(default)]
    pub prev_hash: String,
    /// Hash of this row; empty when a backend without hashes in its API told it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hash: String,
}

/// The last row of a chain: everything before it follows from its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The row's number.
    pub id: i64,
    /// Its hash.
    pub hash: String,
}

/// Text is no head of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a head is ID:HASH, as `bastio log head` prints it")]
pub struct HeadError;

/// A name, or what it begins with: `grant.add`, `grant.*`, `grant.`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Pattern {
    /// This and nothing else.
    Exactly(String),
    /// All that begins so.
    Beginning(String),
}

/// Text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("give a name (grant.add) or its beginning (grant.*); `*` stands at the end only")]
pub struct PatternError;

/// Which rows; what is absent selects nothing away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogFilter {
    /// Only about this person or account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Username>,
    /// Only about this server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerName>,
    /// Only of whoever is called so: `key:NAME`, `agent:NAME`, `backend`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Pattern>,
    /// Only of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Pattern>,
    /// Only from this time on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// Only before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
}

/// The first line of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportHeader {
    /// Says what the file is, and in which version: [`EXPORT_VERSION`].
    pub bastio_audit_export: u32,
    /// Base URL of the backend.
    pub backend: String,
    /// When, by the clock of whoever exported.
    pub exported_at: i64,
    /// Which rows; empty means every row.
    pub filters: LogFilter,
    /// The last row of the log when the export began; no row after it is in the export.
    pub head: Option<Head>,
}

/// The hash of a row: SHA-256, in hexadecimal digits, of the JSON list of the previous row's hash
/// and every value. Values that rows did not have from the beginning stand in an object at its end, which
/// is absent when there are none: older rows keep their hashes.
#[must_use]
pub fn hash(prev_hash: &str, row: &AuditRow) -> String {
    let AuditRow { id, at, actor, from, action, user, server, detail, reason, status } = row;
    let first = (prev_hash, id, at, actor, from, action, user, server, detail);
    let text = match (reason, status) {
        (None, None) => serde_json::to_vec(&first),
        _ => {
            let (prev_hash, id, at, actor, from, action, user, server, detail) = first;
            let more = Later { reason: reason.as_deref(), status: *status };
            serde_json::to_vec(&(
                prev_hash, id, at, actor, from, action, user, server, detail, more,
            ))
        }
    };
    let text = text.expect("texts and numbers always serialise");
    hex(digest::digest(&digest::SHA256, &text).as_ref())
}

/// What rows did not have from the beginning, by name.
#[derive(Serialize)]
struct Later<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    let mut text = String::with_capacity(2 * bytes.len());
    text.extend(digits.filter_map(|digit| char::from_digit(digit.into(), 16)));
    text
}

impl ChainedRow {
    /// The row as the next one behind `before`; it must have the number for that.
    #[must_use]
    pub fn behind(before: Option<&Head>, row: AuditRow) -> Self {
        let prev_hash = before.map_or(GENESIS, |head| &head.hash).to_owned();
        let hash = hash(&prev_hash, &row);
        Self { row, prev_hash, hash }
    }

    /// The row as the last of a chain.
    #[must_use]
    pub fn head(&self) -> Head {
        Head { id: self.row.id, hash: self.hash.clone() }
    }

    /// Whether its hash is that of its values.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.hash == hash(&self.prev_hash, &self.row)
    }

    /// A line of an export. `None` for what no export holds: text that is no row, and members beside
    /// those of a row, which no hash would cover.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let row: Self = serde_json::from_str(line).ok()?;
        let told: Value = serde_json::from_str(line).ok()?;
        (serde_json::to_value(&row).ok()? == told).then_some(row)
    }
}

impl LogFilter {
    /// Whether it lets every row through.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl FromStr for Head {
    type Err = HeadError;

    fn from_str(text: &str) -> Result<Self, HeadError> {
        let (id, hash) = text.split_once(':').ok_or(HeadError)?;
        let id = id.parse().ok().filter(|id| *id > 0).ok_or(HeadError)?;
        let good = hash.len() == 2 * digest::SHA256_OUTPUT_LEN
            && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if good { Ok(Self { id, hash: hash.to_owned() }) } else { Err(HeadError) }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.id, self.hash)
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let (text, star) = text.strip_suffix('*').map_or((text, false), |begin| (begin, true));
        if text.contains('*') || text.is_empty() || text.chars().any(char::is_control) {
            return Err(PatternError);
        }
        let beginning = star || text.ends_with('.');
        let text = text.to_owned();
        Ok(if beginning { Self::Beginning(text) } else { Self::Exactly(text) })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(text) => f.write_str(text),
            Self::Beginning(text) => write!(f, "{text}*"),
        }
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}
