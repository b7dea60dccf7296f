//! The files beside a key file in which its new content is written, and those a crash left over.
//!
//! This file must not know what they hold.

use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::OwnedFd;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{Uid, UnlinkatFlags, unlinkat};

use super::handles::kind_of;

/// What the names begin with; 16 hexadecimal digits follow.
const PREFIX: &str = ".bastio-new-";
const DIGITS: usize = 16;
/// How many entries of a folder are looked at for left-over files, so that a folder stuffed with
/// files costs no more than this.
const MAX_ENTRIES: usize = 4096;
/// How often another name is tried when one is taken.
const ATTEMPTS: usize = 8;

/// Makes a new file, 0600 and owned by us, and returns its name.
pub(super) fn create(folder: &OwnedFd) -> Result<(String, File), Errno> {
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut taken = Errno::EEXIST;
    for _ in 0..ATTEMPTS {
        let name = format!("{PREFIX}{:016x}", random());
        match openat(folder, name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(handle) => return Ok((name, File::from(handle))),
            Err(Errno::EEXIST) => taken = Errno::EEXIST,
            Err(errno) => return Err(errno),
        }
    }
    Err(taken)
}

/// Removes what a crash left over: plain files under exactly such a name, of root's or the
/// account's. A failure is no reason not to write a key, so there is none to tell.
pub(super) fn sweep(folder: &OwnedFd, account: Uid) {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(mut listing) = Dir::openat(folder, ".", flags, Mode::empty()) else {
        return;
    };
    let names: Vec<_> = listing
        .iter()
        .take(MAX_ENTRIES)
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_owned())
        .filter(|name| is_ours(name.to_bytes()))
        .collect();
    for name in names {
        let Ok(stat) = fstatat(folder, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else {
            continue;
        };
        let owner = Uid::from_raw(stat.st_uid);
        if kind_of(&stat) == SFlag::S_IFREG && (owner == account || owner.is_root()) {
            let _ = unlinkat(folder, name.as_c_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

fn is_ours(name: &[u8]) -> bool {
    name.strip_prefix(PREFIX.as_bytes()).is_some_and(|digits| {
        digits.len() == DIGITS && digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Hard to guess, which only spares collisions: that the file is new is proved by `O_EXCL`. The
/// standard library seeds its hasher from the system's randomness.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
