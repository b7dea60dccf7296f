//! The sending half of a server's session.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use russh::ChannelId;
use tokio::time::{Instant, timeout_at};

use crate::ending::{CloseReason, Ending};
use crate::error::SendError;

/// Sends to the client. Clones write to the same channel.
#[derive(Clone)]
pub struct ServerWriter {
    handle: russh::server::Handle,
    channel: ChannelId,
    ending: Ending,
    stall_limit: Duration,
}

impl ServerWriter {
    pub(super) fn new(
        handle: russh::server::Handle,
        channel: ChannelId,
        ending: Ending,
        stall_limit: Duration,
    ) -> Self {
        Self { handle, channel, ending, stall_limit }
    }

    /// Queues data for the client: one call, one SSH data packet, as long as the client's window
    /// and its largest packet (usually 32 KiB) allow; else russh splits it. A version-1 agent needs
    /// each netstring in one packet, so send exactly one for each call and keep it, with its
    /// length and comma, below 32 KiB. Ok means queued (up to ten packets are), not received.
    /// Waits for room up to the stall limit, then cuts the connection. May be cancelled while it
    /// waits; then nothing was queued.
    pub async fn send(&self, data: impl Into<Bytes>) -> Result<(), SendError> {
        self.send_since(data, Instant::now()).await
    }

    /// As [`ServerWriter::send`], for data that has waited `since` then: who cancels it and begins again waits no longer for
    /// that.
    pub async fn send_since(
        &self,
        data: impl Into<Bytes>,
        since: Instant,
    ) -> Result<(), SendError> {
        let data = data.into();
        if data.is_empty() {
            return Ok(());
        }
        if self.ending.reason().is_some() {
            return Err(SendError::Closed);
        }
        match timeout_at(since + self.stall_limit, self.handle.data(self.channel, data)).await {
            Ok(sent) => sent.map_err(|_| SendError::Closed),
            Err(_) => {
                self.ending.cut(CloseReason::PeerStalled);
                Err(SendError::Stalled)
            }
        }
    }
}

impl fmt::Debug for ServerWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerWriter({:?})", self.ending.reason())
    }
}
