//! Begins and ends: grants that begin later come into force at their time, and what is over leaves
//! the model at its.
//!
//! So are servers brought back that are to be and did not report anything new ([`super::drift`]).
//!
//! Servers whose agent speaks version 2 end it by themselves, to the second; the end here is for the
//! model, and for what is left of the account there. The begin is the backend's alone.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::clock::{ClockWatch, in_words};
use super::edit::Edit;
use super::grants::{described, logins_of_grant};
use super::users::logins_of;
use super::{Fleet, FleetError};
use crate::audit::{self, Actor, Event};
use crate::dispatch::queue::Scope;
use crate::store::{self, StoreError};

/// Longest sleep: clocks are set now and then, and a sleep does not notice.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// Pause after the database failed.
const PAUSE: Duration = Duration::from_secs(5);

impl Fleet {
    /// Begins and ends what is due, and then everything else at its time, until `stop`.
    pub async fn keep_time(&self, stop: &CancellationToken) {
        let mut clock = ClockWatch::new(self.store.now(), Instant::now());
        loop {
            if let Some(set) = clock.look(self.store.now(), Instant::now()) {
                self.tell_clock(set).await;
            }
            let heal = self.heal_due().await;
            let next = [("grants", self.turn().await), ("drift", heal)].map(|(what, next)| {
                next.unwrap_or_else(|error| {
                    tracing::error!(%error, what, "what was due could not be done in time");
                    Some(self.store.now().saturating_add(1))
                })
            });
            let next = next.into_iter().flatten().min();
            let due = next.map(|next| next.saturating_sub(self.store.now()).max(0).unsigned_abs());
            let sleep = due.map_or(LONGEST_SLEEP, |due| {
                Duration::from_secs(due).clamp(PAUSE / 10, LONGEST_SLEEP)
            });
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.turns.notified() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// Tells that this machine's clock was set: what follows from it happens by itself, and somebody
    /// may wonder why.
    async fn tell_clock(&self, set: i64) {
        let words = in_words(set);
        tracing::error!(seconds = set, "{words}");
        if let Err(error) = self.record_clock(&words).await {
            tracing::error!(%error, "the audit log could not be written");
        }
    }

    async fn record_clock(&self, detail: &str) -> Result<(), StoreError> {
        let mut tx = self.store.write().await?;
        let event = Event { action: "backend.clock", detail, ..Event::default() };
        audit::append(&mut tx, self.store.now(), &Actor::backend(), event).await?;
        Ok(tx.commit().await?)
    }

    /// Begins and ends what is due by now; when the next is due.
    ///
    /// # Errors
    /// [`FleetError::Store`].
    pub async fn turn(&self) -> Result<Option<i64>, FleetError> {
        let now = self.store.now();
        let mut db = self.store.read().await?;
        let next = store::grants::next_turn(&mut db).await?;
        drop(db);
        if next.is_none_or(|next| next > now) {
            return Ok(next);
        }
        let actor = Actor::backend();
        let mut edit = Edit::begin_as(self, &actor).await?;
        edit.nobody_is_asked();
        let mut logins = BTreeSet::new();
        let mut done = Vec::new();
        for grant in store::grants::begin(edit.db(), now).await? {
            logins.extend(logins_of_grant(edit.db(), &grant).await?);
            let detail = format!("{} begins", described(&grant));
            edit.note("grant.begin", grant.holder.user(), None, &detail).await?;
            done.push(format!("grant {} of {} begins", grant.id, grant.holder));
        }
        for grant in store::grants::ended(edit.db(), now).await? {
            logins.extend(logins_of_grant(edit.db(), &grant).await?);
            store::grants::remove(edit.db(), grant.id).await?;
            let detail = format!("{} is over", described(&grant));
            edit.note("grant.end", grant.holder.user(), None, &detail).await?;
            done.push(format!("grant {} of {} is over", grant.id, grant.holder));
        }
        for (user, name, key) in store::users::remove_ended_keys(edit.db(), now).await? {
            edit.note("key.end", Some(&name), None, &format!("{key} is over")).await?;
            logins.extend(logins_of(edit.db(), user, &name).await?);
            done.push(format!("key {key} of {name} is over"));
        }
        edit.commit(&done.join(", "), &Scope::Logins(logins)).await?;
        let mut db = self.store.read().await?;
        Ok(store::grants::next_turn(&mut db).await?)
    }
}

#[cfg(test)]
mod tests;
