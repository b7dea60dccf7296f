//! The numbers of a session's orders: each higher than all that its server ever had.
//!
//! They are reserved on the disk many at a time, so that an order costs nothing there; what a session has not used when it
//! ends is never used. This file must not know what orders are.

/// So many numbers are reserved at a time. Of the 2^62 that there are, a server that connects once a second uses up a
/// thousandth in 140,000 years.
pub(super) const AT_ONCE: u32 = 1024;

/// Numbers that nobody has used yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    next: u64,
    /// The first that is not reserved.
    end: u64,
}

impl Numbers {
    /// Those that were reserved at once and end with `last`; none when that is 0.
    pub(super) fn up_to(last: u64) -> Self {
        if last == 0 {
            return Self::default();
        }
        let end = last.saturating_add(1);
        Self { next: end.saturating_sub(u64::from(AT_ONCE)), end }
    }

    /// Leaves out all up to `used`.
    pub(super) fn above(&mut self, used: u64) {
        self.next = self.next.max(used.saturating_add(1));
    }

    /// The next, while there are any.
    pub(super) fn next(&mut self) -> Option<u64> {
        let number = Some(self.next).filter(|next| *next < self.end)?;
        self.next += 1;
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_given_once_and_no_more_than_are_reserved() {
        let mut numbers = Numbers::up_to(3 * u64::from(AT_ONCE));
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
            let mut numbers = reserved();
            numbers.above(used);
            assert_eq!(numbers.next(), next, "{used}");
        }
    }
}
