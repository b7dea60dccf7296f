//! What goes out as soon as its edit is on the disk: an agent that obeys orders and has nothing else to do is not made to
//! wait for a look at its queue, and its actions are written once, as sent.
//!
//! While an edit is written no session begins and none is taken over. So a session that is found here is the one that
//! must send this, and one that begins later finds it on the disk. Nothing newer may go out before it: from the
//! transaction on until it is handed over nothing is taken out of the queue for that session. This file must not know what
//! is ordered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bastio_protocol::ActionMessage;
use tokio::time::Instant;

use super::ahead::{Handed, SigningAhead, Unsigned};
use super::presence::Place;
use super::{Dispatch, EndReason};
use crate::store::actions;
use crate::store::{self, Connection, ServerId, StoreError};

/// Leases of one query; two values each stay far below the engine's limit of 65535.
const LEASES_AT_ONCE: usize = 5000;

/// The most that a server is handed over at once; what is more is queued.
const MOST: usize = 16;

/// So many sessions are told before others that are ready are let go on: the first answers are taken while the last
/// orders are signed.
const SLICE: usize = 100;

/// How long the last of them may wait for a database that is behind.
const PATIENCE: Duration = Duration::from_millis(800);

/// What is to be handed over once it is on the disk. Dropped before, it never was.
#[derive(Debug)]
pub(crate) struct Prompt {
    dispatch: Dispatch,
    places: BTreeMap<ServerId, Place>,
    messages: Vec<(ServerId, Arc<ActionMessage>)>,
    ahead: Option<SigningAhead>,
    /// How long the last may be told later than the first.
    patience: Duration,
}

/// Sessions that do not know yet that something was handed over to them.
struct Untold {
    dispatch: Dispatch,
    places: std::collections::btree_map::IntoIter<ServerId, Place>,
    /// Until when they may wait for the database.
    until: Instant,
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
        self.presence.promise(&places);
        let messages = messages.into_iter().map(|(server, message)| (server, Arc::new(message)));
        let (dispatch, messages) = (self.clone(), messages.collect());
        let mut prompt = Prompt { dispatch, places, messages, ahead: None, patience: PATIENCE };
        prompt.sign_ahead(now);
        let is_sent = |server| prompt.includes(server);
        actions::enqueue_or_send(tx, &[revision], &prompt.messages, is_sent, now).await?;
        Ok(prompt)
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
        for some in leases.chunks(LEASES_AT_ONCE) {
            for (server, _) in store::leases::not_held(db, some).await? {
                places.remove(&server);
            }
        }
        Ok(places)
    }
}

impl Prompt {
    /// Begins to sign what is to be handed over. A few orders are signed as quickly by their sessions.
    fn sign_ahead(&mut self, now: i64) {
        if self.places.len() <= SLICE {
            return;
        }
        let makers = self.dispatch.presence.order_makers(&self.places);
        let unsigned = |(place, (server, message)): (usize, &(ServerId, Arc<ActionMessage>))| {
            let maker = makers.get(server)?;
            let (number, signer) = (maker.numbers.next()?, maker.signer.clone());
            let server = bastio_protocol::ServerId::from_number(server.0);
            Some(Unsigned { place, server, message: Arc::clone(message), number, signer })
        };
        let orders = self.messages.iter().enumerate().filter_map(unsigned).collect();
        self.ahead = Some(SigningAhead::begin(orders, now));
    }

    /// The actions, with the orders that were signed ahead.
    fn take_actions(&mut self) -> impl Iterator<Item = (ServerId, Handed)> + use<> {
        let signed = self.ahead.take().map(SigningAhead::signed).unwrap_or_default();
        let mut signed = signed.into_iter().peekable();
        let messages = std::mem::take(&mut self.messages).into_iter().enumerate();
        messages.map(move |(place, (server, message))| {
            let order = signed.next_if(|(of, _)| *of == place).map(|(_, order)| order);
            (server, Handed { message, order })
        })
    }

    /// All that is queued or handed over, each server's in order.
    pub(crate) fn messages(&self) -> impl Iterator<Item = (ServerId, &ActionMessage)> {
        self.messages.iter().map(|(server, message)| (*server, &**message))
    }

    /// Whether nothing has to look for what this server is to do.
    pub(crate) fn includes(&self, server: ServerId) -> bool {
        self.places.contains_key(&server)
    }

    /// It takes access away, which waits for nothing.
    pub(crate) fn hurry(&mut self) {
        self.patience = Duration::ZERO;
    }

    /// It is on the disk, and is handed over at once. Many sessions are told so one after the other, in a task that the
    /// dispatch keeps until it has ended; until then they find it when they look.
    pub(crate) fn hand_over(mut self) {
        let (places, actions) = (std::mem::take(&mut self.places), self.take_actions());
        self.dispatch.presence.hand_over(&places, actions);
        let (dispatch, places) = (self.dispatch.clone(), places.into_iter());
        let mut untold = Untold { dispatch, places, until: Instant::now() + self.patience };
        if untold.tell_some(SLICE) {
            self.dispatch.keep(untold.tell_rest());
        }
    }

    /// The database failed when it was to be written. SQLite has not written it then; of PostgreSQL, which may be out of
    /// reach, nobody knows.
    pub(crate) fn has_failed(mut self) {
        if self.dispatch.store.is_shared() {
            for (server, place) in std::mem::take(&mut self.places) {
                self.dispatch.presence.end_session(server, place.generation, EndReason::Adrift);
            }
        }
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        self.dispatch.presence.take_back(&self.places);
    }
}

impl Untold {
    async fn tell_rest(mut self) {
        while self.tell_some(SLICE) {
            tokio::task::yield_now().await;
            // Those told so far are answering: what is sent before the database has caught up waits at its end.
            self.dispatch.desk.has_room(self.until).await;
        }
    }

    /// Tells so many; whether there are more.
    fn tell_some(&mut self, count: usize) -> bool {
        for (server, place) in self.places.by_ref().take(count) {
            self.dispatch.presence.tell_handed(server, place.generation);
        }
        self.places.len() > 0
    }
}

/// Given up, it tells the rest at once.
impl Drop for Untold {
    fn drop(&mut self) {
        self.tell_some(usize::MAX);
    }
}

#[cfg(test)]
mod tests;
