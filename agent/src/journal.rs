//! The journal: what was received, done, and not yet acknowledged survives kill -9 and a loss of power.
//!
//! One append-only file. An action is written down before it is carried out, its feedback after, with one flush, before
//! it leaves the processor; when the backend has the feedback, that is noted, and in time the file is compacted. After a
//! crash, what was begun is carried out again (every action is idempotent) and what was not acknowledged is handed to
//! the next connector.
//!
//! An action that comes again is known by its body, and its stored feedback stands for it. But only where that is true
//! still: actions of one connection come in order, so what comes again behind something later was overtaken by it and is
//! done anew. This room must not know what an action means, nor threads or sockets.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};

use self::file::{Folder, JournalFile};
use self::record::{Digest, Entry, Record, State, Tail, digest_of, replay};

mod file;
pub mod record;

pub use file::JournalError;

/// A journal of at least this many bytes is compacted when most of it is acknowledged.
const COMPACT_AT: u64 = 256 * 1024;

/// Keeps the journal in a folder.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// None while the folder or the journal in it cannot be used; tried again with each action.
    open: Option<Open>,
    /// Whether the file may lack something that `state` has.
    is_behind: bool,
    /// Whether something that was written down is not known any more.
    is_damaged: bool,
    state: State,
    /// The sequence number that the file has.
    written: u64,
    /// The newest entry of each action that is known.
    known: HashMap<Digest, u64>,
    /// Acknowledged on the present line, and carried out before it: their actions may still be on their way again.
    settled: BTreeMap<u64, Digest>,
    /// What the present connector has not confirmed, in order; none for a feedback without an entry.
    handed: VecDeque<Option<Ticket>>,
    /// The highest number that was asked for or given out on the present line.
    front: u64,
    /// The highest number given out.
    last: u64,
}

#[derive(Debug)]
struct Open {
    folder: Folder,
    /// None while it cannot be written.
    file: Option<JournalFile>,
    /// Bytes at which compaction is worth a look.
    compact_at: u64,
    /// Bytes before the action in hand.
    before: u64,
}

/// An entry's number: one action in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

/// What is to be done with an action that came.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// Carry it out; then [`Journal::done`].
    New(Ticket),
    /// It was carried out; this is its feedback.
    Known(Ticket, Vec<u8>),
    /// It was carried out, and the connector has its feedback already.
    Answered,
}

impl Journal {
    /// Opens the journal in a folder, which is made when missing. A journal that cannot be used is no error here:
    /// [`Self::take`] tries again and tells.
    ///
    /// # Errors
    /// [`JournalError::InUse`].
    pub fn open(folder: &Path) -> Result<Self, JournalError> {
        let mut journal = Self {
            path: folder.to_owned(),
            open: None,
            is_behind: false,
            is_damaged: false,
            state: State::default(),
            written: 0,
            known: HashMap::new(),
            settled: BTreeMap::new(),
            handed: VecDeque::new(),
            front: 0,
            last: 0,
        };
        match journal.load() {
            Err(error @ JournalError::InUse(_)) => return Err(error),
            Err(error) => {
                tracing::error!(%error, "no journal: only actions that close access are carried out");
            }
            Ok(()) => {}
        }
        Ok(journal)
    }

    /// What was received and perhaps not carried out, oldest first. To be carried out before anything else.
    #[must_use]
    pub fn unfinished(&self) -> Vec<(Ticket, Vec<u8>)> {
        let unfinished = |(number, entry): (&u64, &Entry)| match entry {
            Entry::Received { body } => Some((Ticket(*number), body.clone())),
            Entry::Done { .. } => None,
        };
        self.state.entries.iter().filter_map(unfinished).collect()
    }

    /// A new connector, which knows nothing yet: every feedback that it must be handed, oldest first.
    pub fn new_connector(&mut self) -> Vec<(Ticket, Vec<u8>)> {
        self.handed.clear();
        self.new_line();
        let answer = |(number, entry): (&u64, &Entry)| match entry {
            Entry::Done { answer, .. } => Some((Ticket(*number), answer.clone())),
            Entry::Received { .. } => None,
        };
        self.state.entries.iter().filter_map(answer).collect()
    }

    /// A new connection to the backend, which begins with what it has no answer to, in order.
    pub fn new_line(&mut self) {
        self.front = 0;
        for (number, digest) in std::mem::take(&mut self.settled) {
            self.forget(number, &digest);
        }
    }

    /// Takes an action as it came. After `Ok(Taken::New)` it is written down, and so many bytes of what follows from it
    /// will fit.
    ///
    /// # Errors
    /// [`JournalError`]: it cannot be written down, or there would be no room for its feedback.
    pub fn take(&mut self, body: &[u8], room: u64) -> Result<Taken, JournalError> {
        self.heal()?;
        let digest = digest_of(body);
        if let Some(taken) = self.take_known(&digest) {
            self.keep_sequence()?;
            return Ok(taken);
        }
        let ticket = self.skip();
        let sequence = self.state.sequence;
        let record = Record::Received { number: ticket.0, sequence, body: body.to_vec() };
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let Some(Open { file: Some(file), before, .. }) = &mut self.open else {
            return Err(closed(&self.path));
        };
        *before = file.len();
        file.reserve(&bytes, room)?;
        file.append(&bytes).inspect_err(|_| self.is_behind = true)?;
        self.written = sequence;
        self.state.apply(record);
        Ok(Taken::New(ticket))
    }

    /// Counts an action that is carried out although it cannot be written down.
    pub fn skip(&mut self) -> Ticket {
        self.last += 1;
        self.front = self.last;
        Ticket(self.last)
    }

    /// The action was carried out, and changed this in the ledger: a revision, and what is new in it. After this its
    /// feedback may leave: it survives everything, or else the log says why not, and it is written down as soon as that
    /// is possible again. Whether it is.
    pub fn done(
        &mut self,
        ticket: Ticket,
        body: &[u8],
        answer: Vec<u8>,
        edits: Option<(u64, Vec<u8>)>,
    ) -> bool {
        let (number, digest) = (ticket.0, digest_of(body));
        self.known.insert(digest, number);
        // First: what was done without its edits could never be known again.
        let edits = edits.map(|(revision, body)| Record::Edits { revision, body });
        let mut bytes = Vec::new();
        for record in edits.into_iter().chain([Record::Done { number, digest, answer }]) {
            record.encode(&mut bytes);
            self.state.apply(record);
        }
        if self.open.as_ref().is_none_or(|open| open.file.is_none()) {
            return false;
        }
        let Err(error) = self.append(&bytes, true) else { return true };
        tracing::error!(%error, "the journal is behind what was done");
        if self.rewrite().is_ok() {
            return true;
        }
        if let Some(Open { file: Some(file), before, .. }) = &mut self.open
            && let Err(error) = file.cut(*before)
        {
            // Else nobody can take it for unfinished after a restart, and do it again behind what follows now.
            tracing::error!(%error, "the journal may name an action as not done that was done");
        }
        false
    }

    /// What the ledger's file may lack, oldest first; none when nobody knows.
    #[must_use]
    pub fn edits(&self) -> Option<&BTreeMap<u64, Vec<u8>>> {
        (self.open.is_some() && !self.is_damaged).then_some(&self.state.edits)
    }

    /// How many bytes of edits wait for the ledger's file.
    #[must_use]
    pub fn edits_held(&self) -> usize {
        self.state.edits.values().map(Vec::len).sum()
    }

    /// The ledger's file has everything up to this revision. Not flushed: what is forgotten twice does no harm.
    pub fn saved(&mut self, revision: u64) {
        if self.state.edits.is_empty() {
            return;
        }
        let mut bytes = Vec::new();
        Record::Saved { revision }.encode(&mut bytes);
        self.state.apply(Record::Saved { revision });
        if let Err(error) = self.append(&bytes, false) {
            tracing::warn!(%error, "the journal still names what the ledger has");
        }
        self.compact();
    }

    /// Returns when the action that was taken survives a loss of power.
    ///
    /// # Errors
    /// [`JournalError`]: it may not.
    pub fn flush(&mut self) -> Result<(), JournalError> {
        self.append(&[], true)
    }

    /// A feedback goes to the connector; of an entry, or of none.
    pub fn hand_over(&mut self, ticket: Option<Ticket>) {
        self.handed.push_back(ticket);
    }

    /// How many feedbacks the connector has not confirmed.
    #[must_use]
    pub fn handed(&self) -> usize {
        self.handed.len()
    }

    /// How many bytes of actions and feedbacks wait for their end.
    #[must_use]
    pub fn held(&self) -> usize {
        self.state.size()
    }

    /// The backend has so many more feedbacks, the oldest of those handed over.
    pub fn delivered(&mut self, count: usize) {
        let count = count.min(self.handed.len());
        let tickets: Vec<Ticket> = self.handed.drain(..count).flatten().collect();
        self.acknowledge(&tickets);
    }

    /// Forgets entries. Not flushed: what is forgotten twice does no harm.
    pub fn acknowledge(&mut self, tickets: &[Ticket]) {
        let mut bytes = Vec::new();
        for &Ticket(number) in tickets {
            let record = Record::Acknowledged { number };
            match self.state.entries.get(&number) {
                Some(Entry::Done { digest, .. }) if number > self.front => {
                    self.settled.insert(number, *digest);
                }
                Some(Entry::Done { digest, .. }) => {
                    let digest = *digest;
                    self.forget(number, &digest);
                }
                Some(Entry::Received { .. }) => {}
                // One of several copies of a feedback.
                None => continue,
            }
            record.encode(&mut bytes);
            self.state.apply(record);
        }
        if bytes.is_empty() {
            return;
        }
        if let Err(error) = self.append(&bytes, false) {
            tracing::warn!(%error, "the journal still names what was acknowledged");
        }
        self.compact();
    }

    /// The highest sequence number of an order that was taken; 0 when there was none. Known also while the journal can
    /// be read and not written.
    ///
    /// # Errors
    /// [`JournalError`]: nobody knows, so no order can be trusted to be new.
    pub fn highest_sequence(&mut self) -> Result<u64, JournalError> {
        if self.open.is_none() {
            self.heal()?;
        }
        Ok(self.state.sequence)
    }

    /// The action that [`Self::take`] is asked about next was ordered under this number. It is written down with that
    /// action, in one record: either the action is carried out after a crash, or its order is still good.
    pub fn record_sequence(&mut self, sequence: u64) {
        self.state.sequence = self.state.sequence.max(sequence);
    }

    /// Writes down the number of an order whose action was known.
    fn keep_sequence(&mut self) -> Result<(), JournalError> {
        let highest = self.state.sequence;
        if highest > self.written {
            let mut bytes = Vec::new();
            Record::Sequence { highest }.encode(&mut bytes);
            self.append(&bytes, true)?;
            self.written = highest;
        }
        Ok(())
    }

    /// Appends to the file, if it is there; after an error it is behind.
    fn append(&mut self, bytes: &[u8], flush: bool) -> Result<(), JournalError> {
        let Some(Open { file: Some(file), .. }) = &mut self.open else { return Ok(()) };
        let appended = file.append(bytes).and_then(|()| if flush { file.flush() } else { Ok(()) });
        appended.inspect_err(|_| self.is_behind = true)
    }

    fn take_known(&mut self, digest: &Digest) -> Option<Taken> {
        let number = *self.known.get(digest)?;
        if number < self.front {
            return None;
        }
        let ticket = Ticket(number);
        let comes_again = number > self.front;
        let taken = match self.state.entries.get(&number) {
            Some(Entry::Done { .. }) if comes_again && self.handed.contains(&Some(ticket)) => {
                Taken::Answered
            }
            Some(Entry::Done { answer, .. }) => Taken::Known(ticket, answer.clone()),
            Some(Entry::Received { .. }) => return None,
            None => {
                self.settled.remove(&number);
                self.known.remove(digest);
                Taken::Answered
            }
        };
        self.front = number;
        Some(taken)
    }

    fn forget(&mut self, number: u64, digest: &Digest) {
        if self.known.get(digest) == Some(&number) {
            self.known.remove(digest);
        }
    }

    /// Opens or repairs what could not be used before.
    fn heal(&mut self) -> Result<(), JournalError> {
        if self.open.is_none() {
            self.load()?;
            self.drop_unfinished();
            // The ledger went on without them.
            if !self.state.edits.is_empty() {
                self.state.apply(Record::Saved { revision: u64::MAX });
                self.is_behind = true;
            }
            tracing::warn!(folder = %self.path.display(), "the journal can be read again");
        }
        if self.is_behind {
            self.rewrite()?;
            tracing::warn!(folder = %self.path.display(), "the journal is whole again");
        }
        Ok(())
    }

    /// Reads the journal and brings its file in line with what it says. When only that fails, the journal is known and
    /// behind.
    fn load(&mut self) -> Result<(), JournalError> {
        let folder = Folder::take(&self.path)?;
        let (bytes, file) = folder.read()?;
        let (state, tail) = replay(&bytes);
        self.is_damaged = matches!(tail, Tail::Damaged { .. });
        for (number, entry) in &state.entries {
            if let Entry::Done { digest, .. } = entry {
                self.known.insert(*digest, *number);
            }
        }
        self.last = self.last.max(state.entries.keys().next_back().copied().unwrap_or(0));
        self.written = state.sequence;
        self.state = state;
        let mended = mend(&folder, file, &bytes, &self.state, tail);
        if mended.is_err() && matches!(tail, Tail::Damaged { .. }) {
            // What is damaged must be set aside before anything is written in its place.
            return mended.map(drop);
        }
        let (file, mended) = mended.map_or_else(|error| (None, Err(error)), |file| (file, Ok(())));
        self.is_behind = file.is_none();
        self.open = Some(Open { folder, file, compact_at: COMPACT_AT, before: 0 });
        if self.is_behind {
            // What cannot be written down as done must not be done again and again.
            self.drop_unfinished();
        }
        mended?;
        self.compact();
        Ok(())
    }

    /// Others may have been carried out since, without a journal: it is too late for these.
    fn drop_unfinished(&mut self) {
        if !self.unfinished().is_empty() {
            self.state.drop_unfinished();
            self.is_behind = true;
        }
    }

    /// Writes the whole state anew.
    fn rewrite(&mut self) -> Result<(), JournalError> {
        let Some(open) = &mut self.open else { return Err(closed(&self.path)) };
        open.file = Some(replace(&open.folder, &self.state)?);
        open.compact_at = COMPACT_AT;
        (self.written, self.is_behind) = (self.state.sequence, false);
        Ok(())
    }

    fn compact(&mut self) {
        let Some(open) = &mut self.open else { return };
        let Some(file) = &open.file else { return };
        let (len, live) = (file.len(), self.state.size() as u64);
        if len < open.compact_at || live * 2 > len {
            return;
        }
        match open.folder.write_aside(&self.state.encode()) {
            Ok(aside) => match open.folder.put_in_place(aside) {
                Ok(file) => (open.file, open.compact_at) = (Some(file), COMPACT_AT),
                Err(error) => {
                    tracing::error!(%error, "the journal was compacted, but perhaps not for good");
                    self.is_behind = true;
                }
            },
            Err(error) => {
                tracing::error!(%error, "the journal cannot be compacted and grows on");
                open.compact_at = len * 2;
            }
        }
    }
}

fn replace(folder: &Folder, state: &State) -> Result<JournalFile, JournalError> {
    folder.put_in_place(folder.write_aside(&state.encode())?)
}

/// Brings the file in line with the state that was read from it; none when it is only for reading.
fn mend(
    folder: &Folder,
    file: Option<JournalFile>,
    bytes: &[u8],
    state: &State,
    tail: Tail,
) -> Result<Option<JournalFile>, JournalError> {
    match (tail, file) {
        (Tail::Torn { good: 0 }, _) => replace(folder, state).map(Some),
        (Tail::Torn { good }, Some(mut file)) => {
            let cut = bytes.len() - good;
            tracing::warn!(bytes = cut, "the journal's last record was never whole: cut off");
            file.cut(good as u64)?;
            Ok(Some(file))
        }
        (Tail::Damaged { good }, Some(_)) => {
            let kept = folder.set_aside(bytes.get(good..).unwrap_or_default())?;
            tracing::error!(
                at = good, kept = %kept.display(),
                "the journal is damaged: what follows was set aside; the backend sends again what has no answer"
            );
            replace(folder, state).map(Some)
        }
        (Tail::Whole, file) => Ok(file),
        (_, None) => Ok(None),
    }
}

fn closed(folder: &Path) -> JournalError {
    let error = std::io::Error::from(std::io::ErrorKind::NotFound);
    JournalError::Io { step: "open", path: folder.to_owned(), error }
}

#[cfg(test)]
mod tests;
