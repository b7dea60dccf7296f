//! Randomness for what needs no secrecy: back-off and message ids. Keys come from elsewhere.

use std::hash::{BuildHasher, RandomState};

/// An even random number. The standard library seeds its hashes from the system; that cannot
/// fail and needs no crate.
#[must_use]
pub fn number() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// An even random fraction, from 0 up to but without 1.
#[must_use]
#[allow(clippy::cast_precision_loss)] // 53 bits are what a fraction holds
pub fn fraction() -> f64 {
    (number() >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    #[test]
    fn fractions_are_spread_from_0_to_1() {
        let drawn: Vec<f64> = (0..1000).map(|_| super::fraction()).collect();
        assert!(drawn.iter().all(|fraction| (0.0..1.0).contains(fraction)));
        for tenth in 0..10 {
            let low = f64::from(tenth) / 10.0;
            assert!(drawn.iter().any(|fraction| (low..low + 0.1).contains(fraction)));
        }
    }
}
