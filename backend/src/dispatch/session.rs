//! One agent's session: hands out its server's queue and takes the answers.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bastio_protocol::api::ActionState;
use bastio_protocol::{
    ActionMessage, AgentHello, BackendHello, FeedbackMessage, Payload, V2, VerifyingKey,
};
use tokio::time::Instant;

use super::ahead::{Handed, OrderMaker};
use super::batch::{Answer, Given, HandOut, Slip, Wanted};
use super::fit::{for_original_agent, for_version_1};
use super::meeting::{Guest, Hello, Met};
use super::numbers::{self, Numbers};
use super::occasionally::Occasionally;
use super::presence::{Inbox, Place};
use super::requests::SILENCE;
use super::{Dispatch, DispatchError, ServerIdentity, SessionInfo, Signal, queue};
use crate::meters::ActionMeter;
use crate::signing::Signer;
use crate::store::actions::{Ending, KnownAction, QueuedAction};
use crate::store::{self, Connection, StoreError, Tx};

/// Longest feedback that is stored, in bytes.
pub(super) const MAX_FEEDBACK: usize = 4 * 1024;
/// Longest detail of an action that is stored, in bytes.
pub(super) const MAX_DETAIL: usize = 16 * 1024;

/// An agent's open session. Its one owner ends it with [`Session::close`].
#[derive(Debug)]
pub struct Session {
    pub(super) dispatch: Dispatch,
    pub(super) server: ServerIdentity,
    pub(super) info: SessionInfo,
    place: Place,
    inbox: Inbox,
    strange: Occasionally,
    /// For its orders.
    numbers: Numbers,
    /// Whether the agent has said the hello of version 2.
    version_2: bool,
    /// The key on record that signs its receipts.
    pub(super) receipt_key: Option<VerifyingKey>,
    /// From then on an agent that has told no drift has none to tell.
    pub(super) silent_at: Instant,
    /// Whether the agent has told what differs on its server.
    pub(super) told_drift: AtomicBool,
}

/// What a feedback was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedbackOutcome {
    /// An action that waited for it.
    Matched,
    /// An action that was answered before. Ignored.
    Duplicate,
    /// Nothing that was ever sent to this server. Ignored.
    Unknown,
    /// An action that is behind another of its account, which waits for its answer still. Ignored: should that one be done
    /// only later, this one has to be done again behind it.
    Early,
}

impl Session {
    pub(super) fn new(
        dispatch: Dispatch,
        server: ServerIdentity,
        info: SessionInfo,
        (numbers, receipt_key): (Numbers, Option<VerifyingKey>),
        (place, inbox): (Place, Inbox),
    ) -> Self {
        let (strange, version_2) = (Occasionally::default(), false);
        let (silent_at, told_drift) = (Instant::now() + SILENCE, AtomicBool::new(false));
        Self {
            dispatch,
            server,
            info,
            place,
            inbox,
            strange,
            numbers,
            version_2,
            receipt_key,
            silent_at,
            told_drift,
        }
    }

    /// The server whose agent this is.
    #[must_use]
    pub fn server(&self) -> &ServerIdentity {
        &self.server
    }

    /// Where the agent comes from.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.info.address
    }

    /// Where the time between an action and its answer is noted.
    #[must_use]
    pub fn meter(&self) -> &ActionMeter {
        self.dispatch.meter()
    }

    /// Waits until there may be something to send, or the session must end. May be given up and
    /// called again.
    pub async fn signal(&mut self) -> Signal {
        let signal = self.inbox.signal().await;
        if let Some(name) = self.inbox.name() {
            self.server.name = name;
        }
        signal
    }

    /// What is to be sent next, at most `limit`. On the disk as sent before this returns. Empty when there is
    /// nothing to do: wait for [`Session::signal`]. What was handed over by then is older than what this returns: it has to
    /// be sent first.
    ///
    /// # Errors
    /// [`DispatchError::TakenOver`], [`DispatchError::Store`].
    pub async fn next_payloads(&self, limit: usize) -> Result<Vec<Payload>, DispatchError> {
        if self.version_2 && limit > 0 {
            let (server, generation) = (self.server.id, self.place.generation);
            let wanted = Wanted::HandOut(HandOut { server, generation, limit });
            if let Some(Given::Actions(messages)) = self.hand_in(wanted).await {
                return Ok(messages.into_iter().map(Payload::Action).collect());
            }
        }
        Box::pin(self.hand_out_next(limit)).await
    }

    /// Lets it be done with what others want; `None` when it is to be done alone.
    async fn hand_in(&self, wanted: Wanted) -> Option<Given> {
        let dispatch = &self.dispatch;
        let lease = self.place.epoch.map(|epoch| (self.server.id, epoch));
        let slip = Slip { wanted, lease };
        dispatch.desk.hand_in(slip, || dispatch.worker()).await
    }

    /// The next actions, as [`Session::next_payloads`].
    #[cfg(test)]
    pub(crate) async fn next(&self, limit: usize) -> Result<Vec<ActionMessage>, DispatchError> {
        let payloads = self.next_payloads(limit).await?;
        let action = |payload| match payload {
            Payload::Action(message) => Some(message),
            Payload::Host(_) | Payload::RotateKey { .. } => None,
        };
        Ok(payloads.into_iter().filter_map(action).collect())
    }

    /// The agent obeys orders of that signer from now on: what its server is to do is handed over to this session as soon
    /// as it is on the disk, while nothing else waits.
    pub fn obeys(&self, signer: Signer) {
        let orders = OrderMaker { signer, numbers: self.numbers.clone() };
        self.dispatch.presence.obeys(self.server.id, self.place.generation, orders);
    }

    /// What was handed over since this was called last, in the order in which it is to be sent. It is on the disk as sent.
    ///
    /// # Errors
    /// [`DispatchError::TakenOver`]: the session is over, and something older than what it has from
    /// [`Session::next_payloads`] may be lost to it. Nothing may be sent any more.
    pub fn handed(&self) -> Result<Vec<Handed>, DispatchError> {
        let handed = self.dispatch.presence.handed(self.server.id, self.place.generation);
        handed.ok_or(DispatchError::TakenOver)
    }

    /// The number for an order: higher than all that this server ever had, also for what was sent before.
    ///
    /// # Errors
    /// [`DispatchError::TakenOver`], [`DispatchError::Store`].
    pub async fn number(&mut self) -> Result<u64, DispatchError> {
        loop {
            if let Some(number) = self.numbers.next() {
                return Ok(number);
            }
            Box::pin(self.reserve_numbers()).await?;
        }
    }

    async fn reserve_numbers(&mut self) -> Result<(), DispatchError> {
        let mut tx = self.write().await?;
        // The next session's are the higher ones.
        if !self.dispatch.presence.is_current(self.server.id, self.place.generation) {
            return Err(DispatchError::TakenOver);
        }
        let last =
            store::servers::reserve_numbers(&mut tx, self.server.id, numbers::AT_ONCE).await?;
        tx.commit().await.map_err(StoreError::from)?;
        self.numbers.renew(last);
        Ok(())
    }

    /// Now, in seconds since the Unix epoch.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.dispatch.store.now()
    }

    /// Our hello to the agent.
    #[must_use]
    pub fn hello(&self) -> BackendHello {
        let server = bastio_protocol::ServerId::from_number(self.server.id.0);
        BackendHello { protocol: V2, server, time: self.dispatch.store.now() }
    }

    /// Takes the agent's hello: afterwards there may be something to send.
    ///
    /// # Errors
    /// [`DispatchError::Held`] when it comes from another machine than before,
    /// [`DispatchError::Store`].
    pub async fn met(&mut self, hello: &AgentHello) -> Result<(), DispatchError> {
        let hello = Hello::read(hello, &self.server.name);
        self.numbers.above(hello.last_sequence());
        let wanted = Wanted::Meet(Box::new((self.guest(), hello.clone())));
        let met = if let Some(Given::Met(met)) = self.hand_in(wanted).await {
            met
        } else {
            Box::pin(self.meet_alone(&hello)).await?
        };
        match met {
            Met::Held => Err(DispatchError::Held),
            Met::Known { receipt_key } => {
                (self.receipt_key, self.version_2) = (receipt_key, true);
                Ok(())
            }
        }
    }

    async fn meet_alone(&self, hello: &Hello) -> Result<Met, DispatchError> {
        let mut tx = self.write().await?;
        let met = self.guest().meet(&mut tx, hello).await?;
        tx.commit().await.map_err(StoreError::from)?;
        self.dispatch.presence.step();
        Ok(met)
    }

    /// Who its agent is.
    pub(super) fn guest(&self) -> Guest {
        let (server, address) = (self.server.clone(), self.info.address);
        Guest { dispatch: self.dispatch.clone(), server, address }
    }

    /// Notes that the agent obeys another signing key from now on.
    ///
    /// # Errors
    /// [`DispatchError::Store`].
    pub async fn obeys_key(&self, fingerprint: &str) -> Result<(), DispatchError> {
        let mut tx = self.write().await?;
        store::servers::obeys_key(&mut tx, self.server.id, fingerprint).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(())
    }

    /// A transaction of this session: refused once another node has taken the server over. Until it
    /// is committed none can.
    pub(super) async fn write(&self) -> Result<Tx, DispatchError> {
        let mut tx = self.dispatch.store.write().await?;
        if let Some(epoch) = self.place.epoch
            && !store::leases::holds(&mut tx, self.server.id, epoch).await?
        {
            return Err(DispatchError::TakenOver);
        }
        Ok(tx)
    }

    async fn hand_out_next(&self, limit: usize) -> Result<Vec<Payload>, DispatchError> {
        let mut tx = self.write().await?;
        if !self.dispatch.presence.is_current(self.server.id, self.place.generation) {
            return Err(DispatchError::TakenOver);
        }
        if self.dispatch.presence.holds_back(self.server.id, self.place.generation) {
            return Ok(Vec::new());
        }
        let mut messages = Vec::new();
        let mut ended = false;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        if self.version_2 && limit > 0 {
            let (requests, some_ended) = self.hand_out_requests(&mut tx, limit).await?;
            ended = some_ended;
            messages.extend(requests.into_iter().map(Payload::Host));
        }
        while limit > 0 && messages.is_empty() {
            let queued = store::actions::queued(&mut tx, self.server.id, limit).await?;
            if queued.is_empty() {
                break;
            }
            for action in queued {
                match self.hand_out(&mut tx, action).await? {
                    Some(message) => messages.push(Payload::Action(message)),
                    None => ended = true,
                }
            }
        }
        if messages.is_empty() && !ended {
            return Ok(Vec::new());
        }
        tx.commit().await.map_err(StoreError::from)?;
        self.dispatch.presence.step();
        Ok(messages)
    }

    /// Takes an agent's answer. Only answers to what was sent to this server count; others are
    /// logged and ignored.
    ///
    /// # Errors
    /// [`DispatchError::Store`].
    pub async fn feedback(
        &self,
        feedback: &FeedbackMessage,
    ) -> Result<FeedbackOutcome, DispatchError> {
        self.answered(&Arc::new(feedback.clone()), None).await
    }

    /// As [`Session::feedback`], where it is known what was `asked` under the answer's id.
    ///
    /// # Errors
    /// [`DispatchError::Store`].
    pub async fn answered(
        &self,
        feedback: &Arc<FeedbackMessage>,
        asked: Option<Arc<ActionMessage>>,
    ) -> Result<FeedbackOutcome, DispatchError> {
        if !self.info.legacy && feedback.status.is_success() {
            let answer = Answer {
                server: self.server.id,
                name: self.server.name.clone(),
                address: self.info.address,
                receipt_key: self.receipt_key,
                feedback: Arc::clone(feedback),
                asked,
            };
            if let Some(Given::Taken) = self.hand_in(Wanted::Answer(Box::new(answer))).await {
                return Ok(FeedbackOutcome::Matched);
            }
        }
        Box::pin(self.feedback_alone(feedback)).await
    }

    async fn feedback_alone(
        &self,
        feedback: &FeedbackMessage,
    ) -> Result<FeedbackOutcome, DispatchError> {
        // The one writer is everybody's: it is not taken for what changes nothing.
        let mut db = self.dispatch.store.read().await?;
        let known = store::actions::find_sent(&mut db, self.server.id, &feedback.mid).await?;
        let is_request = known.is_none()
            && store::requests::find_sent(&mut db, self.server.id, &feedback.mid).await?.is_some();
        drop(db);
        if is_request {
            return self.request_feedback(feedback).await;
        }
        if let Err(outcome) = self.awaited(known, feedback) {
            return Ok(outcome);
        }
        let mut tx = self.write().await?;
        let known = store::actions::find_sent(&mut tx, self.server.id, &feedback.mid).await?;
        let known = match self.awaited(known, feedback) {
            Ok(known) => known,
            Err(outcome) => return Ok(outcome),
        };
        // Agents of version 2 do and answer one after the other.
        if self.version_2
            && store::actions::is_preceded(&mut tx, self.server.id, &known.action).await?
        {
            return Ok(self.strange(feedback, FeedbackOutcome::Early));
        }
        let more = self.take_answer(&mut tx, known, feedback).await?;
        tx.commit().await.map_err(StoreError::from)?;
        if more {
            self.dispatch.presence.wake(self.server.id);
        }
        self.dispatch.presence.step();
        Ok(FeedbackOutcome::Matched)
    }

    /// The action that waits for this feedback.
    fn awaited(
        &self,
        known: Option<KnownAction>,
        feedback: &FeedbackMessage,
    ) -> Result<KnownAction, FeedbackOutcome> {
        match known {
            None => Err(self.strange(feedback, FeedbackOutcome::Unknown)),
            Some(known) if matches!(known.state, ActionState::Done | ActionState::Failed) => {
                Err(self.strange(feedback, FeedbackOutcome::Duplicate))
            }
            Some(known) => Ok(known),
        }
    }

    /// What is ignored gets a line of the log now and then.
    fn strange(&self, feedback: &FeedbackMessage, outcome: FeedbackOutcome) -> FeedbackOutcome {
        if let Some(unlogged) = self.strange.line(Instant::now()) {
            let mid = queue::for_people(&feedback.mid.text(), 64);
            tracing::warn!(server = %self.server.name, mid, ?outcome, unlogged,
                "feedback that nothing waits for");
        }
        outcome
    }

    /// Ends the session and notes when. A session that was taken over leaves no trace.
    ///
    /// # Errors
    /// [`DispatchError::Store`]; the session is over all the same.
    pub async fn close(self) -> Result<(), DispatchError> {
        if self.dispatch.presence.leave(self.server.id, self.place.generation) {
            tracing::info!(server = %self.server.name, "agent disconnected");
            if self.hand_in(Wanted::Gone(self.server.id)).await.is_some() {
                return Ok(());
            }
        } else if self.place.epoch.is_none() {
            return Ok(());
        }
        let mut tx = self.dispatch.store.write().await?;
        if let Some(epoch) = self.place.epoch
            && !store::leases::release(&mut tx, self.server.id, epoch).await?
        {
            return Ok(());
        }
        let now = self.dispatch.store.now();
        store::servers::seen_last(&mut tx, self.server.id, now).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn is_silent_now(&mut self) {
        self.silent_at = Instant::now();
    }

    #[cfg(test)]
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Marks an action as sent, or ends it when this agent cannot take it.
    async fn hand_out(
        &self,
        db: &mut Connection,
        action: QueuedAction,
    ) -> Result<Option<ActionMessage>, StoreError> {
        let message = action.message.clone();
        let fitted = match (self.version_2, self.info.legacy) {
            (true, _) => Ok(message),
            (false, false) => for_version_1(message),
            (false, true) => for_version_1(message).and_then(for_original_agent),
        };
        match fitted {
            Ok(message) => {
                let now = self.dispatch.store.now();
                store::actions::mark_sent(db, action.id, now).await?;
                Ok(Some(message))
            }
            Err(reason) => {
                let feedback = reason.to_owned();
                let ending =
                    Ending { state: ActionState::Failed, status: None, feedback, detail: None };
                self.end(db, &action, &ending).await?;
                Ok(None)
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.dispatch.presence.leave(self.server.id, self.place.generation);
    }
}
