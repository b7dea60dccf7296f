//! One agent's orders: the key that signs them, and how long each is good. This file must not know what is ordered.

use std::sync::Arc;
use std::time::Duration;

use bastio_protocol::{ActionMessage, Draft, Order, Payload, ServerId, SigningKey};

/// An order that waited for more seconds than that is signed anew before it goes out: its time limit is for the way.
const STALE: i64 = 5;

/// Signs the orders for one agent. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Signer {
    key: Arc<SigningKey>,
    /// Seconds.
    valid_for: i64,
    /// Whether the agent obeys orders that are signed together with others.
    together: bool,
}

impl Signer {
    /// Signs with `key`, so that an order may be obeyed for `valid_for` from then on.
    #[must_use]
    pub fn new(key: Arc<SigningKey>, valid_for: Duration) -> Self {
        let valid_for = i64::try_from(valid_for.as_secs()).unwrap_or(i64::MAX);
        Self { key, valid_for, together: false }
    }

    /// The same for an agent that obeys orders signed together with others, if it does.
    #[must_use]
    pub fn together(self, together: bool) -> Self {
        Self { together, ..self }
    }

    /// Whether an order that one of them has signed is as the other would have signed it.
    #[must_use]
    pub fn signs_like(&self, other: &Self) -> bool {
        self.key.verifying_key() == other.key.verifying_key()
            && self.together == other.together
            && self.valid_for == other.valid_for
    }

    /// Whether orders of the other can be signed together with those of this one.
    #[must_use]
    pub fn goes_with(&self, other: &Self) -> bool {
        self.together && self.signs_like(other)
    }

    /// An order of that number for one server, signed `now` (seconds since the Unix epoch).
    #[must_use]
    pub fn sign(&self, server: ServerId, number: u64, now: i64, payload: &Payload) -> Order {
        Order::sign(&self.key, server, number, self.not_after(now), payload)
    }

    /// Orders of these numbers for these servers, signed together `now` (seconds since the Unix epoch): for agents whose
    /// signers go with this one.
    #[must_use]
    pub fn sign_together<'a>(
        &self,
        actions: impl Iterator<Item = (ServerId, u64, &'a ActionMessage)>,
        now: i64,
    ) -> Vec<Order> {
        let not_after = self.not_after(now);
        let draft = |(server, number, action)| Draft::new(server, number, not_after, action);
        Order::sign_together(&self.key, actions.map(draft).collect())
    }

    /// Whether an order that is good until `not_after` can go out `now` (both in seconds since the Unix epoch).
    #[must_use]
    pub fn is_fresh(&self, not_after: i64, now: i64) -> bool {
        let signed_now = self.not_after(now);
        (signed_now.saturating_sub(STALE)..=signed_now).contains(&not_after)
    }

    fn not_after(&self, now: i64) -> i64 {
        now.saturating_add(self.valid_for)
    }
}
