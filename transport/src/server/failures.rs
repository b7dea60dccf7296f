//! How often a source may come without logging in. Pure: the time is passed in, and so is what a source is.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// The time in which all of the allowance comes back.
const PERIOD: Duration = Duration::from_secs(60);
/// Sources that are kept in mind. Beyond that the least spent ones are forgotten.
const MOST: usize = 16 * 1024;

/// What is left to each source.
#[derive(Debug)]
pub(super) struct Failures {
    each: u32,
    sources: HashMap<IpAddr, Spent>,
}

#[derive(Debug, Clone, Copy)]
struct Spent {
    /// Failures that still count.
    count: f64,
    at: Instant,
}

impl Failures {
    /// So many failures a minute of each source.
    pub(super) fn new(each: u32) -> Self {
        Self { each, sources: HashMap::new() }
    }

    /// A connection of the source has ended without a login.
    pub(super) fn failed(&mut self, source: IpAddr, now: Instant) {
        let count = self.count(source, now) + 1.0;
        if self.sources.len() >= MOST && !self.sources.contains_key(&source) {
            self.forget(now);
        }
        self.sources.insert(source, Spent { count, at: now });
    }

    /// How long the source must stay away, if it must.
    pub(super) fn wait(&self, source: IpAddr, now: Instant) -> Option<Duration> {
        let each = f64::from(self.each.max(1));
        let over = self.count(source, now) - each;
        // A little more than enough: the next one would come too early again.
        (over >= 0.0).then(|| PERIOD.mul_f64((over + 1.0) / each))
    }

    fn count(&self, source: IpAddr, now: Instant) -> f64 {
        self.sources.get(&source).map_or(0.0, |spent| self.left(spent, now))
    }

    fn left(&self, spent: &Spent, now: Instant) -> f64 {
        let periods = now.saturating_duration_since(spent.at).as_secs_f64() / PERIOD.as_secs_f64();
        (spent.count - periods * f64::from(self.each)).max(0.0)
    }

    fn forget(&mut self, now: Instant) {
        let each = self.each;
        let half = f64::from(each) / 2.0;
        let left: Vec<(IpAddr, f64)> =
            self.sources.iter().map(|(source, spent)| (*source, self.left(spent, now))).collect();
        for (source, _) in left.iter().filter(|(_, left)| *left < half) {
            self.sources.remove(source);
        }
        if self.sources.len() >= MOST {
            self.sources.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u32) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::from_bits(number))
    }

    #[test]
    fn who_fails_too_often_stays_away_until_the_allowance_is_back() {
        let (mut failures, begin) = (Failures::new(60), Instant::now());
        for _ in 0..59 {
            failures.failed(source(1), begin);
        }
        assert_eq!(failures.wait(source(1), begin), None);
        failures.failed(source(1), begin);
        let wait = failures.wait(source(1), begin).unwrap();
        assert_eq!(wait, Duration::from_secs(1));
        assert_eq!(failures.wait(source(2), begin), None, "another source");
        assert_eq!(failures.wait(source(1), begin + wait), None);
    }

    #[test]
    fn many_sources_take_no_more_memory_than_some() {
        let (mut failures, begin) = (Failures::new(2), Instant::now());
        for number in 0..u32::try_from(MOST * 2).unwrap() {
            failures.failed(source(number), begin);
            failures.failed(source(number), begin);
        }
        assert!(failures.sources.len() <= MOST);
    }
}
