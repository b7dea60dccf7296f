//! Feedbacks that the backend has not confirmed yet, in order. What was sent on a connection that
//! was lost is sent again on the next. This file must not know how anything is sent.

use std::collections::VecDeque;

use bastio_protocol::MessageId;
use bytes::Bytes;

/// How many frames go out before a confirmation is asked for.
const BURST: usize = 256;

/// The queue of unconfirmed frames. Its bound is kept by the connector, which takes no action
/// whose answer would not fit.
#[derive(Debug, Default)]
pub(super) struct Outbox(VecDeque<(MessageId, Bytes)>);

impl Outbox {
    /// Appends the frame of the feedback with this id.
    pub(super) fn push(&mut self, mid: MessageId, frame: Vec<u8>) {
        self.0.push_back((mid, frame.into()));
    }

    /// How many frames are not confirmed.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether everything is confirmed.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The oldest unconfirmed frames. They stay until they are confirmed.
    pub(super) fn burst(&self) -> Vec<Bytes> {
        self.0.iter().take(BURST).map(|(_, frame)| frame.clone()).collect()
    }

    /// The oldest `count` frames have arrived; whose they were.
    pub(super) fn confirm(&mut self, count: usize) -> Vec<MessageId> {
        let mids = self.0.drain(..count.min(self.0.len())).map(|(mid, _)| mid).collect();
        if self.0.is_empty() {
            self.0.shrink_to_fit();
        }
        mids
    }
}

#[cfg(test)]
mod tests {
    use bastio_protocol::MessageId;

    use super::{BURST, Outbox};

    fn mid(number: u64) -> MessageId {
        MessageId::from_number(number)
    }

    #[test]
    fn unconfirmed_frames_come_again_in_order() {
        let mut outbox = Outbox::default();
        for (number, name) in (1..).zip(["a", "b", "c"]) {
            outbox.push(mid(number), name.into());
        }
        assert_eq!(outbox.burst(), ["a", "b", "c"]);
        assert_eq!(outbox.burst(), ["a", "b", "c"], "nothing is lost by sending");
        assert_eq!(outbox.confirm(2), [mid(1), mid(2)]);
        outbox.push(mid(4), "d".into());
        assert_eq!(outbox.burst(), ["c", "d"]);
        assert_eq!(outbox.confirm(99), [mid(3), mid(4)]);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_burst_is_bounded() {
        let mut outbox = Outbox::default();
        for number in 0..BURST as u64 + 5 {
            outbox.push(mid(number), b"x".to_vec());
        }
        assert_eq!(outbox.burst().len(), BURST);
        outbox.confirm(BURST);
        assert_eq!(outbox.len(), 5);
    }
}
