//! The journal's file: opened, appended to, flushed, cut, replaced as a whole. It lies in a folder that root alone may
//! enter. Its system calls (pwrite, fdatasync, fallocate, ftruncate, rename) are no other file's in this program, so
//! that a test can fail each of them. This file must not know what the bytes mean.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::OFlag;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use thiserror::Error;

const NAME: &str = "journal";
/// What a compacted journal is written as, until it takes the place of the old one.
const ASIDE: &str = "journal.new";
/// How much more is taken from the disk at a time.
const STRIDE: u64 = 256 * 1024;

/// Why the journal cannot be kept.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The system refused.
    #[error("cannot {step} {path}: {error}{hint}", path = .path.display(), hint = hint(.error))]
    Io {
        /// What was tried.
        step: &'static str,
        /// With what.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// Another processor keeps it.
    #[error("another processor keeps the journal in {path}; stop it first", path = .0.display())]
    InUse(PathBuf),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; free some space and try again",
        ErrorKind::ReadOnlyFilesystem => "; make it writable (mount -o remount,rw) and try again",
        _ => "",
    }
}

/// Says which step failed, with what.
fn at<E: Into<io::Error>>(step: &'static str, path: &Path) -> impl FnOnce(E) -> JournalError {
    move |error| JournalError::Io { step, path: path.to_owned(), error: error.into() }
}

/// The journal's folder, which no other processor has at the same time.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Locked.
    handle: File,
}

/// The open journal.
#[derive(Debug)]
pub(super) struct JournalFile {
    path: PathBuf,
    file: File,
    /// Where the next record goes.
    len: u64,
    /// Up to where the disk has room for certain.
    reserved: u64,
}

impl Folder {
    /// Makes the folder (0700) if it is missing, and takes it.
    pub(super) fn take(path: &Path) -> Result<Self, JournalError> {
        make(path)?;
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
        let handle = opened.map_err(at("open", path))?;
        let mode = handle.metadata().map_err(at("look at", path))?.permissions().mode();
        if mode & 0o7777 != 0o700 {
            handle
                .set_permissions(Permissions::from_mode(0o700))
                .map_err(at("set the mode of", path))?;
        }
        match handle.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), handle }),
            Err(TryLockError::WouldBlock) => Err(JournalError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(at("lock", path)(error)),
        }
    }

    /// Reads the journal, empty when there is none, and opens it for writing where that can be.
    pub(super) fn read(&self) -> Result<(Vec<u8>, Option<JournalFile>), JournalError> {
        let path = self.path.join(NAME);
        let open = |write| {
            let mut options = OpenOptions::new();
            options.read(true).write(write).custom_flags(OFlag::O_NOFOLLOW.bits()).open(&path)
        };
        let (opened, may_write) = match open(true) {
            Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => (open(false), false),
            opened => (opened, true),
        };
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok((Vec::new(), None)),
            Err(error) => return Err(at("open", &path)(error)),
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(at("read", &path))?;
        let len = bytes.len() as u64;
        let file = may_write.then_some(JournalFile { path, file, len, reserved: 0 });
        Ok((bytes, file))
    }

    /// Writes a journal with these bytes beside the present one.
    pub(super) fn write_aside(&self, bytes: &[u8]) -> Result<JournalFile, JournalError> {
        let file = write_new(&self.path.join(ASIDE), bytes)?;
        Ok(JournalFile { path: self.path.join(NAME), file, len: bytes.len() as u64, reserved: 0 })
    }

    /// Puts what was written aside in the place of the present journal. After an error, either may be there.
    pub(super) fn put_in_place(&self, aside: JournalFile) -> Result<JournalFile, JournalError> {
        let path = self.path.join(ASIDE);
        fs::rename(&path, &aside.path).map_err(at("rename", &path))?;
        self.sync()?;
        Ok(aside)
    }

    /// Keeps bytes that are no journal, for people to look at.
    pub(super) fn set_aside(&self, bytes: &[u8]) -> Result<PathBuf, JournalError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let path = self.path.join(format!("{NAME}.damaged-{now}"));
        write_new(&path, bytes)?;
        self.sync()?;
        Ok(path)
    }

    fn sync(&self) -> Result<(), JournalError> {
        self.handle.sync_all().map_err(at("flush", &self.path))
    }
}

impl JournalFile {
    /// Bytes written.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Makes sure that these bytes and an answer of `room` bytes behind them will fit on the disk.
    pub(super) fn reserve(&mut self, bytes: &[u8], room: u64) -> Result<(), JournalError> {
        let wanted = self.len + bytes.len() as u64 + room;
        if wanted <= self.reserved {
            return Ok(());
        }
        let up_to = wanted + STRIDE;
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.len, up_to - self.len) {
            Ok(()) => self.reserved = up_to,
            // Not on every file system; then a full disk is noticed later.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.reserved = u64::MAX,
            Err(errno) => return Err(at("make room in", &self.path)(errno)),
        }
        Ok(())
    }

    /// Appends all of these bytes or nothing.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        if let Err(error) = self.file.write_all_at(bytes, self.len) {
            // A part that stays is no whole record, and is written over by the next.
            let _ = self.file.set_len(self.len);
            return Err(at("write", &self.path)(error));
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Returns when everything appended survives a loss of power.
    pub(super) fn flush(&self) -> Result<(), JournalError> {
        self.file.sync_data().map_err(at("flush", &self.path))
    }

    /// Cuts off everything behind `len`.
    pub(super) fn cut(&mut self, len: u64) -> Result<(), JournalError> {
        self.file.set_len(len).map_err(at("cut", &self.path))?;
        (self.len, self.reserved) = (len, 0);
        Ok(())
    }
}

fn make(folder: &Path) -> Result<(), JournalError> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let parent = folder.parent().unwrap_or(Path::new("/"));
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)
                .map_err(at("make", parent))?;
            DirBuilder::new().mode(0o700).create(folder).map_err(at("make", folder))
        }
        made => made.map_err(at("make", folder)),
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<File, JournalError> {
    // One that a crash left over. If it stays, the next step fails.
    let _ = fs::remove_file(path);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(path);
    let file = file.map_err(at("make", path))?;
    file.write_all_at(bytes, 0).map_err(at("write", path))?;
    file.sync_data().map_err(at("flush", path))?;
    Ok(file)
}
