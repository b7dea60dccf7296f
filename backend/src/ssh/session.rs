//! One agent's session, owned by one task: sends what dispatch has queued, one netstring in one
//! SSH packet each, and hands the answers back.
//!
//! What was sent and not answered when a session ends stays dispatch's to send again. This file
//! must not know how agents log in, nor what an action means.

use std::time::Duration;

use bastio_protocol::{
    ActionMessage, FeedbackMessage, KeyPolicy, Message, MessageError, Netstring, NetstringDecoder,
    NetstringError,
};
use bastio_transport::{Bytes, Reader, ServerWriter};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::window::Window;
use crate::dispatch::{self, DispatchError, EndReason, FeedbackOutcome, Signal};

/// Largest body that an agent may send, in bytes. The original sets no limit on what it sends;
/// its longest texts are what a command wrote to stderr.
pub(super) const FEEDBACK_LIMIT: usize = 64 * 1024;

/// Answers to nothing that one session may send. Our agent repeats up to 4096 that it could not know
/// to have arrived; each costs a transaction.
pub(super) const UNASKED_LIMIT: usize = 8192;

/// Why a session ended.
#[derive(Debug, Error)]
pub(super) enum End {
    /// The agent has closed it, or the connection is lost.
    #[error("the agent has gone")]
    Gone,
    /// This backend stops.
    #[error("the backend stops")]
    Stopped,
    /// Dispatch wants it to end.
    #[error("{}", why(*.0))]
    Dispatch(EndReason),
    /// The agent owed an answer for too long.
    #[error("no answer for {} s, {unanswered} actions will be sent again", limit.as_secs())]
    Silent {
        /// How long it had.
        limit: Duration,
        /// How many answers it owed.
        unanswered: usize,
    },
    /// What the agent sent is no feedback.
    #[error("the agent sent garbage: {0}")]
    Garbage(#[from] Garbage),
    /// Dispatch or its store refused.
    #[error(transparent)]
    Failed(#[from] DispatchError),
}

fn why(reason: EndReason) -> &'static str {
    match reason {
        EndReason::TakenOver => "another session of this agent has taken over",
        EndReason::Removed => "the server was removed",
        EndReason::KeyReplaced => "the agent's key was replaced",
    }
}

/// What an agent may not send.
#[derive(Debug, Error)]
pub(super) enum Garbage {
    /// Not a frame.
    #[error(transparent)]
    Frame(#[from] NetstringError),
    /// A frame without a message.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A message that only a backend sends.
    #[error("an action message; agents answer, they do not ask")]
    Action,
    /// More answers to nothing than any agent has.
    #[error("more than {UNASKED_LIMIT} answers that nobody waits for")]
    Unasked,
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
    /// The writer can take a frame again.
    WriterHasRoom,
    /// The writer takes nothing more: the connection is lost.
    WriterGone,
    /// The agent owes an answer for too long.
    AnswerOverdue,
}

/// The state of one session.
#[derive(Debug)]
pub(super) struct Owner {
    session: dispatch::Session,
    window: Window,
    answer_within: Duration,
    decoder: NetstringDecoder,
    frames: mpsc::Sender<Bytes>,
    /// Whether dispatch may have something that was not asked for yet.
    more: bool,
    /// Answers to nothing so far.
    unasked: usize,
}

impl Owner {
    /// An owner that has at most `size` actions unanswered, and the frames it will send. They are
    /// for [`write`], which must run beside it: the owner never waits for the agent to read.
    pub(super) fn new(
        session: dispatch::Session,
        size: usize,
        answer_within: Duration,
    ) -> (Self, mpsc::Receiver<Bytes>) {
        let (frames, to_write) = mpsc::channel(size.max(1));
        let window = Window::new(size, answer_within);
        let decoder = NetstringDecoder::new(FEEDBACK_LIMIT);
        (Self { session, window, answer_within, decoder, frames, more: true, unasked: 0 }, to_write)
    }

    /// Runs until something ends the session. The connection is left open for the caller to
    /// close in the way that fits.
    pub(super) async fn run(&mut self, reader: &mut Reader, stop: &CancellationToken) -> End {
        loop {
            match self.step(reader, stop).await {
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

    async fn step(&mut self, reader: &mut Reader, stop: &CancellationToken) -> Result<(), End> {
        self.send_what_fits().await?;
        match self.next_event(reader, stop).await {
            Event::Stop => Err(End::Stopped),
            Event::Signal(Signal::End(reason)) => Err(End::Dispatch(reason)),
            Event::Signal(Signal::Work) => {
                self.more = true;
                Ok(())
            }
            Event::Received(bytes) => self.take(&bytes).await,
            Event::Ended => Err(self.reader_ended()),
            Event::WriterHasRoom => Ok(()),
            Event::WriterGone => {
                self.more = false;
                Ok(())
            }
            Event::AnswerOverdue => {
                let unanswered = self.window.unanswered();
                Err(End::Silent { limit: self.answer_within, unanswered })
            }
        }
    }

    async fn next_event(&mut self, reader: &mut Reader, stop: &CancellationToken) -> Event {
        let deadline = self.window.deadline();
        let waits_for_writer = self.more && self.window.room() > 0;
        let writer = async { self.frames.reserve().await.is_ok() };
        tokio::select! {
            () = stop.cancelled() => Event::Stop,
            signal = self.session.signal() => Event::Signal(signal),
            received = reader.recv() => received.map_or(Event::Ended, Event::Received),
            alive = writer, if waits_for_writer => match alive {
                true => Event::WriterHasRoom,
                false => Event::WriterGone,
            },
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                Event::AnswerOverdue
            }
        }
    }

    async fn send_what_fits(&mut self) -> Result<(), End> {
        loop {
            // An agent may answer from its memory before the action is written, so that there is
            // more room in the window than in the writer's queue.
            let room = self.window.room().min(self.frames.capacity());
            if !self.more || room == 0 {
                return Ok(());
            }
            let actions = self.session.next(room).await?;
            self.more = !actions.is_empty();
            for action in &actions {
                self.send(action);
            }
        }
    }

    fn send(&mut self, action: &ActionMessage) {
        let frame = Netstring::compose(&action.to_json());
        if self.frames.try_send(frame.into()).is_err() {
            // The connection is lost: what came before is still read, then the reader ends.
            self.more = false;
            return;
        }
        self.window.sent(action.mid.clone(), Instant::now());
        debug!(
            server = %self.session.server().name, mid = %action.mid.text(),
            action = action.action.name(), user = %action.username, "sent"
        );
    }

    async fn take(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.decoder.push(bytes);
        while let Some(body) = self.decoder.next_body().map_err(Garbage::from)? {
            match Message::parse(&body, &KeyPolicy::ANY).map_err(Garbage::from)? {
                Message::Feedback(feedback) => self.answered(&feedback).await?,
                Message::Action(_) => return Err(Garbage::Action.into()),
            }
        }
        Ok(())
    }

    async fn answered(&mut self, feedback: &FeedbackMessage) -> Result<(), End> {
        // First stored, then forgotten here: an error in between ends the session, and the action
        // is sent again.
        match self.session.feedback(feedback).await? {
            FeedbackOutcome::Matched => {}
            // Dispatch has logged what was not expected; some of it is no reason to part.
            FeedbackOutcome::Duplicate | FeedbackOutcome::Unknown => self.unasked += 1,
        }
        self.window.answered(&feedback.mid, Instant::now());
        if self.unasked > UNASKED_LIMIT { Err(Garbage::Unasked.into()) } else { Ok(()) }
    }

    fn reader_ended(&self) -> End {
        if self.decoder.finish().is_err() {
            info!(server = %self.session.server().name, "the connection was cut inside a message");
        }
        End::Gone
    }
}

/// Writes the owner's frames until the owner or the connection ends.
pub(super) async fn write(writer: ServerWriter, mut frames: mpsc::Receiver<Bytes>) {
    while let Some(frame) = frames.recv().await {
        if writer.send(frame).await.is_err() {
            // The connection is ending; the reader tells the owner.
            break;
        }
    }
}
