//! Feedbacks that the backend has not confirmed yet, in order. What was sent on a connection that
//! was lost is sent again on the next. And drift, which nobody confirms. This file must not know how anything is sent.

use std::collections::VecDeque;

use bastio_protocol::DriftMessage;
use bytes::Bytes;

use crate::pipe::ToConnector;

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

/// What the processor has seen that others changed: of each kind the newest, until it is sent. A backend that missed one
/// gets the state anew with its next connection.
#[derive(Debug, Default)]
pub(super) struct Drifts {
    seen: Option<Bytes>,
    healed: Option<Bytes>,
}

impl Drifts {
    /// Takes one; an older one of its kind is out of date.
    pub(super) fn put(&mut self, drift: &DriftMessage) {
        let frame = ToConnector::Drift(drift.clone()).to_frame().into();
        *(if drift.healed { &mut self.healed } else { &mut self.seen }) = Some(frame);
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.seen.is_none() && self.healed.is_none()
    }

    /// Gives all of them away.
    pub(super) fn take(&mut self) -> Vec<Bytes> {
        self.healed.take().into_iter().chain(self.seen.take()).collect()
    }
}

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
    use bastio_protocol::{Detail, DriftMessage};

    use super::Origin::{Connector, Processor};
    use super::{BURST, Drifts, Outbox};

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
    fn of_each_kind_of_drift_the_newest_is_kept() {
        let mut drifts = Drifts::default();
        for (at, healed) in [(1, false), (2, true), (3, false), (4, true), (5, false)] {
            drifts.put(&DriftMessage { at, healed, detail: Detail::default() });
        }
        assert!(!drifts.is_empty());
        let taken = drifts.take();
        let at = |frame: &bytes::Bytes, text| String::from_utf8_lossy(frame).contains(text);
        assert_eq!(taken.len(), 2);
        assert!(at(&taken[0], "\"at\":4") && at(&taken[1], "\"at\":5"), "{taken:?}");
        assert!(drifts.is_empty());
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
