//! The receiving half of a connection: a store bounded by messages and bytes between the handler
//! that receives and the [`Reader`]. Knows nothing about SSH; see the crate's documentation for
//! how this makes back-pressure.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::ending::{CloseReason, Ending};

/// How much received data may wait for the [`Reader`], and for how long the peer is held up when
/// that is too little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboundBudget {
    /// SSH data packets. Default 256.
    pub messages: usize,
    /// Bytes. Default 1 MiB.
    pub bytes: usize,
    /// Longest time without room before the connection ends as [`CloseReason::Stalled`]. Default
    /// 30 s; to be kept below the time after which the peer takes us for dead.
    pub wait: Duration,
}

impl Default for InboundBudget {
    fn default() -> Self {
        Self { messages: 256, bytes: 1 << 20, wait: Duration::from_secs(30) }
    }
}

/// One SSH data packet and its share of the budget.
#[derive(Debug)]
struct Piece {
    /// No [`Bytes`]: a queue has room for 32 at once, on each of thousands of connections.
    data: Box<[u8]>,
    _share: OwnedSemaphorePermit,
}

/// The data received on one connection, in order. The pieces are SSH data packets; where one ends
/// has no meaning.
#[derive(Debug)]
pub struct Reader {
    pieces: mpsc::Receiver<Piece>,
}

impl Reader {
    /// The next piece, never empty. `None` when no more can come: after the peer's end of data or
    /// the end of the connection, once everything received before was taken. May be cancelled.
    pub async fn recv(&mut self) -> Option<Bytes> {
        self.pieces.recv().await.map(|piece| piece.data.into())
    }
}

/// The handler's end of the store.
#[derive(Debug)]
pub(crate) struct Inbound {
    pieces: mpsc::Sender<Piece>,
    room: Arc<Semaphore>,
    budget: InboundBudget,
    ending: Ending,
}

impl Inbound {
    pub(crate) fn new(budget: InboundBudget, ending: Ending) -> (Self, Reader) {
        let budget = InboundBudget {
            messages: budget.messages.max(1),
            bytes: budget.bytes.clamp(1, Semaphore::MAX_PERMITS),
            wait: budget.wait,
        };
        let (sender, receiver) = mpsc::channel(budget.messages);
        let inbound =
            Self { pieces: sender, room: Arc::new(Semaphore::new(budget.bytes)), budget, ending };
        (inbound, Reader { pieces: receiver })
    }

    /// Stores one piece, waiting for room if need be. `Err` means the connection is ending; the
    /// reason is set.
    pub(crate) async fn push(&self, data: &[u8]) -> Result<(), Ended> {
        if data.is_empty() {
            return Ok(());
        }
        let data = Box::<[u8]>::from(data);
        // A piece larger than the whole budget takes all of it.
        let share = u32::try_from(data.len().min(self.budget.bytes)).unwrap_or(u32::MAX);
        match self.push_now(data, share) {
            Ok(()) => Ok(()),
            // Boxed: this future is part of every session's memory, the wait is rare.
            Err(data) => Box::pin(self.push_waiting(data, share)).await,
        }
    }

    fn push_now(&self, data: Box<[u8]>, share: u32) -> Result<(), Box<[u8]>> {
        let Ok(slot) = self.pieces.try_reserve() else {
            return Err(data);
        };
        match Arc::clone(&self.room).try_acquire_many_owned(share) {
            Ok(share) => {
                slot.send(Piece { data, _share: share });
                Ok(())
            }
            Err(_) => Err(data),
        }
    }

    async fn push_waiting(&self, data: Box<[u8]>, share: u32) -> Result<(), Ended> {
        let stored = async {
            let slot = self.pieces.reserve().await.ok()?;
            let room = Arc::clone(&self.room).acquire_many_owned(share);
            let share = tokio::select! {
                share = room => share.ok()?,
                () = self.pieces.closed() => return None,
            };
            slot.send(Piece { data, _share: share });
            Some(())
        };
        tokio::select! {
            stored = stored => match stored {
                Some(()) => Ok(()),
                None => {
                    self.ending.cut(CloseReason::ClosedHere);
                    Err(Ended)
                }
            },
            () = self.ending.cut_token().cancelled() => Err(Ended),
            () = tokio::time::sleep(self.budget.wait) => {
                self.ending.cut(CloseReason::Stalled);
                Err(Ended)
            }
        }
    }
}

/// The connection is ending; its [`Ending`] knows why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended;

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn store(messages: usize, bytes: usize) -> (Inbound, Reader, Ending) {
        let ending = Ending::new();
        let budget = InboundBudget { messages, bytes, wait: Duration::from_secs(30) };
        let (inbound, reader) = Inbound::new(budget, ending.clone());
        (inbound, reader, ending)
    }

    #[tokio::test(start_paused = true)]
    async fn full_by_messages_waits_for_the_reader() {
        let (inbound, mut reader, _ending) = store(2, 1000);
        inbound.push(b"a").await.unwrap();
        inbound.push(b"b").await.unwrap();
        let waiting = tokio::spawn(async move { inbound.push(b"c").await });
        tokio::time::sleep(Duration::from_secs(29)).await;
        assert!(!waiting.is_finished());
        assert_eq!(reader.recv().await.unwrap(), "a");
        waiting.await.unwrap().unwrap();
        assert_eq!(reader.recv().await.unwrap(), "b");
        assert_eq!(reader.recv().await.unwrap(), "c");
        assert_eq!(reader.recv().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn full_by_bytes_for_too_long_stalls() {
        let (inbound, mut reader, ending) = store(100, 10);
        inbound.push(&[1; 10]).await.unwrap();
        let begin = Instant::now();
        assert_eq!(inbound.push(&[2]).await, Err(Ended));
        assert_eq!(begin.elapsed().as_secs(), 30);
        assert_eq!(ending.closed().await, CloseReason::Stalled);
        drop(inbound);
        assert_eq!(reader.recv().await.unwrap().len(), 10, "what came before is kept");
        assert_eq!(reader.recv().await, None);
    }

    #[tokio::test]
    async fn piece_larger_than_the_budget_passes_alone() {
        let (inbound, mut reader, _ending) = store(100, 10);
        inbound.push(&[1; 50]).await.unwrap();
        assert_eq!(reader.recv().await.unwrap().len(), 50);
        inbound.push(&[1; 50]).await.unwrap();
        assert_eq!(reader.recv().await.unwrap().len(), 50);
    }

    #[tokio::test(start_paused = true)]
    async fn cut_and_lost_reader_end_the_wait_at_once() {
        let (inbound, _reader, ending) = store(1, 10);
        inbound.push(b"a").await.unwrap();
        let begin = Instant::now();
        let cutter = ending.clone();
        tokio::spawn(async move { cutter.cut(CloseReason::DeadPeer) });
        assert_eq!(inbound.push(b"b").await, Err(Ended));
        assert_eq!(ending.reason(), Some(CloseReason::DeadPeer));

        let (inbound, reader, ending) = store(1, 10);
        inbound.push(b"a").await.unwrap();
        tokio::spawn(async move { drop(reader) });
        assert_eq!(inbound.push(b"b").await, Err(Ended));
        assert_eq!(ending.reason(), Some(CloseReason::ClosedHere));
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }
}
