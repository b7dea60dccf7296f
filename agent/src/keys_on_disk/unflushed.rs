//! Which file systems hold key files that a crash might still take, and how they are flushed: each once, however many
//! files there are.
//!
//! This file must not know what was written.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::Error;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::unistd::syncfs;

/// The file systems, by device number: a handle to each and the first file on it.
#[derive(Debug, Default)]
pub struct Unflushed(BTreeMap<u64, (OwnedFd, PathBuf)>);

impl Unflushed {
    /// A file that was written.
    pub(super) fn add(&mut self, file: &File, path: &Path) -> Result<(), Errno> {
        let device = fstat(file)?.st_dev;
        if let Entry::Vacant(place) = self.0.entry(device) {
            let failed = |error: Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
            place.insert((file.try_clone().map_err(failed)?.into(), path.to_owned()));
        }
        Ok(())
    }

    /// Waits until all of it is on the disk (syncfs(2)).
    ///
    /// # Errors
    /// A file that is perhaps not, and the system's answer.
    pub fn flush(self) -> Result<(), (PathBuf, Errno)> {
        let flushed =
            self.0.into_values().map(|(handle, path)| syncfs(handle).map_err(|e| (path, e)));
        // All of them, also behind one that fails.
        flushed.fold(Ok(()), Result::and)
    }
}
