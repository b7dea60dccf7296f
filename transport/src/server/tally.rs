//! What became of connections, in numbers. Only counts: it must not know what anybody makes of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What became of a server's connections since its start, and how many are strangers now.
#[derive(Debug, Default)]
pub struct Tally {
    startups: AtomicUsize,
    ends: [AtomicU64; Handshake::ALL.len()],
}

/// What became of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// Logged in, and the subsystem opened.
    Opened,
    /// Ended without a login after a key of its own was refused.
    KeyRefused,
    /// Not through in time.
    TimedOut,
    /// Ended before it was through in any other way: no SSH, no common algorithm, gone.
    Failed,
    /// Sent away because there were too many strangers.
    Crowded,
}

/// One connection that is not logged in; counted as long as it lives.
#[derive(Debug)]
pub(super) struct Counted(Arc<Tally>);

impl Handshake {
    /// Every one there is.
    pub const ALL: [Self; 5] =
        [Self::Opened, Self::KeyRefused, Self::TimedOut, Self::Failed, Self::Crowded];
}

impl Tally {
    /// Connections that are not logged in now.
    pub fn startups(&self) -> usize {
        self.startups.load(Ordering::Relaxed)
    }

    /// Connections that came to this end so far.
    pub fn count(&self, end: Handshake) -> u64 {
        self.of(end).load(Ordering::Relaxed)
    }

    pub(super) fn note(&self, end: Handshake) {
        self.of(end).fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn enter(self: &Arc<Self>) -> Counted {
        self.startups.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(self))
    }

    fn of(&self, end: Handshake) -> &AtomicU64 {
        let [opened, key_refused, timed_out, failed, crowded] = &self.ends;
        match end {
            Handshake::Opened => opened,
            Handshake::KeyRefused => key_refused,
            Handshake::TimedOut => timed_out,
            Handshake::Failed => failed,
            Handshake::Crowded => crowded,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.startups.fetch_sub(1, Ordering::Relaxed);
    }
}
