//! The whole state in one file, and back: what `bastio-backend backup` and `restore` do.
//!
//! A backup is a tar archive: `SHA256SUMS`, the database as one consistent file, and every secret of
//! the state folder. It is made beside a running backend. This file must not know what the database
//! holds; what a restored one must be told is in [`crate::store`]'s room.

mod restore;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bastio_protocol::audit::hex;
use ring::digest::{Context, SHA256};
use thiserror::Error;

use crate::state_folder::{StateError, StateFolder};
use crate::store::{self, StoreError};
pub use restore::{Restored, restore};

/// Sums of all other entries, as sha256sum(1) writes and checks them. The first entry.
const SUMS: &str = "SHA256SUMS";
/// The database in the archive and in the state folder.
const DATABASE: &str = "bastio.db";
/// What is in a state folder and in no backup: the database's own files, and what only a running
/// backend has.
const LEFT_OUT: [&str; 6] =
    ["bastio.db", "bastio.db-wal", "bastio.db-shm", "lock", "listen.json", "listen.json.part"];
/// Largest file of a state folder beside the database, in bytes. They are keys.
const MAX_SECRET: u64 = 1024 * 1024;

/// Why there is no backup, or nothing was restored.
#[derive(Debug, Error)]
pub enum BackupError {
    /// No backend has run with this folder.
    #[error("there is no database in {}\nhint: name the folder with --state", .0.display())]
    NoDatabase(PathBuf),
    /// The database is not in the folder.
    #[error(
        "the database is in PostgreSQL\nhint: back it up with pg_dump, and keep the cluster key \
        (store.cluster_key_file): see docs/operations.md"
    )]
    OnPostgres,
    /// The file is there.
    #[error("{} is there already\nhint: backups are never overwritten; choose another name", .0.display())]
    Exists(PathBuf),
    /// The folder holds a state.
    #[error("{} holds a state already\nhint: it is never overwritten; move it away first: mv {} {}.old",
        .0.display(), .0.display(), .0.display())]
    Occupied(PathBuf),
    /// The file is no backup, or damaged.
    #[error("{path}: {what}\nhint: nothing was restored; take another backup",
        path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The state folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The database cannot be used.
    #[error("the database: {0}")]
    Store(#[from] StoreError),
    /// The file system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What is in a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// The file.
    pub path: PathBuf,
    /// Its length, in bytes.
    pub length: u64,
    /// What it holds, by name.
    pub entries: Vec<String>,
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Io { path, source }
}

/// Writes the state of that folder into a new file that is its owner's alone; a backend may be
/// using the folder. The file appears whole or not at all.
///
/// # Errors
/// [`BackupError`].
pub async fn backup(state: &Path, to: &Path) -> Result<Backup, BackupError> {
    let Some(database) = StateFolder::existing_database(state)? else {
        return Err(BackupError::NoDatabase(state.to_owned()));
    };
    if to.exists() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let part = with_suffix(to, ".part");
    let copy = with_suffix(to, ".db-part");
    let made = make(state, &database, &part, &copy).await;
    let _ = std::fs::remove_file(&copy);
    let entries = made.inspect_err(|_| drop(std::fs::remove_file(&part)))?;
    // A link, so that a file that came meanwhile is not replaced.
    std::fs::hard_link(&part, to).map_err(io_at(to))?;
    std::fs::remove_file(&part).map_err(io_at(&part))?;
    sync_folder(to)?;
    let length = std::fs::metadata(to).map_err(io_at(to))?.len();
    Ok(Backup { path: to.to_owned(), length, entries })
}

async fn make(
    state: &Path,
    database: &Path,
    part: &Path,
    copy: &Path,
) -> Result<Vec<String>, BackupError> {
    let _ = std::fs::remove_file(copy);
    // Made here, so that it is nobody else's from its first byte on.
    drop(create(copy)?);
    store::copy::into(database, copy).await?;
    let mut files = vec![(DATABASE.to_owned(), copy.to_owned())];
    files.extend(secrets(state)?);
    let mut sums = String::new();
    for (name, path) in &files {
        sums.push_str(&format!("{}  {name}\n", sum(path)?));
    }
    let _ = std::fs::remove_file(part);
    let mut archive = tar::Builder::new(create(part)?);
    append(&mut archive, SUMS, sums.len() as u64, sums.as_bytes()).map_err(io_at(part))?;
    for (name, path) in &files {
        let file = File::open(path).map_err(io_at(path))?;
        let length = file.metadata().map_err(io_at(path))?.len();
        append(&mut archive, name, length, file.take(length)).map_err(io_at(part))?;
    }
    let file = archive.into_inner().map_err(io_at(part))?;
    file.sync_all().map_err(io_at(part))?;
    Ok(files.into_iter().map(|(name, _)| name).collect())
}

fn append(
    archive: &mut tar::Builder<File>,
    name: &str,
    length: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(length);
    header.set_mode(0o600);
    header.set_entry_type(tar::EntryType::Regular);
    archive.append_data(&mut header, name, content)
}

/// Every other file of the folder, by name.
fn secrets(state: &Path) -> Result<Vec<(String, PathBuf)>, BackupError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(state).map_err(io_at(state))? {
        let entry = entry.map_err(io_at(state))?;
        let kind = entry.file_type().map_err(io_at(&entry.path()))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let is_ours = kind.is_file() && is_name(&name) && !LEFT_OUT.contains(&name.as_str());
        let length = entry.metadata().map_err(io_at(&entry.path()))?.len();
        if is_ours && length <= MAX_SECRET {
            files.push((name, entry.path()));
        }
    }
    files.sort();
    Ok(files)
}

/// A name of a file that a state folder has: no folder in it, nothing hidden.
fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.is_empty() && name.len() <= 100 && !name.starts_with('.') && name.chars().all(good)
}

fn create(path: &Path) -> Result<File, BackupError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map_err(io_at(path))
}

fn sum(path: &Path) -> Result<String, BackupError> {
    let mut file = File::open(path).map_err(io_at(path))?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer).map_err(io_at(path))? {
            0 => return Ok(hex(context.finish().as_ref())),
            length => context.update(buffer.get(..length).unwrap_or_default()),
        }
    }
}

fn sync_folder(of: &Path) -> Result<(), BackupError> {
    let folder = of.parent().filter(|it| !it.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_at(folder))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Writes a text into a new file of its owner's.
fn write(path: &Path, mut content: impl Read) -> Result<(), BackupError> {
    let mut file = create(path)?;
    io::copy(&mut content, &mut file).map_err(io_at(path))?;
    file.flush().and_then(|()| file.sync_all()).map_err(io_at(path))
}

#[cfg(test)]
mod tests;
