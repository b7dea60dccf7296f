//! Key files in people's homes, entered by handle as root without trusting the people.
//!
//! The owner of a home may put links, FIFOs or folders where `.ssh/authorized_keys` belongs, and
//! may swap them while we work. So the home is opened once without following any link, all
//! further steps are relative to handles, whatever was opened is checked on the handle, and a
//! file is only ever replaced as a whole: written aside, given away, synced, renamed. The worst
//! that a swap can do is to damage the swapper's own file. This room must not know messages or
//! account tools; what a key line is says `KeyFile`.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use bastio_protocol::{Change, KeyFile, PublicKey};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fsync, unlinkat};
use thiserror::Error;

pub(crate) mod handles;
mod temporary;

use handles::{kind_of, open_beneath, open_without_links};

/// The folder of key files in a home, and the file that we write.
const FOLDER: &str = ".ssh";
const FILE: &str = "authorized_keys";
/// The files that sshd reads unless its configuration says otherwise (sshd_config(5),
/// `AuthorizedKeysFile`). A key is taken out of both.
const FILES: [&str; 2] = [FILE, "authorized_keys2"];
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

/// Why a key file was not read or not changed. The old content is intact after each of these,
/// save [`Self::Unconfirmed`].
#[derive(Debug, Error)]
pub enum KeysOnDiskError {
    /// The home is not there.
    #[error("the home {0} is missing; make it again (mkhomedir_helper), or remove the account")]
    HomeMissing(PathBuf),
    /// Something else stands where a folder or a plain file belongs.
    #[error("{path} is {found}, not {expected}, and is left alone; remove it and try again")]
    WrongKind {
        /// The thing.
        path: PathBuf,
        /// What it is.
        found: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// It belongs to somebody else.
    #[error(
        "{path} belongs to uid {found}, not to the account (uid {expected}), and is left alone; \
         give it to the account (chown) or remove it, and try again"
    )]
    ForeignOwner {
        /// The thing.
        path: PathBuf,
        /// Its owner.
        found: Uid,
        /// The account.
        expected: Uid,
    },
    /// The home may be written by others, so sshd would ignore the keys.
    #[error("{path} can be written by others, so sshd ignores its keys; run: chmod go-w {path}")]
    WritableByOthers {
        /// The home.
        path: PathBuf,
    },
    /// The file has a second name, perhaps outside the home.
    #[error("{path} has {links} names (hard links) and is left alone; remove it and try again")]
    HardLinked {
        /// The file.
        path: PathBuf,
        /// How many names it has.
        links: u64,
    },
    /// More than 1 MiB.
    #[error("{path} is larger than {MAX_SIZE} bytes and is left alone; clean it up by hand")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The disk or the quota is full.
    #[error("no space left for {path}; the old file is unchanged; free some space and try again")]
    NoSpace {
        /// The file or folder that was to be written.
        path: PathBuf,
    },
    /// Somebody swapped the file while it was written.
    #[error("{path} was replaced by somebody while it was written; try again")]
    Swapped {
        /// The file.
        path: PathBuf,
    },
    /// The new file is in place, but perhaps not for good.
    #[error("{path} was written, but the system does not confirm it ({errno}); try again")]
    Unconfirmed {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        errno: Errno,
    },
    /// The system refused a step.
    #[error("cannot {step} {path}: {errno}; the keys are unchanged")]
    System {
        /// What was tried.
        step: &'static str,
        /// With what.
        path: PathBuf,
        /// The system's answer.
        errno: Errno,
    },
}

impl KeysOnDiskError {
    fn system(step: &'static str, path: &Path, errno: Errno) -> Self {
        let path = path.to_owned();
        match errno {
            Errno::ENOSPC | Errno::EDQUOT => Self::NoSpace { path },
            errno => Self::System { step, path, errno },
        }
    }

    fn from_io(step: &'static str, path: &Path, error: &std::io::Error) -> Self {
        Self::system(step, path, error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    }
}

/// Lets `key` log in. Makes `.ssh` and the file when missing.
///
/// # Errors
/// [`KeysOnDiskError`]; nothing was changed.
pub fn insert_key(home: &Path, owner: Owner, key: &PublicKey) -> Result<Change, KeysOnDiskError> {
    let folder = KeyFolder::open_or_make(home, owner)?;
    folder.forbid_writing_by_others()?;
    folder.edit(FILE, |file| file.insert(key))
}

/// Takes `key` out of every key file that sshd reads.
///
/// # Errors
/// [`KeysOnDiskError`]; the file in question was not changed.
pub fn remove_key(home: &Path, owner: Owner, key: &PublicKey) -> Result<Change, KeysOnDiskError> {
    let mut change = Change::Unchanged;
    if let Some(folder) = KeyFolder::open(home, owner)? {
        for name in FILES {
            if folder.edit(name, |file| file.remove(key))? == Change::Changed {
                change = Change::Changed;
            }
        }
    }
    Ok(change)
}

/// Empties every key file that sshd reads.
///
/// # Errors
/// [`KeysOnDiskError`]; the file in question was not changed.
pub fn remove_all_keys(home: &Path, owner: Owner) -> Result<(), KeysOnDiskError> {
    if let Some(folder) = KeyFolder::open(home, owner)? {
        for name in FILES {
            folder.edit(name, |file| {
                let empty = KeyFile::default();
                let change = if *file == empty { Change::Unchanged } else { Change::Changed };
                *file = empty;
                change
            })?;
        }
    }
    Ok(())
}

/// Makes `.ssh` (0700) and an empty `authorized_keys` (0600) when missing, and sets these modes
/// on what is there.
///
/// # Errors
/// [`KeysOnDiskError`]; keys were not touched.
pub fn repair(home: &Path, owner: Owner) -> Result<(), KeysOnDiskError> {
    let folder = KeyFolder::open_or_make(home, owner)?;
    folder.set_mode(0o700)?;
    match folder.read(FILE)? {
        None => folder.replace(FILE, &[], 0o600),
        Some(stored) if stored.mode == 0o600 => Ok(()),
        Some(stored) => fchmod(&stored.file, Mode::from_bits_truncate(0o600)).map_err(|errno| {
            KeysOnDiskError::system("set the mode of", &folder.path_of(FILE), errno)
        }),
    }
}

/// An open `.ssh` that belongs to the account.
struct KeyFolder {
    folder: OwnedFd,
    owner: Owner,
    /// For texts only; nothing is opened by it again.
    path: PathBuf,
}

/// A key file as it was found.
struct Stored {
    file: File,
    bytes: Vec<u8>,
    /// Permission bits.
    mode: u32,
}

impl KeyFolder {
    /// Opens `.ssh`; `None` when there is none.
    fn open(home: &Path, owner: Owner) -> Result<Option<Self>, KeysOnDiskError> {
        let home_handle = open_home(home, owner)?;
        Self::open_in(&home_handle, home, owner)
    }

    /// Opens `.ssh` of a home in which sshd will heed keys, and makes it first when there is none.
    fn open_or_make(home: &Path, owner: Owner) -> Result<Self, KeysOnDiskError> {
        let home_handle = open_home(home, owner)?;
        // Here alone: what others may write must not keep a key from being taken out.
        if stat_of(&home_handle, home)?.st_mode & WRITABLE_BY_OTHERS != 0 {
            return Err(KeysOnDiskError::WritableByOthers { path: home.to_owned() });
        }
        if let Some(folder) = Self::open_in(&home_handle, home, owner)? {
            return Ok(folder);
        }
        let path = home.join(FOLDER);
        mkdirat(&home_handle, FOLDER, Mode::S_IRWXU)
            .map_err(|errno| KeysOnDiskError::system("make", &path, errno))?;
        Self::open_in(&home_handle, home, owner)?.ok_or(KeysOnDiskError::Swapped { path })
    }

    fn open_in(
        home_handle: &OwnedFd,
        home: &Path,
        owner: Owner,
    ) -> Result<Option<Self>, KeysOnDiskError> {
        let path = home.join(FOLDER);
        let folder = match open_beneath(home_handle, FOLDER, OFlag::O_DIRECTORY) {
            Ok(folder) => folder,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(explain(home_handle, FOLDER, &path, "a folder", errno)),
        };
        let stat = stat_of(&folder, &path)?;
        let folder = Self { folder, owner, path };
        if Uid::from_raw(stat.st_uid) == Uid::effective() && handles::is_empty(&folder.folder) {
            folder.take_over()?;
        } else {
            check_owner(&stat, owner, &folder.path)?;
        }
        Ok(Some(folder))
    }

    /// Gives an empty folder of ours to the account: we made it, now or just before a crash. (A
    /// folder of root's gets into a home by root alone, so there is nothing to gain by it.)
    fn take_over(&self) -> Result<(), KeysOnDiskError> {
        fchown(&self.folder, Some(self.owner.uid), Some(self.owner.gid))
            .map_err(|errno| KeysOnDiskError::system("give away", &self.path, errno))?;
        self.set_mode(0o700)
    }

    /// Reads, edits and writes a file back if the edit changed it. A missing file is an empty one.
    fn edit(
        &self,
        name: &str,
        edit: impl FnOnce(&mut KeyFile) -> Change,
    ) -> Result<Change, KeysOnDiskError> {
        let stored = self.read(name)?;
        let mut keys = stored.as_ref().map(|s| KeyFile::parse(&s.bytes)).unwrap_or_default();
        let change = edit(&mut keys);
        if change == Change::Changed {
            let mode = stored.map_or(0o600, |s| s.mode & 0o600);
            self.replace(name, &keys.to_bytes(), mode)?;
        }
        Ok(change)
    }

    /// Reads a plain file of the account; `None` when there is none.
    fn read(&self, name: &str) -> Result<Option<Stored>, KeysOnDiskError> {
        let path = self.path_of(name);
        // Without O_NONBLOCK, opening a FIFO would wait for a writer for ever.
        let handle = match open_beneath(&self.folder, name, OFlag::O_NONBLOCK | OFlag::O_NOCTTY) {
            Ok(handle) => handle,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(explain(&self.folder, name, &path, "a plain file", errno)),
        };
        let stat = stat_of(&handle, &path)?;
        check_plain_file(&stat, self.owner, &path)?;
        let file = File::from(handle);
        let mut bytes = Vec::new();
        (&file)
            .take(MAX_SIZE + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| KeysOnDiskError::from_io("read", &path, &error))?;
        if bytes.len() as u64 > MAX_SIZE {
            return Err(KeysOnDiskError::TooLarge { path });
        }
        Ok(Some(Stored { file, bytes, mode: stat.st_mode & 0o7777 }))
    }

    /// Replaces a file by a whole new one, or leaves it as it was.
    fn replace(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), KeysOnDiskError> {
        let path = self.path_of(name);
        temporary::sweep(&self.folder, self.owner.uid);
        let (temporary, mut file) = temporary::create(&self.folder)
            .map_err(|errno| KeysOnDiskError::system("make a new file beside", &path, errno))?;
        let replaced = fill(&mut file, bytes, self.owner, mode, &path).and_then(|()| {
            renameat(&self.folder, temporary.as_str(), &self.folder, name)
                .map_err(|errno| KeysOnDiskError::system("replace", &path, errno))
        });
        if replaced.is_err() {
            // The failure itself is what people must read; what stays is swept next time.
            let _ = unlinkat(&self.folder, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
        }
        replaced?;
        match self.is_in_place(name, &file).and_then(|ours| fsync(&self.folder).map(|()| ours)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(KeysOnDiskError::Swapped { path }),
            Err(errno) => Err(KeysOnDiskError::Unconfirmed { path, errno }),
        }
    }

    /// Whether the name stands for the file we wrote.
    fn is_in_place(&self, name: &str, file: &File) -> Result<bool, Errno> {
        let found = fstatat(&self.folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let written = fstat(file)?;
        Ok((found.st_dev, found.st_ino) == (written.st_dev, written.st_ino))
    }

    fn forbid_writing_by_others(&self) -> Result<(), KeysOnDiskError> {
        let mode = stat_of(&self.folder, &self.path)?.st_mode & 0o7777;
        if mode & WRITABLE_BY_OTHERS == 0 { Ok(()) } else { self.set_mode(0o700) }
    }

    fn set_mode(&self, mode: u32) -> Result<(), KeysOnDiskError> {
        fchmod(&self.folder, Mode::from_bits_truncate(mode))
            .map_err(|errno| KeysOnDiskError::system("set the mode of", &self.path, errno))
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Opens a home by its path without following a link, and checks that it is the account's.
fn open_home(home: &Path, owner: Owner) -> Result<OwnedFd, KeysOnDiskError> {
    let handle = open_without_links(home).map_err(|errno| match errno {
        Errno::ENOENT => KeysOnDiskError::HomeMissing(home.to_owned()),
        Errno::ELOOP | Errno::ENOTDIR => KeysOnDiskError::WrongKind {
            path: home.to_owned(),
            found: "reached through a symbolic link, or no folder",
            expected: "a plain folder",
        },
        errno => KeysOnDiskError::system("open", home, errno),
    })?;
    check_owner(&stat_of(&handle, home)?, owner, home)?;
    Ok(handle)
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
        .and_then(|()| fsync(&*file))
        .map_err(|errno| KeysOnDiskError::system("write", path, errno))
}

fn check_plain_file(stat: &FileStat, owner: Owner, path: &Path) -> Result<(), KeysOnDiskError> {
    if kind_of(stat) != SFlag::S_IFREG {
        let (found, expected) = (handles::name_of(kind_of(stat)), "a plain file");
        return Err(KeysOnDiskError::WrongKind { path: path.to_owned(), found, expected });
    }
    check_owner(stat, owner, path)?;
    if stat.st_nlink > 1 {
        return Err(KeysOnDiskError::HardLinked { path: path.to_owned(), links: stat.st_nlink });
    }
    Ok(())
}

fn check_owner(stat: &FileStat, owner: Owner, path: &Path) -> Result<(), KeysOnDiskError> {
    let found = Uid::from_raw(stat.st_uid);
    if found == owner.uid {
        return Ok(());
    }
    Err(KeysOnDiskError::ForeignOwner { path: path.to_owned(), found, expected: owner.uid })
}

/// Why opening `name` failed: names the thing that stands there, if that is the reason.
fn explain(
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

fn stat_of(handle: impl AsFd, path: &Path) -> Result<FileStat, KeysOnDiskError> {
    fstat(handle).map_err(|errno| KeysOnDiskError::system("look at", path, errno))
}

#[cfg(test)]
mod tests;
