//! One open subsystem channel: what arrives, and one burst of feedbacks at a time on its way.
//! This file must not know the processor or when to connect.

use std::time::Duration;

use bastio_protocol::NetstringError;
use bastio_transport::{BoxFuture, ClientWriter, CloseReason, Reader, SendError, Subsystem};
use bytes::Bytes;

use super::intake::{Heard, Intake};

/// How long a graceful end may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// What happened on the channel.
#[derive(Debug)]
pub(super) enum Step {
    /// Bytes arrived and are in the intake.
    Arrived,
    /// So many of the oldest feedbacks have been confirmed.
    Confirmed(usize),
    /// The channel has ended.
    Ended,
}

/// An open channel. Dropping it cuts the connection.
pub(super) struct Session {
    reader: Reader,
    writer: ClientWriter,
    link: bastio_transport::Link,
    intake: Intake,
    /// Our hello, as long as it is not on its way.
    hello: Option<Bytes>,
    /// Whether the backend has said hello.
    version_2: bool,
    sending: Option<BoxFuture<'static, Result<usize, SendError>>>,
}

impl Session {
    /// Takes over a channel that was just opened.
    pub(super) fn new(subsystem: Subsystem) -> Self {
        let (reader, writer, link) = subsystem.split();
        Self {
            reader,
            writer,
            link,
            intake: Intake::new(),
            hello: None,
            version_2: false,
            sending: None,
        }
    }

    /// The next message among the bytes that arrived.
    pub(super) fn next(&mut self) -> Result<Option<Heard>, NetstringError> {
        self.intake.next()
    }

    /// Sends our hello with the next burst.
    pub(super) fn answer_hello(&mut self, frame: Vec<u8>) {
        self.hello = Some(frame.into());
        self.version_2 = true;
    }

    /// Whether our hello waits for the next burst.
    pub(super) fn owes_hello(&self) -> bool {
        self.hello.is_some()
    }

    /// Whether the backend takes what version 1 does not know.
    pub(super) fn speaks_version_2(&self) -> bool {
        self.version_2
    }

    /// Whether a burst is on its way.
    pub(super) fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    /// Begins to send a burst: each frame in one packet, then one question whether all arrived. What is `uncounted` goes
    /// with it and is confirmed by nobody.
    pub(super) fn send(&mut self, burst: Vec<Bytes>, uncounted: Vec<Bytes>) {
        let writer = self.writer.clone();
        let hello = self.hello.take();
        self.sending = Some(Box::pin(async move {
            let count = burst.len();
            for frame in hello.into_iter().chain(burst).chain(uncounted) {
                writer.send(frame).await?;
            }
            writer.confirm().await?;
            Ok(count)
        }));
    }

    /// Asks for a sign of life, unless one is awaited already.
    pub(super) fn keep_alive(&mut self) {
        if !self.is_sending() {
            self.send(Vec::new(), Vec::new());
        }
    }

    /// Waits for the next thing to happen. Takes bytes from the channel only when `read` is set:
    /// else they wait in the transport's budget, then in the SSH window, then at the backend.
    /// Cancel safe.
    pub(super) async fn step(&mut self, read: bool) -> Step {
        let sending = async {
            match self.sending.as_mut() {
                Some(sending) => sending.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            sent = sending => {
                self.sending = None;
                sent.map_or(Step::Ended, Step::Confirmed)
            }
            bytes = self.reader.recv(), if read => match bytes {
                Some(bytes) => {
                    self.intake.push(&bytes);
                    Step::Arrived
                }
                None => Step::Ended,
            },
        }
    }

    /// Ends the connection, in order if it still lives; why it ended.
    pub(super) async fn close(self) -> CloseReason {
        let Self { link, sending, .. } = self;
        drop(sending);
        tokio::time::timeout(CLOSE_LIMIT, link.close()).await.unwrap_or(CloseReason::ClosedHere)
    }
}
