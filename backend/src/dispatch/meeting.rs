//! An agent says hello: what it tells of itself and of its host is noted, and what follows from it is planned.
//!
//! Most agents come back and say what they said before; that is found out for many of them at once, and writes nothing.
//! This file must not know how hellos come in.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bastio_protocol::api::CLOCK_LIMIT;
use bastio_protocol::{AgentHello, ServerName, VerifyingKey};

use super::{Dispatch, ServerIdentity, facts, queue};
use crate::store::arrivals::{self, Introduced, News};
use crate::store::{Connection, ServerId, StoreError};

/// Longest fact that is stored, in bytes.
const MAX_FACT: usize = 256;
/// Highest number of an order that is believed to have been given out: no backend comes near it,
/// and above it there are as many left again.
const MAX_SEQUENCE: i64 = 1 << 62;
/// A clock that is off by so many seconds more or less than before is as it was.
const SAME_CLOCK: u64 = 5;

/// The agent of a server, from where it has come.
#[derive(Debug, Clone)]
pub(super) struct Guest {
    pub(super) dispatch: Dispatch,
    pub(super) server: ServerIdentity,
    pub(super) address: IpAddr,
}

/// What it says, made fit to be stored and shown.
#[derive(Debug, Clone)]
pub(super) struct Hello {
    facts: BTreeMap<String, String>,
    /// The facts as they are stored: JSON.
    text: String,
    /// Fingerprint of the signing key that it obeys.
    signing_key: Option<String>,
    last_sequence: i64,
    receipt_key: Option<VerifyingKey>,
    /// Its clock, in seconds since the Unix epoch.
    time: Option<i64>,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Met {
    /// Its server may be told what to do; its receipts count if they are signed with this key.
    Known { receipt_key: Option<VerifyingKey> },
    /// Somebody must decide something first.
    Held,
}

impl Hello {
    pub(super) fn read(hello: &AgentHello, server: &ServerName) -> Self {
        let facts: BTreeMap<String, String> = hello
            .facts
            .as_map()
            .iter()
            .map(|(name, value)| (name.clone(), queue::for_people(value, MAX_FACT)))
            .collect();
        let mut last_sequence = i64::try_from(hello.last_sequence).unwrap_or(i64::MAX);
        if last_sequence > MAX_SEQUENCE {
            tracing::warn!(%server, last_sequence,
                "the agent claims to have obeyed an order of a number that is never reached");
            last_sequence = 0;
        }
        Self {
            text: serde_json::to_string(&facts).expect("a map of texts always serialises"),
            facts,
            signing_key: hello.signing_key.as_deref().map(|key| queue::for_people(key, MAX_FACT)),
            last_sequence,
            receipt_key: hello.receipt_key,
            time: hello.time,
        }
    }

    /// The highest number of an order that it has obeyed.
    pub(super) fn last_sequence(&self) -> u64 {
        u64::try_from(self.last_sequence).unwrap_or(0)
    }

    /// Whether nothing is to be noted, as all of it is known.
    fn is_known(&self, known: &Introduced, now: i64) -> bool {
        let said = |told: Option<&str>, known: Option<&str>| told.is_none() || told == known;
        known.facts == self.text
            && known.sequence >= self.last_sequence
            && said(self.machine().as_deref(), known.machine.as_deref())
            && said(self.signing_key.as_deref(), known.signing_key.as_deref())
            && self.offset(now).is_none_or(|offset| {
                known.clock_offset.is_some_and(|before| offset.abs_diff(before) <= SAME_CLOCK)
            })
    }

    /// Whether it says something that somebody must be told: a clock that is off or was, another machine or none any
    /// more, another key for receipts.
    fn is_remarkable(&self, known: &Introduced, now: i64) -> bool {
        let is_off = |offset: Option<i64>| {
            offset.is_some_and(|offset| offset.unsigned_abs() > CLOCK_LIMIT.unsigned_abs())
        };
        is_off(self.offset(now))
            || (self.time.is_some() && is_off(known.clock_offset))
            || (known.machine.is_some() && self.machine() != known.machine)
            || (self.receipt_key.is_some() && self.receipt_key != known.receipt_key)
    }

    /// All that it says.
    fn news(&self, server: ServerId, now: i64) -> News<'_> {
        News {
            server,
            facts: &self.text,
            signing_key: self.signing_key.as_deref(),
            sequence: self.last_sequence,
            machine: self.machine(),
            clock_offset: self.offset(now),
        }
    }

    /// How far its clock is ahead, in seconds.
    fn offset(&self, now: i64) -> Option<i64> {
        self.time.map(|there| there.saturating_sub(now))
    }

    /// The machine that it is on.
    fn machine(&self) -> Option<String> {
        super::doubts::machine(&self.facts)
    }
}

impl Guest {
    /// Takes the hello whatever it says.
    pub(super) async fn meet(&self, db: &mut Connection, hello: &Hello) -> Result<Met, StoreError> {
        if let Some(time) = hello.time {
            self.note_clock(db, time).await?;
        }
        if !self.is_the_machine(db, &hello.facts).await? {
            return Ok(Met::Held);
        }
        // Clock and machine are noted above, with what is to be told of them.
        let news = News { machine: None, clock_offset: None, ..hello.news(self.server.id, 0) };
        arrivals::note(db, &[news]).await?;
        facts::label(db, &[(self, &hello.facts)], self.dispatch.store.now()).await?;
        let receipt_key = self.meet_receipt_key(db, hello.receipt_key.as_ref()).await?;
        Ok(Met::Known { receipt_key })
    }
}

/// Takes the hellos of many.
pub(super) async fn meet_all(
    db: &mut Connection,
    guests: &[&(Guest, Hello)],
    now: i64,
) -> Result<Vec<Met>, StoreError> {
    let servers: Vec<_> = guests.iter().map(|(guest, _)| guest.server.id).collect();
    let known = arrivals::introduced(db, &servers).await?;
    let (mut met, mut new) = (Vec::with_capacity(guests.len()), BTreeMap::new());
    for (guest, hello) in guests {
        let server = guest.server.id;
        met.push(match known.get(&server) {
            // Of two that say hello as one server the second is measured against the first.
            _ if new.contains_key(&server) => None,
            Some(known) if !hello.is_remarkable(known, now) => {
                if !hello.is_known(known, now) {
                    new.insert(server, (guest, hello));
                }
                Some(Met::Known { receipt_key: known.receipt_key })
            }
            _ => Some(guest.meet(db, hello).await?),
        });
    }
    let news: Vec<News<'_>> =
        new.iter().map(|(server, (_, hello))| hello.news(*server, now)).collect();
    arrivals::note(db, &news).await?;
    let facts: Vec<_> = new.values().map(|(guest, hello)| (*guest, &hello.facts)).collect();
    facts::label(db, &facts, now).await?;
    let mut all = Vec::with_capacity(met.len());
    for (met, (guest, hello)) in met.into_iter().zip(guests) {
        all.push(match met {
            Some(met) => met,
            None => guest.meet(db, hello).await?,
        });
    }
    Ok(all)
}
