//! The walk along a chain, and what is wrong with it. In one pass and constant memory: what the
//! first row that does not fit means shows in what comes behind it.

use super::{ChainedRow, GENESIS, Head};

/// Which rows ought to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Every row from the first one on.
    Whole,
    /// Those that a filter let through: each is whole, they rise, and neighbours are linked; what is
    /// missing between them cannot be judged.
    Part,
}

/// What is wrong. Numbers are those of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// This row is not as it was written.
    Changed(i64),
    /// These rows are gone.
    Removed {
        /// The first of them.
        first: i64,
        /// The last of them.
        last: i64,
    },
    /// A row stands where another should be, which comes later or (in a part) came before.
    Moved {
        /// The row.
        row: i64,
        /// The one whose place it has.
        place: i64,
    },
    /// This row was put in; `None` when it is no row at all.
    Inserted(Option<i64>),
    /// Linked in itself, but the row of that number is not the one that was known: it, or one
    /// before it, was written anew with all that follow.
    OtherHead(i64),
}

/// A fault, and where in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What.
    pub fault: Fault,
    /// Which row of the file shows it, counted from 1.
    pub position: u64,
}

/// An intact chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Number of the first row.
    pub first: Option<i64>,
    /// The last row.
    pub last: Option<Head>,
    /// How many rows.
    pub rows: u64,
    /// How many rows between the first and the last a filter left out.
    pub left_out: u64,
    /// Whether the row of the head that was known from elsewhere is among them.
    pub known_seen: bool,
}

/// What came of a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every row follows from the row before.
    Intact(Summary),
    /// The first fault.
    Broken(Place),
}

/// A walk along a chain, row by row.
#[derive(Debug)]
pub struct Verifier {
    scope: Scope,
    end: Option<Head>,
    known: Option<Head>,
    first: Option<i64>,
    last: Option<Head>,
    rows: u64,
    left_out: u64,
    known_seen: bool,
    /// The row of a known head is another one, at this position.
    other_head: Option<Place>,
    suspect: Option<Suspect>,
}

/// The first row that does not fit, and what is seen behind it.
#[derive(Debug)]
struct Suspect {
    /// `None` for what is no row.
    row: Option<ChainedRow>,
    whole: bool,
    position: u64,
    /// Whether the row behind is linked to it.
    linked: Option<bool>,
    /// Whether the row that should have been there comes later.
    expected_later: bool,
    /// Whether a row of its number comes once more.
    again: bool,
}

impl Verifier {
    /// Begins. `end` is the head that the export itself names, `known` one that was kept elsewhere.
    #[must_use]
    pub fn new(scope: Scope, end: Option<Head>, known: Option<Head>) -> Self {
        Self {
            scope,
            end,
            known,
            first: None,
            last: None,
            rows: 0,
            left_out: 0,
            known_seen: false,
            other_head: None,
            suspect: None,
        }
    }

    /// Takes the next row; `None` stands for a line that is none.
    pub fn row(&mut self, row: Option<ChainedRow>) {
        self.rows += 1;
        let next = self.next();
        if let Some(suspect) = &mut self.suspect {
            suspect.look_on(row.as_ref(), &next);
            return;
        }
        let whole = row.as_ref().is_some_and(ChainedRow::is_whole);
        match row {
            Some(row) if whole && self.fits(&row, &next) => self.accept(&row, next.id),
            row => {
                let (linked, expected_later, again) = (None, false, false);
                let position = self.rows;
                let suspect = Suspect { row, whole, position, linked, expected_later, again };
                self.suspect = Some(suspect);
            }
        }
    }

    /// What came of it.
    #[must_use]
    pub fn finish(mut self) -> Verdict {
        if let Some(suspect) = self.suspect.take() {
            let fault = self.judge(&suspect);
            return Verdict::Broken(Place { fault, position: suspect.position });
        }
        if let Some(place) = self.other_head.take().or_else(|| self.wrong_end()) {
            return Verdict::Broken(place);
        }
        let Self { first, last, rows, left_out, known_seen, .. } = self;
        Verdict::Intact(Summary { first, last, rows, left_out, known_seen })
    }

    /// Number and previous hash of the row that should come now.
    fn next(&self) -> Head {
        match &self.last {
            Some(last) => Head { id: last.id.saturating_add(1), hash: last.hash.clone() },
            None => Head { id: 1, hash: GENESIS.to_owned() },
        }
    }

    fn fits(&self, row: &ChainedRow, next: &Head) -> bool {
        let beyond_a_gap = self.scope == Scope::Part && row.row.id > next.id;
        beyond_a_gap || is_next(row, next)
    }

    fn accept(&mut self, row: &ChainedRow, next: i64) {
        if self.first.is_some() {
            let gap = row.row.id.saturating_sub(next);
            self.left_out = self.left_out.saturating_add(u64::try_from(gap).unwrap_or(0));
        }
        self.first.get_or_insert(row.row.id);
        let head = row.head();
        for known in [&self.known, &self.end].into_iter().flatten() {
            if known.id == head.id && known.hash != head.hash && self.other_head.is_none() {
                let fault = Fault::OtherHead(head.id);
                self.other_head = Some(Place { fault, position: self.rows });
            }
        }
        self.known_seen |= self.known.as_ref().is_some_and(|known| known.id == head.id);
        self.last = Some(head);
    }

    /// The fault of rows that fit together and do not end where they should.
    fn wrong_end(&self) -> Option<Place> {
        let last = self.last.as_ref().map_or(0, |last| last.id);
        let end = self.end.as_ref().map(|end| end.id);
        let ought = end.max(self.known.as_ref().map(|known| known.id)).unwrap_or(last);
        let fault = if end.is_some_and(|end| last > end) {
            Fault::Inserted(end.map(|end| end.saturating_add(1)))
        } else if self.scope == Scope::Whole && last < ought {
            Fault::Removed { first: last.saturating_add(1), last: ought }
        } else {
            return None;
        };
        Some(Place { fault, position: self.rows })
    }

    fn judge(&self, suspect: &Suspect) -> Fault {
        let next = self.next();
        let at_end = self.end.as_ref().is_some_and(|end| next.id > end.id);
        let Some(ChainedRow { row, prev_hash, .. }) = &suspect.row else {
            // Which row it was a filtered export does not say.
            let inserted = suspect.expected_later || at_end || self.scope == Scope::Part;
            return if inserted { Fault::Inserted(None) } else { Fault::Changed(next.id) };
        };
        let id = row.id;
        let seen = match self.scope {
            Scope::Whole => (1..next.id).contains(&id),
            Scope::Part => id.checked_add(1) == Some(next.id),
        };
        if at_end || (suspect.whole && seen) || (suspect.expected_later && suspect.again) {
            return Fault::Inserted(Some(id));
        }
        match (suspect.whole, suspect.expected_later) {
            (true, true) if id != next.id => Fault::Moved { row: id, place: next.id },
            (_, true) => Fault::Inserted(Some(id)),
            // The row before was changed and its hash with it, unless the next one does not follow
            // from this one either.
            (true, false) if id == next.id && suspect.linked != Some(false) && id > 1 => {
                Fault::Changed(id.saturating_sub(1))
            }
            (true, false) if id > next.id => {
                Fault::Removed { first: next.id, last: id.saturating_sub(1) }
            }
            (true, false) if id < next.id => Fault::Moved { row: id, place: next.id },
            (true, false) => Fault::Changed(id),
            (false, false) if self.scope == Scope::Whole && *prev_hash == next.hash => {
                Fault::Changed(next.id)
            }
            (false, false) => Fault::Changed(id),
        }
    }
}

impl Suspect {
    fn look_on(&mut self, row: Option<&ChainedRow>, expected: &Head) {
        let own = self.row.as_ref();
        let linked = row.zip(own).is_some_and(|(row, own)| row.prev_hash == own.hash);
        self.linked.get_or_insert(linked);
        if let Some(row) = row.filter(|row| row.is_whole()) {
            self.expected_later |= is_next(row, expected);
            self.again |= own.is_some_and(|own| own.row.id == row.row.id);
        }
    }
}

/// Whether the row comes directly behind the one that `next` was made of.
fn is_next(row: &ChainedRow, next: &Head) -> bool {
    row.row.id == next.id && row.prev_hash == next.hash
}
