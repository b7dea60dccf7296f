//! Feedbacks that the backend has not confirmed yet, in order. What was sent on a connection that
//! was lost is sent again on the next. This file must not know how anything is sent.

use std::collections::VecDeque;

use bytes::Bytes;

/// How many frames go out before a confirmation is asked for.
const BURST: usize = 256;

/// Whose feedback it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The processor's, which is told when it was delivered.
    Processor,
    /// The connector's own, to what was no action.
    Connector,
}

/// The queue of unconfirmed frames. Its bound is kept by the connector, which takes no action
/// whose answer would not fit.
#[derive(Debug, Default)]
pub(super) struct Outbox(VecDeque<(Origin, Bytes)>);

impl Outbox {
    /// Appends a feedback's frame.
    pub(super) fn push(&mut self, origin: Origin, frame: Vec<u8>) {
        self.0.push_back((origin, frame.into()));
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

    /// The oldest `count` frames have arrived; how many of them were the processor's.
    pub(super) fn confirm(&mut self, count: usize) -> usize {
        let confirmed = self.0.drain(..count.min(self.0.len()));
        let processors = confirmed.filter(|(origin, _)| *origin == Origin::Processor).count();
        if self.0.is_empty() {
            self.0.shrink_to_fit();
        }
        processors
    }
}

#[cfg(test)]
mod tests {
    use super::Origin::{Connector, Processor};
    use super::{BURST, Outbox};

    #[test]
    fn unconfirmed_frames_come_again_in_order() {
        let mut outbox = Outbox::default();
        for (origin, name) in [(Processor, "a"), (Connector, "b"), (Processor, "c")] {
            outbox.push(origin, name.into());
        }
        assert_eq!(outbox.burst(), ["a", "b", "c"]);
        assert_eq!(outbox.burst(), ["a", "b", "c"], "nothing is lost by sending");
        assert_eq!(outbox.confirm(2), 1);
        outbox.push(Processor, "d".into());
        assert_eq!(outbox.burst(), ["c", "d"]);
        assert_eq!(outbox.confirm(99), 2);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_burst_is_bounded() {
        let mut outbox = Outbox::default();
        for _ in 0..BURST + 5 {
            outbox.push(Processor, b"x".to_vec());
        }
        assert_eq!(outbox.burst().len(), BURST);
        outbox.confirm(BURST);
        assert_eq!(outbox.len(), 5);
    }
}
