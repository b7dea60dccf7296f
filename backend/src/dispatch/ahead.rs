//! Orders that are signed while their edit is written: the one waits for a processor, the other for a second one and the
//! disk. They go out once the edit is on the disk, or never. Agents that obey such have theirs signed together, for a
//! signature takes longer than all else about an order.
//!
//! What is not signed by then is left to its session. This file must not know what is ordered.

use std::sync::{Arc, Mutex, PoisonError};

use bastio_protocol::{ActionMessage, Order, Payload, ServerId};

use super::numbers::Numbers;
use crate::signing::Signer;

/// So many are signed together at most, so that 6 hashes lead from each to what is signed: with more of them an order would
/// grow, and the signature is a hundredth of the work by then.
const TOGETHER: usize = 64;

/// How a session's orders are made. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct OrderMaker {
    pub(super) signer: Signer,
    pub(super) numbers: Numbers,
}

/// An action that is on the disk as sent.
#[derive(Debug, Clone)]
pub struct Handed {
    /// What is to be done.
    pub message: Arc<ActionMessage>,
    /// The order, if it was signed ahead.
    pub order: Option<SignedOrder>,
}

/// An order that nothing is missing from.
#[derive(Debug, Clone)]
pub struct SignedOrder {
    /// What signed it.
    signer: Signer,
    /// Its number.
    pub number: u64,
    /// Until when it may be obeyed, in seconds since the Unix epoch.
    pub not_after: i64,
    /// Its JSON.
    pub body: Vec<u8>,
}

/// An order to be signed.
#[derive(Debug)]
pub(super) struct Unsigned {
    /// Its place among the actions of its edit: they are signed in that order.
    pub(super) place: usize,
    pub(super) server: ServerId,
    pub(super) message: Arc<ActionMessage>,
    pub(super) number: u64,
    pub(super) signer: Signer,
}

/// Orders that a thread signs. Dropped, it stops with the one at hand.
#[derive(Debug)]
pub(super) struct SigningAhead(Arc<Mutex<Vec<(usize, SignedOrder)>>>);

impl SigningAhead {
    /// Begins to sign these, by their places, with the time `now` (seconds since the Unix epoch).
    pub(super) fn begin(orders: Vec<Unsigned>, now: i64) -> Self {
        let signed = Arc::new(Mutex::new(Vec::with_capacity(orders.len())));
        let wanted = Arc::downgrade(&signed);
        // It ends by itself, and the runtime waits for it.
        tokio::task::spawn_blocking(move || {
            for some in orders.chunks(TOGETHER) {
                let Some(signed) = wanted.upgrade() else { return };
                let orders = sign(some, now);
                signed.lock().unwrap_or_else(PoisonError::into_inner).extend(orders);
            }
        });
        Self(signed)
    }

    /// Those that are signed by now, by their places.
    pub(super) fn signed(self) -> Vec<(usize, SignedOrder)> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl SignedOrder {
    /// Whether it can go out as it is, `now` (seconds since the Unix epoch) and behind one of the number `last`; the
    /// session's orders are signed by `signer`.
    #[must_use]
    pub fn fits(&self, signer: &Signer, last: u64, now: i64) -> bool {
        self.number > last && self.signer.signs_like(signer) && signer.is_fresh(self.not_after, now)
    }
}

/// Signs those together that can be, and the others each alone; by their places, as they came.
fn sign(orders: &[Unsigned], now: i64) -> Vec<(usize, SignedOrder)> {
    let mut signers = orders.iter().map(|order| &order.signer);
    let signer = signers.find(|signer| signer.goes_with(signer));
    let goes = |order: &&Unsigned| signer.is_some_and(|signer| order.signer.goes_with(signer));
    let (together, alone): (Vec<&Unsigned>, Vec<&Unsigned>) = orders.iter().partition(goes);
    let mut all: Vec<(usize, SignedOrder)> =
        alone.into_iter().map(|order| (order.place, order.sign(now))).collect();
    if let Some(signer) = signer {
        let signed = signer.sign_together(together.iter().map(|order| order.action()), now);
        let placed = |(order, signed): (&Unsigned, Order)| (order.place, order.signed(&signed));
        all.extend(together.into_iter().zip(signed).map(placed));
    }
    all.sort_unstable_by_key(|(place, _)| *place);
    all
}

impl Unsigned {
    fn action(&self) -> (ServerId, u64, &ActionMessage) {
        (self.server.clone(), self.number, &self.message)
    }

    fn sign(&self, now: i64) -> SignedOrder {
        let payload = Payload::Action(ActionMessage::clone(&self.message));
        self.signed(&self.signer.sign(self.server.clone(), self.number, now, &payload))
    }

    fn signed(&self, order: &Order) -> SignedOrder {
        let (signer, not_after) = (self.signer.clone(), order.not_after());
        SignedOrder { signer, number: order.sequence(), not_after, body: order.to_json() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bastio_protocol::{Action, MessageId};

    use super::*;
    use crate::testing::{NOW, login, signer, signing_key};

    fn unsigned(count: u64) -> Vec<Unsigned> {
        let message = |number| ActionMessage {
            mid: MessageId::from_number(number),
            username: login("alice"),
            action: Action::EndSessions,
        };
        let order = |number: u64| Unsigned {
            place: usize::try_from(2 * number).expect("small"),
            server: ServerId::from_number(7),
            message: Arc::new(message(number)),
            number,
            signer: signer(),
        };
        (1..=count).map(order).collect()
    }

    impl SigningAhead {
        /// Waits until so many are signed.
        pub(in crate::dispatch) async fn wait_for(&self, count: usize) {
            let until = tokio::time::Instant::now() + Duration::from_secs(20);
            while self.0.lock().expect("no panic").len() < count {
                assert!(tokio::time::Instant::now() < until, "nothing signs");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    #[tokio::test]
    async fn each_is_signed_with_its_number_in_its_place() {
        let signing = SigningAhead::begin(unsigned(50), NOW);
        signing.wait_for(50).await;
        for ((place, signed), number) in signing.signed().into_iter().zip(1..) {
            assert_eq!((place, signed.number), (usize::try_from(2 * number).unwrap(), number));
            let order = Order::parse(&signed.body).expect("an order").expect("whole");
            assert!(order.verify(&signing_key(7).verifying_key()));
            assert_eq!((order.sequence(), order.not_after()), (number, signed.not_after));
            let Payload::Action(message) = order.payload().expect("readable") else { panic!() };
            assert_eq!(message.mid, MessageId::from_number(number));
        }
    }

    #[tokio::test]
    async fn only_orders_of_one_key_for_agents_that_obey_such_are_signed_together() {
        let of = |seed: u8| Arc::new(signing_key(seed));
        let keys = [of(7), of(8)];
        let valid_for = Duration::from_mins(10);
        let [one, other] = keys.clone().map(|key| Signer::new(key, valid_for).together(true));
        let alone = Signer::new(Arc::clone(&keys[0]), valid_for);
        let signers = [(&one, 0, true), (&other, 1, true), (&alone, 0, false)];
        let mut orders = unsigned(300);
        for (order, (signer, ..)) in orders.iter_mut().zip(signers.iter().cycle()) {
            order.signer = Signer::clone(signer);
        }
        let signing = SigningAhead::begin(orders, NOW);
        signing.wait_for(300).await;
        let mut together = 0;
        for (((place, signed), number), (_, key, obeys)) in
            signing.signed().into_iter().zip(1..).zip(signers.iter().cycle())
        {
            assert_eq!((place, signed.number), (usize::try_from(2 * number).unwrap(), number));
            let order = Order::parse(&signed.body).expect("an order").expect("whole");
            assert!(order.verify(&keys[*key].verifying_key()), "{number}");
            assert_eq!((order.sequence(), order.not_after()), (number, signed.not_after));
            let Payload::Action(message) = order.payload().expect("readable") else { panic!() };
            assert_eq!(message.mid, MessageId::from_number(number));
            let is_together = String::from_utf8(signed.body).unwrap().contains("inclusion_path");
            assert!(*obeys || !is_together, "{number}");
            together += usize::from(is_together);
        }
        assert!(together >= 90, "{together}");
    }

    #[tokio::test]
    async fn nothing_is_signed_for_what_was_given_up() {
        let (some, all) = (1_000, 100_000);
        let orders = unsigned(all);
        let last = Arc::downgrade(&orders.last().expect("many").message);
        let begun = tokio::time::Instant::now();
        let signing = SigningAhead::begin(orders, NOW);
        signing.wait_for(some).await;
        let took = begun.elapsed();
        drop(signing);
        // To sign all would take a hundred times as long.
        while last.strong_count() > 0 {
            assert!(begun.elapsed() < 50 * took, "it signs on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[test]
    fn behind_a_higher_number_and_when_it_is_old_an_order_is_signed_anew() {
        let [unsigned] = <[Unsigned; 1]>::try_from(unsigned(1)).expect("one");
        let order = SignedOrder { number: 5, ..unsigned.sign(NOW) };
        for (last, now, fits) in [
            (4, NOW, true),
            (0, NOW + 5, true),
            (5, NOW, false),
            (6, NOW, false),
            (4, NOW + 6, false),
            (4, NOW - 1, false),
        ] {
            assert_eq!(order.fits(&signer(), last, now), fits, "{last} {now}");
        }
    }

    #[test]
    fn for_a_session_that_signs_otherwise_an_order_is_signed_anew() {
        let [unsigned] = <[Unsigned; 1]>::try_from(unsigned(1)).expect("one");
        let order = unsigned.sign(NOW);
        assert!(order.fits(&unsigned.signer, 0, NOW));
        assert!(!order.fits(&unsigned.signer.clone().together(true), 0, NOW));
        let of_key = |seed| Signer::new(Arc::new(signing_key(seed)), Duration::from_mins(5));
        let fits = [7, 8].map(|seed| order.fits(&of_key(seed), 0, NOW));
        assert_eq!(fits, [true, false]);
    }
}
