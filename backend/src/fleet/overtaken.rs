//! An edit that was thought out on a model that others have changed meanwhile: refused, and told what
//! they did, when whoever makes it wants to know.

use std::fmt;

use bastio_protocol::api::utc;

use super::FleetError;
use crate::store::Connection;
use crate::store::revisions::{self, PastEdit};

/// At most so many edits of others are told.
const TOLD: u32 = 5;

/// What others did since the revision that an edit was thought out on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overtaken {
    seen: i64,
    current: i64,
    edits: Vec<PastEdit>,
}

/// Refuses when the model is not at that revision any more.
pub(super) async fn check(db: &mut Connection, seen: i64) -> Result<(), FleetError> {
    let current = revisions::current(db).await?;
    if current == seen {
        return Ok(());
    }
    if seen > current {
        return Err(FleetError::NoSuchRevision(seen));
    }
    let edits = revisions::behind(db, seen, TOLD).await?;
    Err(FleetError::Overtaken(Box::new(Overtaken { seen, current, edits })))
}

impl fmt::Display for Overtaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seen, current, edits } = self;
        write!(f, "the model is at revision {current}, no longer at {seen}: ")?;
        for (number, edit) in edits.iter().enumerate() {
            let PastEdit { revision, actor, at, summary } = edit;
            let between = if number == 0 { "" } else { "; " };
            let actor = actor.as_deref().unwrap_or("somebody");
            write!(f, "{between}{revision} by {actor} at {} UTC: {summary}", utc(*at))?;
        }
        let told = i64::try_from(edits.len()).unwrap_or(i64::MAX);
        match current.saturating_sub(*seen).saturating_sub(told) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests;
