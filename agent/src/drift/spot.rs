//! What is watched: folders, and the names in them that matter. Pure; this file must not know how a folder is watched.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::Topic;

/// Everything that is watched, by what it is about.
pub type Aim = BTreeMap<Topic, BTreeSet<Spot>>;

/// A place on disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// The folder.
    pub folder: PathBuf,
    /// What in it.
    pub of_it: OfIt,
    /// Whether somebody other than root can make changes in it, as many as he likes.
    pub is_foreign: bool,
}

/// What of a folder counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum OfIt {
    /// Whether it is there, whose it is, who may enter it: not what is in it.
    Itself,
    /// Entries of these names.
    Names(BTreeSet<OsString>),
    /// Everything in it.
    All,
}

impl Spot {
    /// Entries of these names in a folder of root's.
    pub fn names<N: AsRef<OsStr>>(folder: &str, names: &[N]) -> Self {
        let names = names.iter().map(|name| name.as_ref().to_owned()).collect();
        Self { folder: folder.into(), of_it: OfIt::Names(names), is_foreign: false }
    }

    /// Everything in a folder of root's.
    #[must_use]
    pub fn all(folder: &str) -> Self {
        Self { folder: folder.into(), of_it: OfIt::All, is_foreign: false }
    }

    /// Whether an event with this name is about it; without a name it is about the folder itself.
    pub(super) fn wants(&self, name: Option<&OsStr>) -> bool {
        match (&self.of_it, name) {
            (_, None) | (OfIt::All, _) => true,
            (OfIt::Names(names), Some(name)) => names.contains(name),
            (OfIt::Itself, Some(_)) => false,
        }
    }

    /// The same, one folder up: for when the folder is not there.
    pub(super) fn parent(&self) -> Option<Self> {
        let (folder, name) = (self.folder.parent()?, self.folder.file_name()?);
        let of_it = OfIt::Names([name.to_owned()].into());
        Some(Self { folder: folder.to_owned(), of_it, is_foreign: self.is_foreign })
    }
}

/// The places of what is about the server as a whole.
#[must_use]
pub fn of_server() -> Aim {
    let databases = ["passwd", "group", "shadow", "gshadow"];
    Aim::from([
        (Topic::Accounts, [Spot::names("/etc", &databases)].into()),
        (Topic::Sudo, [Spot::names("/etc", &["sudoers"]), Spot::all("/etc/sudoers.d")].into()),
        (
            Topic::Sshd,
            [Spot::names("/etc/ssh", &["sshd_config"]), Spot::all("/etc/ssh/sshd_config.d")].into(),
        ),
    ])
}

/// The places of one account: its home, and the folders of its key files.
#[must_use]
pub fn of_account(home: &Path, key_files: &[PathBuf]) -> BTreeSet<Spot> {
    let mut folders: BTreeMap<&Path, BTreeSet<OsString>> = BTreeMap::new();
    for file in key_files {
        if let (Some(folder), Some(name)) = (file.parent(), file.file_name()) {
            folders.entry(folder).or_default().insert(name.to_owned());
        }
    }
    let home_itself = Spot { folder: home.to_owned(), of_it: OfIt::Itself, is_foreign: true };
    let of_keys = folders.into_iter().map(|(folder, names)| Spot {
        folder: folder.to_owned(),
        of_it: OfIt::Names(names),
        is_foreign: folder.starts_with(home),
    });
    of_keys.chain([home_itself]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_watched_where_its_keys_are() {
        let files = ["/home/a/.ssh/authorized_keys", "/home/a/.ssh/authorized_keys2", "/etc/k/a"];
        let spots = of_account(Path::new("/home/a"), &files.map(PathBuf::from));
        let found: Vec<(&str, usize, bool)> = spots
            .iter()
            .map(|spot| {
                let names = match &spot.of_it {
                    OfIt::Names(names) => names.len(),
                    OfIt::Itself | OfIt::All => 0,
                };
                (spot.folder.to_str().unwrap(), names, spot.is_foreign)
            })
            .collect();
        assert_eq!(found, [("/etc/k", 1, false), ("/home/a", 0, true), ("/home/a/.ssh", 2, true)]);
    }

    #[test]
    fn names_are_told_apart() {
        let spot = Spot::names("/etc", &["passwd"]);
        assert!(spot.wants(Some("passwd".as_ref())) && spot.wants(None));
        assert!(!spot.wants(Some("passwd-".as_ref())) && !spot.wants(Some(".pwd.lock".as_ref())));
        assert!(Spot::all("/etc/sudoers.d").wants(Some("x".as_ref())));
        let above = Spot::all("/etc/sudoers.d").parent().unwrap();
        assert_eq!(above, Spot::names("/etc", &["sudoers.d"]));
        assert_eq!(Spot::all("/").parent(), None);
    }
}
