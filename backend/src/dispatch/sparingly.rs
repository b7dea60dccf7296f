//! What a server's agent may have written into the audit log unasked: enough for any host that people work on, and
//! little for one that makes something up in a loop.
//!
//! Kept for each server, not for each of its sessions: a new connection gives nobody a new allowance. Pure: the time
//! is passed in.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::ServerId;

/// So many rows may come one right behind the other.
const BURST: u32 = 30;
/// In so much time one more is allowed.
const PERIOD: Duration = Duration::from_secs(60);

/// What is left to each server.
#[derive(Debug, Default)]
pub(super) struct Sparingly(Mutex<HashMap<ServerId, Allowance>>);

#[derive(Debug, Clone, Copy)]
struct Allowance {
    left: u32,
    /// Until when what has grown again is counted in `left`.
    since: Instant,
    unwritten: u64,
}

impl Sparingly {
    /// Something is to be written: `Some` when it may be, with how much was not since the last time.
    pub(super) fn row(&self, server: ServerId, now: Instant) -> Option<u64> {
        // Nothing in here can be left half done.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains_key(&server) {
            // Who has been quiet for long is as good as new.
            all.retain(|_, allowance| !allowance.grown(now).is_whole());
        }
        let new = Allowance { left: BURST, since: now, unwritten: 0 };
        let allowance = all.entry(server).or_insert(new);
        *allowance = allowance.grown(now);
        if allowance.left == 0 {
            allowance.unwritten = allowance.unwritten.saturating_add(1);
            return None;
        }
        allowance.left -= 1;
        Some(std::mem::take(&mut allowance.unwritten))
    }
}

impl Allowance {
    fn grown(self, now: Instant) -> Self {
        let periods = now.saturating_duration_since(self.since).as_secs() / PERIOD.as_secs();
        let periods = u32::try_from(periods).unwrap_or(u32::MAX);
        if periods >= BURST - self.left {
            return Self { left: BURST, since: now, ..self };
        }
        Self { left: self.left + periods, since: self.since + PERIOD * periods, ..self }
    }

    fn is_whole(self) -> bool {
        self.left == BURST && self.unwritten == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: ServerId = ServerId(1);

    #[test]
    fn a_loop_gets_a_row_now_and_then_which_counts_the_others() {
        let (rows, start) = (Sparingly::default(), Instant::now());
        for _ in 0..BURST {
            assert_eq!(rows.row(WEB, start), Some(0));
        }
        for second in 0..60 {
            assert_eq!(rows.row(WEB, start + Duration::from_secs(second)), None);
        }
        assert_eq!(rows.row(ServerId(2), start), Some(0), "another server's is its own");
        assert_eq!(rows.row(WEB, start + PERIOD), Some(60));
        assert_eq!(rows.row(WEB, start + PERIOD), None);
        // A day in a loop, once a second.
        let day = (0..86_400).map(|second| start + 2 * PERIOD + Duration::from_secs(second));
        let written = day.filter_map(|now| rows.row(WEB, now)).count();
        assert!((1439..=1441).contains(&written), "{written}");
    }

    #[test]
    fn after_a_rest_all_of_it_is_back_and_nobody_is_remembered_for_ever() {
        let (rows, start) = (Sparingly::default(), Instant::now());
        for _ in 0..=BURST {
            rows.row(WEB, start);
        }
        let later = start + PERIOD * BURST;
        assert_eq!(rows.row(WEB, later), Some(1), "what was left out is told however late");
        for _ in 1..BURST {
            assert_eq!(rows.row(WEB, later), Some(0));
        }
        assert_eq!(rows.row(WEB, later), None);
        for number in 2..100 {
            rows.row(ServerId(number), later);
        }
        rows.row(ServerId(100), later + 2 * PERIOD * BURST);
        assert_eq!(
            rows.0.lock().unwrap().len(),
            2,
            "the new one, and the one with something to tell"
        );
    }
}
