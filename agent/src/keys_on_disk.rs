//! Key files, entered by handle as root without trusting the people: in homes, and in folders of
//! root's, wherever this host's sshd reads them.
//!
//! The owner of a home may put links, FIFOs or folders where `.ssh/authorized_keys` belongs, and
//! may swap them while we work. So the home is opened once without following any link, all
//! further steps are relative to handles, whatever was opened is checked on the handle, and a
//! file is only ever replaced as a whole: written aside, given away, synced, renamed. The worst
//! that a swap can do is to damage the swapper's own file. Keys go into the first usable file that
//! sshd reads, and are taken out of all of them. This room must not know messages or account
//! tools; what a key line is says `KeyFile`.

use bastio_protocol::{Change, PublicKey};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid};

use crate::accounts::Account;
use crate::sshd::{Location, Shape};

mod error;
mod folder;
pub(crate) mod handles;
mod host;
mod places;
mod set;
mod stale;
mod temporary;
mod unflushed;

pub use error::KeysOnDiskError;
use folder::KeyFolder;
pub use places::make_folder;
pub use set::{FoundLine, ours, put_back, read_keys, set_first_keys, set_keys};
pub use stale::clear_stale;
pub use unflushed::Unflushed;

/// Largest key file, in bytes (1 MiB: some ten thousand keys).
const MAX_SIZE: u64 = 1024 * 1024;
/// Write bits of group and others: with one of them set, sshd ignores the keys (`StrictModes`).
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// To whom a home and everything in it must belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The account.
    pub uid: Uid,
    /// Its main group; new files get it.
    pub gid: Gid,
}

/// Lets `key` log in, by the first file that sshd reads and that can be used. Makes it, and the
/// folders to it, when missing.
///
/// # Errors
/// [`KeysOnDiskError`]; nothing was changed.
pub fn insert_key(
    account: &Account,
    shape: &Shape,
    key: &PublicKey,
) -> Result<Change, KeysOnDiskError> {
    let insert = |folder: &KeyFolder, file: &str| folder.edit(file, |keys| keys.insert(key));
    in_first(account, shape, insert).map(|(_, change)| change)
}

/// Takes `key` out of every file that sshd reads.
///
/// # Errors
/// [`KeysOnDiskError`]; the file in question was not changed, all others were.
pub fn remove_key(
    account: &Account,
    shape: &Shape,
    key: &PublicKey,
) -> Result<Change, KeysOnDiskError> {
    let mut change = Change::Unchanged;
    in_all(account, shape, |folder, file| {
        if folder.edit(file, |keys| keys.remove(key))? == Change::Changed {
            change = Change::Changed;
        }
        Ok(())
    })?;
    Ok(change)
}

/// Empties every file that sshd reads for this account alone.
///
/// # Errors
/// [`KeysOnDiskError`]; the file in question was not changed, all others were.
pub fn remove_all_keys(account: &Account, shape: &Shape) -> Result<(), KeysOnDiskError> {
    in_all(account, &shape.of_its_own(&account.name), KeyFolder::empty)
}

/// In a home: makes `.ssh` (0700) and an empty `authorized_keys` (0600) when missing, and sets these
/// modes on what is there. Elsewhere: makes the folder. Nothing where sshd reads no file.
///
/// # Errors
/// [`KeysOnDiskError`]; keys were not touched.
pub fn repair(account: &Account, shape: &Shape) -> Result<(), KeysOnDiskError> {
    match in_first(account, shape, repair_file) {
        Ok(_) | Err(KeysOnDiskError::NoFiles(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn repair_file(folder: &KeyFolder, file: &str) -> Result<(), KeysOnDiskError> {
    if !matches!(folder.rules, folder::Rules::Account(_)) {
        return Ok(());
    }
    if folder.path.file_name().is_some_and(|name| name == ".ssh") {
        folder.set_mode(0o700)?;
    }
    match folder.read(file)? {
        None => folder.make_empty(file),
        Some(stored) if stored.mode == 0o600 => Ok(()),
        Some(stored) => fchmod(&stored.file, Mode::from_bits_truncate(0o600)).map_err(|errno| {
            KeysOnDiskError::system("set the mode of", &folder.path_of(file), errno)
        }),
    }
}

/// Works in the first place that can be used; tells which it was. What is wrong with a file is not
/// gone around: only where the whole place is of no use comes the next one.
fn in_first<T>(
    account: &Account,
    shape: &Shape,
    work: impl Fn(&KeyFolder, &str) -> Result<T, KeysOnDiskError>,
) -> Result<(Location, T), KeysOnDiskError> {
    let mut first = None;
    for place in places::of(account, shape) {
        let done = place.and_then(|location| {
            let folder = places::make(account, &location)?;
            work(&folder, location.file()).map(|done| (location, done))
        });
        match done {
            Err(error) if error.is_about_the_place() => {
                first.get_or_insert(error);
            }
            done => return done,
        }
    }
    Err(first.unwrap_or_else(|| KeysOnDiskError::NoFiles(account.name.to_string())))
}

/// Works in every place that is there, also behind one that fails; the first failure is told. A
/// missing home is one only where there is nothing else.
fn in_all(
    account: &Account,
    shape: &Shape,
    mut work: impl FnMut(&KeyFolder, &str) -> Result<(), KeysOnDiskError>,
) -> Result<(), KeysOnDiskError> {
    let (mut homeless, mut failed, mut reached) = (None, None, false);
    for place in places::of(account, shape) {
        let found = place.and_then(|location| {
            let folder = places::find(account, &location)?;
            folder.map_or(Ok(()), |folder| work(&folder, location.file()))
        });
        match found {
            Ok(()) => reached = true,
            Err(error @ KeysOnDiskError::HomeMissing(_)) => homeless = Some(error),
            Err(error) => {
                failed.get_or_insert(error);
            }
        }
    }
    failed.or(homeless.filter(|_| !reached)).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests;
