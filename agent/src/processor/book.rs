//! Keeps the ledger: what each account is meant to be after what was done to it.
//!
//! An account that the ledger does not know (made before there was one) is learned as it stands, so
//! that nothing is ever missed that was there before. This file must not know how the ledger is kept.

use std::collections::BTreeMap;

use bastio_protocol::{
    Action, ActionMessage, KeyGrant, PublicKey, Status, Sudo, Username, WantedAccount, WantedState,
};

use super::{Processor, System};
use crate::accounts::AccountsError;
use crate::ledger::Ledger;
use crate::reconcile::host::{NewAccount, SudoState};
use crate::reconcile::{Applied, Observed, Plan, Step};

impl<A: System> Processor<A> {
    /// What the account is meant to be, as far as known.
    pub(super) fn wanted(&self, name: &Username) -> Option<&WantedAccount> {
        self.ledger.as_ref()?.wanted().get(name)
    }

    /// Which numeric id a new account gets, and whether it takes a home again that it had before.
    pub(super) fn place_of(&self, name: &Username) -> Result<NewAccount, AccountsError> {
        let Some(ledger) = &self.ledger else { return Ok(NewAccount::default()) };
        let others = ledger.uids().iter().filter(|(other, _)| *other != name);
        let avoid = others.map(|(_, uid)| *uid).collect();
        let uid = match ledger.uid_of(name) {
            // Others took it meanwhile.
            Some(uid) if self.accounts.holder_of_uid(uid)?.is_some() => None,
            uid => uid,
        };
        let home = self.accounts.found_home(name, None)?;
        let keep_home = home.is_some_and(|home| home.is_folder && Some(home.uid) == uid);
        Ok(NewAccount { uid, avoid, keep_home, ..NewAccount::default() })
    }

    /// An action went well, as the status says: the account is meant to be so from now on.
    pub(super) fn note_action(&mut self, message: &ActionMessage, status: Status) {
        let name = &message.username;
        if self.ledger.is_none() || matches!(message.action, Action::SetUser { .. }) {
            return;
        }
        if let Action::RemoveUser { .. } = &message.action {
            self.with_ledger(|ledger| ledger.forget(name));
            return;
        }
        let Some(mut wanted) = self.wanted(name).cloned().or_else(|| self.learn(message)) else {
            return;
        };
        match &message.action {
            Action::AddUser { sudo } => {
                let now = (self.clock)();
                wanted.sudo = plain(*sudo);
                wanted.locked = false;
                wanted.until = wanted.until.filter(|until| *until > now);
            }
            Action::UpdateUser { sudo } => wanted.sudo = plain(*sudo),
            Action::AddKey { public_key } => {
                let grant = match status {
                    // Added just now, and as plain as it was asked for.
                    Status::Done => Some(KeyGrant::plain(public_key.clone())),
                    // There already: perhaps with options, perhaps on a line of others.
                    _ => self.grant_of(name, public_key),
                };
                if let Some(grant) = grant {
                    wanted.keys.retain(|it| it.public_key != *public_key);
                    wanted.keys.insert(grant);
                }
            }
            Action::RemoveKey { public_key } => {
                wanted.keys.retain(|it| it.public_key != *public_key);
            }
            Action::LockUser => wanted.locked = true,
            Action::UnlockUser => wanted.locked = false,
            Action::EndSessions | Action::RemoveUser { .. } | Action::SetUser { .. } => {}
        }
        self.note_wanted(name, &wanted);
    }

    /// The account is meant to be this.
    pub(super) fn note_wanted(&mut self, name: &Username, wanted: &WantedAccount) {
        self.reserve(std::iter::once(name.clone()));
        self.with_ledger(|ledger| ledger.set(name.clone(), wanted.clone()));
    }

    /// The account is nobody's business any more.
    pub(super) fn note_given_back(&mut self, name: &Username) {
        self.with_ledger(|ledger| ledger.forget(name));
    }

    /// The server is meant to be this, save for what was refused.
    pub(super) fn note_state(&mut self, wanted: &WantedState, plan: &Plan, applied: &Applied) {
        let Some(ledger) = &self.ledger else { return };
        let mut state = wanted.clone();
        for name in &plan.refused {
            match ledger.wanted().get(name) {
                Some(before) => state.accounts.insert(name.clone(), before.clone()),
                None => state.accounts.remove(name),
            };
        }
        state.accounts.retain(|_, account| account.release.is_none());
        let taken_over = plan.accounts.iter().filter(|account| {
            !applied.failed.contains(&account.name)
                && matches!(account.steps.first(), Some(Step::TakeOver))
        });
        let taken_over: Vec<Username> = taken_over.map(|account| account.name.clone()).collect();
        self.reserve(taken_over.into_iter());
        let made = applied.made.clone();
        self.with_ledger(|ledger| {
            made.into_iter().for_each(|(name, uid)| reserve(ledger, name, uid));
        });
        self.with_ledger(|ledger| ledger.replace(&state));
    }

    /// The numeric ids of managed accounts that were found belong to them for good.
    pub(super) fn reserve_found(&mut self, observed: &Observed) {
        let Some(ledger) = &mut self.ledger else { return };
        for (name, seen) in &observed.accounts {
            let Ok(seen) = seen else { continue };
            let account = seen.state.as_ref().map(|state| &state.facts.account);
            if let Some(account) = account.filter(|it| it.is_managed && !it.is_system) {
                reserve(ledger, name.clone(), account.owner.uid.as_raw());
            }
        }
    }

    /// The numeric ids of these accounts belong to them for good.
    fn reserve(&mut self, names: impl Iterator<Item = Username>) {
        let Some(ledger) = &mut self.ledger else { return };
        for name in names {
            let Ok(Some(facts)) = self.accounts.facts(&name) else { continue };
            reserve(ledger, name, facts.account.owner.uid.as_raw());
        }
    }

    /// The account of an action as it stands; none where nobody can tell what is meant.
    fn learn(&self, message: &ActionMessage) -> Option<WantedAccount> {
        let state = self.accounts.state(&message.username).ok()??;
        let sudo = match (&message.action, state.sudo) {
            // What rule there is was made of this.
            (Action::AddUser { sudo } | Action::UpdateUser { sudo }, _) => plain(*sudo),
            (_, SudoState::None) => Sudo::None,
            (_, SudoState::Group) => Sudo::Plain,
            (_, SudoState::OtherGroup | SudoState::Rule(_) | SudoState::Both(_)) => return None,
        };
        let keys = state.keys.ok()?.ours.into_iter().collect();
        let locked = state.facts.locked;
        Some(WantedAccount { sudo, keys, locked, ..WantedAccount::default() })
    }

    /// The line of ours that lets this key in.
    fn grant_of(&self, name: &Username, key: &PublicKey) -> Option<KeyGrant> {
        let account = self.accounts.facts(name).ok()??.account;
        let found = self.accounts.keys(&account).ok()?;
        found.ours.into_iter().find(|grant| grant.public_key == *key)
    }

    fn with_ledger(&mut self, edit: impl FnOnce(&mut Ledger)) {
        if let Some(ledger) = &mut self.ledger {
            edit(ledger);
        }
    }

    /// Writes the ledger down; the revision that its file has for certain.
    pub(super) fn save_ledger(&mut self) -> Option<u64> {
        let ledger = self.ledger.as_mut()?;
        match ledger.save() {
            Ok(()) => Some(ledger.revision()),
            Err(error) => {
                tracing::error!(%error, "the ledger is behind what was done");
                None
            }
        }
    }

    /// What the ledger's file may lack, from the journal; none when nobody knows. Where the file itself was lost, the ids
    /// that are in use are reserved anew: else an account that goes would leave its id to a stranger.
    pub(super) fn catch_up(&mut self, edits: Option<&BTreeMap<u64, Vec<u8>>>) {
        if self.ledger.as_ref().is_some_and(Ledger::was_lost) {
            match self.accounts.managed() {
                Ok(names) => self.reserve(names.into_iter()),
                Err(error) => tracing::error!(%error, "nobody knows which numeric ids are in use"),
            }
        }
        let Some(ledger) = &mut self.ledger else { return };
        let redone = edits.map(|edits| {
            edits.iter().try_for_each(|(revision, edits)| ledger.redo(*revision, edits))
        });
        let why = match redone {
            Some(Ok(())) => return,
            Some(Err(error)) => error.to_string(),
            None => "the journal cannot be read, or was damaged".to_owned(),
        };
        tracing::error!(
            why,
            "the ledger may be behind: what accounts are meant to be is learned anew"
        );
        ledger.doubt();
    }
}

fn reserve(ledger: &mut Ledger, name: Username, uid: u32) {
    if let Err(error) = ledger.reserve(name.clone(), uid) {
        tracing::warn!(%name, %error, "an id that two accounts have");
    }
}

fn plain(sudo: bool) -> Sudo {
    if sudo { Sudo::Plain } else { Sudo::None }
}
