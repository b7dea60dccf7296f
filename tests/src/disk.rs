//! A folder on the machine's disk for one server's `/home`: where it matters how long a real fsync takes.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

use crate::LabError;

/// An empty folder, removed when dropped. It is locked as long as it is in use, so that one that a killed process left
/// behind is known, and removed by the next who needs one.
#[derive(Debug)]
pub(crate) struct DiskFolder {
    folder: TempDir,
    _lock: Flock<File>,
}

impl DiskFolder {
    pub(crate) fn new(lab: &Path) -> Result<Self, LabError> {
        let homes = lab.join("homes");
        Self::make(&homes).map_err(LabError::doing(format!("make a folder in {}", homes.display())))
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn make(homes: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(homes)?;
        // Nobody may sweep between making a folder and locking it.
        let _sweeping = lock(homes, FlockArg::LockExclusive)?;
        for entry in fs::read_dir(homes)? {
            sweep(&entry?.path())?;
        }
        let folder = TempDir::new_in(homes)?;
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let lock = lock(folder.path(), FlockArg::LockExclusive)?;
        Ok(Self { folder, _lock: lock })
    }
}

fn sweep(left: &PathBuf) -> io::Result<()> {
    match lock(left, FlockArg::LockExclusiveNonblock) {
        Ok(_unused) => fs::remove_dir_all(left),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        // Its owner has just removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn lock(folder: &Path, how: FlockArg) -> io::Result<Flock<File>> {
    Flock::lock(File::open(folder)?, how).map_err(|(_, errno)| errno.into())
}
