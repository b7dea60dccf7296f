//! Notices that this machine's clock was set, or that it slept, by a clock that nobody sets.
//!
//! Pure: both times are passed in.

use tokio::time::Instant;

/// Differences up to this, in seconds, are how clocks are: rounding, and slow corrections.
const LIMIT: i64 = 30;

/// Both clocks at the last look.
#[derive(Debug)]
pub(super) struct ClockWatch {
    wall: i64,
    steady: Instant,
}

impl ClockWatch {
    pub(super) fn new(wall: i64, steady: Instant) -> Self {
        Self { wall, steady }
    }

    /// By how many seconds the wall clock was set since the last look: ahead, or back below 0.
    pub(super) fn look(&mut self, wall: i64, steady: Instant) -> Option<i64> {
        let passed = steady.saturating_duration_since(self.steady).as_secs();
        let expected = self.wall.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX));
        *self = Self { wall, steady };
        let set = wall.saturating_sub(expected);
        (set.unsigned_abs() > LIMIT.unsigned_abs()).then_some(set)
    }
}

/// What that means, for people.
pub(super) fn in_words(set: i64) -> String {
    let seconds = set.unsigned_abs();
    if set > 0 {
        format!(
            "the backend's clock was set {seconds} s ahead, or its machine slept: what was to begin \
             or end in between does so now"
        )
    } else {
        format!(
            "the backend's clock was set back by {seconds} s: what begins or ends later does so \
             later; until servers agree with it they refuse orders as too old"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_jumps_are_told_and_each_once() {
        let start = Instant::now();
        let mut watch = ClockWatch::new(1000, start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(watch.look(1060, at(60)), None);
        assert_eq!(watch.look(1121, at(120)), None, "a second of rounding");
        assert_eq!(watch.look(1181 + 86_400, at(180)), Some(86_400));
        assert_eq!(watch.look(1241 + 86_400, at(240)), None);
        assert_eq!(watch.look(1301, at(300)), Some(-86_400));
        assert_eq!(watch.look(1331, at(300)), None, "as much as clocks may differ");
        assert_eq!(watch.look(i64::MAX, at(300)), Some(i64::MAX - 1331));
        assert!(in_words(3600).contains("3600 s ahead") && in_words(-5).contains("back by 5 s"));
    }
}
