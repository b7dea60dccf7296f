//! Owns the sessions of one port: lets dispatch open them, watches for rivals, runs them, says
//! goodbye, and logs how each ended.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bastio_protocol::V2;
use bastio_protocol::api::{Question, QuestionKind};
use bastio_transport::{CloseReason, Link, ServerSession};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Span, debug_span, error, info, warn};

use super::end::End;
use super::rivals::{Fight, PerKey, Rivals};
use super::session::Owner;
use crate::audit::{self, Actor, Event};
use crate::config::RivalPolicy;
use crate::dispatch::{self, Dispatch, DispatchError, EndReason, ServerIdentity, SessionInfo};
use crate::signing::Orders;
use crate::store::questions::{self, Open};
use crate::store::{ServerId, Store, StoreError, leases};

/// An agent that misbehaves, or must wait for a decision, is asked to stay away for this time. The original does not listen.
const PENALTY: Duration = Duration::from_secs(30);

/// What the sessions of one port share.
#[derive(Debug)]
pub(super) struct Host {
    /// Whether the agents are held to what the original can do.
    legacy: bool,
    /// Actions that one agent may have unanswered.
    window: usize,
    answer_within: Duration,
    policy: RivalPolicy,
    dispatch: Dispatch,
    store: Store,
    orders: Orders,
    rivals: SharedRivals,
    stop: CancellationToken,
}

type SharedRivals = Arc<Mutex<Rivals<ServerId>>>;

/// Counts as one session of a server as long as it lives.
struct Ticket {
    rivals: SharedRivals,
    server: ServerId,
    number: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        lock(&self.rivals).left(&self.server, self.number);
    }
}

fn lock(rivals: &SharedRivals) -> MutexGuard<'_, Rivals<ServerId>> {
    rivals.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host {
    pub(super) fn new(
        legacy: bool,
        window: usize,
        (answer_within, policy, per_key): (Duration, RivalPolicy, PerKey),
        (dispatch, store, orders): (Dispatch, Store, Orders),
        stop: CancellationToken,
    ) -> Self {
        let rivals = Arc::new(Mutex::new(Rivals::new(per_key)));
        Self { legacy, window, answer_within, policy, dispatch, store, orders, rivals, stop }
    }

    /// What everything in a session is told under, at level debug: its lines say as much themselves, and thousands of
    /// spans take memory.
    pub(super) fn span(&self, agent: &ServerSession<ServerIdentity>) -> Span {
        debug_span!("session", server = %agent.identity.name, address = %agent.peer)
    }

    /// Owns one session from its login to its end.
    pub(super) async fn own(self: Arc<Self>, agent: Box<ServerSession<ServerIdentity>>) {
        let (server, peer) = (&agent.identity, agent.peer);
        let elsewhere = Box::pin(self.elsewhere(server)).await;
        let now = Instant::now();
        let arrival = lock(&self.rivals).arrived(&server.id, peer.ip(), elsewhere, now);
        let rivals = Arc::clone(&self.rivals);
        let _ticket = Ticket { rivals, server: server.id, number: arrival.ticket };
        if arrival.crowded {
            warn!(server = %server.name, address = %peer, "too many sessions of one agent, this one is refused");
            Box::pin(agent.link.disconnect_with_retry_after(PENALTY)).await;
        } else if !Box::pin(self.tolerates(server, peer.ip(), arrival.fight, arrival.tell)).await {
            Box::pin(agent.link.disconnect_with_retry_after(PENALTY)).await;
        } else if self.waited(arrival.pause).await {
            self.run(agent).await;
        }
    }

    /// From where the agent came that another node serves under the same key, if one does.
    async fn elsewhere(&self, server: &ServerIdentity) -> Option<IpAddr> {
        if !self.store.is_shared() {
            return None;
        }
        let rival = async {
            leases::rival(&mut *self.store.read().await?, server.id, self.store.node()).await
        };
        rival.await.unwrap_or_else(|error: StoreError| {
            warn!(server = %server.name, %error, "whether another node serves the agent is not known");
            None
        })
    }

    /// Holds up who comes back too often. False when the backend stops.
    async fn waited(&self, pause: Duration) -> bool {
        if pause.is_zero() {
            return true;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            () = self.stop.cancelled() => false,
        }
    }

    /// Whether a session may begin although it looks like that of a second machine. Whatever is
    /// decided, it is told.
    async fn tolerates(
        &self,
        server: &ServerIdentity,
        from: IpAddr,
        fight: Option<Fight>,
        tell: bool,
    ) -> bool {
        let Some(fight) = fight else { return true };
        if tell || self.policy == RivalPolicy::Cut {
            self.report(server, from, fight, tell).await;
        }
        match self.policy {
            RivalPolicy::Newest => true,
            RivalPolicy::First => false,
            RivalPolicy::Cut => {
                self.dispatch.end(server.id, EndReason::Contested);
                false
            }
        }
    }

    async fn report(&self, server: &ServerIdentity, from: IpAddr, fight: Fight, tell: bool) {
        let what = match fight {
            Fight::OtherAddress(older) => {
                format!("a session from {from} while one from {older} was open")
            }
            Fight::OtherNode(older) => {
                format!("a session from {from} while one from {older} was open at another node")
            }
            Fight::TooOften => format!("more than 5 take-overs in a minute, the last from {from}"),
        };
        let detail = match self.policy {
            RivalPolicy::Newest => format!("taken over by {what}"),
            RivalPolicy::First => format!("the second was refused: {what}"),
            RivalPolicy::Cut => format!("both were cut: {what}"),
        };
        if tell {
            warn!(
                server = %server.name, detail,
                "do two machines use one agent key? Give each its own: bastio-agent generate-key"
            );
        }
        if let Err(error) = self.record(server, from, &detail, tell).await {
            error!(server = %server.name, %error, "the audit log could not be written");
        }
    }

    async fn record(
        &self,
        server: &ServerIdentity,
        from: IpAddr,
        detail: &str,
        tell: bool,
    ) -> Result<(), StoreError> {
        let mut tx = self.store.write().await?;
        if self.policy == RivalPolicy::Cut {
            // It may be at another node.
            leases::revoke(&mut tx, server.id).await?;
        }
        let (name, since) = (&server.name, self.store.now());
        let (kind, text) = (QuestionKind::Rivals, detail.to_owned());
        let question = Question { kind, holds: self.policy == RivalPolicy::Cut, text, since };
        let open = Open { question, subject: String::new() };
        if questions::ask(&mut tx, server.id, &open).await? || tell {
            let event =
                Event { action: "server.rivals", server: Some(name), detail, ..Event::default() };
            audit::append(&mut tx, since, &Actor::agent(name, from), event).await?;
        }
        Ok(tx.commit().await?)
    }

    /// A session for the agent, unless somebody must decide about its server first.
    async fn open(
        &self,
        identity: &ServerIdentity,
        info: SessionInfo,
        version_2: bool,
    ) -> Result<dispatch::Session, DispatchError> {
        let session = self.dispatch.open(identity, info).await?;
        if version_2 {
            return Ok(session);
        }
        match session.says_no_hello().await {
            Ok(()) => Ok(session),
            Err(error) => {
                session.close().await?;
                Err(error)
            }
        }
    }

    async fn run(&self, agent: Box<ServerSession<ServerIdentity>>) {
        let ServerSession {
            identity,
            peer,
            client_version,
            protocol,
            mut reader,
            writer,
            link,
            ..
        } = *agent;
        let version_2 = !self.legacy && protocol.is_some_and(|protocol| protocol >= V2);
        let info = SessionInfo { address: peer.ip(), ident: client_version, legacy: self.legacy };
        // On the heap, as what the session does later: most of the time it only waits.
        let session = match Box::pin(self.open(&identity, info, version_2)).await {
            Ok(session) => session,
            Err(DispatchError::Held) => {
                info!(server = %identity.name, address = %peer, "the agent waits: somebody must decide");
                Box::pin(link.disconnect_with_retry_after(PENALTY)).await;
                return;
            }
            Err(error) => {
                warn!(server = %identity.name, address = %peer, %error, "no session for the agent");
                Box::pin(link.close()).await;
                return;
            }
        };
        let orders = self.orders.clone();
        let mut owner =
            Owner::new(session, writer, version_2, self.window, self.answer_within, orders);
        let end = owner.run(&mut reader, &self.stop).await;
        // Whoever takes over need not wait for the goodbye.
        Box::pin(owner.close()).await;
        let closed = Box::pin(goodbye(link, &end)).await;
        log_end(&identity, peer, &end, &closed);
    }
}

async fn goodbye(link: Link, end: &End) -> CloseReason {
    match end {
        End::Garbage(_) | End::Late | End::Failed(DispatchError::Held) => {
            link.disconnect_with_retry_after(PENALTY).await
        }
        End::Gone | End::Stopped | End::Dispatch(_) | End::Silent { .. } | End::Failed(_) => {
            link.close().await
        }
    }
}

fn log_end(server: &ServerIdentity, peer: SocketAddr, end: &End, closed: &CloseReason) {
    let server = &server.name;
    match end {
        End::Gone => info!(%server, address = %peer, reason = %closed, "session ended"),
        End::Stopped | End::Dispatch(_) | End::Failed(DispatchError::TakenOver) => {
            info!(%server, address = %peer, reason = %end, "session ended");
        }
        End::Silent { .. } | End::Garbage(_) | End::Late | End::Failed(DispatchError::Held) => {
            warn!(%server, address = %peer, reason = %end, "the agent's session was closed");
        }
        End::Failed(error) => {
            error!(%server, address = %peer, %error, "the agent's session was closed")
        }
    }
}
