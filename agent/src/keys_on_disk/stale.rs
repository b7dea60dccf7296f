//! Key files outside of homes that stand already for an account which is not made yet, or just was: of a former
//! account of that name, or laid there by somebody.
//!
//! This file must not know how a file is found or written.

use bastio_protocol::KeyFile;

use super::{KeyFolder, KeysOnDiskError, places};
use crate::accounts::Account;
use crate::sshd::{Location, Shape};

/// Takes what bastio wrote out of every file outside the home that sshd reads for this account alone. Nothing is
/// changed where others wrote into one of them.
///
/// # Errors
/// [`KeysOnDiskError::Waiting`] when others did; [`KeysOnDiskError`] when a file cannot be looked at or cleared.
pub fn clear_stale(coming: &Account, shape: &Shape) -> Result<(), KeysOnDiskError> {
    let mut stale = Vec::new();
    for place in places::of(coming, &shape.of_its_own(&coming.name)) {
        let location = place?;
        if let Location::Home { .. } = location {
            continue;
        }
        let Some(folder) = places::find(coming, &location)? else { continue };
        if is_stale(&folder, location.file())? {
            stale.push((folder, location));
        }
    }
    stale.iter().try_for_each(|(folder, location)| folder.empty(location.file()))
}

/// Whether the file has lines of ours.
pub(super) fn is_stale(folder: &KeyFolder, file: &str) -> Result<bool, KeysOnDiskError> {
    let Some(stored) = folder.read(file)? else { return Ok(false) };
    let mut keys = KeyFile::parse(&stored.bytes);
    let edit = keys.set_ours(&[]);
    // Also a line that is no key to us may be one to sshd.
    let gives_nothing = |line: &[u8]| matches!(line.trim_ascii_start().first(), None | Some(b'#'));
    if keys.to_bytes().split(|byte| *byte == b'\n').all(gives_nothing) {
        Ok(!edit.is_empty())
    } else {
        Err(KeysOnDiskError::Waiting { path: folder.path_of(file) })
    }
}
