//! What a node does beside others on one database: says that it is alive, hears what they have
//! written, and lets go of what they have taken over.
//!
//! Hints come within milliseconds and may get lost; the look every five seconds is what counts.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Dispatch, EndReason};
use crate::store::hints::Hints;
use crate::store::{ServerId, StoreError, leases};

/// How often everything is looked at, hint or not.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often a node says that it is alive.
const BEAT_EVERY: Duration = Duration::from_secs(3);
/// How long a node that cannot say so keeps its sessions: as long as others take it for alive.
const ADRIFT_AFTER: Duration = Duration::from_secs(leases::ALIVE_FOR.unsigned_abs());
/// Hints that come closer together are one.
const PAUSE: Duration = Duration::from_millis(100);

/// Numbers of what was queued last when somebody looked.
type Seen = (i64, i64);

impl Dispatch {
    /// Keeps this node's place among the others until `stop`. Only where there may be others.
    pub async fn keep_leases(&self, stop: &CancellationToken) {
        if !self.store.is_shared() {
            return stop.cancelled().await;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.beat() => {}
            () = self.follow() => {}
        }
        if let Err(error) = leases::leave(&self.store, self.store.node()).await {
            tracing::warn!(%error, "other nodes take this one for alive a few seconds longer");
        }
    }

    async fn beat(&self) {
        let mut alive = Instant::now();
        loop {
            let beat = leases::beat(&self.store, self.store.node());
            match tokio::time::timeout(BEAT_EVERY, beat).await {
                Ok(Ok(())) => alive = Instant::now(),
                Ok(Err(error)) => tracing::warn!(%error, "the database does not hear this node"),
                Err(_) => tracing::warn!("the database is too slow to hear this node"),
            }
            if alive.elapsed() >= ADRIFT_AFTER {
                let ended = self.presence.end_all(EndReason::Adrift);
                if ended > 0 {
                    tracing::error!(
                        ended,
                        "the database is out of reach: agents are sent to other nodes"
                    );
                }
            }
            sleep(BEAT_EVERY).await;
        }
    }

    async fn follow(&self) {
        let (mut hints, mut seen) = (None, (0, 0));
        loop {
            let hinted = match &mut hints {
                Some(listening) => Hints::next(listening, LOOK_EVERY).await,
                None => {
                    let listening = Hints::of(&self.store).await;
                    listening.map(|listening| hints = listening).map(|()| false)
                }
            };
            let hinted = hinted.unwrap_or_else(|error| {
                tracing::warn!(%error, "no hints from other nodes; they are looked for every 5 s");
                hints = None;
                false
            });
            let since = if hinted { seen } else { (0, 0) };
            match self.look(since).await {
                Ok(upto) => seen = upto,
                Err(error) => tracing::warn!(%error, "what other nodes have done cannot be read"),
            }
            sleep(if hints.is_some() { PAUSE } else { LOOK_EVERY }).await;
        }
    }

    /// Looks what others have done: what they have taken over, and what they have queued for servers
    /// of this node.
    async fn look(&self, since: Seen) -> Result<Seen, StoreError> {
        let node = self.store.node();
        let mut db = self.store.read().await?;
        for (server, epoch) in leases::lost(&mut db, node).await? {
            self.presence.lose(server, epoch);
        }
        let elsewhere: HashSet<_> = leases::elsewhere(&mut db, node).await?.into_iter().collect();
        let (servers, upto) = leases::waiting(&mut db, node, since).await?;
        let mine = if since == (0, 0) { leases::mine(&mut db, node).await? } else { Vec::new() };
        drop(db);
        self.give_back(&mine).await?;
        self.presence.set_elsewhere(elsewhere);
        for server in servers {
            self.presence.wake(server);
        }
        self.presence.step();
        self.store.tell();
        Ok(upto)
    }

    /// Gives back what this node holds for sessions that ended while the database was out of reach.
    async fn give_back(&self, mine: &[(ServerId, i64)]) -> Result<(), StoreError> {
        for (server, epoch) in mine {
            if !self.presence.has(*server, *epoch) {
                let mut tx = self.store.write().await?;
                leases::release(&mut tx, *server, *epoch).await?;
                tx.commit().await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod on_postgres;
