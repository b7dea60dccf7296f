//! What was changed in the ledger and is not in its file yet, in words that the journal carries. This file must not know
//! the file, nor how the journal keeps what it is told.

use std::sync::Arc;

use bastio_protocol::{Username, WantedAccount};
use serde::{Deserialize, Serialize};

use super::Ledger;

/// More revisions than a journal that nobody can read may have told of.
const UNREAD: u64 = 1 << 32;

/// One change; made twice it does what it does once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Edit {
    /// The account is meant to be this.
    Set { name: Username, wanted: Box<WantedAccount> },
    /// The account is not meant to be.
    Forget { name: Username },
    /// The numeric id belongs to the name.
    Reserve { name: Username, uid: u32 },
}

impl Ledger {
    /// Whether the file lacks something.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Whether it lacks something that [`Self::take_edits`] does not tell: it must be saved now.
    #[must_use]
    pub fn must_save(&self) -> bool {
        self.must_save
    }

    /// How many times it was changed.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.book.revision
    }

    /// The revision and what was changed since this was asked last, if anything. Whoever keeps it may save later.
    pub fn take_edits(&mut self) -> Option<(u64, Vec<u8>)> {
        let edits = std::mem::take(&mut self.edits);
        if edits.is_empty() {
            return None;
        }
        let text = serde_json::to_vec(&edits).expect("names, numbers and texts always serialise");
        Some((self.book.revision, text))
    }

    /// Makes the changes of a revision that [`Self::take_edits`] told, unless the file had them.
    ///
    /// # Errors
    /// When these are no edits: then nobody knows what is meant.
    pub fn redo(&mut self, revision: u64, edits: &[u8]) -> Result<(), serde_json::Error> {
        if revision <= self.book.revision {
            return Ok(());
        }
        for edit in serde_json::from_slice::<Vec<Edit>>(edits)? {
            match edit {
                Edit::Set { name, wanted } => drop(self.book.wanted.insert(name, *wanted)),
                Edit::Forget { name } => drop(self.book.wanted.remove(&name)),
                Edit::Reserve { name, uid } => {
                    Arc::make_mut(&mut self.book.uids).insert(name, uid);
                }
            }
        }
        self.book.revision = revision;
        self.is_behind = true;
        Ok(())
    }

    /// Changes may be missing: what the accounts are meant to be is not known any more, and is learned anew. Ids stay
    /// reserved.
    pub fn doubt(&mut self) {
        self.book.wanted.clear();
        self.book.revision += UNREAD;
        (self.is_behind, self.must_save) = (true, true);
    }

    pub(super) fn edit(&mut self, edit: Edit) {
        self.book.revision += 1;
        self.is_behind = true;
        self.edits.push(edit);
    }

    /// A change that is in no edit.
    pub(super) fn change(&mut self) {
        self.book.revision += 1;
        (self.is_behind, self.must_save) = (true, true);
    }
}
