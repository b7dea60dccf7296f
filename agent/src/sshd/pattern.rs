//! One word of `AuthorizedKeysFile` (sshd_config(5)): a path with `%h`, `%u`, `%U` and `%%` in it.
//!
//! This file must not know which files there are.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use nix::unistd::Uid;

/// A path before it is known whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

/// A key file of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// In the home: folders below it, one after another, and the name of the file.
    Home {
        /// Maybe none.
        folders: Vec<String>,
        /// The file's name.
        file: String,
    },
    /// Elsewhere: an absolute path without `.` and `..`, at least one folder deep.
    Elsewhere(PathBuf),
}

/// Why sshd or we cannot make a file of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It has a `%` that we do not know.
    #[error("%{0} in AuthorizedKeysFile is not known")]
    Token(char),
    /// It leads out by `..`, has no file name, or is not text.
    #[error("{0} in AuthorizedKeysFile is no plain path of a file")]
    Path(String),
}

impl Pattern {
    /// A pattern as sshd prints it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The file of one account.
    ///
    /// # Errors
    /// [`PatternError`].
    pub fn locate(&self, name: &str, uid: Uid, home: &Path) -> Result<Location, PatternError> {
        let bad = || PatternError::Path(self.0.clone());
        let home_text = home.to_str().ok_or_else(bad)?;
        let path = PathBuf::from(self.expand(name, uid, home_text)?);
        let below_home =
            if path.is_relative() { Some(path.as_path()) } else { path.strip_prefix(home).ok() };
        let mut parts = Vec::new();
        for component in below_home.unwrap_or(&path).components() {
            match component {
                Component::Normal(part) => parts.push(part.to_str().ok_or_else(bad)?.to_owned()),
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir | Component::Prefix(_) => return Err(bad()),
            }
        }
        let file = parts.pop().ok_or_else(bad)?;
        match below_home {
            Some(_) => Ok(Location::Home { folders: parts, file }),
            None if parts.is_empty() => Err(bad()),
            None => Ok(Location::Elsewhere(Path::new("/").join(parts.join("/")).join(file))),
        }
    }

    /// Whether it is about one account alone, and no file that all of them share.
    pub fn is_of(&self, name: &str) -> bool {
        let path = Path::new(&self.0);
        let is_named = path.components().any(|part| part.as_os_str() == name);
        path.is_relative() || is_named || self.0.replace("%%", "").contains('%')
    }

    fn expand(&self, name: &str, uid: Uid, home: &str) -> Result<String, PatternError> {
        let mut text = String::new();
        let mut chars = self.0.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                text.push(c);
                continue;
            }
            match chars.next() {
                Some('%') => text.push('%'),
                Some('h') => text.push_str(home),
                Some('u') => text.push_str(name),
                Some('U') => text.push_str(&uid.to_string()),
                other => return Err(PatternError::Token(other.unwrap_or(' '))),
            }
        }
        Ok(text)
    }
}

impl Location {
    /// The file's name.
    pub fn file(&self) -> &str {
        match self {
            Self::Home { file, .. } => file,
            Self::Elsewhere(path) => {
                path.file_name().and_then(|it| it.to_str()).unwrap_or_default()
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn locate(pattern: &str) -> Result<Location, PatternError> {
        Pattern::new(pattern).locate("alice", Uid::from_raw(1001), Path::new("/home/alice"))
    }

    fn home(folders: &[&str], file: &str) -> Location {
        let folders = folders.iter().map(|it| (*it).to_owned()).collect();
        Location::Home { folders, file: file.to_owned() }
    }

    #[test]
    fn files_that_all_accounts_share_are_nobodys_own() {
        for (text, is_own) in [
            (".ssh/authorized_keys", true),
            ("/etc/keys/%u", true),
            ("/etc/keys/%U", true),
            ("/data%h/keys", true),
            ("/etc/keys/alice", true),
            ("/etc/alice/keys", true),
            ("/etc/keys/bob", false),
            ("/etc/keys/alice2", false),
            ("/etc/keys/100%%", false),
        ] {
            assert_eq!(Pattern::new(text).is_of("alice"), is_own, "{text}");
        }
    }

    #[test]
    fn tokens_and_homes_are_found() {
        for (pattern, location) in [
            (".ssh/authorized_keys", home(&[".ssh"], "authorized_keys")),
            ("keys", home(&[], "keys")),
            ("./.config//ssh/keys", home(&[".config", "ssh"], "keys")),
            ("%h/.ssh/authorized_keys", home(&[".ssh"], "authorized_keys")),
            ("/home/%u/.ssh/k", home(&[".ssh"], "k")),
            ("/home/%u2/k", Location::Elsewhere("/home/alice2/k".into())),
            ("/etc/ssh/%u.%U.%%", Location::Elsewhere("/etc/ssh/alice.1001.%".into())),
        ] {
            assert_eq!(locate(pattern), Ok(location), "{pattern}");
        }
        for pattern in ["/etc/ssh/../%u", "../%u/keys", "%x", "%", "/", "/file", "%h", "%h/.."] {
            assert!(locate(pattern).is_err(), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn no_pattern_leads_out_of_a_home(pattern in "[%hu./a]{0,12}") {
            match locate(&pattern) {
                Ok(Location::Home { folders, file }) => {
                    for part in folders.iter().chain([&file]) {
                        prop_assert!(!part.is_empty() && part != ".." && part != "." && !part.contains('/'));
                    }
                }
                Ok(Location::Elsewhere(path)) => {
                    prop_assert!(path.is_absolute() && !path.starts_with("/home/alice"));
                    prop_assert!(path.components().all(|it| it != Component::ParentDir));
                }
                Err(_) => {}
            }
        }
    }
}
