//! A key file that stands in its place and that a crash might still take.
//!
//! This file must not know what was written.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::unistd::fsync;

use super::KeysOnDiskError;

/// The file and its folder, as handles.
#[derive(Debug)]
pub struct Unflushed {
    file: File,
    folder: OwnedFd,
    path: PathBuf,
}

impl Unflushed {
    /// Has the system begin to write: many files that are begun and then waited for take little longer than one.
    pub(super) fn begin(file: File, folder: &OwnedFd, path: PathBuf) -> Result<Self, Errno> {
        // Only a hint: without it waiting takes longer.
        let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        let failed =
            |error: std::io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        Ok(Self { file, folder: folder.try_clone().map_err(failed)?, path })
    }

    /// Waits until the file and its name are on the disk.
    ///
    /// # Errors
    /// [`KeysOnDiskError::Unconfirmed`].
    pub fn flush(self) -> Result<(), KeysOnDiskError> {
        let Self { file, folder, path } = self;
        fsync(&file)
            .and_then(|()| fsync(&folder))
            .map_err(|errno| KeysOnDiskError::Unconfirmed { path, errno })
    }
}
