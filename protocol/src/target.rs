//! Names of servers, and the two ways to say which servers a grant is about.
//!
//! This file must not know which servers exist.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest server name, label name or label value, in bytes.
const MAX_LEN: usize = 253;

/// A server's name: letters, digits, `-`, `.` and `_`, the first a letter or digit (host names
/// fit, RFC 1123).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServerName(String);

/// Which servers: some by name, or all whose labels fit.
///
/// As text: `web-1,web-2`, or `role=web,env!=prod`, or `*` for every server. An empty text is
/// nobody and refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// Every server, also those to come.
    All,
    /// These servers.
    Names(Vec<ServerName>),
    /// Every server, also those to come, that meets all of these.
    Labels(Vec<Requirement>),
}

/// One condition on a server's labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Requirement {
    /// `name=value`
    Is {
        /// Label.
        name: String,
        /// Value it must have.
        value: String,
    },
    /// `name!=value`; a server without the label meets it.
    IsNot {
        /// Label.
        name: String,
        /// Value it must not have.
        value: String,
    },
}

/// Why a text names no servers.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TargetError {
    /// Nothing at all: an empty list would mean nobody.
    #[error("no server named; give names (web-1,web-2), labels (role=web) or * for every server")]
    Empty,
    /// Names and labels in one text.
    #[error("give either names (web-1,web-2) or labels (role=web,env=prod), not both in one list")]
    Mixed,
    /// Not a name.
    #[error("{0:?} is no server name; use letters, digits, '-', '.' and '_'")]
    Name(String),
    /// Not a label.
    #[error("{0:?} is no label; write name=value with letters, digits, '-', '.', '_' and '/'")]
    Label(String),
}

impl ServerName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`TargetError::Name`].
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let first = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
        let rest = text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
        if first && rest && text.len() <= MAX_LEN {
            Ok(Self(text.to_owned()))
        } else {
            Err(TargetError::Name(text.chars().take(60).collect()))
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Target {
    /// Whether a server of that name and labels is meant.
    #[must_use]
    pub fn includes(&self, name: &ServerName, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::All => true,
            Self::Names(names) => names.contains(name),
            Self::Labels(all) => all.iter().all(|requirement| requirement.is_met(labels)),
        }
    }
}

impl Requirement {
    fn is_met(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::Is { name, value } => labels.get(name) == Some(value),
            Self::IsNot { name, value } => labels.get(name) != Some(value),
        }
    }

    fn parse(text: &str) -> Result<Self, TargetError> {
        if let Some((name, value)) = text.split_once("!=") {
            let (name, value) = parse_label_parts(text, name, value)?;
            return Ok(Self::IsNot { name, value });
        }
        let (name, value) = parse_label(text)?;
        Ok(Self::Is { name, value })
    }
}

/// Parses a label `name=value`.
///
/// # Errors
/// [`TargetError::Label`].
pub fn parse_label(text: &str) -> Result<(String, String), TargetError> {
    let (name, value) = text.split_once('=').ok_or_else(|| TargetError::Label(text.to_owned()))?;
    parse_label_parts(text, name.trim_end_matches('='), value.trim_start_matches('='))
}

fn parse_label_parts(text: &str, name: &str, value: &str) -> Result<(String, String), TargetError> {
    let fits = |part: &str| {
        !part.is_empty()
            && part.len() <= MAX_LEN
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-._/".contains(c))
    };
    let (name, value) = (name.trim(), value.trim());
    if fits(name) && fits(value) {
        Ok((name.to_owned(), value.to_owned()))
    } else {
        Err(TargetError::Label(text.chars().take(60).collect()))
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> =
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
        match (parts.as_slice(), parts.iter().filter(|part| part.contains('=')).count()) {
            ([], _) => Err(TargetError::Empty),
            (["*"], _) => Ok(Self::All),
            (_, 0) => {
                parts.into_iter().map(ServerName::parse).collect::<Result<_, _>>().map(Self::Names)
            }
            (_, labels) if labels == parts.len() => parts
                .into_iter()
                .map(Requirement::parse)
                .collect::<Result<_, _>>()
                .map(Self::Labels),
            _ => Err(TargetError::Mixed),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Names(names) => write_list(f, names),
            Self::Labels(requirements) => write_list(f, requirements),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is { name, value } => write!(f, "{name}={value}"),
            Self::IsNot { name, value } => write!(f, "{name}!={value}"),
        }
    }
}

fn write_list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T]) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(",")?;
        }
        write!(f, "{item}")?;
    }
    Ok(())
}

impl TryFrom<String> for Target {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ServerName {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for ServerName {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<ServerName> for String {
    fn from(name: ServerName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn text_and_target_say_the_same() {
        for text in ["*", "web-1", "web-1,db.example.org", "role=web", "role=web,env!=prod"] {
            let target: Target = text.parse().expect(text);
            assert_eq!(target.to_string(), text);
        }
    }

    #[test]
    fn selects_by_labels_and_by_names() {
        let web = ServerName::parse("web-1").expect("a name");
        let at = labels(&[("role", "web"), ("env", "prod")]);
        for (text, expected) in [
            ("*", true),
            ("web-1", true),
            ("web-2,web-1", true),
            ("web-2", false),
            ("role=web", true),
            ("role=db", false),
            ("role=web,env!=prod", false),
            ("role=web,env!=test", true),
            ("rack!=7", true),
            ("rack=7", false),
        ] {
            let target: Target = text.parse().expect(text);
            assert_eq!(target.includes(&web, &at), expected, "{text}");
        }
    }

    #[test]
    fn refuses_what_could_mean_too_much() {
        for (text, expected) in [
            ("", TargetError::Empty),
            (" , ", TargetError::Empty),
            ("web-1,role=web", TargetError::Mixed),
            ("-rf", TargetError::Name("-rf".into())),
            ("*,web-1", TargetError::Name("*".into())),
            ("role=", TargetError::Label("role=".into())),
            ("=web", TargetError::Label("=web".into())),
            ("role=a b", TargetError::Label("role=a b".into())),
        ] {
            assert_eq!(text.parse::<Target>(), Err(expected), "{text:?}");
        }
    }
}
