//! Changes of the account that is never locked out: kept before they are made, and brought back when they are not
//! confirmed. This file must not know when a change is confirmed, only what follows.

use std::time::Instant;

use bastio_protocol::{FailureNote, Sudo, Username};

use super::{Site, Tender, places};
use crate::accounts::{Account, AccountsError};
use crate::guard::file::SavedFile;
use crate::guard::{Effect, Event, Pending, SavedAccount};
use crate::ledger::LedgerError;
use crate::pipe::ToConnector;
use crate::reconcile::host::Host;

/// Why a change that must be confirmed is not even begun.
#[derive(Debug, thiserror::Error)]
pub(in crate::processor) enum ConfirmError {
    /// It is not known what is there.
    #[error("cannot keep {what} for the way back: {error}; nothing was done")]
    Unreadable {
        /// The file.
        what: String,
        /// The system's answer.
        error: std::io::Error,
    },
    #[error("{0}; nothing was done")]
    Accounts(#[from] AccountsError),
    #[error("{0}; nothing was done")]
    Ledger(#[from] LedgerError),
}

impl Tender {
    /// What an earlier run has left: it is brought back (true), or waits for the rest of its time.
    pub(in crate::processor) fn begin<H: Host>(&mut self, site: &mut Site<'_, H>) -> bool {
        let Some(pending) = site.ledger.guard().cloned() else { return false };
        tracing::warn!(what = pending.what, "a change was not confirmed yet");
        self.carry_on(Event::Found(pending, site.rules.now), site);
        site.ledger.guard().is_none()
    }

    /// Keys or rights of this account may be changed now.
    ///
    /// # Errors
    /// [`ConfirmError`]; the change must not be made.
    pub(in crate::processor) fn before<H: Host>(
        &mut self,
        name: &Username,
        site: &mut Site<'_, H>,
    ) -> Result<(), ConfirmError> {
        let Some(facts) = site.host.facts(name)? else { return Ok(()) };
        let pending = self.keep(&facts.account, site)?;
        let ledger = &mut *site.ledger;
        for effect in self.guard.on(Event::Before(pending), Instant::now()) {
            if let Effect::Keep(pending) = effect {
                let before = ledger.guard().cloned();
                ledger.set_guard(Some(pending));
                if let Err(error) = ledger.save() {
                    ledger.set_guard(before);
                    self.guard.on(Event::Made { is_changed: false }, Instant::now());
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// The change was made, or not. What is to be said.
    pub(in crate::processor) fn after<H: Host>(
        &mut self,
        site: &mut Site<'_, H>,
    ) -> Vec<ToConnector> {
        let Some(pending) = site.ledger.guard() else { return Vec::new() };
        let is_changed = differs(site.host, pending);
        if is_changed {
            let seconds = self.guard.limit().as_secs();
            tracing::warn!(what = pending.what, seconds, "must be confirmed by a new connection");
            if let Some(account) = &pending.account {
                self.drift.forget_note(&account.name);
            }
        }
        self.carry_on(Event::Made { is_changed }, site)
    }

    /// A new connection is up.
    pub(super) fn confirm<H: Host>(&mut self, site: &mut Site<'_, H>) {
        self.carry_on(Event::Connected, site);
    }

    /// Time has gone by.
    pub(super) fn tick<H: Host>(&mut self, site: &mut Site<'_, H>) {
        self.carry_on(Event::Tick, site);
    }

    fn carry_on<H: Host>(&mut self, event: Event, site: &mut Site<'_, H>) -> Vec<ToConnector> {
        let mut words = Vec::new();
        for effect in self.guard.on(event, Instant::now()) {
            match effect {
                Effect::Keep(pending) => site.ledger.set_guard(Some(pending)),
                Effect::Reconnect => words.push(ToConnector::Reconnect),
                Effect::Forget => site.ledger.set_guard(None),
                Effect::Confirm(pending) => {
                    tracing::info!(what = pending.what, "confirmed by a new connection");
                    site.ledger.set_guard(None);
                }
                Effect::RollBack(pending) => self.roll_back(&pending, site),
            }
        }
        if let Err(error) = site.ledger.save() {
            tracing::error!(%error, "what was kept for the way back is not up to date");
        }
        words
    }

    fn keep<H: Host>(
        &self,
        account: &Account,
        site: &Site<'_, H>,
    ) -> Result<Pending, ConfirmError> {
        let name = &account.name;
        let take = |path: std::path::PathBuf| {
            SavedFile::take(&path).map_err(|error| ConfirmError::Unreadable {
                what: path.display().to_string(),
                error,
            })
        };
        let files = places::guarded(account).into_iter().map(take).collect::<Result<_, _>>()?;
        let limit = i64::try_from(self.guard.limit().as_secs()).unwrap_or(i64::MAX);
        Ok(Pending {
            what: format!("keys and sudo rights of {name}"),
            until: site.rules.now.saturating_add(limit),
            files,
            account: Some(SavedAccount {
                name: name.clone(),
                in_sudo_group: in_sudo_group(site.host, name)?.unwrap_or_default(),
                wanted: site.ledger.wanted().get(name).cloned(),
            }),
        })
    }

    /// Brings everything back. What cannot be is logged and said; the rest comes back all the same.
    fn roll_back<H: Host>(&mut self, pending: &Pending, site: &mut Site<'_, H>) {
        let ledger = &mut *site.ledger;
        let mut failures = Vec::new();
        if let Some(saved) = &pending.account {
            if let Err(error) = put_back_group(site.host, saved) {
                failures.push(error.to_string());
            }
            match saved.wanted.clone() {
                Some(wanted) => ledger.set(saved.name.clone(), wanted),
                None => ledger.forget(&saved.name),
            }
        }
        for file in &pending.files {
            if let Err(error) = file.put_back() {
                failures.push(format!("{}: {error}", file.path.display()));
            }
        }
        ledger.set_guard(None);
        let (what, seconds) = (&pending.what, self.guard.limit().as_secs());
        let mut text =
            format!("{what}: rolled back, since no new connection came within {seconds} s");
        if !failures.is_empty() {
            text = format!("{text}; not brought back: {}", failures.join(", "));
        }
        tracing::error!("{text}");
        let username = pending.account.as_ref().map(|account| account.name.clone());
        self.drift.note(FailureNote { username, text });
    }
}

fn differs(host: &impl Host, pending: &Pending) -> bool {
    let is_other = |file: &SavedFile| SavedFile::take(&file.path).ok().as_ref() != Some(file);
    let group = |saved: &SavedAccount| {
        in_sudo_group(host, &saved.name).ok().flatten() != Some(saved.in_sudo_group)
    };
    pending.files.iter().any(is_other) || pending.account.as_ref().is_some_and(group)
}

/// Its rule, if any, goes with it and is brought back as a file.
fn put_back_group(host: &impl Host, saved: &SavedAccount) -> Result<(), AccountsError> {
    let name = &saved.name;
    match (saved.in_sudo_group, in_sudo_group(host, name)?) {
        (true, Some(false)) => drop(host.set_sudo(name, &Sudo::Plain, None)?),
        (false, Some(true)) => drop(host.set_sudo(name, &Sudo::None, None)?),
        (true, Some(true)) | (false, Some(false)) | (_, None) => {}
    }
    Ok(())
}

/// None where there is no such account.
fn in_sudo_group(host: &impl Host, name: &Username) -> Result<Option<bool>, AccountsError> {
    let Some(facts) = host.facts(name)? else { return Ok(None) };
    Ok(Some(host.sudo(&facts.account)?.has_group()))
}
