//! Deletes a folder with all that is in it, however it was built: no link is followed, no mount entered, no
//! recursion, two handles at a time, and only as long as the caller has time.
//!
//! Folders inside are moved up to the top one before they are emptied, so depth costs nothing. What is left after an
//! interruption is a smaller tree of the same kind. This file must not know what is deleted, nor why.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, renameat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::keys_on_disk::handles::open_beneath;

/// How many names are read before they are dealt with.
const BATCH: usize = 1024;
/// The names that folders get when they are moved up; whatever else has such a name is found in its way.
const MOVED: &str = ".bastio-moved-";

/// Whether a tree is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// All of it.
    Gone,
    /// The caller had no more time.
    Interrupted,
}

/// Deletes the folder `name` in `parent`.
pub(super) fn delete(
    parent: impl AsFd,
    name: &CStr,
    go_on: &dyn Fn() -> bool,
) -> Result<Progress, Errno> {
    let top = open_folder(&parent, name)?;
    let mut moved = 0;
    loop {
        let batch = entries(&top)?;
        if batch.is_empty() {
            unlinkat(&parent, name, UnlinkatFlags::RemoveDir)?;
            return Ok(Progress::Gone);
        }
        for entry in &batch {
            if !go_on() {
                return Ok(Progress::Interrupted);
            }
            if !entry.is_folder {
                unlinkat(&top, entry.name.as_c_str(), UnlinkatFlags::NoRemoveDir)?;
            } else if empty(&top, &entry.name, &mut moved, go_on)? == Progress::Interrupted {
                return Ok(Progress::Interrupted);
            }
        }
    }
}

/// Empties one folder in the top one and removes it; folders in it are moved up.
fn empty(
    top: &OwnedFd,
    name: &CStr,
    moved: &mut u64,
    go_on: &dyn Fn() -> bool,
) -> Result<Progress, Errno> {
    let folder = open_folder(top, name)?;
    loop {
        let batch = entries(&folder)?;
        if batch.is_empty() {
            unlinkat(top, name, UnlinkatFlags::RemoveDir)?;
            return Ok(Progress::Gone);
        }
        for entry in &batch {
            if !go_on() {
                return Ok(Progress::Interrupted);
            }
            if entry.is_folder {
                move_up(&folder, &entry.name, top, moved)?;
            } else {
                unlinkat(&folder, entry.name.as_c_str(), UnlinkatFlags::NoRemoveDir)?;
            }
        }
    }
}

fn move_up(folder: &OwnedFd, name: &CStr, top: &OwnedFd, moved: &mut u64) -> Result<(), Errno> {
    loop {
        let free = format!("{MOVED}{moved}");
        *moved += 1;
        // The worst that this replaces is an empty folder (rename(2)).
        match renameat(folder, name, top, free.as_str()) {
            Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
            done => return done,
        }
    }
}

struct Entry {
    name: CString,
    is_folder: bool,
}

/// Some of the names in a folder; none when it is empty.
fn entries(folder: &OwnedFd) -> Result<Vec<Entry>, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut listing = Dir::openat(folder, ".", flags, Mode::empty())?;
    let mut found = Vec::new();
    for entry in listing.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let is_folder = match entry.file_type() {
            Some(kind) => kind == Type::Directory,
            None => is_folder(folder, name)?,
        };
        found.push(Entry { name: name.to_owned(), is_folder });
        if found.len() == BATCH {
            break;
        }
    }
    Ok(found)
}

/// For file systems that do not tell it along with the name.
fn is_folder(folder: &OwnedFd, name: &CStr) -> Result<bool, Errno> {
    let stat = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

fn open_folder(parent: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    open_beneath(parent, name, OFlag::O_DIRECTORY)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn delete_in(folder: &Path, has_time: bool) -> Result<Progress, Errno> {
        delete(File::open(folder).unwrap(), c"home", &|| has_time)
    }

    #[test]
    fn all_goes_and_what_links_lead_to_stays() {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("home");
        fs::create_dir_all(home.join("a/b/c")).unwrap();
        fs::create_dir(home.join(".bastio-moved-0")).unwrap();
        fs::create_dir(root.path().join("other")).unwrap();
        fs::write(root.path().join("other/file"), "x").unwrap();
        for link in ["link", "a/link", "a/b/c/link"] {
            symlink(root.path().join("other"), home.join(link)).unwrap();
        }
        nix::unistd::mkfifo(&home.join("a/fifo"), Mode::S_IRWXU).unwrap();
        (0..3 * BATCH).for_each(|n| drop(File::create(home.join(format!("a/{n}"))).unwrap()));
        assert_eq!(delete_in(root.path(), true), Ok(Progress::Gone));
        assert!(!home.exists());
        assert!(root.path().join("other/file").exists());
        assert_eq!(delete_in(root.path(), true), Err(Errno::ENOENT));
    }

    #[test]
    fn depth_costs_neither_stack_nor_handles() {
        let root = tempfile::tempdir().unwrap();
        let mode = Mode::S_IRWXU;
        let mut folder: OwnedFd = File::open(root.path()).unwrap().into();
        for name in std::iter::once(c"home").chain(std::iter::repeat_n(c"d", 1100)) {
            nix::sys::stat::mkdirat(&folder, name, mode).unwrap();
            folder = open_folder(&folder, name).unwrap();
        }
        drop(folder);
        assert_eq!(delete_in(root.path(), true), Ok(Progress::Gone));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_interruption_leaves_the_rest_for_the_next_time() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("home/a")).unwrap();
        assert_eq!(delete_in(root.path(), false), Ok(Progress::Interrupted));
        assert!(root.path().join("home/a").exists());
        assert_eq!(delete_in(root.path(), true), Ok(Progress::Gone));
    }

    #[test]
    fn a_link_in_place_of_the_folder_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("other")).unwrap();
        symlink("other", root.path().join("home")).unwrap();
        assert!(delete_in(root.path(), true).is_err());
        assert!(root.path().join("other").exists() && root.path().join("home").is_symlink());
    }
}
