//! What the SSH side asks: whose key is this, what is to be sent, what became of it.
//!
//! Every action goes out at least once and in the order of its server's queue: it is `sent` on
//! the disk before it is handed out, and what was not answered is queued again when the agent
//! comes back. This room must not know SSH or frames.

mod ahead;
mod answers;
mod arrivals;
mod batch;
mod candidate;
mod certain;
mod desk;
mod doubts;
mod facts;
mod fit;
pub(crate) mod healing;
pub(crate) mod later;
mod meeting;
pub(crate) mod mid;
mod nodes;
mod numbers;
mod occasionally;
mod presence;
pub(crate) mod prompt;
pub(crate) mod queue;
mod receipts;
mod requests;
mod session;
mod sparingly;
mod spread;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bastio_protocol::{PublicKey, ServerName};
use thiserror::Error;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinError, JoinSet};

use crate::meters::ActionMeter;
use crate::store::{ServerId, Store, StoreError};
pub use ahead::{Handed, SignedOrder};
use arrivals::Arrival;
use batch::{Given, Slip, Wanted};
use desk::Desk;
use presence::Presence;
pub use session::{FeedbackOutcome, Session};
use sparingly::Sparingly;

/// Longest text of an agent that is logged, in bytes.
const MAX_LOGGED: usize = 1024;
/// Longest SSH identification that is stored (RFC 4253 section 4.2 allows 255 bytes).
const MAX_IDENT: usize = 255;

/// The way from queues to agents and back. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Dispatch {
    store: Store,
    presence: Presence,
    /// What is left to each agent of the audit log.
    drift_rows: Arc<Sparingly>,
    meter: ActionMeter,
    desk: Arc<Desk<Slip, Given>>,
    /// Where keys are looked up.
    logins: Arc<Desk<String, Option<ServerIdentity>>>,
    /// What comes to its end whether or not anybody waits for it.
    tasks: Arc<Mutex<JoinSet<()>>>,
}

/// The server that a key belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerIdentity {
    /// Its number.
    pub id: ServerId,
    /// Its name when the key was looked up.
    pub name: ServerName,
    fingerprint: String,
}

/// What is known about a connection before the first action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// Where it comes from.
    pub address: IpAddr,
    /// The agent's SSH identification.
    pub ident: String,
    /// Whether the agent is held to what the original agent can do.
    pub legacy: bool,
}

/// What the owner of a session is woken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// There may be something to send: call [`Session::handed`] and [`Session::next_payloads`].
    Work,
    /// Something was handed over: call [`Session::handed`].
    Handed,
    /// The channel must be closed.
    End(EndReason),
}

/// Why a session must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The same agent has opened another session.
    TakenOver,
    /// The server was removed.
    Removed,
    /// The agent's key was replaced by another.
    KeyReplaced,
    /// Another machine uses the agent's key, and an operator must decide.
    Contested,
    /// This node cannot reach the database; another one may.
    Adrift,
}

/// Why the SSH side was not served.
#[derive(Debug, Error)]
pub enum DispatchError {
    /// The server was removed, or its key replaced, since the login.
    #[error("the server of this key is not on record any more")]
    NotOnRecord,
    /// Somebody must decide something about the server first; the agent may come back then.
    #[error("somebody must decide about this server first: bastio server show")]
    Held,
    /// Another session of the same agent has begun.
    #[error("another session of this agent has taken over")]
    TakenOver,
    /// The database failed; the session should end and the agent come back.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Looks up many at once; `None` where it failed.
async fn look_up(store: Store, fingerprints: Vec<String>) -> Vec<Option<Option<ServerIdentity>>> {
    let found = async {
        let mut db = store.read().await?;
        arrivals::identify(&mut db, &fingerprints).await
    };
    match found.await {
        Ok(found) => found.into_iter().map(Some).collect(),
        Err(_) => vec![None; fingerprints.len()],
    }
}

fn log_failed(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a task of the dispatch has failed");
    }
}

/// An agent's words made fit for a log.
pub(crate) fn for_people(text: &str) -> String {
    queue::for_people(text, MAX_LOGGED)
}

impl Dispatch {
    /// The dispatch over a store; there must be one only.
    #[must_use]
    pub fn new(store: Store) -> Self {
        let (presence, drift_rows) = (Presence::default(), Arc::default());
        let (desk, logins) = (Arc::default(), Arc::default());
        let (meter, tasks) = (ActionMeter::new(), Arc::default());
        Self { store, presence, drift_rows, meter, desk, logins, tasks }
    }

    /// The server whose agent has this key; `None` means that the login is refused.
    ///
    /// # Errors
    /// [`DispatchError::Store`].
    pub async fn identify(&self, key: &PublicKey) -> Result<Option<ServerIdentity>, DispatchError> {
        let fingerprint = key.fingerprint();
        let worker = || {
            let store = self.store.clone();
            move |all| look_up(store.clone(), all)
        };
        if let Some(found) = self.logins.hand_in(fingerprint.clone(), worker).await {
            return Ok(found);
        }
        let mut db = self.store.read().await?;
        let found = arrivals::identify(&mut db, &[fingerprint]).await?;
        Ok(found.into_iter().flatten().next())
    }

    /// Begins a session: an older one of the same server is told to end, and what was sent and
    /// not answered is queued again, at its old place.
    ///
    /// # Errors
    /// [`DispatchError::NotOnRecord`], [`DispatchError::Held`], [`DispatchError::Store`].
    pub async fn open(
        &self,
        server: &ServerIdentity,
        info: SessionInfo,
    ) -> Result<Session, DispatchError> {
        let arrival = Arrival { server: server.clone(), info };
        // The lease comes with it.
        let slip = Slip { wanted: Wanted::Open(Box::new(arrival.clone())), lease: None };
        if let Some(Given::Opened(opened)) = self.desk.hand_in(slip, || self.worker()).await {
            return *opened;
        }
        let mut tx = self.store.write().await?;
        let opened = arrivals::open(self, &mut tx, &[&arrival]).await?;
        let one = opened.into_iter().next().unwrap_or(Err(DispatchError::NotOnRecord));
        let (session, again) = one?;
        tx.commit().await.map_err(StoreError::from)?;
        arrivals::tell(&session, again);
        self.presence.step();
        Ok(session)
    }

    /// Lets `work` come to its end whether or not anybody waits for it; what comes of it, unless it panics.
    pub(crate) async fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (said, says) = oneshot::channel();
        self.keep(async move {
            // Who does not wait any more does not want to know.
            let _ = said.send(work.await);
        });
        says.await.ok()
    }

    /// Keeps a task until it has ended.
    fn keep(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(ended) = tasks.try_join_next() {
            log_failed(ended);
        }
        tasks.spawn(task);
    }

    /// Waits for what was to come to its end.
    pub(crate) async fn drain(&self) {
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        while let Some(ended) = tasks.join_next().await {
            log_failed(ended);
        }
    }

    /// Who does what many sessions want.
    fn worker(&self) -> impl Fn(Vec<Slip>) -> batch::Work + Send + Sync + use<> {
        let dispatch = self.clone();
        move |all| Box::pin(batch::work(dispatch.clone(), all))
    }

    /// Whether a session of the server is open.
    #[must_use]
    pub fn is_connected(&self, server: ServerId) -> bool {
        self.presence.is_connected(server)
    }

    /// How many servers have a session, on whichever node.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.presence.count()
    }

    /// How long actions take.
    #[must_use]
    pub fn meter(&self) -> &ActionMeter {
        &self.meter
    }

    /// Tells the server's session that something was queued.
    pub fn wake(&self, server: ServerId) {
        self.presence.wake(server);
    }

    /// Lets every session here look for what it could not do before.
    pub fn wake_all(&self) {
        self.presence.wake_all();
    }

    /// Tells the server's session that it has another name now.
    pub fn rename(&self, server: ServerId, name: &ServerName) {
        self.presence.rename(server, name);
    }

    /// Tells the server's session to end.
    pub fn end(&self, server: ServerId, reason: EndReason) {
        self.presence.end(server, reason);
    }

    /// Changes whenever an action took a step or a server came or went.
    #[must_use]
    pub fn steps(&self) -> watch::Receiver<u64> {
        self.presence.steps()
    }

    /// Lets everybody who watches [`Dispatch::steps`] look again.
    pub(crate) fn step(&self) {
        self.presence.step();
    }
}

#[cfg(test)]
impl Dispatch {
    /// As [`Presence::signs_together`].
    pub(crate) fn signs_together(&self, server: ServerId) -> Option<bool> {
        self.presence.signs_together(server)
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod whole_tests;
