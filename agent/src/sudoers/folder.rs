//! The folder of rules on disk. Every system call of this program on files of sudo's is made here, so
//! that a test can fail each of them; tests/tests/proof/faults/sudoers.rs does, and counts them.
//!
//! The folder is root's alone, but nothing in it is trusted to be a plain file: links are not
//! followed, and a file is only ever replaced as a whole. This file must not know what the files
//! mean.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fsync, unlinkat};

use super::SudoersError;
use crate::keys_on_disk::handles::{self, kind_of, open_beneath, open_without_links};
use crate::selinux;

/// Mode of the files, as sudoers(5) wants it.
const MODE: u32 = 0o440;
/// The group that root's files belong to.
const ROOTS_GROUP: Gid = Gid::from_raw(0);
/// What a new file is written as, until it takes its name. sudo leaves out names with a dot. There
/// is only one, so a left-over is overwritten by the next file.
const ASIDE: &str = ".bastio.new";
/// Largest file that is read, in bytes.
const MAX_SIZE: u64 = 64 * 1024;
/// Most entries of the folder that are looked at.
const MAX_ENTRIES: usize = 16 * 1024;
/// Write bits of group and others: with one of them set, sudo takes nothing from there.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// The open folder.
pub(super) struct Folder {
    handle: OwnedFd,
    /// For texts and for visudo; nothing is opened by it again.
    path: PathBuf,
}

/// A file as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    /// What is in it.
    pub(super) bytes: Vec<u8>,
    /// Whether owner and mode are those of a file that was written here.
    pub(super) is_sound: bool,
}

impl Folder {
    /// Opens it; `None` when there is none.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, SudoersError> {
        match open_without_links(path) {
            Ok(handle) => Ok(Some(Self { handle, path: path.to_owned() })),
            Err(Errno::ENOENT) => Ok(None),
            Err(Errno::ELOOP | Errno::ENOTDIR) => Err(SudoersError::FolderUnsafe {
                path: path.to_owned(),
                why: "is no plain folder, or reached through a symbolic link",
            }),
            Err(errno) => Err(SudoersError::system("open", path, errno)),
        }
    }

    /// Checks that nobody but root decides what is in it.
    pub(super) fn check_owner(&self) -> Result<(), SudoersError> {
        let stat =
            fstat(&self.handle).map_err(|e| SudoersError::system("look at", &self.path, e))?;
        let why = if Uid::from_raw(stat.st_uid) != Uid::effective() {
            "does not belong to root"
        } else if stat.st_mode & WRITABLE_BY_OTHERS != 0 {
            "can be written by others than root"
        } else {
            return Ok(());
        };
        Err(SudoersError::FolderUnsafe { path: self.path.clone(), why })
    }

    /// The names in it.
    pub(super) fn names(&self) -> Result<Vec<String>, SudoersError> {
        let failed = |errno| SudoersError::system("list", &self.path, errno);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut listing = Dir::openat(&self.handle, ".", flags, Mode::empty()).map_err(failed)?;
        let mut names = Vec::new();
        for entry in listing.iter().take(MAX_ENTRIES) {
            // A name that is no UTF-8 is nobody's of ours.
            if let Ok(name) = entry.map_err(failed)?.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Reads a plain file; `None` when there is none.
    pub(super) fn read(&self, name: &str) -> Result<Option<Stored>, SudoersError> {
        let path = self.path_of(name);
        // Without O_NONBLOCK, opening a FIFO would wait for a writer for ever.
        let handle = match open_beneath(&self.handle, name, OFlag::O_NONBLOCK | OFlag::O_NOCTTY) {
            Ok(handle) => handle,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(self.explain(name, errno)),
        };
        let stat = fstat(&handle).map_err(|e| SudoersError::system("look at", &path, e))?;
        if kind_of(&stat) != SFlag::S_IFREG {
            return Err(SudoersError::Foreign { path, found: handles::name_of(kind_of(&stat)) });
        }
        let mut bytes = Vec::new();
        File::from(handle)
            .take(MAX_SIZE + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| SudoersError::from_io("read", &path, &error))?;
        if bytes.len() as u64 > MAX_SIZE {
            return Err(SudoersError::Foreign { path, found: "larger than any file of bastio's" });
        }
        Ok(Some(Stored { bytes, is_sound: is_sound(&stat) }))
    }

    /// Writes a file beside the others, under a name that sudo leaves out, and returns its path.
    pub(super) fn write_aside(&self, bytes: &[u8]) -> Result<PathBuf, SudoersError> {
        let path = self.path_of(ASIDE);
        // What a crash left over. If it stays, the next step fails.
        let _ = self.discard_aside();
        let written = self.create_aside(&path).and_then(|mut file| {
            selinux::label_file(&file, None, &path);
            file.write_all(bytes).map_err(|error| SudoersError::from_io("write", &path, &error))?;
            // The owner is who writes; the group could be the folder's.
            let group = Uid::effective().is_root().then_some(ROOTS_GROUP);
            fchown(&file, None, group)
                .and_then(|()| fchmod(&file, Mode::from_bits_truncate(MODE)))
                .and_then(|()| fsync(&file))
                .map_err(|errno| SudoersError::system("write", &path, errno))
        });
        if written.is_err() {
            // The failure itself is what counts; a left-over is overwritten next time.
            let _ = self.discard_aside();
        }
        written.map(|()| path)
    }

    fn create_aside(&self, path: &Path) -> Result<File, SudoersError> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        openat(&self.handle, ASIDE, flags | OFlag::O_NOFOLLOW, Mode::S_IRUSR)
            .map(File::from)
            .map_err(|errno| SudoersError::system("make", path, errno))
    }

    /// Removes what was written aside, if there is anything.
    pub(super) fn discard_aside(&self) -> Result<(), SudoersError> {
        match unlinkat(&self.handle, ASIDE, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(SudoersError::system("remove", &self.path_of(ASIDE), errno)),
        }
    }

    /// Gives what was written aside its name, for good.
    pub(super) fn put_in_place(&self, name: &str) -> Result<(), SudoersError> {
        let path = self.path_of(name);
        if let Err(errno) = renameat(&self.handle, ASIDE, &self.handle, name) {
            let _ = self.discard_aside();
            return Err(SudoersError::system("replace", &path, errno));
        }
        fsync(&self.handle).map_err(|errno| SudoersError::Unconfirmed { path, errno })
    }

    /// Removes a file for good.
    pub(super) fn remove(&self, name: &str) -> Result<(), SudoersError> {
        let path = self.path_of(name);
        unlinkat(&self.handle, name, UnlinkatFlags::NoRemoveDir)
            .map_err(|errno| SudoersError::system("remove", &path, errno))?;
        fsync(&self.handle).map_err(|errno| SudoersError::Unconfirmed { path, errno })
    }

    /// The path of a file in it.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Why opening failed: names the thing that stands there, if that is the reason.
    fn explain(&self, name: &str, errno: Errno) -> SudoersError {
        let path = self.path_of(name);
        let stat = fstatat(&self.handle, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok();
        match stat.as_ref().map(kind_of) {
            _ if errno == Errno::EXDEV => {
                SudoersError::Foreign { path, found: "on a file system mounted over it" }
            }
            Some(kind) if kind != SFlag::S_IFREG => {
                SudoersError::Foreign { path, found: handles::name_of(kind) }
            }
            _ => SudoersError::system("open", &path, errno),
        }
    }
}

fn is_sound(stat: &FileStat) -> bool {
    Uid::from_raw(stat.st_uid) == Uid::effective() && stat.st_mode & 0o7777 == MODE
}
