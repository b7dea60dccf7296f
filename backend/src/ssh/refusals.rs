//! Which refused logins are worth a line of the log: the port is open to the world, the log's
//! disk is not endless.
//!
//! Pure: the time is passed in.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Lines are counted per this time.
const PERIOD: Duration = Duration::from_secs(60);
/// Lines in one period; also bounds the memory.
const LINES: usize = 20;

/// Decides about lines of the log.
#[derive(Debug)]
pub(super) struct Refusals {
    since: Instant,
    seen: HashSet<(String, IpAddr)>,
    unlogged: u64,
}

/// What to do about one refused login.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Log it; so many were not logged in the period before.
    Write {
        /// Refusals without a line since the last line with a number.
        unlogged_before: u64,
    },
    /// Do not log it.
    Skip,
}

impl Refusals {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, seen: HashSet::new(), unlogged: 0 }
    }

    /// One key was refused. The same key from the same address gets one line per minute.
    pub(super) fn refused(&mut self, fingerprint: &str, from: IpAddr, now: Instant) -> Line {
        let mut unlogged_before = 0;
        if now.duration_since(self.since) >= PERIOD {
            self.since = now;
            self.seen.clear();
            unlogged_before = std::mem::take(&mut self.unlogged);
        }
        let login = (fingerprint.to_owned(), from);
        if self.seen.contains(&login) {
            return Line::Skip;
        }
        if self.seen.len() >= LINES {
            self.unlogged += 1;
            return Line::Skip;
        }
        self.seen.insert(login);
        Line::Write { unlogged_before }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn same_key_from_same_address_is_one_line_a_minute() {
        let begin = Instant::now();
        let mut refusals = Refusals::new(begin);
        let write = Line::Write { unlogged_before: 0 };
        assert_eq!(refusals.refused("SHA256:a", address(1), begin), write);
        assert_eq!(refusals.refused("SHA256:a", address(1), begin), Line::Skip);
        assert_eq!(refusals.refused("SHA256:b", address(1), begin), write);
        assert_eq!(refusals.refused("SHA256:a", address(2), begin), write);
        assert_eq!(refusals.refused("SHA256:a", address(1), begin + PERIOD), write);
    }

    #[test]
    fn flood_is_cut_and_counted() {
        let begin = Instant::now();
        let mut refusals = Refusals::new(begin);
        let written = (0..100)
            .filter(|n| refusals.refused(&n.to_string(), address(1), begin) != Line::Skip)
            .count();
        assert_eq!(written, LINES);
        let next = refusals.refused("SHA256:a", address(1), begin + PERIOD);
        assert_eq!(next, Line::Write { unlogged_before: 80 });
        let next = refusals.refused("SHA256:b", address(1), begin + PERIOD);
        assert_eq!(next, Line::Write { unlogged_before: 0 });
    }
}
