//! Where what the processor does by itself meets the rest of its life: when it looks around, and which work must be
//! confirmed. This file must not know how a look is done.

use std::time::Instant;

use bastio_protocol::{HostRequest, Status, Username};

use super::super::System;
use super::super::end_point::EndPoint;
use super::super::once::{Begun, Outcome};
use super::super::tend::{Site, Tender};
use super::super::work::{Effect, Work};
use super::{Service, pulse};
use crate::pipe::ToConnector;
use crate::sshd::KeyMode;

impl<A: System> Service<A> {
    /// Carries on what an earlier run has left; whether that was too late to be confirmed, and rolled back. Then keys
    /// are brought to where they are to lie. Before anything else.
    pub(super) fn begin_tending(&mut self, keys: KeyMode) -> bool {
        self.tend(|tender, site| tender.begin(keys, site)).unwrap_or_default()
    }

    /// Does again what a crash cut short, and as it must be confirmed at first, it must be again. What was rolled back
    /// in between stays so.
    pub(super) fn finish_begun(&mut self, is_rolled_back: bool) {
        for begun in self.once.begun() {
            let guarded = self.must_be_confirmed(&begun.work);
            match guarded {
                Some(name) if is_rolled_back => {
                    let why = format!(
                        "it was cut short, and what concerns {name} was rolled back, since no new connection came in time"
                    );
                    self.once.give_up(&begun, &why);
                }
                Some(name) => match self.tend(|tender, site| tender.before(&name, site)) {
                    Some(Err(error)) => self.once.give_up(&begun, &error.to_string()),
                    Some(Ok(())) | None => {
                        if !self.redo(&begun) {
                            return;
                        }
                        // There is no connector yet: its first connection will be a new one.
                        self.tend(Tender::after);
                    }
                },
                None => {
                    if !self.redo(&begun) {
                        return;
                    }
                }
            }
        }
    }

    fn redo(&mut self, begun: &Begun) -> bool {
        let Self { once, heartbeat, stop, .. } = self;
        once.redo(begun, &mut || pulse(heartbeat.as_mut(), stop))
    }

    /// When to look around at the latest.
    pub(super) fn tending_deadline(&self) -> Option<Instant> {
        self.tender.as_ref().and_then(Tender::deadline)
    }

    /// Looks around; what there is to be said. Where nobody hears it, each new connection hears all of it.
    pub(super) fn look_around(&mut self) -> Vec<ToConnector> {
        let Self { tender: Some(tender), once, heartbeat, stop, .. } = self else {
            return Vec::new();
        };
        let Some(mut site) = once.site() else { return Vec::new() };
        tender.look(&mut site, &mut || pulse(heartbeat.as_mut(), stop))
    }

    /// A new connection to the backend is up; what there is to be said.
    pub(super) fn connected(&mut self) -> Vec<ToConnector> {
        self.tend(Tender::connected).unwrap_or_default()
    }

    /// Does the work, which must be confirmed if it may change the account that is never locked out. No outcome when
    /// it was stopped: it is done again as after a crash.
    pub(super) fn answer(&mut self, work: &Work) -> Option<Outcome> {
        Some(match self.must_be_confirmed(work) {
            None => self.carry_out(work)?,
            Some(name) => match self.tend(|tender, site| tender.before(&name, site)) {
                Some(Err(error)) => self.once.reply(work.reply(Status::Failed, error.to_string())),
                Some(Ok(())) | None => {
                    let outcome = self.carry_out(work)?;
                    let words = self.tend(Tender::after).unwrap_or_default();
                    self.words.extend(words);
                    outcome
                }
            },
        })
    }

    /// Sets the timer for what ends next, after work that was done.
    pub(super) fn schedule(&mut self) {
        self.tend(|tender, site| tender.schedule(site.ledger, site.rules.now));
    }

    pub(super) fn say_all(&self, words: Vec<ToConnector>, end_point: &EndPoint) -> bool {
        words.into_iter().all(|word| self.say(word, end_point))
    }

    /// The account that is never locked out, where the work may change it.
    fn must_be_confirmed(&self, work: &Work) -> Option<Username> {
        let name = self.once.break_glass()?;
        let concerns = match work {
            Work::Action(action) => action.username == *name,
            Work::Host(host) => matches!(host.request, HostRequest::Sync { .. }),
        };
        (concerns && work.effect() != Effect::Looks).then(|| name.clone())
    }

    fn tend<T>(&mut self, f: impl FnOnce(&mut Tender, &mut Site<'_, A>) -> T) -> Option<T> {
        Some(f(self.tender.as_mut()?, &mut self.once.site()?))
    }
}
