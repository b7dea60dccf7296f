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
        (Self { session, window, answer_within, decoder, frames, more: true }, to_write)
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
        let deadline = self.window.deadline();
        tokio::select! {
            () = stop.cancelled() => Err(End::Stopped),
            signal = self.session.signal() => match signal {
                Signal::Work => {
                    self.more = true;
                    Ok(())
                }
                Signal::End(reason) => Err(End::Dispatch(reason)),
            },
            chunk = reader.recv() => match chunk {
                Some(bytes) => self.take(&bytes).await,
                None => Err(self.reader_ended()),
            },
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                let unanswered = self.window.unanswered();
                Err(End::Silent { limit: self.answer_within, unanswered })
            }
        }
    }

    async fn send_what_fits(&mut self) -> Result<(), End> {
        while self.more && self.window.room() > 0 {
            let actions = self.session.next(self.window.room()).await?;
            self.more = !actions.is_empty();
            for action in &actions {
                self.send(action)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, action: &ActionMessage) -> Result<(), End> {
        let frame = Netstring::compose(&action.to_json());
        // No room means that an answer came before its action was written: not a sane agent, nor
        // a connection worth keeping. Closed means that the connection is lost.
        self.frames.try_send(frame.into()).map_err(|_| End::Gone)?;
        self.window.sent(action.mid.clone(), Instant::now());
        debug!(
            server = %self.session.server().name, mid = %action.mid.text(),
            action = action.action.name(), user = %action.username, "sent"
        );
        Ok(())
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
        let outcome = self.session.feedback(feedback).await?;
        self.window.answered(&feedback.mid, Instant::now());
        match outcome {
            FeedbackOutcome::Matched | FeedbackOutcome::Duplicate | FeedbackOutcome::Unknown => {}
        }
        Ok(())
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
