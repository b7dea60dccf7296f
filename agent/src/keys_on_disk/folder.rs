//! An open folder with key files in it, by whose handle each file is read and replaced.
//!
//! Whatever is opened is checked on the handle, and a file is only ever replaced as a whole:
//! written aside, given away, synced, renamed. This file must not know how the folder was found.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use bastio_protocol::{Change, KeyFile};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{Uid, UnlinkatFlags, fchown, fsync, unlinkat};

use super::handles::{self, kind_of, open_beneath};
use super::unflushed::Unflushed;
use super::{KeysOnDiskError, MAX_SIZE, Owner, WRITABLE_BY_OTHERS, temporary};
use crate::selinux;

/// Whose the files of a folder are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rules {
    /// The account's alone: a folder in its home.
    Account(Owner),
    /// Root's (or whoever runs us), and readable by all, because sshd reads them as the account; a
    /// file that an administrator gave to the account stays the account's.
    Root {
        /// Root.
        root: Owner,
        /// The account.
        account: Owner,
    },
}

/// Whether a new file is on the disk before its name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durable {
    Yes,
    No,
}

/// An open folder that is safe to work in.
pub(super) struct KeyFolder {
    pub(super) handle: OwnedFd,
    pub(super) rules: Rules,
    /// For texts only; nothing is opened by it again.
    pub(super) path: PathBuf,
}

/// A key file as it was found.
pub(super) struct Stored {
    pub(super) file: File,
    pub(super) bytes: Vec<u8>,
    pub(super) owner: Uid,
    /// Permission bits.
    pub(super) mode: u32,
}

impl Rules {
    fn may_own(self, uid: Uid) -> bool {
        match self {
            Self::Account(account) => uid == account.uid,
            Self::Root { root, account } => uid == root.uid || uid == account.uid,
        }
    }

    fn account(self) -> Owner {
        match self {
            Self::Account(account) | Self::Root { account, .. } => account,
        }
    }

    /// Owner and mode of the file that takes the place of another, or of none.
    fn of_new(self, old: Option<&Stored>) -> (Owner, u32) {
        match (self, old) {
            (Self::Account(account), old) => (account, old.map_or(0o600, |it| it.mode & 0o600)),
            (Self::Root { account, .. }, Some(old)) if old.owner == account.uid => {
                (account, old.mode & 0o644)
            }
            (Self::Root { root, .. }, _) => (root, 0o644),
        }
    }
}

impl KeyFolder {
    /// Reads, edits and writes a file back if the edit changed it. A missing file is an empty one.
    pub(super) fn edit(
        &self,
        name: &str,
        edit: impl FnOnce(&mut KeyFile) -> Change,
    ) -> Result<Change, KeysOnDiskError> {
        let stored = self.read(name)?;
        let mut keys = stored.as_ref().map(|it| KeyFile::parse(&it.bytes)).unwrap_or_default();
        let change = edit(&mut keys);
        if change == Change::Changed {
            self.replace(name, &keys.to_bytes(), stored.as_ref())?;
        }
        Ok(change)
    }

    /// The same, and nothing waits for the disk: what was written is on it once it is flushed. None when the edit changed
    /// nothing.
    pub(super) fn edit_unflushed(
        &self,
        name: &str,
        edit: impl FnOnce(&mut KeyFile) -> Change,
    ) -> Result<Option<Unflushed>, KeysOnDiskError> {
        let stored = self.read(name)?;
        let mut keys = stored.as_ref().map(|it| KeyFile::parse(&it.bytes)).unwrap_or_default();
        if edit(&mut keys) == Change::Unchanged {
            return Ok(None);
        }
        let path = self.path_of(name);
        let file = self.put(name, &keys.to_bytes(), stored.as_ref(), Durable::No)?;
        match self.is_in_place(name, &file) {
            Ok(true) => Unflushed::begin(file, &self.handle, path.clone())
                .map(Some)
                .map_err(|errno| KeysOnDiskError::Unconfirmed { path, errno }),
            Ok(false) => Err(KeysOnDiskError::Swapped { path }),
            Err(errno) => Err(KeysOnDiskError::Unconfirmed { path, errno }),
        }
    }

    /// Reads a plain file; `None` when there is none.
    pub(super) fn read(&self, name: &str) -> Result<Option<Stored>, KeysOnDiskError> {
        let path = self.path_of(name);
        // Without O_NONBLOCK, opening a FIFO would wait for a writer for ever.
        let handle = match open_beneath(&self.handle, name, OFlag::O_NONBLOCK | OFlag::O_NOCTTY) {
            Ok(handle) => handle,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(explain(&self.handle, name, &path, "a plain file", errno)),
        };
        let stat = stat_of(&handle, &path)?;
        self.check_plain_file(&stat, &path)?;
        let file = File::from(handle);
        let mut bytes = Vec::new();
        (&file)
            .take(MAX_SIZE + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| KeysOnDiskError::from_io("read", &path, &error))?;
        if bytes.len() as u64 > MAX_SIZE {
            return Err(KeysOnDiskError::TooLarge { path });
        }
        let owner = Uid::from_raw(stat.st_uid);
        Ok(Some(Stored { file, bytes, owner, mode: stat.st_mode & 0o7777 }))
    }

    /// Replaces a file by a whole new one, or leaves it as it was.
    pub(super) fn replace(
        &self,
        name: &str,
        bytes: &[u8],
        old: Option<&Stored>,
    ) -> Result<(), KeysOnDiskError> {
        let file = self.put(name, bytes, old, Durable::Yes)?;
        self.confirm(name, &file)
    }

    /// Makes an empty file where there is none. Nothing waits for the disk: a crash loses nothing by it.
    pub(super) fn make_empty(&self, name: &str) -> Result<(), KeysOnDiskError> {
        self.put(name, &[], None, Durable::No).map(drop)
    }

    fn put(
        &self,
        name: &str,
        bytes: &[u8],
        old: Option<&Stored>,
        durable: Durable,
    ) -> Result<File, KeysOnDiskError> {
        let path = self.path_of(name);
        temporary::sweep(&self.handle, self.rules.account().uid);
        let (temporary, mut file) = temporary::create(&self.handle)
            .map_err(|errno| KeysOnDiskError::system("make a new file beside", &path, errno))?;
        selinux::label_file(&file, old.map(|old| &old.file), &path);
        let (owner, mode) = self.rules.of_new(old);
        let filled = fill(&mut file, bytes, owner, mode, &path);
        let safe = filled.and_then(|()| match durable {
            Durable::Yes => {
                fsync(&file).map_err(|errno| KeysOnDiskError::system("write", &path, errno))
            }
            Durable::No => Ok(()),
        });
        let replaced = safe.and_then(|()| {
            renameat(&self.handle, temporary.as_str(), &self.handle, name)
                .map_err(|errno| KeysOnDiskError::system("replace", &path, errno))
        });
        if replaced.is_err() {
            // The failure itself is what people must read; what stays is swept next time.
            let _ = unlinkat(&self.handle, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
        }
        replaced.map(|()| file)
    }

    /// Makes the new name last, and looks whether it still stands for the file we wrote.
    fn confirm(&self, name: &str, file: &File) -> Result<(), KeysOnDiskError> {
        let path = self.path_of(name);
        match self.is_in_place(name, file).and_then(|ours| fsync(&self.handle).map(|()| ours)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(KeysOnDiskError::Swapped { path }),
            Err(errno) => Err(KeysOnDiskError::Unconfirmed { path, errno }),
        }
    }

    /// Takes every key out of a file, whoever wrote it. In a folder of root's the file goes.
    pub(super) fn empty(&self, name: &str) -> Result<(), KeysOnDiskError> {
        if matches!(self.rules, Rules::Account(_)) {
            let clear = |file: &mut KeyFile| match std::mem::take(file) == KeyFile::default() {
                true => Change::Unchanged,
                false => Change::Changed,
            };
            return self.edit(name, clear).map(|_| ());
        }
        let path = self.path_of(name);
        match unlinkat(&self.handle, name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(KeysOnDiskError::system("remove", &path, errno)),
            Ok(()) => {}
        }
        fsync(&self.handle).map_err(|errno| KeysOnDiskError::Unconfirmed { path, errno })
    }

    /// Whether the name stands for the file we wrote.
    fn is_in_place(&self, name: &str, file: &File) -> Result<bool, Errno> {
        let found = fstatat(&self.handle, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let written = fstat(file)?;
        Ok((found.st_dev, found.st_ino) == (written.st_dev, written.st_ino))
    }

    /// Takes the right to write away from others, where a folder of the account gives it.
    pub(super) fn forbid_writing_by_others(&self) -> Result<(), KeysOnDiskError> {
        let mode = stat_of(&self.handle, &self.path)?.st_mode & 0o7777;
        match mode & WRITABLE_BY_OTHERS {
            0 => Ok(()),
            _ if self.path.file_name().is_some_and(|name| name == ".ssh") => self.set_mode(0o700),
            _ => self.set_mode(mode & !WRITABLE_BY_OTHERS),
        }
    }

    pub(super) fn set_mode(&self, mode: u32) -> Result<(), KeysOnDiskError> {
        fchmod(&self.handle, Mode::from_bits_truncate(mode))
            .map_err(|errno| KeysOnDiskError::system("set the mode of", &self.path, errno))
    }

    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn check_plain_file(&self, stat: &FileStat, path: &Path) -> Result<(), KeysOnDiskError> {
        if kind_of(stat) != SFlag::S_IFREG {
            let (found, expected) = (handles::name_of(kind_of(stat)), "a plain file");
            return Err(KeysOnDiskError::WrongKind { path: path.to_owned(), found, expected });
        }
        if !self.rules.may_own(Uid::from_raw(stat.st_uid)) {
            return check_owner(stat, self.rules.account(), path);
        }
        if stat.st_nlink > 1 {
            return Err(KeysOnDiskError::HardLinked {
                path: path.to_owned(),
                links: stat.st_nlink,
            });
        }
        Ok(())
    }
}

fn fill(
    file: &mut File,
    bytes: &[u8],
    owner: Owner,
    mode: u32,
    path: &Path,
) -> Result<(), KeysOnDiskError> {
    file.write_all(bytes).map_err(|error| KeysOnDiskError::from_io("write", path, &error))?;
    fchown(&*file, Some(owner.uid), Some(owner.gid))
        .and_then(|()| fchmod(&*file, Mode::from_bits_truncate(mode)))
        .map_err(|errno| KeysOnDiskError::system("write", path, errno))
}

pub(super) fn check_owner(
    stat: &FileStat,
    owner: Owner,
    path: &Path,
) -> Result<(), KeysOnDiskError> {
    let found = Uid::from_raw(stat.st_uid);
    if found == owner.uid {
        return Ok(());
    }
    Err(KeysOnDiskError::ForeignOwner { path: path.to_owned(), found, expected: owner.uid })
}

/// Why opening `name` failed: names the thing that stands there, if that is the reason.
pub(super) fn explain(
    folder: &OwnedFd,
    name: &str,
    path: &Path,
    expected: &'static str,
    errno: Errno,
) -> KeysOnDiskError {
    let found = match errno {
        Errno::EXDEV => Some("on a file system mounted over it"),
        _ => fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .ok()
            .map(|stat| handles::name_of(kind_of(&stat)))
            .filter(|found| *found != expected),
    };
    match found {
        Some(found) => KeysOnDiskError::WrongKind { path: path.to_owned(), found, expected },
        None => KeysOnDiskError::system("open", path, errno),
    }
}

pub(super) fn stat_of(handle: impl AsFd, path: &Path) -> Result<FileStat, KeysOnDiskError> {
    fstat(handle).map_err(|errno| KeysOnDiskError::system("look at", path, errno))
}
