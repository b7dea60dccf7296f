//! An agent says hello: what it tells of itself and of its host is noted, and what follows from it is planned.
//!
//! Most agents come back and say what they said before; that is found out for many of them at once, and writes nothing.
//! This file must not know how hellos come in.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bastio_protocol::api::CLOCK_LIMIT;
use bastio_protocol::{AgentHello, ServerName, VerifyingKey};

use super::{Dispatch, ServerIdentity, queue};
use crate::store::arrivals::{self, Introduced};
use crate::store::{self, Connection, StoreError};

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

    /// Whether nothing is to be noted, as all of it is known.
    fn is_known(&self, known: &Introduced, now: i64) -> bool {
        let said = |told: Option<&str>, known: Option<&str>| told.is_none() || told == known;
        let receipt_key = self.receipt_key.as_ref().map(ToString::to_string);
        known.facts == self.text
            && known.sequence >= self.last_sequence
            && said(self.machine().as_deref(), known.machine.as_deref())
            && said(self.signing_key.as_deref(), known.signing_key.as_deref())
            && said(receipt_key.as_deref(), known.receipt_key.map(|key| key.to_string()).as_deref())
            && self.time.is_none_or(|there| {
                known.clock_offset.is_some_and(|before| {
                    let offset = there.saturating_sub(now);
                    let right = |offset: i64| offset.unsigned_abs() <= CLOCK_LIMIT.unsigned_abs();
                    right(before) && right(offset) && offset.abs_diff(before) <= SAME_CLOCK
                })
            })
    }

    /// The machine that it is on.
    fn machine(&self) -> Option<String> {
        super::doubts::machine(&self.facts)
    }
}

impl Guest {
    /// Takes the hello: nothing of it is known yet, or something has changed.
    pub(super) async fn meet(&self, db: &mut Connection, hello: &Hello) -> Result<Met, StoreError> {
        if let Some(time) = hello.time {
            self.note_clock(db, time).await?;
        }
        if !self.is_the_machine(db, &hello.facts).await? {
            return Ok(Met::Held);
        }
        let (server, key) = (self.server.id, hello.signing_key.as_deref());
        store::servers::met(db, server, &hello.text, key, hello.last_sequence).await?;
        self.label(db, &hello.facts).await?;
        let receipt_key = self.meet_receipt_key(db, hello.receipt_key.as_ref()).await?;
        Ok(Met::Known { receipt_key })
    }
}

/// Takes the hellos of many, in this order.
pub(super) async fn meet_all(
    db: &mut Connection,
    guests: &[&(Guest, Hello)],
    now: i64,
) -> Result<Vec<Met>, StoreError> {
    let servers: Vec<_> = guests.iter().map(|(guest, _)| guest.server.id).collect();
    let known = arrivals::introduced(db, &servers).await?;
    let mut met = Vec::with_capacity(guests.len());
    for (guest, hello) in guests {
        let before = known.get(&guest.server.id).filter(|known| hello.is_known(known, now));
        met.push(match before {
            Some(known) => Met::Known { receipt_key: known.receipt_key },
            None => guest.meet(db, hello).await?,
        });
    }
    Ok(met)
}
