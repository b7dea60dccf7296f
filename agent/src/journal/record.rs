//! What the journal's file holds, as bytes, and what those bytes mean: a header, then records one behind the other.
//! Bytes in, state out; nothing here knows files, time or what an action is.
//!
//! | bytes | what |
//! | --- | --- |
//! | 15 + 1 | `bastio-journal\n` and the format's version, 1; once, at the beginning |
//! | 4 | length of a record's payload (all numbers have their lowest byte first) |
//! | 8 | the first bytes of the SHA-256 over length and payload |
//! | 1 + 8 | payload: the kind, and the entry's number (or the sequence) |
//! | rest | payload: what the kind adds |
//!
//! A record counts as a whole or not at all, so a file that ends anywhere is the state before its last record.

use std::collections::BTreeMap;

use ring::digest::{SHA256, digest};

/// SHA-256 of an action's body: how an action is known again.
pub type Digest = [u8; 32];

/// The first bytes of every journal: its name and the version of its format.
const HEADER: &[u8; 16] = b"bastio-journal\n\x01";
/// Bytes of length and checksum before a payload.
const PREFIX: usize = 4 + CHECKSUM;
const CHECKSUM: usize = 8;
/// Kind and number.
const SHORTEST: usize = 1 + 8;
/// Longest payload, in bytes (4 MiB): four times the largest body that the wire allows.
const LONGEST: usize = 4 * 1024 * 1024;

/// One step in the life of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// It came, and is about to be carried out.
    Received {
        /// The entry's number; rises.
        number: u64,
        /// The highest sequence number of an order so far, which may be this one's; 0 when there was none.
        sequence: u64,
        /// The action, as it crossed the pipe.
        body: Vec<u8>,
    },
    /// It was carried out.
    Done {
        /// The entry's number.
        number: u64,
        /// Of the action's body.
        digest: Digest,
        /// The feedback, as it crosses the pipe.
        answer: Vec<u8>,
    },
    /// The backend has its feedback; it may be forgotten.
    Acknowledged {
        /// The entry's number.
        number: u64,
    },
    /// The highest sequence number of an order so far.
    Sequence {
        /// The number.
        highest: u64,
    },
    /// What an action has changed in the ledger, which is not written down there yet.
    Edits {
        /// The ledger's revision with it; rises.
        revision: u64,
        /// In the ledger's words.
        body: Vec<u8>,
    },
    /// The ledger is written down up to a revision.
    Saved {
        /// The revision.
        revision: u64,
    },
}

/// An action that is not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Received and perhaps carried out; not answered.
    Received {
        /// The action.
        body: Vec<u8>,
    },
    /// Carried out; its feedback must reach the backend.
    Done {
        /// Of the action's body.
        digest: Digest,
        /// The feedback.
        answer: Vec<u8>,
    },
}

/// What all records together say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// By number, which is the order in which they came.
    pub entries: BTreeMap<u64, Entry>,
    /// The highest sequence number of an order; 0 when there was none.
    pub sequence: u64,
    /// What the ledger's file may lack, by its revision.
    pub edits: BTreeMap<u64, Vec<u8>>,
    /// Bytes that the entries take in a file without the forgotten ones.
    live: usize,
}

/// How the bytes end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// With a whole record.
    Whole,
    /// Behind `good` bytes with a record that was never written to its end. To be cut off.
    Torn {
        /// Bytes before it.
        good: usize,
    },
    /// Behind `good` bytes there is no record, and yet records follow: what was written was changed.
    Damaged {
        /// Bytes before the damage; 0 when this is no journal at all, or one of another version.
        good: usize,
    },
}

/// Identifies an action by its body.
#[must_use]
pub fn digest_of(body: &[u8]) -> Digest {
    let mut found = [0; 32];
    found.copy_from_slice(digest(&SHA256, body).as_ref());
    found
}

impl Record {
    /// Appends the record's bytes.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        let (kind, number) = match self {
            Self::Received { number, .. } => (1, *number),
            Self::Done { number, .. } => (2, *number),
            Self::Acknowledged { number } => (3, *number),
            Self::Sequence { highest } => (4, *highest),
            Self::Edits { revision, .. } => (5, *revision),
            Self::Saved { revision } => (6, *revision),
        };
        let mut payload = vec![kind];
        payload.extend(number.to_le_bytes());
        match self {
            Self::Received { sequence, body, .. } => {
                payload.extend(sequence.to_le_bytes());
                payload.extend(body);
            }
            Self::Done { digest, answer, .. } => {
                payload.extend(digest);
                payload.extend(answer);
            }
            Self::Edits { body, .. } => payload.extend(body),
            Self::Acknowledged { .. } | Self::Sequence { .. } | Self::Saved { .. } => {}
        }
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
        bytes.extend(length);
        bytes.extend(checksum(length, &payload));
        bytes.extend(payload);
    }

    /// The record at the beginning of `bytes`, and its length there; `None` when there is no whole and sound one.
    fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (sum, rest) = rest.split_first_chunk::<CHECKSUM>()?;
        let size = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        if !(SHORTEST..=LONGEST).contains(&size) {
            return None;
        }
        let payload = rest.get(..size)?;
        let (&kind, rest) = payload.split_first()?;
        if !(1..=6).contains(&kind) || checksum(*length, payload) != *sum {
            return None;
        }
        let (number, rest) = take_number(rest)?;
        let record = match kind {
            1 => {
                let (sequence, body) = take_number(rest)?;
                Self::Received { number, sequence, body: body.to_vec() }
            }
            2 => {
                let (digest, answer) = rest.split_first_chunk::<32>()?;
                Self::Done { number, digest: *digest, answer: answer.to_vec() }
            }
            3 if rest.is_empty() => Self::Acknowledged { number },
            4 if rest.is_empty() => Self::Sequence { highest: number },
            5 => Self::Edits { revision: number, body: rest.to_vec() },
            6 if rest.is_empty() => Self::Saved { revision: number },
            _ => return None,
        };
        Some((record, PREFIX + size))
    }
}

fn take_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    bytes.split_first_chunk::<8>().map(|(number, rest)| (u64::from_le_bytes(*number), rest))
}

fn checksum(length: [u8; 4], payload: &[u8]) -> [u8; CHECKSUM] {
    let mut context = ring::digest::Context::new(&SHA256);
    context.update(&length);
    context.update(payload);
    let whole = context.finish();
    let mut first = [0; CHECKSUM];
    first.iter_mut().zip(whole.as_ref()).for_each(|(to, from)| *to = *from);
    first
}

impl Entry {
    /// Bytes of the one record that tells of it.
    fn size(&self) -> usize {
        PREFIX
            + SHORTEST
            + match self {
                Self::Received { body } => 8 + body.len(),
                Self::Done { answer, .. } => 32 + answer.len(),
            }
    }
}

impl State {
    /// Takes one more record into account.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Received { number, sequence, body } => {
                self.sequence = self.sequence.max(sequence);
                self.insert(number, Entry::Received { body });
            }
            Record::Done { number, digest, answer } => {
                self.insert(number, Entry::Done { digest, answer });
            }
            Record::Acknowledged { number } => {
                if let Some(entry) = self.entries.remove(&number) {
                    self.live -= entry.size();
                }
            }
            Record::Sequence { highest } => self.sequence = self.sequence.max(highest),
            Record::Edits { revision, body } => {
                self.live += PREFIX + SHORTEST + body.len();
                if let Some(before) = self.edits.insert(revision, body) {
                    self.live -= PREFIX + SHORTEST + before.len();
                }
            }
            Record::Saved { revision } => {
                let newer = self.edits.split_off(&revision.saturating_add(1));
                let saved = std::mem::replace(&mut self.edits, newer);
                self.live -= saved.values().map(|it| PREFIX + SHORTEST + it.len()).sum::<usize>();
            }
        }
    }

    fn insert(&mut self, number: u64, entry: Entry) {
        self.live += entry.size();
        if let Some(before) = self.entries.insert(number, entry) {
            self.live -= before.size();
        }
    }

    /// About how many bytes [`Self::encode`] makes.
    #[must_use]
    pub fn size(&self) -> usize {
        HEADER.len() + PREFIX + SHORTEST + self.live
    }

    /// A whole journal with this state and nothing forgotten in it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.size());
        bytes.extend_from_slice(HEADER);
        if self.sequence > 0 {
            Record::Sequence { highest: self.sequence }.encode(&mut bytes);
        }
        for (&revision, body) in &self.edits {
            Record::Edits { revision, body: body.clone() }.encode(&mut bytes);
        }
        for (&number, entry) in &self.entries {
            let record = match entry.clone() {
                Entry::Received { body } => Record::Received { number, sequence: 0, body },
                Entry::Done { digest, answer } => Record::Done { number, digest, answer },
            };
            record.encode(&mut bytes);
        }
        bytes
    }

    /// Forgets what was received and not done.
    pub fn drop_unfinished(&mut self) {
        let unfinished = |entry: &Entry| matches!(entry, Entry::Received { .. });
        let numbers: Vec<u64> = self
            .entries
            .iter()
            .filter_map(|(number, entry)| unfinished(entry).then_some(*number))
            .collect();
        for number in numbers {
            self.apply(Record::Acknowledged { number });
        }
    }
}

/// Reads a journal. Behind damage only the sequence is believed (it must never go back), and what was received and
/// not done before the damage is dropped: later actions may have followed it, so it must not be done now. Whatever the
/// backend has no answer to, it sends again.
#[must_use]
pub fn replay(bytes: &[u8]) -> (State, Tail) {
    let mut state = State::default();
    let Some(mut rest) = bytes.strip_prefix(HEADER) else {
        let is_torn = HEADER.starts_with(bytes) || bytes.iter().all(|byte| *byte == 0);
        if !is_torn {
            state.sequence = highest_behind(bytes).unwrap_or(0);
        }
        return (state, if is_torn { Tail::Torn { good: 0 } } else { Tail::Damaged { good: 0 } });
    };
    while let Some((record, length)) = Record::decode(rest) {
        state.apply(record);
        rest = rest.get(length..).unwrap_or_default();
    }
    if rest.is_empty() {
        return (state, Tail::Whole);
    }
    let good = bytes.len() - rest.len();
    match highest_behind(rest) {
        None => (state, Tail::Torn { good }),
        Some(sequence) => {
            state.sequence = state.sequence.max(sequence);
            state.drop_unfinished();
            (state, Tail::Damaged { good })
        }
    }
}

/// Looks for records anywhere in what is not sound; the highest sequence among them, `None` when there are none.
fn highest_behind(bytes: &[u8]) -> Option<u64> {
    let mut found = None;
    let mut rest = bytes;
    while !rest.is_empty() {
        let step = match Record::decode(rest) {
            Some((record, length)) => {
                let sequence = match record {
                    Record::Received { sequence, .. } => sequence,
                    Record::Sequence { highest } => highest,
                    Record::Done { .. }
                    | Record::Acknowledged { .. }
                    | Record::Edits { .. }
                    | Record::Saved { .. } => 0,
                };
                found = found.max(Some(sequence));
                length
            }
            None => 1,
        };
        rest = rest.get(step..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn received(number: u64, sequence: u64, body: &str) -> Record {
        Record::Received { number, sequence, body: body.into() }
    }

    fn done(number: u64, body: &str) -> Record {
        let answer = format!("done: {body}").into_bytes();
        Record::Done { number, digest: digest_of(body.as_bytes()), answer }
    }

    fn journal(records: &[Record]) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        records.iter().for_each(|record| record.encode(&mut bytes));
        bytes
    }

    fn fold(records: &[Record]) -> State {
        let mut state = State::default();
        records.iter().cloned().for_each(|record| state.apply(record));
        state
    }

    /// Bytes before each record, and all bytes.
    fn bounds(records: &[Record]) -> Vec<usize> {
        (0..=records.len()).map(|count| journal(&records[..count]).len()).collect()
    }

    #[test]
    fn the_format_stays_as_it_is() {
        let bytes = journal(&[Record::Acknowledged { number: 258 }]);
        let (header, record) = bytes.split_at(16);
        assert_eq!(header, b"bastio-journal\n\x01");
        assert_eq!(record[..4], [9, 0, 0, 0]);
        assert_eq!(record[12..], [3, 2, 1, 0, 0, 0, 0, 0, 0]);
        // printf '\x09\0\0\0\x03\x02\x01\0\0\0\0\0\0' | sha256sum
        assert_eq!(record[4..12], CHECKSUM_OF_THAT);
    }

    const CHECKSUM_OF_THAT: [u8; 8] = [0x32, 0xe3, 0x54, 0x80, 0xa8, 0xa2, 0x60, 0x2c];

    #[test]
    fn each_life_leaves_what_is_still_owed() {
        let ack = |number| Record::Acknowledged { number };
        for (records, numbers, sequence) in [
            (vec![], vec![], 0),
            (vec![received(1, 0, "a")], vec![1], 0),
            (vec![received(1, 0, "a"), done(1, "a")], vec![1], 0),
            (vec![received(1, 7, "a"), done(1, "a"), ack(1)], vec![], 7),
            (vec![received(1, 0, "a"), done(1, "a"), received(2, 0, "b"), ack(1)], vec![2], 0),
            (vec![received(1, 9, "a"), received(2, 3, "b")], vec![1, 2], 9),
            (vec![Record::Sequence { highest: 5 }, ack(77)], vec![], 5),
        ] {
            let (state, tail) = replay(&journal(&records));
            assert_eq!(tail, Tail::Whole);
            assert_eq!(state.entries.keys().copied().collect::<Vec<_>>(), numbers, "{records:?}");
            assert_eq!(state.sequence, sequence, "{records:?}");
        }
    }

    #[test]
    fn what_is_no_journal_is_told_from_one_that_was_just_begun() {
        for (bytes, tail) in [
            (&b""[..], Tail::Torn { good: 0 }),
            (b"bastio-jou", Tail::Torn { good: 0 }),
            (&[0; 4096], Tail::Torn { good: 0 }),
            (b"bastio-journal\n\x02", Tail::Damaged { good: 0 }),
            (b"some text", Tail::Damaged { good: 0 }),
            (b"bastio-journal\n\x01", Tail::Whole),
            (b"bastio-journal\n\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", Tail::Torn { good: 16 }),
        ] {
            assert_eq!(replay(bytes), (State::default(), tail), "{bytes:?}");
        }
    }

    #[test]
    fn damage_never_brings_back_an_old_action_or_an_old_sequence() {
        let records = [
            received(1, 5, "open the door"),
            done(1, "open the door"),
            received(2, 6, "close the door"),
            done(2, "close the door"),
        ];
        let mut bytes = journal(&records);
        let at = bounds(&records)[1] + 20;
        bytes[at] ^= 1;
        let (state, tail) = replay(&bytes);
        assert_eq!(tail, Tail::Damaged { good: bounds(&records)[1] });
        assert!(state.entries.is_empty(), "the door must not be opened again: {state:?}");
        assert_eq!(state.sequence, 6);
    }

    fn records() -> impl Strategy<Value = Vec<Record>> {
        let body = || proptest::collection::vec(any::<u8>(), 0..40);
        let record =
            prop_oneof![
                (1..6_u64, 0..9_u64, body()).prop_map(|(number, sequence, body)| {
                    Record::Received { number, sequence, body }
                }),
                (1..6_u64, any::<Digest>(), body())
                    .prop_map(|(number, digest, answer)| Record::Done { number, digest, answer }),
                (1..6_u64).prop_map(|number| Record::Acknowledged { number }),
                (0..9_u64).prop_map(|highest| Record::Sequence { highest }),
                (1..9_u64, body()).prop_map(|(revision, body)| Record::Edits { revision, body }),
                (0..9_u64).prop_map(|revision| Record::Saved { revision }),
            ];
        proptest::collection::vec(record, 0..12)
    }

    proptest! {
        #[test]
        fn any_prefix_is_the_state_after_its_whole_records(records in records(), cut in 0_usize..600) {
            let bytes = journal(&records);
            let cut = cut.min(bytes.len());
            let (state, tail) = replay(&bytes[..cut]);
            let bounds = bounds(&records);
            let whole = bounds.iter().rposition(|bound| *bound <= cut).unwrap_or(0);
            prop_assert_eq!(&state, &fold(&records[..whole]));
            let expected = match bounds.binary_search(&cut) {
                Ok(_) => Tail::Whole,
                Err(0) => Tail::Torn { good: 0 },
                Err(_) => Tail::Torn { good: bounds[whole] },
            };
            prop_assert_eq!(tail, expected);
        }

        #[test]
        fn any_changed_byte_is_noticed(records in records(), at in any::<prop::sample::Index>(), bits in 1..=255_u8) {
            let mut bytes = journal(&records);
            let at = at.index(bytes.len());
            bytes[at] ^= bits;
            let (state, tail) = replay(&bytes);
            let bounds = bounds(&records);
            let before = bounds.iter().rposition(|bound| *bound <= at);
            match (before, tail) {
                (None, Tail::Damaged { good: 0 } | Tail::Torn { good: 0 }) => {
                    prop_assert!(state.entries.is_empty());
                }
                (Some(before), Tail::Torn { good }) => {
                    prop_assert_eq!(good, bounds[before]);
                    prop_assert_eq!(before + 1, records.len(), "only the last may count as torn");
                    prop_assert_eq!(state, fold(&records[..before]));
                }
                (Some(before), Tail::Damaged { good }) => {
                    prop_assert_eq!(good, bounds[before]);
                    let mut expected = fold(&records[..before]);
                    expected.drop_unfinished();
                    prop_assert_eq!(state.entries, expected.entries);
                }
                (before, tail) => prop_assert!(false, "{:?} {:?}", before, tail),
            }
        }

        #[test]
        fn a_compacted_journal_is_the_same_state(records in records()) {
            let state = fold(&records);
            let bytes = state.encode();
            prop_assert!(bytes.len() <= state.size());
            prop_assert_eq!(replay(&bytes), (state, Tail::Whole));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = replay(&bytes);
            let _ = replay(&[&HEADER[..], &bytes].concat());
        }
    }
}
