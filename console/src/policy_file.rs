//! Policies as files: YAML, of which JSON is a part, read strictly and written in one order.
//!
//! Must not know what the backend does with them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bastio_protocol::api::Policy;
use serde_saphyr::{DuplicateKeyPolicy, MergeKeyPolicy, Options};
use thiserror::Error;

/// Longest file, in bytes: as much as the backend takes.
const MAX_LEN: u64 = MAX_MIB * 1024 * 1024;
const MAX_MIB: u64 = 16;
/// Most things that a parser may meet in a file that is not longer.
const MAX_NODES: usize = 8 * 1024 * 1024;

/// Why files are no policy.
#[derive(Debug, Error)]
pub enum PolicyFileError {
    /// Stdin is there once.
    #[error("stdin (-) was given more than once")]
    StdinTwice,
    /// The file cannot be read.
    #[error("cannot read {name}: {source}")]
    Read {
        /// The file.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The file is too long.
    #[error("{0} is longer than {MAX_MIB} MiB")]
    TooLarge(String),
    /// The file says something that is no policy.
    #[error("{name}: {reason}")]
    NotAPolicy {
        /// The file.
        name: String,
        /// What is wrong, with its line.
        reason: String,
    },
    /// Two files say what one thing is.
    #[error("{section}: {name} is in {second}, and in a file before it")]
    Twice {
        /// The section.
        section: &'static str,
        /// The thing.
        name: String,
        /// The second file.
        second: String,
    },
}

impl PolicyFileError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::StdinTwice | Self::Read { .. } => None,
            Self::TooLarge(_) => Some("apply it in parts: sections that are absent are left alone"),
            Self::NotAPolicy { .. } => {
                Some("nothing was sent; `bastio export` shows how a policy is written")
            }
            Self::Twice { .. } => Some("nothing was sent; each name has one place"),
        }
    }
}

/// Reads files, `-` being stdin, which together are one policy.
///
/// # Errors
/// [`PolicyFileError`] with the first fault.
pub fn read(paths: &[PathBuf]) -> Result<Policy, PolicyFileError> {
    if paths.iter().filter(|path| is_stdin(path)).count() > 1 {
        return Err(PolicyFileError::StdinTwice);
    }
    let mut whole = Policy::default();
    for path in paths {
        let name = if is_stdin(path) { "stdin".to_owned() } else { path.display().to_string() };
        let policy = parse(&name, &text(path, &name)?)?;
        merge(&mut whole, policy, &name)?;
    }
    Ok(whole)
}

/// As YAML.
///
/// # Errors
/// When it cannot be written as text.
pub fn to_yaml(policy: &Policy) -> io::Result<String> {
    serde_saphyr::to_string(policy).map_err(io::Error::other)
}

/// As JSON.
///
/// # Errors
/// When it cannot be written as text.
pub fn to_json(policy: &Policy) -> io::Result<String> {
    Ok(serde_json::to_string_pretty(policy).map_err(io::Error::other)? + "\n")
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn text(path: &Path, name: &str) -> Result<String, PolicyFileError> {
    let failed = |source| PolicyFileError::Read { name: name.to_owned(), source };
    let source: Box<dyn Read> = if is_stdin(path) {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(failed)?)
    };
    let mut text = String::new();
    let read = source.take(MAX_LEN + 1).read_to_string(&mut text).map_err(failed)?;
    if u64::try_from(read).is_ok_and(|read| read <= MAX_LEN) {
        Ok(text)
    } else {
        Err(PolicyFileError::TooLarge(name.to_owned()))
    }
}

fn parse(name: &str, text: &str) -> Result<Policy, PolicyFileError> {
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| {
        PolicyFileError::NotAPolicy { name: name.to_owned(), reason: error.to_string() }
    })
}

/// Nothing is guessed: a name that is there twice is refused, and so is what merges maps unseen, or
/// stands for something else.
fn options() -> Options {
    let mut options = Options::default();
    options.duplicate_keys = DuplicateKeyPolicy::Error;
    options.merge_keys = MergeKeyPolicy::Error;
    options.strict_booleans = true;
    options.with_snippet = false;
    if let Some(budget) = &mut options.budget {
        budget.max_nodes = MAX_NODES;
        budget.max_events = 2 * MAX_NODES;
        budget.max_documents = 1;
        // A few lines of them can stand for millions.
        budget.max_anchors = 0;
        budget.max_aliases = 0;
    }
    options
}

fn merge(whole: &mut Policy, part: Policy, second: &str) -> Result<(), PolicyFileError> {
    let Policy { version: _, sudo_policies, users, groups, servers, drift, grants } = part;
    merge_section(&mut whole.sudo_policies, sudo_policies, "sudo-policies", second)?;
    merge_section(&mut whole.users, users, "users", second)?;
    merge_section(&mut whole.groups, groups, "groups", second)?;
    merge_section(&mut whole.servers, servers, "servers", second)?;
    merge_section(&mut whole.drift, drift, "drift", second)?;
    if let Some(grants) = grants {
        whole.grants.get_or_insert_default().extend(grants);
    }
    Ok(())
}

fn merge_section<K: Ord + Display, V>(
    whole: &mut Option<BTreeMap<K, V>>,
    part: Option<BTreeMap<K, V>>,
    section: &'static str,
    second: &str,
) -> Result<(), PolicyFileError> {
    let Some(part) = part else { return Ok(()) };
    let whole = whole.get_or_insert_default();
    for (name, value) in part {
        if whole.contains_key(&name) {
            let (name, second) = (name.to_string(), second.to_owned());
            return Err(PolicyFileError::Twice { section, name, second });
        }
        whole.insert(name, value);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
