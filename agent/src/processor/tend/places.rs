//! The files that decide who logs in as an account and what it may do. This file must not know what is in them.

use std::path::{Path, PathBuf};

use crate::accounts::Account;
use crate::sshd::{Location, Shape};

/// The key files that sshd reads for the account, where they can be told.
pub(super) fn key_files(account: &Account) -> Vec<PathBuf> {
    let path = |location| match location {
        Location::Elsewhere(path) => path,
        Location::Home { folders, file } => {
            let folder = folders.iter().fold(account.home.clone(), |path, part| path.join(part));
            folder.join(file)
        }
    };
    let shape = Shape::of_account(&account.name);
    let located = shape.files.iter().filter_map(|file| {
        file.locate(account.name.as_str(), account.owner.uid, &account.home).ok()
    });
    located.map(path).collect()
}

/// The file with the account's sudo rule.
pub(super) fn sudo_file(account: &Account) -> PathBuf {
    crate::sudoers::Sudoers::system().file_of(&account.name)
}

/// Everything that a change of keys or rights of the account touches.
pub(super) fn guarded(account: &Account) -> Vec<PathBuf> {
    let mut files = key_files(account);
    files.push(sudo_file(account));
    files.retain(|path| path.parent().is_some_and(|folder| folder != Path::new("/")));
    files
}
