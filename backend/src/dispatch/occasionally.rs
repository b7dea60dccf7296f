//! When something that a peer can cause as often as it likes is worth a line of the log.
//!
//! Pure: the time is passed in.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The time from one line to the next.
const PERIOD: Duration = Duration::from_secs(60);

/// Lets one line a minute through.
#[derive(Debug, Default)]
pub(super) struct Occasionally(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    last: Option<Instant>,
    unlogged: u64,
}

impl Occasionally {
    /// It has happened: `Some` when it is to be logged, with how often it was not since then.
    pub(super) fn line(&self, now: Instant) -> Option<u64> {
        // Nothing in here can be left half done.
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.last.is_some_and(|last| now.duration_since(last) < PERIOD) {
            seen.unlogged = seen.unlogged.saturating_add(1);
            return None;
        }
        seen.last = Some(now);
        Some(std::mem::take(&mut seen.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_which_counts_the_others() {
        let (lines, start) = (Occasionally::default(), Instant::now());
        assert_eq!(lines.line(start), Some(0));
        for second in 0..60 {
            assert_eq!(lines.line(start + Duration::from_secs(second)), None);
        }
        assert_eq!(lines.line(start + PERIOD), Some(60));
        assert_eq!(lines.line(start + PERIOD), None);
        assert_eq!(lines.line(start + 3 * PERIOD), Some(1));
    }
}
