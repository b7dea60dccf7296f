//! Ids of new messages: UUIDs of version 7 (RFC 9562, section 5.7), which rise with time, so that the database keeps the ids of
//! one edit beside each other. With ids of pure chance each new action was another page of an index over all that ever were.
//!
//! This file must not know what is asked.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use bastio_protocol::MessageId;

/// Characters of a UUID.
const LEN: usize = 36;

/// An id that no other message has: 74 of its bits are chance, and nobody can guess it.
pub(crate) fn new_mid() -> MessageId {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    MessageId::from(&*uuid(since.as_millis(), rand::random()))
}

/// The UUID of that time (48 bits, in milliseconds since the Unix epoch), with 74 bits of `chance`.
fn uuid(millis: u128, chance: u128) -> String {
    let (version, variant) = (7 << 76, 0b10 << 62);
    let (first, second) = (chance >> 64 & 0xfff, chance & (u128::from(u64::MAX) >> 2));
    let bits = (millis & 0xffff_ffff_ffff) << 80 | version | first << 64 | variant | second;
    let part = |right: u32, digits: u32| bits >> right & ((1 << (4 * digits)) - 1);
    let mut text = String::with_capacity(LEN);
    // A text takes all that is written to it.
    let _ = write!(
        text,
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        part(96, 8),
        part(80, 4),
        part(64, 4),
        part(48, 4),
        part(0, 12)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_of_version_7() {
        // RFC 9562, appendix A.6.
        let chance = 0xcc3 << 64 | 0x18c4_dc0c_0c07_398f;
        assert_eq!(uuid(0x017f_22e2_79b0, chance), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
        assert_eq!(uuid(u128::MAX, u128::MAX), "ffffffff-ffff-7fff-bfff-ffffffffffff");
        assert_eq!(uuid(0, 0), "00000000-0000-7000-8000-000000000000");
    }

    #[test]
    fn what_comes_later_is_behind_what_came_before_and_never_the_same() {
        for millis in [0, 1, 0xfff, 1_700_000_000_000] {
            assert!(uuid(millis, u128::MAX) < uuid(millis + 1, 0), "{millis}");
        }
        let ids: std::collections::BTreeSet<MessageId> = (0..1000).map(|_| new_mid()).collect();
        assert_eq!(ids.len(), 1000);
    }
}
