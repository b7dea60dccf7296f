//! The folder that holds everything the backend must not lose: owned by one user, closed to all
//! others, used by one backend at a time.
//!
//! This file must not know what the database or the host keys are, only where they lie.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use serde::Serialize;
use thiserror::Error;

/// Who may read and write the folder: its owner alone.
const FOLDER_MODE: u32 = 0o700;

const DATABASE_FILE: &str = "bastio.db";
const LISTEN_FILE: &str = "listen.json";

/// The state folder of this process, locked until the value is dropped.
#[derive(Debug)]
pub struct StateFolder {
    path: PathBuf,
    /// Holds the lock; the system frees it when the process ends, however it ends.
    _lock: File,
}

/// Where the backend listens, written to `listen.json` once all ports are bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listening {
    /// Port of the agents.
    pub ssh: SocketAddr,
    /// Port of the API.
    pub http: SocketAddr,
    /// Port of version-1 agents.
    pub legacy: Option<SocketAddr>,
    /// Base URL for people and agents.
    pub url: String,
}

/// Why the folder cannot be used.
#[derive(Debug, Error)]
pub enum StateError {
    /// Another process holds the lock.
    #[error(
        "another backend uses {}\nhint: stop it first, or give this one its own --state", .0.display()
    )]
    InUse(PathBuf),
    /// Not a folder, or a symbolic link.
    #[error("{} is no folder (links are not followed)\nhint: name another with --state", .0.display())]
    NotAFolder(PathBuf),
    /// Group or others have rights on the folder.
    #[error("{path} is open to others (mode {mode:03o})\nhint: chmod 700 {path}",
        path = path.display())]
    TooOpen {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The folder is somebody else's.
    #[error("{path} belongs to user id {owner}, this process runs as {us}\nhint: start it as the owner, \
        or: chown -R {us} {path}", path = path.display())]
    ForeignOwner {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The user of this process.
        us: u32,
    },
    /// The file system refused.
    #[error("{path}: {source}\nhint: start it as a user who may write there, or name another folder \
        with --state", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl StateFolder {
    /// Opens the folder, makes it when it is missing, and locks it for this process.
    ///
    /// # Errors
    /// [`StateError`] when others could read or write in it, or another backend does.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let io = |source| StateError::Io { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path).map_err(|error| {
            match error.kind() {
                ErrorKind::AlreadyExists => StateError::NotAFolder(path.to_owned()),
                _ => io(error),
            }
        })?;
        check_folder(path)?;
        let lock = lock(path)?;
        let folder = Self { path: path.to_owned(), _lock: lock };
        // Left over when the last backend was killed; its ports are not ours.
        folder.forget_listening()?;
        Ok(folder)
    }

    /// The database of a folder that a running backend may hold: takes no lock, makes and changes
    /// nothing. `None` when no backend has run there yet.
    ///
    /// # Errors
    /// [`StateError`] when others could read or write in the folder.
    pub fn existing_database(path: &Path) -> Result<Option<PathBuf>, StateError> {
        let database = path.join(DATABASE_FILE);
        match check_folder(path) {
            Err(StateError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(database.exists().then_some(database)),
        }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the database lies.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE_FILE)
    }

    /// Says in `listen.json` where the backend listens. The file appears whole or not at all.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn announce(&self, listening: &Listening) -> Result<(), StateError> {
        let text = serde_json::to_string(listening).expect("addresses and strings serialise");
        let part = self.path.join("listen.json.part");
        let io = |source| StateError::Io { path: part.clone(), source };
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&part)
            .map_err(io)?;
        writeln!(file, "{text}").map_err(io)?;
        std::fs::rename(&part, self.path.join(LISTEN_FILE)).map_err(io)
    }

    /// Removes `listen.json`.
    ///
    /// # Errors
    /// [`StateError::Io`]; a file that is not there is fine.
    pub fn forget_listening(&self) -> Result<(), StateError> {
        let path = self.path.join(LISTEN_FILE);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(StateError::Io { path, source })
            }
            _ => Ok(()),
        }
    }
}

/// Looks at the opened folder, so that nobody can swap it between look and use of the name.
fn check_folder(path: &Path) -> Result<(), StateError> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let folder = opened.map_err(|source| match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOTDIR | Errno::ELOOP) => StateError::NotAFolder(path.to_owned()),
        _ => StateError::Io { path: path.to_owned(), source },
    })?;
    let found =
        folder.metadata().map_err(|source| StateError::Io { path: path.to_owned(), source })?;
    let us = nix::unistd::geteuid().as_raw();
    if found.uid() != us {
        return Err(StateError::ForeignOwner { path: path.to_owned(), owner: found.uid(), us });
    }
    match found.mode() & 0o777 {
        mode if mode & 0o077 != 0 => Err(StateError::TooOpen { path: path.to_owned(), mode }),
        _ => Ok(()),
    }
}

fn lock(folder: &Path) -> Result<File, StateError> {
    let path = folder.join("lock");
    let io = |source| StateError::Io { path: path.clone(), source };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StateError::InUse(folder.to_owned())),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn listening() -> Listening {
        Listening {
            ssh: "127.0.0.1:1".parse().unwrap(),
            http: "[::1]:2".parse().unwrap(),
            legacy: None,
            url: "http://[::1]:2".to_owned(),
        }
    }

    #[test]
    fn missing_folders_are_made_closed_to_others() {
        let parent = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(&parent.path().join("a/b")).unwrap();
        assert_eq!(mode(folder.path()), 0o700);
        assert_eq!(mode(&parent.path().join("a")), 0o700);
        assert_eq!(mode(&folder.path().join("lock")), 0o600);
    }

    #[test]
    fn one_backend_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let first = StateFolder::open(&path).unwrap();
        let error = StateFolder::open(&path).unwrap_err();
        assert!(matches!(error, StateError::InUse(_)), "{error}");
        drop(first);
        StateFolder::open(&path).unwrap();
    }

    #[test]
    fn second_backend_leaves_the_first_ones_ports_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let first = StateFolder::open(&path).unwrap();
        first.announce(&listening()).unwrap();
        StateFolder::open(&path).unwrap_err();
        assert!(path.join(LISTEN_FILE).exists());
    }

    #[test]
    fn folder_open_to_others_is_refused_with_the_command_that_helps() {
        let parent = tempfile::tempdir().unwrap();
        for bits in [0o750, 0o701, 0o777] {
            let path = parent.path().join(format!("{bits:o}"));
            std::fs::create_dir(&path).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(bits)).unwrap();
            let error = StateFolder::open(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("chmod 700 {}", path.display())), "{error}");
        }
    }

    #[test]
    fn file_and_link_are_no_folder() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = StateFolder::open(&file).unwrap_err();
        assert!(matches!(error, StateError::NotAFolder(_)), "{error}");
        let link = parent.path().join("link");
        std::fs::create_dir(parent.path().join("target")).unwrap();
        symlink("target", &link).unwrap();
        let error = StateFolder::open(&link).unwrap_err();
        assert!(matches!(error, StateError::NotAFolder(_)), "{error}");
    }

    #[test]
    fn announcement_is_whole_and_a_stale_one_goes() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let folder = StateFolder::open(&path).unwrap();
        folder.announce(&listening()).unwrap();
        folder.announce(&listening()).unwrap();
        let text = std::fs::read_to_string(path.join(LISTEN_FILE)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({
            "ssh": "127.0.0.1:1", "http": "[::1]:2", "legacy": null, "url": "http://[::1]:2",
        });
        assert_eq!(value, expected);
        // Killed: the file stays, the lock goes.
        drop(folder);
        let folder = StateFolder::open(&path).unwrap();
        assert!(!path.join(LISTEN_FILE).exists());
        folder.forget_listening().unwrap();
    }
}
