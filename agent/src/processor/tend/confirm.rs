//! Changes of the account that is never locked out, and of where keys lie: kept before they are made, and brought back
//! when they are not confirmed. This file must not know when a change is confirmed, only what follows.

use std::time::Instant;

use bastio_protocol::{AbsolutePath, FailureNote, GroupName, Sudo, Username};

use super::{Site, Tender, places};
use crate::accounts::AccountsError;
use crate::guard::file::SavedFile;
use crate::guard::{Effect, Event, Pending, SavedAccount, SavedLogin};
use crate::ledger::{Ledger, LedgerError};
use crate::pipe::ToConnector;
use crate::reconcile::host::{AccountChange, AccountFacts, Host};

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
        let pending = self.keep(&facts, site)?;
        Ok(self.write_down(pending, site.ledger)?)
    }

    /// Keeps it for the way back; after an error nothing must be changed.
    pub(super) fn write_down(
        &mut self,
        pending: Pending,
        ledger: &mut Ledger,
    ) -> Result<(), LedgerError> {
        for effect in self.guard.on(Event::Before(pending), Instant::now()) {
            if let Effect::Keep(pending) = effect {
                let before = ledger.guard().cloned();
                ledger.set_guard(Some(pending));
                if let Err(error) = ledger.save() {
                    ledger.set_guard(before);
                    self.guard.on(Event::Made { is_changed: false }, Instant::now());
                    return Err(error);
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

    pub(super) fn carry_on<H: Host>(
        &mut self,
        event: Event,
        site: &mut Site<'_, H>,
    ) -> Vec<ToConnector> {
        let mut words = Vec::new();
        for effect in self.guard.on(event, Instant::now()) {
            match effect {
                Effect::Keep(pending) => site.ledger.set_guard(Some(pending)),
                Effect::Reconnect => words.push(ToConnector::Reconnect),
                Effect::Forget => site.ledger.set_guard(None),
                Effect::Confirm(pending) => {
                    tracing::info!(what = pending.what, "confirmed by a new connection");
                    self.finish_mode(&pending, site);
                    site.ledger.set_guard(None);
                }
                Effect::RollBack(pending) => {
                    let seconds = self.guard.limit().as_secs();
                    let why = format!("no new connection came within {seconds} s");
                    self.roll_back(&pending, &why, site);
                }
            }
        }
        if let Err(error) = site.ledger.save() {
            tracing::error!(%error, "what was kept for the way back is not up to date");
        }
        words
    }

    /// Until when a change that is made now must be confirmed.
    pub(super) fn until<H: Host>(&self, site: &Site<'_, H>) -> i64 {
        let limit = i64::try_from(self.guard.limit().as_secs()).unwrap_or(i64::MAX);
        site.rules.now.saturating_add(limit)
    }

    fn keep<H: Host>(
        &self,
        facts: &AccountFacts,
        site: &Site<'_, H>,
    ) -> Result<Pending, ConfirmError> {
        let account = &facts.account;
        let name = &account.name;
        let take = |path: std::path::PathBuf| {
            SavedFile::take(&path).map_err(|error| ConfirmError::Unreadable {
                what: path.display().to_string(),
                error,
            })
        };
        let files = places::guarded(account).into_iter().map(take).collect::<Result<_, _>>()?;
        Ok(Pending {
            what: format!("keys and sudo rights of {name}"),
            until: self.until(site),
            files,
            sshd: None,
            account: Some(SavedAccount {
                name: name.clone(),
                in_sudo_group: in_sudo_group(site.host, name)?.unwrap_or_default(),
                login: Some(login(facts)),
                wanted: site.ledger.wanted().get(name).cloned(),
            }),
        })
    }

    /// Brings everything back. What cannot be is logged and said; the rest comes back all the same.
    pub(super) fn roll_back<H: Host>(
        &mut self,
        pending: &Pending,
        why: &str,
        site: &mut Site<'_, H>,
    ) {
        let ledger = &mut *site.ledger;
        let mut failures = Vec::new();
        if let Some(saved) = &pending.account {
            failures.extend(put_back_account(site.host, saved));
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
        // Behind the files: it moves the keys that are in them now.
        failures.extend(self.roll_back_mode(pending, site));
        let mut text = format!("{}: rolled back, since {why}", pending.what);
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
    let is_changed = |saved: &SavedAccount| {
        let facts = host.facts(&saved.name).ok().flatten();
        in_sudo_group(host, &saved.name).ok().flatten() != Some(saved.in_sudo_group)
            || saved.login.is_some() && facts.as_ref().map(login) != saved.login
    };
    pending.files.iter().any(is_other) || pending.account.as_ref().is_some_and(is_changed)
}

fn login(facts: &AccountFacts) -> SavedLogin {
    let AccountFacts { shell, group, groups, .. } = facts.clone();
    SavedLogin { shell, group, groups }
}

/// Everything of an account that is in no file of its own; what could not be brought back.
fn put_back_account(host: &impl Host, saved: &SavedAccount) -> Vec<String> {
    let mut failures = Vec::new();
    if let Err(error) = put_back_group(host, saved) {
        failures.push(error.to_string());
    }
    if let Some(login) = &saved.login
        && let Err(error) = put_back_login(host, &saved.name, login)
    {
        failures.push(error);
    }
    failures
}

fn put_back_login(host: &impl Host, name: &Username, was: &SavedLogin) -> Result<(), String> {
    let told = |error: &dyn std::error::Error| error.to_string();
    let Some(facts) = host.facts(name).map_err(|error| told(&error))? else { return Ok(()) };
    let mut change = AccountChange::default();
    if facts.shell != was.shell {
        change.shell = Some(AbsolutePath::parse(&was.shell).map_err(|error| told(&error))?);
    }
    if facts.group != was.group {
        change.group = Some(GroupName::parse(&was.group).map_err(|error| told(&error))?);
    }
    let gone = was.groups.difference(&facts.groups).map(|group| GroupName::parse(group));
    change.add_groups = gone.collect::<Result<_, _>>().map_err(|error| told(&error))?;
    change.drop_groups = facts.groups.difference(&was.groups).cloned().collect();
    if change.is_empty() {
        return Ok(());
    }
    host.modify(name, &change).map_err(|error| told(&error))
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
