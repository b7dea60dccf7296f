//! Names of servers, and the two ways to say which servers a grant is about.
//!
//! This file must not know which servers exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest server name, label name or label value, in bytes.
const MAX_LEN: usize = 253;

/// A server's name: letters, digits, `-`, `.` and `_`, the first a letter or digit (host names
/// fit, RFC 1123).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct ServerName(String);

/// Which servers: some by name, or all whose labels fit.
///
/// As text: `web-1,web-2`, or `role=db|web,env!=prod`, or `*` for every server. An empty text is
/// nobody and refused. Every target has one text, whatever the order in which it was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// Every server, also those to come.
    All,
    /// These servers.
    Names(BTreeSet<ServerName>),
    /// Every server, also those to come, that meets all of these.
    Labels(BTreeSet<Requirement>),
}

/// One condition on a server's labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    name: String,
    wish: Wish,
}

/// What a label must be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Wish {
    /// `name=value`, `name=one|another`: there, with one of these values.
    OneOf(BTreeSet<String>),
    /// `name!=value`, `name!=one|another`: with none of these values, or not there.
    NoneOf(BTreeSet<String>),
    /// `name=*`: there.
    Present,
    /// `name!=*`: not there.
    Absent,
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
    /// Not a condition on labels.
    #[error(
        "{0:?} is no condition on labels; write role=web, role=web|db, role!=web, role=* (has the \
         label) or role!=* (has it not)"
    )]
    Requirement(String),
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

    /// A label that every server meant has, and its values of which it has one; of several the one with the
    /// fewest values. `None` where only asking each server tells.
    #[must_use]
    pub fn certain_label(&self) -> Option<(&str, impl Iterator<Item = &str>)> {
        let Self::Labels(all) = self else { return None };
        let certain = all.iter().filter_map(|requirement| match &requirement.wish {
            Wish::OneOf(values) => Some((requirement.name.as_str(), values)),
            Wish::NoneOf(_) | Wish::Present | Wish::Absent => None,
        });
        let (name, values) = certain.min_by_key(|(_, values)| values.len())?;
        Some((name, values.iter().map(String::as_str)))
    }
}

impl Requirement {
    fn is_met(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.name);
        match &self.wish {
            Wish::OneOf(values) => value.is_some_and(|value| values.contains(value)),
            Wish::NoneOf(values) => value.is_none_or(|value| !values.contains(value)),
            Wish::Present => value.is_some(),
            Wish::Absent => value.is_none(),
        }
    }

    fn parse(text: &str) -> Result<Self, TargetError> {
        let parsed = if text.contains('(') { Self::words(text) } else { Self::signs(text) };
        parsed.ok_or_else(|| TargetError::Requirement(excerpt(text)))
    }

    /// `role=web|db`, `role!=*`; also `role==web`.
    fn signs(text: &str) -> Option<Self> {
        let (name, values) = text.split_once('=')?;
        let (name, wanted) = match name.strip_suffix('!') {
            Some(name) => (name, false),
            None => (name, true),
        };
        let values = values.strip_prefix('=').filter(|_| wanted).unwrap_or(values);
        if values.trim() == "*" {
            let wish = if wanted { Wish::Present } else { Wish::Absent };
            return Some(Self { name: part(name)?, wish });
        }
        Self::of_values(name, wanted, values.split('|'))
    }

    /// `role in (web,db)`, `env notin (prod)`.
    fn words(text: &str) -> Option<Self> {
        let (head, values) = text.strip_suffix(')')?.split_once('(')?;
        let (name, word) = head.trim_end().rsplit_once(char::is_whitespace)?;
        let wanted = match word {
            "in" => true,
            "notin" => false,
            _ => return None,
        };
        Self::of_values(name, wanted, values.split(','))
    }

    /// A list without a value, or with an empty one, is none.
    fn of_values<'a>(
        name: &str,
        wanted: bool,
        values: impl Iterator<Item = &'a str>,
    ) -> Option<Self> {
        let values = values.map(part).collect::<Option<BTreeSet<String>>>()?;
        let wish = if wanted { Wish::OneOf(values) } else { Wish::NoneOf(values) };
        Some(Self { name: part(name)?, wish })
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
    part(name).zip(part(value)).ok_or_else(|| TargetError::Label(excerpt(text)))
}

/// The name or the value of a label.
fn part(text: &str) -> Option<String> {
    let text = text.trim();
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._/".contains(c);
    let good = (1..=MAX_LEN).contains(&text.len()) && text.chars().all(fits);
    good.then(|| text.to_owned())
}

/// Enough of a wrong text to find it.
fn excerpt(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Splits at the commas that stand outside of parentheses.
fn parts(text: &str) -> Vec<&str> {
    let mut inside = false;
    let commas = text.split(move |c| {
        inside = match c {
            '(' => true,
            ')' => false,
            _ => inside,
        };
        c == ',' && !inside
    });
    commas.map(str::trim).filter(|part| !part.is_empty()).collect()
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = parts(text);
        let labels = parts.iter().filter(|part| part.contains(['=', '('])).count();
        match (parts.as_slice(), labels) {
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
            Self::Names(names) => write_list(f, names, ","),
            Self::Labels(requirements) => write_list(f, requirements, ","),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.wish {
            Wish::OneOf(values) => {
                f.write_str("=")?;
                write_list(f, values, "|")
            }
            Wish::NoneOf(values) => {
                f.write_str("!=")?;
                write_list(f, values, "|")
            }
            Wish::Present => f.write_str("=*"),
            Wish::Absent => f.write_str("!=*"),
        }
    }
}

fn write_list<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    items: &BTreeSet<T>,
    between: &str,
) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(between)?;
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
    use proptest::collection::{btree_map, btree_set};
    use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_target_has_one_text() {
        for (text, canonical) in [
            ("*", "*"),
            ("web-1", "web-1"),
            ("web-1, db.example.org,web-1", "db.example.org,web-1"),
            ("role=web", "role=web"),
            ("role==web", "role=web"),
            ("role=web,env!=prod", "env!=prod,role=web"),
            ("role=web|db|web", "role=db|web"),
            ("role = web | db", "role=db|web"),
            ("env!=prod|stage", "env!=prod|stage"),
            ("role=*,env!=*", "env!=*,role=*"),
            ("role in (web,db)", "role=db|web"),
            ("role in(web)", "role=web"),
            ("role in ( web , db ), env notin (prod), rack=7", "env!=prod,rack=7,role=db|web"),
            ("in in (in)", "in=in"),
            ("host/os=debian", "host/os=debian"),
        ] {
            let target: Target = text.parse().expect(text);
            assert_eq!(target.to_string(), canonical);
            assert_eq!(canonical.parse(), Ok(target), "{text}");
        }
    }

    #[test]
    fn selects_by_sets_and_by_what_is_there() {
        let web = ServerName::parse("web-1").expect("a name");
        let at = labels(&[("role", "web"), ("env", "prod")]);
        for (text, expected) in [
            ("role=web|db", true),
            ("role=db|mail", false),
            ("role!=db|mail", true),
            ("role!=db|web", false),
            ("rack!=7|8", true),
            ("rack=7|8", false),
            ("role=*", true),
            ("rack=*", false),
            ("role!=*", false),
            ("rack!=*", true),
            ("role=*,role!=*", false),
            ("role=web,role=db", false),
        ] {
            let target: Target = text.parse().expect(text);
            assert_eq!(target.includes(&web, &at), expected, "{text}");
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
            ("web-1,role in (web)", TargetError::Mixed),
            ("web|db", TargetError::Name("web|db".into())),
        ] {
            assert_eq!(text.parse::<Target>(), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn refuses_conditions_that_are_none() {
        for text in [
            "role=",
            "=web",
            "role=a b",
            "role=|",
            "role=web|",
            "role=*|web",
            "role=**",
            "*=web",
            "!=web",
            "role!==web",
            "role===web",
            "role!=",
            "role in ()",
            "role in (web,)",
            "role in (web",
            "role in web)",
            "role notin ()",
            "role within (web)",
            "in (web)",
            "(web)",
            "role in ((web))",
            "role in (*)",
            "role in (web) x",
            "role in (a|b)",
        ] {
            let refused = text.parse::<Target>().expect_err(text);
            let expected = matches!(refused, TargetError::Requirement(_) | TargetError::Name(_));
            assert!(expected, "{text:?}: {refused:?}");
        }
    }

    fn word() -> impl Strategy<Value = String> {
        "[a-z0-9._/-]{1,4}"
    }

    fn requirement() -> impl Strategy<Value = Requirement> {
        let values = || btree_set(word(), 1..4);
        let wish = prop_oneof![
            values().prop_map(Wish::OneOf),
            values().prop_map(Wish::NoneOf),
            Just(Wish::Present),
            Just(Wish::Absent),
        ];
        (word(), wish).prop_map(|(name, wish)| Requirement { name, wish })
    }

    fn target() -> impl Strategy<Value = Target> {
        let name =
            "[a-z0-9][a-z0-9._-]{0,5}".prop_map(|name| ServerName::parse(&name).expect("good"));
        prop_oneof![
            Just(Target::All),
            btree_set(name, 1..4).prop_map(Target::Names),
            btree_set(requirement(), 1..4).prop_map(Target::Labels),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(target in target()) {
            let text = target.to_string();
            prop_assert_eq!(text.parse(), Ok(target));
        }

        #[test]
        fn a_condition_more_never_selects_more(
            some in btree_set(requirement(), 1..3), more in requirement(),
            labels in btree_map(word(), word(), 0..4),
        ) {
            let name = ServerName::parse("web-1").expect("good");
            let mut all = some.clone();
            all.insert(more);
            let narrow = Target::Labels(all).includes(&name, &labels);
            prop_assert!(!narrow || Target::Labels(some).includes(&name, &labels));
        }
    }
}
