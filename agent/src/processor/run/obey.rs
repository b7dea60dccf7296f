//! Orders on their way: verified first, then carried out as the action in them, or as the change of
//! the key that signs. This file must not know how an order is verified, nor what an action does.

use bastio_protocol::{FeedbackMessage, Order, Payload, Status, VerifyingKey};

use super::super::System;
use super::super::end_point::EndPoint;
use super::super::verify::{Refusal, refuse};
use super::super::work::{Effect, Work, now};
use super::{Outcome, Service};
use crate::pipe::{Obeys, ToConnector};

impl<A: System> Service<A> {
    /// Obeys one order or refuses it, and hands over its answer; false when nobody takes it, or there is none yet.
    pub(super) fn obey(&mut self, order: &Order, end_point: &EndPoint) -> bool {
        if self.is_crowded() {
            return false;
        }
        let (outcome, key_changed) = match self.verified(order) {
            Err(refusal) => (Some(self.once.reply(refuse(order, &refusal))), false),
            Ok(Payload::Action(action)) => (self.follow(order, &Work::Action(action)), false),
            Ok(Payload::Host(host)) => (self.follow(order, &Work::Host(host)), false),
            Ok(Payload::RotateKey { mid, key }) => {
                let (status, feedback) = self.rotate(key, order.sequence());
                let feedback = FeedbackMessage::new(mid, status, feedback);
                (Some(self.once.reply(feedback)), status.is_success())
            }
        };
        let Some(outcome) = outcome else { return false };
        self.hand_over(outcome, end_point) && (!key_changed || self.say_obeys(end_point))
    }

    /// Whom the processor obeys; nothing where no key is pinned.
    pub(super) fn obeys(&mut self) -> Option<ToConnector> {
        let signing_key = Some(self.verifier.key()?);
        // A journal that cannot be read refuses orders one by one.
        let highest = self.once.highest_sequence().unwrap_or_default();
        let last_sequence = self.verifier.at_least(highest);
        let receipt_key = self.once.receipt_key();
        Some(ToConnector::Obeys(Obeys { last_sequence, signing_key, receipt_key }))
    }

    pub(super) fn say_obeys(&mut self, end_point: &EndPoint) -> bool {
        self.obeys().is_none_or(|obeys| self.say(obeys, end_point))
    }

    fn follow(&mut self, order: &Order, work: &Work) -> Option<Outcome> {
        self.once.record_sequence(order.sequence());
        self.answer(work)
    }

    /// Where nobody knows which orders were obeyed, an order may be an old one: then only what closes
    /// access is obeyed, since losing access twice does no harm that waiting would not do, too.
    fn verified(&mut self, order: &Order) -> Result<Payload, Refusal> {
        let error = match self.once.highest_sequence() {
            Ok(highest) => return self.verifier.check(order, highest, now()),
            Err(error) => error,
        };
        let payload = self.verifier.check(order, 0, now())?;
        let work = match &payload {
            Payload::Action(action) => Work::Action(action.clone()),
            Payload::Host(host) => Work::Host(host.clone()),
            Payload::RotateKey { .. } => return Err(Refusal::Forgotten(error.to_string())),
        };
        match work.effect() {
            Effect::Closes | Effect::Looks => Ok(payload),
            // Of an old state, even what it closes may be wrong by now.
            Effect::Both | Effect::Opens => Err(Refusal::Forgotten(error.to_string())),
        }
    }

    fn rotate(&mut self, key: VerifyingKey, sequence: u64) -> (Status, String) {
        let fingerprint = key.fingerprint();
        match self.verifier.obey_instead(key, sequence) {
            Ok(()) => {
                tracing::warn!(key = fingerprint, "another key signs orders from now on");
                (Status::Done, format!("orders signed by {fingerprint} are obeyed from now on"))
            }
            Err(error) => {
                tracing::error!(key = fingerprint, %error, "the new signing key cannot be kept");
                (Status::Failed, format!("the new signing key cannot be kept: {error}"))
            }
        }
    }
}
