//! What goes out as soon as its edit is on the disk: an agent that obeys orders and has nothing else to do is not made to
//! wait for a look at its queue, and its actions are written once, as sent.
//!
//! While an edit is written no session begins and none is taken over. So a session that is found here is the one that
//! must send this, and one that begins later finds it on the disk. This file must not know what is ordered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use bastio_protocol::ActionMessage;

use super::Dispatch;
use super::presence::Place;
use crate::store::actions::{self, Going};
use crate::store::{self, Connection, ServerId, StoreError};

/// The most that a server is handed over at once; what is more is queued.
const MOST: usize = 16;

/// So many sessions are handed something before others that are ready are let go on: the first answers are taken while
/// the last orders are signed.
const SLICE: usize = 100;

/// What is to be handed over once it is on the disk. Dropped before, the sessions see for themselves whether it is.
#[derive(Debug)]
pub(crate) struct Prompt {
    dispatch: Dispatch,
    places: BTreeMap<ServerId, Place>,
    messages: std::vec::IntoIter<(ServerId, ActionMessage)>,
    is_stored: bool,
}

impl Dispatch {
    /// Puts actions at the end of their servers' queues, and lets that revision wait for them; what can be handed over
    /// is on the disk as sent.
    pub(crate) async fn enqueue(
        &self,
        tx: &mut Connection,
        revision: i64,
        messages: Vec<(ServerId, ActionMessage)>,
        now: i64,
    ) -> Result<Prompt, StoreError> {
        let places = self.free(tx, &messages).await?;
        let going = |server: &ServerId| match places.contains_key(server) {
            true => Going::Now,
            false => Going::Later,
        };
        actions::enqueue(tx, &[revision], &messages, going, now).await?;
        let (dispatch, messages) = (self.clone(), messages.into_iter());
        Ok(Prompt { dispatch, places, messages, is_stored: false })
    }

    /// The sessions that have nothing else to do, of those that get something.
    async fn free(
        &self,
        db: &mut Connection,
        messages: &[(ServerId, ActionMessage)],
    ) -> Result<BTreeMap<ServerId, Place>, StoreError> {
        let mut counts = BTreeMap::<ServerId, usize>::new();
        messages.iter().for_each(|(server, _)| *counts.entry(*server).or_default() += 1);
        let few: BTreeSet<ServerId> =
            counts.iter().filter(|(_, count)| **count <= MOST).map(|(server, _)| *server).collect();
        let mut places = self.presence.obedient(&few);
        if places.is_empty() {
            return Ok(places);
        }
        let busy = actions::busy(db).await?;
        places.retain(|server, _| !busy.contains(server));
        let leases = places.iter().filter_map(|(server, place)| Some((*server, place.epoch?)));
        let leases: Vec<(ServerId, i64)> = leases.collect();
        for (server, _) in store::leases::not_held(db, &leases).await? {
            places.remove(&server);
        }
        Ok(places)
    }
}

impl Prompt {
    /// Whether nothing has to look for what this server is to do.
    pub(crate) fn includes(&self, server: ServerId) -> bool {
        self.places.contains_key(&server)
    }

    /// It is on the disk, and is handed over: what is much in a task of its own, which the dispatch keeps until it has
    /// ended.
    pub(crate) fn hand_over(mut self) {
        self.is_stored = true;
        if self.hand_over_some(SLICE) {
            let tasks = Arc::clone(&self.dispatch.handing_over);
            let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
            while tasks.try_join_next().is_some() {}
            tasks.spawn(self.hand_over_rest());
        }
    }

    /// Given up, it does the rest at once.
    async fn hand_over_rest(mut self) {
        while self.hand_over_some(SLICE) {
            tokio::task::yield_now().await;
        }
    }

    /// Hands so many over; whether there are more.
    fn hand_over_some(&mut self, count: usize) -> bool {
        let places = &self.places;
        let orders = self.messages.by_ref().take(count).filter_map(|(server, message)| {
            Some((server, places.get(&server)?.generation, message))
        });
        self.dispatch.presence.hand_over(orders);
        self.messages.len() > 0
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        if self.is_stored {
            self.hand_over_some(usize::MAX);
            return;
        }
        for (server, place) in &self.places {
            self.dispatch.presence.is_unclear(*server, place.generation);
        }
    }
}

#[cfg(test)]
mod tests;
