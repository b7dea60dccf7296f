//! Whether a home may be deleted with its account, and what became of it.
//!
//! `userdel --remove` deletes a whole tree as root, so everything that could make it the wrong
//! tree is looked at first. This file must not delete anything itself.

use std::fmt;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::databases::{mount_in, other_account_in};
use super::{Account, AccountsError};

/// What became of the home of a removed account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HomeFate {
    /// Removed with everything in it.
    Removed,
    /// There was none.
    Missing,
    /// Left where it is although it was to go, and why.
    Left(String),
    /// Kept where it is, as the policy says.
    Kept(PathBuf),
    /// The account is still there, locked, and the home with it.
    Locked(PathBuf),
    /// Put away: where it is now, until its days are over.
    Quarantined(PathBuf),
}

impl HomeFate {
    /// Whether it is still where it was.
    #[must_use]
    pub fn is_there(&self) -> bool {
        matches!(self, Self::Left(_) | Self::Kept(_) | Self::Locked(_))
    }
}

impl fmt::Display for HomeFate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removed => f.write_str("home removed"),
            Self::Missing => f.write_str("there was no home"),
            Self::Left(reason) => write!(f, "its home was left: {reason}"),
            Self::Kept(home) => write!(f, "its home was kept: {}", home.display()),
            Self::Locked(home) => {
                write!(f, "the account stays, locked, with its home {}", home.display())
            }
            Self::Quarantined(home) => {
                write!(f, "its home was moved to quarantine: {}", home.display())
            }
        }
    }
}

/// What should become of the home: [`HomeFate::Removed`] when every check says that it is the
/// account's own folder.
pub(super) fn judge(account: &Account) -> Result<HomeFate, AccountsError> {
    let home = account.home.as_path();
    let left = |reason: &str| Ok(HomeFate::Left(format!("{} {reason}", home.display())));
    if !is_plain_absolute(home) {
        return left("is no folder of one person");
    }
    let metadata = match home.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(HomeFate::Missing),
        Err(error) => return left(&format!("cannot be looked at ({error})")),
    };
    if !metadata.is_dir() {
        return left("is no real folder");
    }
    if metadata.uid() != account.owner.uid.as_raw() {
        return left(&format!("belongs to uid {}", metadata.uid()));
    }
    // Mounts and passwd name real paths: a link among the parents would hide a match.
    match home.canonicalize() {
        Ok(real) if real == home => {}
        _ => return left("is reached through a symbolic link"),
    }
    if let Some(point) = mount_in(home)? {
        return left(&format!("has a file system mounted at {}", point.display()));
    }
    if let Some(other) = other_account_in(home, account.name.as_str())? {
        return left(&format!("holds the home of {other}"));
    }
    Ok(HomeFate::Removed)
}

/// At least two levels below the root, and spelled without detours.
pub(super) fn is_plain_absolute(home: &Path) -> bool {
    use std::path::Component::{Normal, RootDir};
    let mut components = home.components();
    components.next() == Some(RootDir)
        && components.clone().count() >= 2
        && components.all(|component| matches!(component, Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_below_the_first_level_are_homes_of_one_person() {
        for (home, expected) in [
            ("/home/ann", true),
            ("/srv/people/ann", true),
            ("/", false),
            ("/home", false),
            ("/home/../etc", false),
            ("home/ann", false),
            ("", false),
        ] {
            assert_eq!(is_plain_absolute(Path::new(home)), expected, "{home}");
        }
    }
}
