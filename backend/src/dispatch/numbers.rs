//! The numbers of a session's orders: each higher than all that its server ever had.
//!
//! They are reserved on the disk many at a time, so that an order costs nothing there; what a session has not used when it
//! ends is never used. This file must not know what orders are.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So many numbers are reserved at a time. Of the 2^62 that there are, a server that connects once a second uses up a
/// thousandth in 140,000 years.
pub(super) const AT_ONCE: u32 = 1024;

/// Numbers that nobody has used yet. Cheap to clone; all clones give from the same ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Numbers(Arc<Mutex<Range<u64>>>);

impl Numbers {
    /// Those that were reserved at once and end with `last`; none when that is 0.
    pub(super) fn up_to(last: u64) -> Self {
        let numbers = Self::default();
        numbers.renew(last);
        numbers
    }

    /// From now on those that were reserved at once and end with `last`; none when that is 0.
    pub(super) fn renew(&self, last: u64) {
        let end = if last == 0 { 0 } else { last.saturating_add(1) };
        *self.lock() = end.saturating_sub(u64::from(AT_ONCE))..end;
    }

    /// Leaves out all up to `used`.
    pub(super) fn above(&self, used: u64) {
        let mut left = self.lock();
        left.start = left.start.max(used.saturating_add(1));
    }

    /// The next, while there are any.
    pub(super) fn next(&self) -> Option<u64> {
        self.lock().next()
    }

    fn lock(&self) -> MutexGuard<'_, Range<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_given_once_and_no_more_than_are_reserved() {
        let numbers = Numbers::up_to(3 * u64::from(AT_ONCE));
        let all: Vec<u64> = std::iter::from_fn(|| numbers.next()).collect();
        let expected: Vec<u64> = (2049..=3072).collect();
        assert_eq!(all, expected);
        assert_eq!(numbers.next(), None);
        assert_eq!(Numbers::up_to(0).next(), None, "none are reserved");
    }

    #[test]
    fn what_the_agent_has_obeyed_is_left_out() {
        let reserved = || Numbers::up_to(1024);
        for (used, next) in
            [(0, Some(1)), (1, Some(2)), (1023, Some(1024)), (1024, None), (5000, None)]
        {
            let numbers = reserved();
            numbers.above(used);
            assert_eq!(numbers.next(), next, "{used}");
        }
    }
}
