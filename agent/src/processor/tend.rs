//! What the processor does by itself, without an order: it notices drift, ends what has come to its end, and brings
//! back what was not confirmed.
//!
//! All of it happens on the processor's thread, between two actions. This file must not know the pipe's threads, the
//! journal, or how an account is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bastio_protocol::{Detail, DriftMessage, Username, WantedAccount};
use crossbeam_channel::Receiver;

use crate::drift::spot::{self, Aim};
use crate::drift::{Drift, Policy, Topic, Watcher};
use crate::guard::Guard;
use crate::ledger::Ledger;
use crate::pipe::ToConnector;
use crate::reconcile::host::Host;
use crate::reconcile::{Beat, Rules};

mod confirm;
mod ends;
mod key_mode;
mod places;

use ends::Retry;

/// The server that is tended.
pub(super) struct Site<'a, H> {
    pub(super) host: &'a H,
    pub(super) ledger: &'a mut Ledger,
    pub(super) rules: Rules,
}

/// What the processor does by itself.
#[derive(Debug)]
pub(super) struct Tender {
    watcher: Watcher,
    drift: Drift,
    guard: Guard,
    aim: Aim,
    /// What is over and could not be taken.
    retry: Retry,
    /// Whether nothing was looked at yet.
    is_new: bool,
    /// The agent's folder of its own.
    state: PathBuf,
}

impl Tender {
    /// Watches nothing yet; [`Self::begin`] comes next.
    pub(super) fn new(
        policy: Policy,
        confirm_within: Duration,
        state: PathBuf,
    ) -> std::io::Result<Self> {
        Ok(Self {
            watcher: Watcher::start()?,
            drift: Drift::new(policy),
            guard: Guard::new(confirm_within),
            aim: spot::of_server(),
            retry: Retry::default(),
            is_new: true,
            state,
        })
    }

    /// Something is in it when [`Self::look`] is due.
    pub(super) fn bell(&self) -> &Receiver<()> {
        self.watcher.bell()
    }

    /// When [`Self::look`] is due at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.is_new {
            return Some(Instant::now());
        }
        self.guard.deadline().into_iter().chain(self.retry.deadline()).min()
    }

    /// Looks at what has changed, carries out what has come to its end, and brings back what was not confirmed in time.
    /// What is to be said about it. `beat` is called after each account.
    pub(super) fn look<H: Host>(
        &mut self,
        site: &mut Site<'_, H>,
        beat: &mut Beat<'_>,
    ) -> Vec<ToConnector> {
        self.tick(site);
        let Site { host, ledger, rules } = site;
        let seen = self.watcher.take();
        let is_general = |topic: &Topic| !matches!(topic, Topic::Account(_));
        let all = std::mem::take(&mut self.is_new)
            || seen.everything
            || seen.topics.iter().any(is_general);
        let mut names: BTreeSet<Username> = if all {
            ledger.wanted().keys().cloned().collect()
        } else {
            let account = |topic| match topic {
                Topic::Account(name) => Some(name),
                Topic::Accounts | Topic::Sudo | Topic::Sshd => None,
            };
            seen.topics.into_iter().filter_map(account).collect()
        };
        // Watched before it is looked at, so that no change falls between.
        self.aim_at(*host, ledger.wanted(), &names);
        if all || seen.time || self.retry.is_due(Instant::now()) {
            let taken = ends::take(*host, ledger.wanted(), rules, beat);
            self.retry.tried(&taken.failures, Instant::now());
            self.drift.set_overdue(taken.failures);
            names.extend(taken.names);
        }
        let healed = self.drift.look(*host, ledger.wanted(), &names, rules, beat);
        self.schedule(ledger, rules.now);
        let healed = healed.map(|detail| word(rules.now, true, detail));
        let news = self.drift.news().map(|detail| word(rules.now, false, detail));
        healed.into_iter().chain(news).collect()
    }

    /// Sets the timer for what ends next. To be called when the ledger was changed.
    pub(super) fn schedule(&self, ledger: &Ledger, now: i64) {
        if let Err(error) = self.watcher.wake_at(ends::next(ledger.wanted(), now)) {
            tracing::error!(%error, "no timer: accounts end by the means of the system alone");
        }
    }

    /// A new connection to the backend, which may know nothing of what was said before.
    pub(super) fn connected<H: Host>(&mut self, site: &mut Site<'_, H>) -> Vec<ToConnector> {
        self.confirm(site);
        let all = self.drift.tell_all();
        if site.ledger.wanted().is_empty() && all == Detail::default() {
            return Vec::new();
        }
        vec![word(site.rules.now, false, all)]
    }

    /// Watches the places of these accounts as they are now; of all others, as before.
    fn aim_at(
        &mut self,
        host: &impl Host,
        wanted: &BTreeMap<Username, WantedAccount>,
        names: &BTreeSet<Username>,
    ) {
        self.aim.retain(|topic, _| match topic {
            Topic::Account(name) => wanted.contains_key(name),
            Topic::Accounts | Topic::Sudo | Topic::Sshd => true,
        });
        for name in names.iter().filter(|name| wanted.contains_key(*name)) {
            let topic = Topic::Account(name.clone());
            match host.facts(name) {
                Ok(Some(facts)) => {
                    let files = places::key_files(&facts.account);
                    self.aim.insert(topic, spot::of_account(&facts.account.home, &files));
                }
                // The account databases tell when it comes.
                Ok(None) => drop(self.aim.remove(&topic)),
                Err(error) => tracing::warn!(%name, %error, "its files are watched as before"),
            }
        }
        self.watcher.aim(self.aim.clone());
        self.drift.set_blind(self.watcher.blind());
    }
}

impl AsFd for Tender {
    /// A handle that is readable when [`Tender::look`] is due.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watcher.as_fd()
    }
}

fn word(at: i64, healed: bool, detail: Detail) -> ToConnector {
    if healed {
        tracing::warn!(changes = detail.changes.len(), "changes by others were put right");
    } else {
        let (changes, warnings, failures) =
            (detail.changes.len(), detail.warnings.len(), detail.failures.len());
        tracing::info!(changes, warnings, failures, "what differs from what is meant");
    }
    ToConnector::Drift(DriftMessage { at, healed, detail })
}

#[cfg(test)]
mod tests;
