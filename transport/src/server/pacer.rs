//! When those who are sent away shall come back: one after the other, as fast as logins go through, and not all at once.
//!
//! Pure: the time is passed in.

use std::time::Duration;

use tokio::time::Instant;

/// Logins a second that each processor is believed to manage before any were seen, and at least. Whoever comes too early
/// costs little and is told again; whoever comes too late has waited for nothing.
const AT_LEAST: f64 = 200.0;
/// How much more are asked to come than went through lately: some never do.
const MORE: f64 = 1.5;
/// Nobody is asked to wait for less, nor for more: who asks again learns how it stands then.
const SHORTEST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(60);
/// Logins are counted in spans of this time.
const SPAN: Duration = Duration::from_secs(1);

/// Gives out moments to come back.
#[derive(Debug)]
pub(super) struct Pacer {
    /// Logins a second, lately.
    rate: f64,
    /// The lowest that is believed.
    at_least: f64,
    since: Instant,
    logins: u32,
    /// The next moment that nobody was given yet.
    next: Instant,
}

impl Pacer {
    /// For a machine with so many processors.
    pub(super) fn new(now: Instant, processors: u16) -> Self {
        let at_least = AT_LEAST * f64::from(processors);
        Self { rate: at_least, at_least, since: now, logins: 0, next: now }
    }

    /// Somebody has logged in.
    pub(super) fn logged_in(&mut self, now: Instant) {
        let span = now.saturating_duration_since(self.since);
        if span >= SPAN {
            // After a quiet time it is known no better than before.
            let seen = f64::from(self.logins) / span.as_secs_f64();
            self.rate = seen.max(self.rate / 2.0).max(self.at_least);
            (self.since, self.logins) = (now, 0);
        }
        self.logins = self.logins.saturating_add(1);
    }

    /// How long the next one who is sent away shall wait.
    pub(super) fn wait(&mut self, now: Instant) -> Duration {
        let moment = self.next.max(now + SHORTEST);
        self.next = (moment + Duration::from_secs_f64(1.0 / (self.rate * MORE))).min(now + LONGEST);
        moment.saturating_duration_since(now).clamp(SHORTEST, LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_spread_over_the_time_that_it_takes_to_let_it_in() {
        let begin = Instant::now();
        let mut pacer = Pacer::new(begin, 1);
        for number in 0..2000 {
            pacer.logged_in(begin + SPAN * number / 1000);
        }
        let now = begin + SPAN * 2;
        let waits: Vec<Duration> = (0..3000).map(|_| pacer.wait(now)).collect();
        assert_eq!(waits.first(), Some(&SHORTEST));
        assert!(waits.is_sorted());
        let last = waits.last().unwrap().as_secs_f64();
        assert!((3.5..4.5).contains(&last), "3000 at 1500 a second behind 2 s: {last}");
    }

    #[test]
    fn nobody_is_sent_away_for_long_and_a_quiet_time_forgets_the_crowd() {
        let begin = Instant::now();
        let mut pacer = Pacer::new(begin, 1);
        assert!((0..100_000).map(|_| pacer.wait(begin)).all(|wait| wait <= LONGEST));
        assert_eq!(pacer.wait(begin + LONGEST), SHORTEST);
    }
}
