//! From the path of a key file to an open folder: in a home, whose owner is not trusted, or in
//! folders of root's.
//!
//! This file must not know what a key file says.

use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Gid, Uid, fchown, fsync};

use super::folder::{KeyFolder, Rules, check_owner, explain, stat_of};
use super::handles::{self, open_beneath, open_without_links};
use super::{KeysOnDiskError, Owner, WRITABLE_BY_OTHERS};
use crate::accounts::Account;
use crate::selinux;
use crate::sshd::{Location, Shape};

/// Mode of the folders of root's that are made: sshd enters them as the account.
const ROOTS_MODE: u32 = 0o755;

/// The key files of an account in sshd's order, each once; where a path is not to be made out, why.
pub(super) fn of(account: &Account, shape: &Shape) -> Vec<Result<Location, KeysOnDiskError>> {
    let mut known = Vec::new();
    let mut places = Vec::new();
    for pattern in &shape.files {
        match pattern.locate(account.name.as_str(), account.owner.uid, &account.home) {
            Ok(location) if known.contains(&location) => {}
            Ok(location) => {
                known.push(location.clone());
                places.push(Ok(location));
            }
            Err(error) => places.push(Err(error.into())),
        }
    }
    places
}

/// The folder of a key file; `None` when it or one above it is not there.
pub(super) fn find(
    account: &Account,
    location: &Location,
) -> Result<Option<KeyFolder>, KeysOnDiskError> {
    match location {
        Location::Home { folders, .. } => {
            let home = open_home(&account.home, account.owner)?;
            walk_home(home, folders, false)
        }
        Location::Elsewhere(path) => walk_root(path, account.owner, false),
    }
}

/// The folder of a key file in which sshd will heed keys, made first when it is not there.
pub(super) fn make(account: &Account, location: &Location) -> Result<KeyFolder, KeysOnDiskError> {
    let made = match location {
        Location::Home { folders, .. } => {
            let home = open_home(&account.home, account.owner)?;
            // Here alone: what others may write must not keep a key from being taken out.
            if stat_of(&home.handle, &home.path)?.st_mode & WRITABLE_BY_OTHERS != 0 {
                return Err(KeysOnDiskError::WritableByOthers { path: home.path });
            }
            walk_home(home, folders, true)?
        }
        Location::Elsewhere(path) => walk_root(path, account.owner, true)?,
    };
    made.ok_or_else(|| KeysOnDiskError::Swapped { path: account.home.clone() })
}

/// Makes the folder of a file of root's, and those above it.
///
/// # Errors
/// [`KeysOnDiskError`].
pub fn make_folder(file: &Path) -> Result<(), KeysOnDiskError> {
    let root = Owner { uid: Uid::effective(), gid: Gid::effective() };
    walk_root(file, root, true).map(|_| ())
}

/// Opens a home by its path without following a link, and checks that it is the account's.
fn open_home(home: &Path, owner: Owner) -> Result<KeyFolder, KeysOnDiskError> {
    let handle = open_without_links(home).map_err(|errno| match errno {
        Errno::ENOENT => KeysOnDiskError::HomeMissing(home.to_owned()),
        Errno::ELOOP | Errno::ENOTDIR => reached_by_link(home),
        errno => KeysOnDiskError::system("open", home, errno),
    })?;
    check_owner(&stat_of(&handle, home)?, owner, home)?;
    Ok(KeyFolder { handle, rules: Rules::Account(owner), path: home.to_owned() })
}

fn reached_by_link(path: &Path) -> KeysOnDiskError {
    KeysOnDiskError::WrongKind {
        path: path.to_owned(),
        found: "reached through a symbolic link, or no folder",
        expected: "a plain folder",
    }
}

/// Goes down from the home, folder by folder of the account.
fn walk_home(
    home: KeyFolder,
    folders: &[String],
    make: bool,
) -> Result<Option<KeyFolder>, KeysOnDiskError> {
    let mut above = home;
    for name in folders {
        let mut found = step(&above, name)?;
        if found.is_none() && make {
            let path = above.path_of(name);
            mkdirat(&above.handle, name.as_str(), Mode::S_IRWXU)
                .map_err(|errno| KeysOnDiskError::system("make", &path, errno))?;
            found = Some(step(&above, name)?.ok_or(KeysOnDiskError::Swapped { path })?);
        }
        let Some(folder) = found else { return Ok(None) };
        if make {
            folder.forbid_writing_by_others()?;
        }
        above = folder;
    }
    Ok(Some(above))
}

/// Opens a folder of the account in one of its folders.
fn step(above: &KeyFolder, name: &str) -> Result<Option<KeyFolder>, KeysOnDiskError> {
    let path = above.path_of(name);
    let handle = match open_beneath(&above.handle, name, OFlag::O_DIRECTORY) {
        Ok(handle) => handle,
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(explain(&above.handle, name, &path, "a folder", errno)),
    };
    let stat = stat_of(&handle, &path)?;
    let folder = KeyFolder { handle, rules: above.rules, path };
    let Rules::Account(owner) = folder.rules else { return Ok(Some(folder)) };
    if Uid::from_raw(stat.st_uid) == Uid::effective() && handles::is_empty(&folder.handle) {
        take_over(&folder, owner)?;
    } else {
        check_owner(&stat, owner, &folder.path)?;
    }
    Ok(Some(folder))
}

/// Gives an empty folder of ours to the account: we made it, now or just before a crash. (A folder
/// of root's gets into a home by root alone, so there is nothing to gain by it.)
fn take_over(folder: &KeyFolder, owner: Owner) -> Result<(), KeysOnDiskError> {
    selinux::label_folder(&folder.handle, &folder.path);
    fchown(&folder.handle, Some(owner.uid), Some(owner.gid))
        .map_err(|errno| KeysOnDiskError::system("give away", &folder.path, errno))?;
    folder.set_mode(0o700)
}

/// Goes down from `/` to the folder of the file, through folders that root alone may change: sshd
/// heeds nothing else (`StrictModes`).
fn walk_root(
    path: &Path,
    account: Owner,
    make: bool,
) -> Result<Option<KeyFolder>, KeysOnDiskError> {
    let root = Path::new("/");
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let handle = open(root, flags, Mode::empty())
        .map_err(|errno| KeysOnDiskError::system("open", root, errno))?;
    walk_below(handle, root, path.parent().unwrap_or(root), account, make)
}

/// The same from any folder on.
pub(super) fn walk_below(
    mut handle: OwnedFd,
    base: &Path,
    folder: &Path,
    account: Owner,
    make: bool,
) -> Result<Option<KeyFolder>, KeysOnDiskError> {
    let root = Owner { uid: Uid::effective(), gid: Gid::effective() };
    let mut path = base.to_owned();
    check_root(&handle, root, &path)?;
    for component in folder.components() {
        let Component::Normal(name) = component else { continue };
        let above = path.clone();
        path.push(name);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        handle = match openat(&handle, name, flags, Mode::empty()) {
            Err(Errno::ENOENT) if make => make_root(&handle, name.as_ref(), &above)?,
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ELOOP | Errno::ENOTDIR) => return Err(reached_by_link(&path)),
            opened => opened.map_err(|errno| KeysOnDiskError::system("open", &path, errno))?,
        };
        check_root(&handle, root, &path)?;
    }
    Ok(Some(KeyFolder { handle, rules: Rules::Root { root, account }, path }))
}

fn make_root(above: &OwnedFd, name: &Path, path: &Path) -> Result<OwnedFd, KeysOnDiskError> {
    let path = path.join(name);
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mode = Mode::from_bits_truncate(ROOTS_MODE);
    let made = mkdirat(above, name, mode).and_then(|()| openat(above, name, flags, Mode::empty()));
    let handle = made.map_err(|errno| KeysOnDiskError::system("make", &path, errno))?;
    selinux::label_folder(&handle, &path);
    // Also where our own umask takes bits away.
    nix::sys::stat::fchmod(&handle, mode)
        .and_then(|()| fsync(above))
        .map_err(|errno| KeysOnDiskError::system("make", &path, errno))?;
    Ok(handle)
}

fn check_root(handle: &OwnedFd, root: Owner, path: &Path) -> Result<(), KeysOnDiskError> {
    let stat = stat_of(handle, path)?;
    let why = if stat.st_uid != 0 && Uid::from_raw(stat.st_uid) != root.uid {
        "does not belong to root"
    } else if stat.st_mode & WRITABLE_BY_OTHERS != 0 {
        "can be written by others than root"
    } else {
        return Ok(());
    };
    Err(KeysOnDiskError::UnsafeFolder { path: path.to_owned(), why })
}
