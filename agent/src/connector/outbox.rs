//! Feedbacks that the backend has not confirmed yet, in order. What was sent on a connection that
//! was lost is sent again on the next. This file must not know how anything is sent.

use std::collections::VecDeque;

use bytes::Bytes;

/// How many frames go out before a confirmation is asked for.
const BURST: usize = 256;

/// The queue of unconfirmed frames. Its bound is kept by the connector, which takes no action
/// whose answer would not fit.
#[derive(Debug, Default)]
pub(super) struct Outbox(VecDeque<Bytes>);

impl Outbox {
    /// Appends a frame.
    pub(super) fn push(&mut self, frame: Vec<u8>) {
        self.0.push_back(frame.into());
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
        self.0.iter().take(BURST).cloned().collect()
    }

    /// The oldest `count` frames have arrived.
    pub(super) fn confirm(&mut self, count: usize) {
        self.0.drain(..count.min(self.0.len()));
        if self.0.is_empty() {
            self.0.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BURST, Outbox};

    #[test]
    fn unconfirmed_frames_come_again_in_order() {
        let mut outbox = Outbox::default();
        for name in ["a", "b", "c"] {
            outbox.push(name.into());
        }
        assert_eq!(outbox.burst(), ["a", "b", "c"]);
        assert_eq!(outbox.burst(), ["a", "b", "c"], "nothing is lost by sending");
        outbox.confirm(2);
        outbox.push("d".into());
        assert_eq!(outbox.burst(), ["c", "d"]);
        outbox.confirm(99);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_burst_is_bounded() {
        let mut outbox = Outbox::default();
        for _ in 0..BURST + 5 {
            outbox.push(b"x".to_vec());
        }
        assert_eq!(outbox.burst().len(), BURST);
        outbox.confirm(BURST);
        assert_eq!(outbox.len(), 5);
    }
}
