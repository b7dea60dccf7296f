//! Back from a backup: everything is looked at before anything is put in place, and no state that is
//! there is ever touched.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{BackupError, DATABASE, MAX_SECRET, SUMS, io_at, is_name, sum, sync_folder, write};
use crate::state_folder::StateFolder;
use crate::store::copy::{self, Aftermath};

/// Longest list of sums, in bytes.
const MAX_SUMS: u64 = 64 * 1024;
/// Where entries lie until all are known to be good, in the state folder.
const PART: &str = "restore.part";

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The state folder.
    pub state: PathBuf,
    /// What was put into it, by name.
    pub entries: Vec<String>,
    /// What the database was told.
    pub aftermath: Aftermath,
}

/// Makes a state folder of a backup: whole or not at all. A folder that holds a state, or is in use,
/// is refused.
///
/// # Errors
/// [`BackupError`].
pub async fn restore(from: &Path, state: &Path, now: i64) -> Result<Restored, BackupError> {
    if StateFolder::existing_database(state)?.is_some() {
        return Err(BackupError::Occupied(state.to_owned()));
    }
    let folder = StateFolder::open(state)?;
    let part = folder.path().join(PART);
    let _ = std::fs::remove_dir_all(&part);
    std::fs::create_dir(&part).map_err(io_at(&part))?;
    let put = put(from, &folder, &part, now).await;
    let _ = std::fs::remove_dir_all(&part);
    let (entries, aftermath) = put?;
    sync_folder(&folder.database())?;
    Ok(Restored { state: folder.path().to_owned(), entries, aftermath })
}

async fn put(
    from: &Path,
    folder: &StateFolder,
    part: &Path,
    now: i64,
) -> Result<(Vec<String>, Aftermath), BackupError> {
    let names = unpack(from, part)?;
    let damaged = |what: String| BackupError::Damaged { path: from.to_owned(), what };
    let occupied = names.iter().find(|name| folder.path().join(name).exists());
    if let Some(name) = occupied {
        return Err(BackupError::Occupied(folder.path().join(name)));
    }
    let database = part.join(DATABASE);
    if let Some(fault) = copy::fault(&database).await? {
        return Err(damaged(format!("its database is damaged: {fault}")));
    }
    let aftermath = copy::restored(&database, now).await?;
    // The database last: without it there is no state.
    let secrets = names.iter().filter(|name| *name != DATABASE);
    for name in secrets.map(String::as_str).chain([DATABASE]) {
        let to = folder.path().join(name);
        std::fs::rename(part.join(name), &to).map_err(io_at(&to))?;
    }
    Ok((names, aftermath))
}

/// Unpacks what the sums name, and looks whether all of it is there as it was; the names.
fn unpack(from: &Path, part: &Path) -> Result<Vec<String>, BackupError> {
    let damaged = |what: String| BackupError::Damaged { path: from.to_owned(), what };
    let no_backup = || damaged("this is no backup of bastio-backend".to_owned());
    let mut archive = tar::Archive::new(File::open(from).map_err(io_at(from))?);
    let mut sums = None::<BTreeMap<String, String>>;
    for entry in archive.entries().map_err(io_at(from))? {
        let mut entry = entry.map_err(|error| damaged(error.to_string()))?;
        let name = entry.path().ok().and_then(|path| path.to_str().map(str::to_owned));
        let name = name.filter(|name| is_name(name)).ok_or_else(no_backup)?;
        match &mut sums {
            None if name == SUMS => {
                let mut text = String::new();
                let read = entry.by_ref().take(MAX_SUMS).read_to_string(&mut text);
                read.map_err(|_| no_backup())?;
                sums = Some(parse(&text).ok_or_else(no_backup)?);
            }
            None => return Err(no_backup()),
            Some(known) if known.contains_key(&name) => {
                let is_large = name != DATABASE && entry.size() > MAX_SECRET;
                if is_large || !entry.header().entry_type().is_file() {
                    return Err(damaged(format!("{name} is not what a backup has")));
                }
                write(&part.join(&name), &mut entry)?;
            }
            Some(_) => return Err(damaged(format!("{name} is not among its sums"))),
        }
    }
    let sums = sums.ok_or_else(no_backup)?;
    for (name, expected) in &sums {
        let path = part.join(name);
        if !path.is_file() {
            return Err(damaged(format!("{name} is missing: the file was cut")));
        }
        if sum(&path)? != *expected {
            return Err(damaged(format!("{name} was changed: its sum is another")));
        }
    }
    Ok(sums.into_keys().collect())
}

/// `SUM  NAME`, each with its newline; the database among them.
fn parse(text: &str) -> Option<BTreeMap<String, String>> {
    let line = |line: &str| {
        let (sum, name) = line.split_once("  ")?;
        let good = sum.len() == 64 && is_name(name) && name != SUMS;
        good.then(|| (name.to_owned(), sum.to_owned()))
    };
    let sums: BTreeMap<String, String> = text.lines().map(line).collect::<Option<_>>()?;
    sums.contains_key(DATABASE).then_some(sums)
}
