//! How often a passphrase may be guessed. Pure: the time is the caller's.

use std::time::{Duration, Instant};

/// So many wrong ones are typing errors.
const FREE: u32 = 3;
/// Longest wait behind a wrong one.
const LONGEST: Duration = Duration::from_secs(300);

/// The wrong guesses so far.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    wrong: u32,
    not_before: Option<Instant>,
}

impl Guesses {
    /// How long the next one has to wait still.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let wait = self.not_before?.saturating_duration_since(now);
        (!wait.is_zero()).then_some(wait)
    }

    /// One was wrong: behind the third the next waits 2 s, then twice as long each time, 300 s at most.
    pub(super) fn wrong(&mut self, now: Instant) {
        self.wrong = self.wrong.saturating_add(1);
        if let Some(doubled) = self.wrong.checked_sub(FREE) {
            let seconds = 2_u64.saturating_pow(doubled.saturating_add(1));
            self.not_before = now.checked_add(Duration::from_secs(seconds).min(LONGEST));
        }
    }

    /// One was right.
    pub(super) fn right(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_guess_behind_the_third_waits_twice_as_long() {
        let (mut guesses, mut now) = (Guesses::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..14 {
            assert_eq!(guesses.wait(now), None);
            guesses.wrong(now);
            let wait = guesses.wait(now).unwrap_or_default();
            waits.push(wait.as_secs());
            now += wait;
        }
        assert_eq!(waits, [0, 0, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]);
        guesses.wrong(now);
        assert_eq!(guesses.wait(now + Duration::from_secs(299)), Some(Duration::from_secs(1)));
        guesses.right();
        assert_eq!(guesses.wait(now), None);
    }
}
