//! Which servers have a session now, and how to reach its owner.
//!
//! In memory only; of sessions on other nodes it is what was last read. Every session has a generation: an older one that ends late does not mark
//! the newer one as gone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bastio_protocol::ServerName;
use tokio::sync::watch;

use super::ahead::{Handed, OrderMaker};
use super::{EndReason, Signal};
use crate::store::ServerId;

/// The registry of open sessions. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Presence {
    registry: Arc<Mutex<Registry>>,
    steps: Arc<watch::Sender<u64>>,
}

/// The number of a session; later sessions have larger ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(u64);

#[derive(Debug, Default)]
struct Registry {
    last: u64,
    sessions: HashMap<ServerId, Live>,
    elsewhere: HashSet<ServerId>,
}

/// A session's place here, and its epoch where there are other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) generation: Generation,
    pub(super) epoch: Option<i64>,
}

#[derive(Debug)]
struct Live {
    generation: Generation,
    epoch: Option<i64>,
    mailbox: watch::Sender<Mail>,
    /// How its orders are made, if its agent obeys any.
    orders: Option<OrderMaker>,
    /// So many edits are being written that are to hand something over: until they have, or are given up, nothing is taken
    /// out of the queue, where something newer may be already.
    promised: u32,
    /// Somebody wanted to take something out meanwhile.
    held_back: bool,
    /// What is to be sent, in order, and is on the disk as sent.
    handed: Vec<Handed>,
}

#[derive(Debug, Clone, Default)]
struct Mail {
    work: u64,
    handed: u64,
    end: Option<EndReason>,
    /// The server's name, once it has another than at the login.
    name: Option<ServerName>,
}

/// Where a session's owner waits.
#[derive(Debug)]
pub(super) struct Inbox {
    mail: watch::Receiver<Mail>,
    /// What of it was looked at.
    work: u64,
}

impl Presence {
    /// Registers a new session; one that was there is told that it was taken over.
    pub(super) fn enter(&self, server: ServerId, epoch: Option<i64>) -> (Place, Inbox) {
        let (mailbox, inbox) = watch::channel(Mail::default());
        let mut registry = self.lock();
        registry.last += 1;
        let generation = Generation(registry.last);
        let live = Live::new(generation, epoch, mailbox);
        if let Some(old) = registry.sessions.insert(server, live) {
            old.mailbox.send_modify(|mail| mail.end = Some(EndReason::TakenOver));
        }
        (Place { generation, epoch }, Inbox { mail: inbox, work: 0 })
    }

    /// Strikes a session off, unless a newer one has taken its place; whether it did.
    pub(super) fn leave(&self, server: ServerId, generation: Generation) -> bool {
        let mut registry = self.lock();
        let current = registry.is_current(server, generation);
        if current {
            registry.sessions.remove(&server);
        }
        drop(registry);
        if current {
            self.step();
        }
        current
    }

    /// Whether this is the server's session still.
    pub(super) fn is_current(&self, server: ServerId, generation: Generation) -> bool {
        self.lock().is_current(server, generation)
    }

    /// The agent of that session obeys orders from now on.
    pub(super) fn obeys(&self, server: ServerId, generation: Generation, orders: OrderMaker) {
        if let Some(live) = self.lock().current(server, generation) {
            live.orders = Some(orders);
        }
    }

    /// Of these servers those with a session here whose agent obeys orders.
    pub(super) fn obedient(&self, servers: &BTreeSet<ServerId>) -> BTreeMap<ServerId, Place> {
        let registry = self.lock();
        let place = |server: &ServerId| {
            let live = registry.sessions.get(server).filter(|live| live.orders.is_some())?;
            Some((*server, Place { generation: live.generation, epoch: live.epoch }))
        };
        servers.iter().filter_map(place).collect()
    }

    /// How orders are made for those of these sessions that still are.
    pub(super) fn order_makers(
        &self,
        places: &BTreeMap<ServerId, Place>,
    ) -> HashMap<ServerId, OrderMaker> {
        let mut registry = self.lock();
        let mut maker = |(server, place): (&ServerId, &Place)| {
            Some((*server, registry.current(*server, place.generation)?.orders.clone()?))
        };
        places.iter().filter_map(&mut maker).collect()
    }

    /// Holds back what is queued for these sessions until what is promised is handed over, or given up.
    pub(super) fn promise(&self, places: &BTreeMap<ServerId, Place>) {
        let mut registry = self.lock();
        for (server, place) in places {
            if let Some(live) = registry.current(*server, place.generation) {
                live.promised = live.promised.saturating_add(1);
            }
        }
    }

    /// Hands over to these sessions what was promised. They are told by [`Presence::tell_handed`]. A session that is
    /// over by now needs it no more: whatever follows it finds it on the disk.
    pub(super) fn hand_over(
        &self,
        places: &BTreeMap<ServerId, Place>,
        actions: impl Iterator<Item = (ServerId, Handed)>,
    ) {
        let mut registry = self.lock();
        for (server, action) in actions {
            if let Some(place) = places.get(&server)
                && let Some(live) = registry.current(server, place.generation)
            {
                live.handed.push(action);
            }
        }
        for (server, place) in places {
            if let Some(live) = registry.current(*server, place.generation) {
                live.keep_promise();
            }
        }
    }

    /// Tells a session that something was handed over to it.
    pub(super) fn tell_handed(&self, server: ServerId, generation: Generation) {
        if let Some(live) = self.lock().current(server, generation) {
            live.mailbox.send_modify(|mail| mail.handed += 1);
        }
    }

    /// What was promised to these sessions never comes, as it is not on the disk.
    pub(super) fn take_back(&self, places: &BTreeMap<ServerId, Place>) {
        self.hand_over(places, std::iter::empty());
    }

    /// Whether nothing may be taken out of the queue for that session now; it is told when it may again.
    pub(super) fn holds_back(&self, server: ServerId, generation: Generation) -> bool {
        let mut registry = self.lock();
        let Some(live) = registry.current(server, generation) else { return false };
        live.held_back |= live.promised > 0;
        live.promised > 0
    }

    /// What was handed over to that session since it was asked last; `None` once it is not the server's session any more:
    /// then nobody keeps what was.
    pub(super) fn handed(&self, server: ServerId, generation: Generation) -> Option<Vec<Handed>> {
        let mut registry = self.lock();
        registry.current(server, generation).map(|live| std::mem::take(&mut live.handed))
    }

    pub(super) fn is_connected(&self, server: ServerId) -> bool {
        let registry = self.lock();
        registry.sessions.contains_key(&server) || registry.elsewhere.contains(&server)
    }

    pub(super) fn count(&self) -> usize {
        let registry = self.lock();
        let elsewhere = &registry.elsewhere;
        elsewhere.iter().filter(|server| !registry.sessions.contains_key(server)).count()
            + registry.sessions.len()
    }

    /// Which servers have their session on another node.
    pub(super) fn set_elsewhere(&self, servers: HashSet<ServerId>) {
        self.lock().elsewhere = servers;
    }

    /// Another node has taken the server with that epoch: an older session here is over.
    pub(super) fn lose(&self, server: ServerId, epoch: i64) {
        let older = |live: &Live| live.epoch.is_some_and(|of_live| of_live < epoch);
        self.end_if(server, older, EndReason::TakenOver);
    }

    /// Whether that session is here.
    pub(super) fn has(&self, server: ServerId, epoch: i64) -> bool {
        self.lock().sessions.get(&server).is_some_and(|live| live.epoch == Some(epoch))
    }

    /// Whether another node has the server.
    #[cfg(test)]
    pub(super) fn elsewhere(&self, server: ServerId) -> bool {
        self.lock().elsewhere.contains(&server)
    }

    /// Ends all sessions; how many there were.
    pub(super) fn end_all(&self, reason: EndReason) -> usize {
        let sessions = std::mem::take(&mut self.lock().sessions);
        for live in sessions.values() {
            live.mailbox.send_modify(|mail| mail.end = Some(reason));
        }
        self.step();
        sessions.len()
    }

    pub(super) fn wake(&self, server: ServerId) {
        if let Some(live) = self.lock().sessions.get(&server) {
            live.mailbox.send_modify(|mail| mail.work += 1);
        }
    }

    pub(super) fn wake_all(&self) {
        for live in self.lock().sessions.values() {
            live.mailbox.send_modify(|mail| mail.work += 1);
        }
    }

    pub(super) fn rename(&self, server: ServerId, name: &ServerName) {
        if let Some(live) = self.lock().sessions.get(&server) {
            live.mailbox.send_modify(|mail| mail.name = Some(name.clone()));
        }
    }

    pub(super) fn end(&self, server: ServerId, reason: EndReason) {
        self.end_if(server, |_| true, reason);
    }

    /// Ends that session, unless it is over.
    pub(super) fn end_session(&self, server: ServerId, generation: Generation, reason: EndReason) {
        self.end_if(server, |live| live.generation == generation, reason);
    }

    fn end_if(&self, server: ServerId, is_meant: impl Fn(&Live) -> bool, reason: EndReason) {
        let mut registry = self.lock();
        if !registry.sessions.get(&server).is_some_and(is_meant) {
            return;
        }
        if let Some(live) = registry.sessions.remove(&server) {
            live.mailbox.send_modify(|mail| mail.end = Some(reason));
        }
        drop(registry);
        self.step();
    }

    /// Whether orders of that server are signed together with others; `None` when none are handed over to it.
    #[cfg(test)]
    pub(super) fn signs_together(&self, server: ServerId) -> Option<bool> {
        let registry = self.lock();
        let orders = registry.sessions.get(&server)?.orders.as_ref()?;
        Some(orders.signer.goes_with(&orders.signer))
    }

    pub(super) fn steps(&self) -> watch::Receiver<u64> {
        self.steps.subscribe()
    }

    pub(super) fn step(&self) {
        self.steps.send_modify(|steps| *steps += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn new(generation: Generation, epoch: Option<i64>, mailbox: watch::Sender<Mail>) -> Self {
        let (orders, promised, held_back) = (None, 0, false);
        Self { generation, epoch, mailbox, orders, promised, held_back, handed: Vec::new() }
    }

    fn keep_promise(&mut self) {
        self.promised = self.promised.saturating_sub(1);
        if self.promised == 0 && std::mem::take(&mut self.held_back) {
            self.mailbox.send_modify(|mail| mail.work += 1);
        }
    }
}

impl Registry {
    fn is_current(&self, server: ServerId, generation: Generation) -> bool {
        self.sessions.get(&server).is_some_and(|live| live.generation == generation)
    }

    fn current(&mut self, server: ServerId, generation: Generation) -> Option<&mut Live> {
        self.sessions.get_mut(&server).filter(|live| live.generation == generation)
    }
}

impl Inbox {
    /// Waits for the next signal. Nothing is lost when the wait is given up.
    pub(super) async fn signal(&mut self) -> Signal {
        let alive = self.mail.borrow().end.is_some() || self.mail.changed().await.is_ok();
        let mail = self.mail.borrow_and_update();
        match mail.end {
            Some(reason) => Signal::End(reason),
            None if !alive => Signal::End(EndReason::TakenOver),
            None if std::mem::replace(&mut self.work, mail.work) != mail.work => Signal::Work,
            None => Signal::Handed,
        }
    }

    /// The name that the server was given since the login, if it was.
    pub(super) fn name(&self) -> Option<ServerName> {
        self.mail.borrow().name.clone()
    }
}
