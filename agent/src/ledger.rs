//! The ledger: what bastio means each managed account of this server to be, which numeric ids belong to whom, and
//! what brings a guarded change back. Drift and the timers are worked out from it.
//!
//! One JSON file of root's in the state folder, replaced as a whole or not at all. A ledger that cannot be read is set
//! aside, loudly, and a new one begun: accounts go on as they are. This file must not know how an account is looked at
//! or changed.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bastio_protocol::{Username, WantedAccount, WantedState};
use nix::fcntl::OFlag;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::files::replace_secret;
use crate::guard::Pending;

mod edit;

use edit::Edit;

/// The file's name in the state folder.
const NAME: &str = "ledger.json";
/// The form of the file that this program writes and reads.
const FORM: u32 = 1;
/// Most bytes of the file: a wire message of the whole state has at most 1 MiB.
const LIMIT: u64 = 16 * 1024 * 1024;

/// The ledger of one server.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    book: Book,
    /// Size of the file as it was read or written last, in bytes.
    file_len: usize,
    /// Whether the file may lack something that `book` has.
    is_behind: bool,
    /// Whether one of the changes that the file lacks is in no edit.
    must_save: bool,
    /// What was changed and not told by [`Self::take_edits`].
    edits: Vec<Edit>,
    fate: Fate,
}

/// What was found in place of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// A ledger, or nothing.
    Good,
    /// Damage, which was set aside.
    Lost,
    /// Damage, which is still there.
    InTheWay,
}

/// Why the ledger was not changed or not written down.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The numeric id belongs to somebody else.
    #[error("the uid {uid} belongs to {owner} here; choose another")]
    UidTaken {
        /// The id.
        uid: u32,
        /// Its owner.
        owner: Username,
    },
    /// It cannot be written; what is in memory stands, and the next [`Ledger::save`] writes all of it.
    #[error("cannot write {}: {source}{hint}", path.display(), hint = hint(source))]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It would be larger than any that is read.
    #[error("{}: {len} bytes are more than {LIMIT}; remove accounts", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size, in bytes.
        len: u64,
    },
}

/// Why the file is no ledger.
#[derive(Debug, Error)]
enum Damage {
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("no file of at most {LIMIT} bytes")]
    NoFile,
    #[error("form {0}, which this program does not know")]
    Form(u32),
}

/// What is in the file.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Book {
    form: u32,
    /// How many times it was changed.
    #[serde(default)]
    revision: u64,
    wanted: BTreeMap<Username, WantedAccount>,
    /// Shared with whoever works by it: they are many, and few change.
    #[serde(serialize_with = "write_shared", deserialize_with = "read_shared")]
    uids: Arc<BTreeMap<Username, u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    guard: Option<Pending>,
}

impl Ledger {
    /// Opens the ledger in the state folder; an empty one when there is none, or when it is damaged.
    #[must_use]
    pub fn open(state: &Path) -> Self {
        let path = state.join(NAME);
        // A disk that fails once is no damage: what is set aside is learned anew only in part.
        let found = match read(&path) {
            Err(Damage::Unreadable(_)) => read(&path),
            found => found,
        };
        let ((book, file_len), fate) = match found {
            Ok(found) => (found, Fate::Good),
            Err(damage) => ((Book::default(), 0), set_aside(&path, &damage)),
        };
        Self { path, book, file_len, is_behind: false, must_save: false, edits: Vec::new(), fate }
    }

    /// Whether a damaged ledger was found: what it held is not known, so ids in use must be reserved anew.
    #[must_use]
    pub fn was_lost(&self) -> bool {
        self.fate != Fate::Good
    }

    /// Size of the file as it was read or written last, in bytes: what the next [`Self::save`] writes about.
    #[must_use]
    pub fn file_len(&self) -> usize {
        self.file_len
    }

    /// What each account is meant to be. A managed account that is not in it was made before there was a ledger, or
    /// the ledger was lost.
    #[must_use]
    pub fn wanted(&self) -> &BTreeMap<Username, WantedAccount> {
        &self.book.wanted
    }

    /// This account is meant to be so from now on.
    pub fn set(&mut self, name: Username, wanted: WantedAccount) {
        if self.book.wanted.get(&name) != Some(&wanted) {
            self.edit(Edit::Set { name: name.clone(), wanted: Box::new(wanted.clone()) });
            self.book.wanted.insert(name, wanted);
        }
    }

    /// This account is no longer meant to be. Its numeric id stays reserved.
    pub fn forget(&mut self, name: &Username) {
        if self.book.wanted.remove(name).is_some() {
            self.edit(Edit::Forget { name: name.clone() });
        }
    }

    /// The whole server is meant to be so from now on. Reservations are added; an id that belongs to somebody else
    /// here stays theirs, which is logged.
    pub fn replace(&mut self, state: &WantedState) {
        if self.book.wanted != state.accounts {
            self.book.wanted.clone_from(&state.accounts);
            self.change();
        }
        for (name, uid) in &state.reserved_uids {
            if let Err(error) = self.reserve(name.clone(), *uid) {
                tracing::warn!(%name, %error, "a reservation is not taken over");
            }
        }
    }

    /// The numeric id belongs to that name from now on, whether there is an account or not. An id that the name had
    /// before is free again.
    ///
    /// # Errors
    /// [`LedgerError::UidTaken`] when it belongs to another name.
    pub fn reserve(&mut self, name: Username, uid: u32) -> Result<(), LedgerError> {
        match self.owner_of(uid) {
            Some(owner) if *owner == name => Ok(()),
            Some(owner) => Err(LedgerError::UidTaken { uid, owner: owner.clone() }),
            None => {
                self.edit(Edit::Reserve { name: name.clone(), uid });
                Arc::make_mut(&mut self.book.uids).insert(name, uid);
                Ok(())
            }
        }
    }

    /// The numeric id that belongs to a name.
    #[must_use]
    pub fn uid_of(&self, name: &Username) -> Option<u32> {
        self.book.uids.get(name).copied()
    }

    /// Every numeric id that belongs to a name.
    #[must_use]
    pub fn uids(&self) -> &Arc<BTreeMap<Username, u32>> {
        &self.book.uids
    }

    /// Whose the numeric id is.
    #[must_use]
    pub fn owner_of(&self, uid: u32) -> Option<&Username> {
        self.book.uids.iter().find_map(|(name, owned)| (*owned == uid).then_some(name))
    }

    /// What brings back what was before a change that is not confirmed yet.
    #[must_use]
    pub fn guard(&self) -> Option<&Pending> {
        self.book.guard.as_ref()
    }

    /// A change is made that must be confirmed; none: there is no such change any more.
    pub fn set_guard(&mut self, guard: Option<Pending>) {
        if self.book.guard != guard {
            self.book.guard = guard;
            self.change();
        }
    }

    /// Writes down what has changed; returns when it survives a loss of power.
    ///
    /// # Errors
    /// [`LedgerError::Unwritable`] or [`LedgerError::TooLarge`]; the file is as it was or as it should be.
    pub fn save(&mut self) -> Result<(), LedgerError> {
        if !self.is_behind {
            return Ok(());
        }
        let path = self.path.clone();
        self.book.form = FORM;
        let text = serde_json::to_vec(&self.book).map_err(io::Error::from);
        let text = text.map_err(|source| LedgerError::Unwritable { path: path.clone(), source })?;
        let file_len = text.len();
        if file_len as u64 > LIMIT {
            return Err(LedgerError::TooLarge { path, len: file_len as u64 });
        }
        if self.fate == Fate::InTheWay {
            let moved = move_away(&path);
            moved.map_err(|source| LedgerError::Unwritable { path: path.clone(), source })?;
            self.fate = Fate::Lost;
        }
        replace_secret(&path, &text).map_err(|source| LedgerError::Unwritable { path, source })?;
        (self.is_behind, self.must_save, self.file_len) = (false, false, file_len);
        self.edits.clear();
        Ok(())
    }
}

fn write_shared<T: Serialize, S: Serializer>(it: &Arc<T>, to: S) -> Result<S::Ok, S::Error> {
    it.as_ref().serialize(to)
}

fn read_shared<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> Result<Arc<T>, D::Error> {
    T::deserialize(from).map(Arc::new)
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; free some space and try again",
        ErrorKind::ReadOnlyFilesystem => "; make it writable (mount -o remount,rw) and try again",
        _ => "",
    }
}

/// The ledger in the file, and its size in bytes.
fn read(path: &Path) -> Result<(Book, usize), Damage> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((Book::default(), 0)),
        opened => opened?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > LIMIT {
        return Err(Damage::NoFile);
    }
    let mut text = Vec::new();
    file.take(LIMIT).read_to_end(&mut text)?;
    let book: Book = serde_json::from_slice(&text)?;
    if book.form == FORM { Ok((book, text.len())) } else { Err(Damage::Form(book.form)) }
}

/// Keeps what is no ledger, for people to look at.
fn set_aside(path: &Path, damage: &Damage) -> Fate {
    match move_away(path) {
        Ok(kept) => {
            tracing::error!(
                path = %path.display(), kept = %kept.display(), %damage,
                "the ledger is damaged: it was set aside, and what the accounts are meant to be is learned anew"
            );
            Fate::Lost
        }
        Err(error) => {
            tracing::error!(
                path = %path.display(), %damage, %error,
                "the ledger is damaged and cannot be set aside: nothing is written down until it can"
            );
            Fate::InTheWay
        }
    }
}

fn move_away(path: &Path) -> io::Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let kept = path.with_file_name(format!("{NAME}.damaged-{now}"));
    match fs::rename(path, &kept) {
        // Somebody has taken it away meanwhile.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(kept),
        renamed => renamed?,
    }
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(kept)
}

#[cfg(test)]
mod tests;
