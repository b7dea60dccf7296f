//! One agent's session, owned by one task: sends what dispatch has queued, one netstring in one
//! SSH packet each, and hands the answers back.
//!
//! What was sent and not answered when a session ends stays dispatch's to send again. This file
//! must not know how agents log in, nor what an action means.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bastio_protocol::{
    DriftMessage, FeedbackMessage, Late, MessageId, NetstringDecoder, Payload, SigningKey, V2_LIMIT,
};
use bastio_transport::{Bytes, Reader, SendError, ServerWriter};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

mod agreement;

use super::end::{End, Garbage};
use super::outlet::Outlet;
use super::told::Told;
use super::window::Window;
use crate::dispatch::{self, FeedbackOutcome, Handed, Signal, SignedOrder};
use crate::signing::{Orders, Signer};

/// Largest body that an agent may send, in bytes. The original sets no limit on what it sends;
/// its longest texts are what a command wrote to stderr.
pub(super) const FEEDBACK_LIMIT: usize = 64 * 1024;

/// Answers to nothing that one session may send. Our agent repeats up to 4096 that it could not know
/// to have arrived; each costs a transaction.
pub(super) const UNASKED_LIMIT: usize = 8192;

/// How long an agent of version 2 may take for its hello.
const HELLO_LIMIT: Duration = Duration::from_secs(30);

/// What an agent may be sent, and how.
#[derive(Debug)]
enum Phase {
    /// Actions as they are: version 1, or an agent that knows no signing key.
    Plain,
    /// Nothing before this agent of version 2 has said its hello.
    Greeting {
        /// Until when it may take for that.
        until: Instant,
    },
    /// Nothing before somebody has opened the key that signs, for an agent that obeys the key of this
    /// fingerprint.
    Locked(String),
    /// Nothing before it has answered whether it obeys our new key.
    Rotating {
        /// The id of the question.
        mid: MessageId,
        /// The key that it obeyed so far.
        old: Arc<SigningKey>,
        /// The key that signs now.
        new: Arc<SigningKey>,
    },
    /// Signed orders.
    Signed(Signer),
}

/// What an owner waits for.
enum Event {
    /// The backend stops.
    Stop,
    /// Dispatch has work or wants an end.
    Signal(Signal),
    /// The agent has sent something.
    Received(Bytes),
    /// The agent will send nothing more.
    Ended,
    /// What waited for the connection is with it, or it is lost.
    Flushed(Result<(), SendError>),
    /// The agent owes an answer for too long.
    AnswerOverdue,
}

/// What is to go out.
#[derive(Debug)]
struct Outgoing {
    payload: Payload,
    /// The order of it, if it was signed ahead.
    order: Option<SignedOrder>,
}

impl From<Payload> for Outgoing {
    fn from(payload: Payload) -> Self {
        Self { payload, order: None }
    }
}

impl From<Handed> for Outgoing {
    fn from(Handed { message, order }: Handed) -> Self {
        Self { payload: Payload::Action(Arc::unwrap_or_clone(message)), order }
    }
}

/// The state of one session.
#[derive(Debug)]
pub(super) struct Owner {
    session: dispatch::Session,
    window: Window,
    answer_within: Duration,
    decoder: NetstringDecoder,
    orders: Orders,
    phase: Phase,
    /// Whether the agent obeys orders that are signed together with others.
    together: bool,
    outlet: Outlet,
    /// Whether dispatch may have something that was not asked for yet.
    more: bool,
    /// What goes out next.
    outgoing: VecDeque<Outgoing>,
    /// The number of the last order.
    last_number: u64,
    /// Answers to nothing so far.
    unasked: usize,
}

impl Owner {
    /// An owner that has at most `size` actions unanswered. It never waits for the agent to read.
    ///
    /// An agent of version 2 is sent our hello first, and nothing else before its own has come.
    pub(super) fn new(
        session: dispatch::Session,
        writer: ServerWriter,
        version_2: bool,
        size: usize,
        answer_within: Duration,
        orders: Orders,
    ) -> Self {
        let mut outlet = Outlet::new(writer, size);
        let window = Window::new(size, answer_within);
        let (phase, limit) = if version_2 {
            outlet.push(&session.hello().to_json());
            (Phase::Greeting { until: Instant::now() + HELLO_LIMIT }, V2_LIMIT)
        } else {
            (Phase::Plain, FEEDBACK_LIMIT)
        };
        let decoder = NetstringDecoder::new(limit);
        let (more, outgoing, last_number, unasked) = (true, VecDeque::new(), 0, 0);
        Self {
            session,
            window,
            answer_within,
            decoder,
            orders,
            phase,
            together: false,
            outlet,
            more,
            outgoing,
            last_number,
            unasked,
        }
    }

    /// Runs until something ends the session. The connection is left open for the caller to
    /// close in the way that fits.
    pub(super) async fn run(&mut self, reader: &mut Reader, stop: &CancellationToken) -> End {
        // Waited for by one place in the list of all who do, which is everybody's.
        let mut stopped = pin!(stop.cancelled());
        loop {
            match self.step(reader, stopped.as_mut()).await {
                Ok(()) => {}
                Err(end) => return end,
            }
        }
    }

    /// Tells dispatch that the session is over.
    pub(super) async fn close(self) {
        let server = self.session.server().name.clone();
        if let Err(error) = self.session.close().await {
            warn!(%server, %error, "the time of the session's end was not stored");
        }
    }

    /// What is only done now and then is on the heap: a session mostly waits, and thousands do.
    async fn step(
        &mut self,
        reader: &mut Reader,
        stopped: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), End> {
        self.send_what_is_signed();
        if self.has_more() {
            Box::pin(self.send_what_fits()).await?;
        }
        match self.next_event(reader, stopped).await {
            Event::Stop => Err(End::Stopped),
            Event::Signal(Signal::End(reason)) => Err(End::Dispatch(reason)),
            Event::Signal(Signal::Handed) => self.take_handed(),
            Event::Signal(Signal::Work) => {
                self.take_handed()?;
                self.more = true;
                Box::pin(self.agree()).await
            }
            Event::Received(bytes) => {
                self.decoder.push(&bytes);
                drop(bytes);
                self.take().await
            }
            Event::Ended => Err(self.reader_ended()),
            Event::Flushed(Ok(())) => Ok(()),
            Event::Flushed(Err(_)) => {
                // What came before is still read, then the reader ends.
                self.nothing_more();
                Ok(())
            }
            Event::AnswerOverdue => {
                let unanswered = self.window.unanswered();
                let limit = match self.phase {
                    Phase::Greeting { .. } => HELLO_LIMIT,
                    _ => self.answer_within,
                };
                Err(End::Silent { limit, unanswered })
            }
        }
    }

    async fn next_event(
        &mut self,
        reader: &mut Reader,
        stopped: Pin<&mut impl Future<Output = ()>>,
    ) -> Event {
        let deadline = match self.phase {
            Phase::Greeting { until } => Some(until),
            _ => self.window.deadline(),
        };
        tokio::select! {
            () = stopped => Event::Stop,
            signal = self.session.signal() => Event::Signal(signal),
            received = reader.recv() => received.map_or(Event::Ended, Event::Received),
            flushed = self.outlet.flush(), if !self.outlet.is_empty() => Event::Flushed(flushed),
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                Event::AnswerOverdue
            }
        }
    }

    /// What was signed ahead waits for nothing but room.
    fn send_what_is_signed(&mut self) {
        while let Phase::Signed(signer) = &self.phase
            && self.window.room().min(self.outlet.room()) > 0
            && let Some(next) = self.outgoing.front()
            && let Some(order) = &next.order
            && order.fits(signer, self.last_number, self.session.now())
            && let Some(Outgoing { payload, order: Some(order) }) = self.outgoing.pop_front()
        {
            self.last_number = order.number;
            self.goes_out(payload, &order.body);
        }
    }

    async fn send_what_fits(&mut self) -> Result<(), End> {
        loop {
            self.send_what_is_signed();
            // An agent may answer from its memory before the action is written: then the outlet has less room.
            let room = self.window.room().min(self.outlet.room());
            if !self.has_more() || room == 0 || !self.may_send() {
                return Ok(());
            }
            if let Some(Outgoing { payload, .. }) = self.outgoing.pop_front() {
                self.send(payload).await?;
                continue;
            }
            if !self.outlet.is_empty() {
                // To ask for more may take a while: what there is goes out first.
                return Ok(());
            }
            let payloads = self.session.next_payloads(room).await?;
            self.take_handed()?;
            let is_action = |payload: &Payload| matches!(payload, Payload::Action(_));
            let more = match self.phase {
                // These actions are sent as they were queued: less than there was room for is all.
                Phase::Signed(_) if payloads.iter().all(is_action) => payloads.len() >= room,
                _ => !payloads.is_empty(),
            };
            self.outgoing.extend(payloads.into_iter().map(Outgoing::from));
            self.more = more;
        }
    }

    /// Whether there may be something to send.
    fn has_more(&self) -> bool {
        self.more || !self.outgoing.is_empty()
    }

    /// What dispatch has handed over is older than all that it gives out afterwards.
    fn take_handed(&mut self) -> Result<(), End> {
        self.outgoing.extend(self.session.handed()?.into_iter().map(Outgoing::from));
        Ok(())
    }

    /// Nothing can be sent any more. What was to go out is found on the disk by the session that follows.
    fn nothing_more(&mut self) {
        self.more = false;
        self.outgoing.clear();
    }

    /// Whether the agent may be sent actions now.
    fn may_send(&self) -> bool {
        match self.phase {
            Phase::Plain | Phase::Signed(_) => true,
            Phase::Greeting { .. } | Phase::Locked(_) | Phase::Rotating { .. } => false,
        }
    }

    /// An order of the next number.
    async fn sign(&mut self, signer: &Signer, payload: &Payload) -> Result<Vec<u8>, End> {
        self.last_number = self.session.number().await?;
        let (server, now) = (self.session.hello().server, self.session.now());
        Ok(signer.sign(server, self.last_number, now, payload).to_json())
    }

    async fn send(&mut self, payload: Payload) -> Result<(), End> {
        let body = if let Phase::Signed(signer) = &self.phase {
            let signer = signer.clone();
            self.sign(&signer, &payload).await?
        } else {
            payload.to_json().into_bytes()
        };
        self.goes_out(payload, &body);
        Ok(())
    }

    fn goes_out(&mut self, payload: Payload, body: &[u8]) {
        let (action, user) = match &payload {
            Payload::Action(message) => (message.action.name(), Some(message.username.as_str())),
            Payload::Host(message) => (message.request.name(), None),
            Payload::RotateKey { .. } => ("rotate-signing-key", None),
        };
        let (server, mid) = (&self.session.server().name, payload.mid());
        debug!(%server, mid = %mid.text(), action, user, "goes out");
        self.push(payload, body);
    }

    /// Sends what is to be answered.
    fn push(&mut self, payload: Payload, body: &[u8]) {
        self.outlet.push(body);
        let (mid, action) = match payload {
            Payload::Action(message) => (message.mid.clone(), Some(message)),
            other => (other.mid().clone(), None),
        };
        self.window.sent(mid, action, Instant::now());
    }

    /// What all of a fleet's sessions do at the same time, answers, waits in the session's own memory; all else on the heap.
    async fn take(&mut self) -> Result<(), End> {
        while let Some(told) = self.next_told()? {
            match told {
                Told::Answer(feedback) => self.answered(feedback).await?,
                Told::Hello(hello) => Box::pin(self.met(*hello)).await?,
                Told::Drift(drift) => Box::pin(self.drifted(&drift)).await?,
            }
        }
        Ok(())
    }

    /// The next message that has come as a whole.
    fn next_told(&mut self) -> Result<Option<Told>, End> {
        let Some(body) = self.decoder.next_body().map_err(Garbage::from)? else { return Ok(None) };
        Ok(Some(Told::read(&body, matches!(self.phase, Phase::Greeting { .. }))?))
    }

    async fn answered(&mut self, feedback: Arc<FeedbackMessage>) -> Result<(), End> {
        if let Phase::Rotating { mid, old, new } = &self.phase
            && *mid == feedback.mid
        {
            self.window.answered(mid, Instant::now());
            let keys = (Arc::clone(old), Arc::clone(new));
            return Box::pin(self.rotated(keys, &feedback)).await;
        }
        if !matches!(self.phase, Phase::Plain)
            && !feedback.status.is_success()
            && let Some(late) = Late::parse(&feedback.feedback)
        {
            return Box::pin(self.came_late(&feedback, late)).await;
        }
        // First stored, then forgotten here: an error in between ends the session, and the action
        // is sent again.
        let asked = self.window.action(&feedback.mid);
        let outcome = self.session.answered(&feedback, asked).await?;
        self.is_stored(&feedback, outcome)
    }

    fn is_stored(
        &mut self,
        feedback: &FeedbackMessage,
        outcome: FeedbackOutcome,
    ) -> Result<(), End> {
        match outcome {
            FeedbackOutcome::Matched => {}
            // Dispatch has logged what was not expected; some of it is no reason to part.
            FeedbackOutcome::Duplicate | FeedbackOutcome::Unknown => self.unasked += 1,
            // An answer is owed as before.
            FeedbackOutcome::Early => {
                self.unasked += 1;
                return self.check_unasked();
            }
        }
        if let Some(took) = self.window.answered(&feedback.mid, Instant::now()) {
            self.session.meter().answered(took);
        }
        self.check_unasked()
    }

    /// An order that was refused for its age was not answered: it is sent again, with a new time limit,
    /// once the agent is back and the clocks agree. One that is told again, from an earlier session,
    /// says nothing of this one.
    async fn came_late(&mut self, feedback: &FeedbackMessage, late: Late) -> Result<(), End> {
        if self.window.is_owed(&feedback.mid) {
            self.session.late(late.now).await?;
            return Err(End::Late);
        }
        self.unasked += 1;
        self.check_unasked()
    }

    fn check_unasked(&self) -> Result<(), End> {
        if self.unasked > UNASKED_LIMIT { Err(Garbage::Unasked.into()) } else { Ok(()) }
    }

    /// What the agent says unasked, as often as what it answers unasked.
    async fn drifted(&mut self, drift: &DriftMessage) -> Result<(), End> {
        self.session.drifted(drift).await?;
        self.unasked += 1;
        self.check_unasked()
    }

    fn reader_ended(&self) -> End {
        if self.decoder.finish().is_err() {
            info!(server = %self.session.server().name, "the connection was cut inside a message");
        }
        End::Gone
    }
}
