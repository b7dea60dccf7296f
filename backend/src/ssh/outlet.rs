//! What goes to one agent, in order: the session that fills this never waits for the agent to read. This file must not know
//! what is sent.

use std::collections::VecDeque;

use bastio_protocol::Netstring;
use bastio_transport::{Bytes, SendError, ServerWriter};
use tokio::time::Instant;

/// Frames on their way to one agent, some of them with the connection already.
#[derive(Debug)]
pub(super) struct Outlet {
    writer: ServerWriter,
    frames: VecDeque<Bytes>,
    size: usize,
    /// Since when the first frame waits for the connection.
    since: Option<Instant>,
}

impl Outlet {
    /// Holds at most `size` frames, but at least one.
    pub(super) fn new(writer: ServerWriter, size: usize) -> Self {
        Self { writer, frames: VecDeque::new(), size: size.max(1), since: None }
    }

    /// How many more frames it holds.
    pub(super) fn room(&self) -> usize {
        self.size.saturating_sub(self.frames.len())
    }

    /// Whether nothing waits for the connection.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Puts a body, as one frame, at the end.
    pub(super) fn push(&mut self, body: &[u8]) {
        self.frames.push_back(Netstring::compose(body).into());
    }

    /// Gives all that waits to the connection. May be cancelled and begun again: each frame goes out once, and waits no
    /// longer for that.
    ///
    /// # Errors
    /// [`SendError`]: the connection is ending, and what waited is dropped.
    pub(super) async fn flush(&mut self) -> Result<(), SendError> {
        while let Some(frame) = self.frames.front() {
            let since = *self.since.get_or_insert_with(Instant::now);
            let sent = self.writer.send_since(frame.clone(), since).await;
            self.since = None;
            if let Err(error) = sent {
                self.frames.clear();
                return Err(error);
            }
            self.frames.pop_front();
        }
        Ok(())
    }
}
