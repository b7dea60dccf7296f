//! From the model to what each server must look like, and from there to actions.
//!
//! Pure: values in, values out. This room must not know the database, sessions, clocks or who
//! asked. [`difference`] is the only place that decides what a server is told.

use std::collections::{BTreeMap, BTreeSet};

use bastio_protocol::api::Labels;
use bastio_protocol::{Action, PublicKey, ServerName, Target, Username};

/// The accounts of one server that are bastio's.
pub type Accounts = BTreeMap<Username, Account>;

/// One account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Whether it may use sudo.
    pub sudo: bool,
    /// The keys that log in.
    pub keys: BTreeSet<PublicKey>,
}

/// A server as grants see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: ServerName,
    /// Its labels.
    pub labels: Labels,
}

/// A grant with the keys of its person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entitlement {
    /// The servers.
    pub on: Target,
    /// The account there.
    pub login: Username,
    /// Whether with sudo rights.
    pub sudo: bool,
    /// The keys of the person.
    pub keys: Vec<PublicKey>,
}

/// Something to be done for one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The account.
    pub login: Username,
    /// What to do.
    pub action: Action,
}

/// The accounts that `host` must have. Several grants of one login there become one account:
/// with sudo rights if any of them has, with the keys of all.
#[must_use]
pub fn desired(model: &[Entitlement], host: &Host) -> Accounts {
    let mut accounts = Accounts::new();
    for grant in model.iter().filter(|grant| grant.on.includes(&host.name, &host.labels)) {
        let account = accounts.entry(grant.login.clone()).or_default();
        account.sudo |= grant.sudo;
        account.keys.extend(grant.keys.iter().cloned());
    }
    accounts
}

/// What is confirmed, as it will be when everything under way has been done. An action for an
/// account that will not be there changes nothing.
#[must_use]
pub fn projected<'a>(
    mut accounts: Accounts,
    pending: impl IntoIterator<Item = &'a Step>,
) -> Accounts {
    for step in pending {
        let makes_account = matches!(step.action, Action::AddUser { .. });
        if makes_account || accounts.contains_key(&step.login) {
            confirm(&mut accounts, step);
        }
    }
    accounts
}

/// Takes over what an agent says it has done. A key or right that it gave to an account not known
/// here makes that account known: what gives access must never be forgotten.
pub fn confirm(accounts: &mut Accounts, step: &Step) {
    match &step.action {
        Action::AddUser { sudo } | Action::UpdateUser { sudo } => {
            accounts.entry(step.login.clone()).or_default().sudo = *sudo;
        }
        Action::RemoveUser => {
            accounts.remove(&step.login);
        }
        Action::AddKey { public_key } => {
            let account = accounts.entry(step.login.clone()).or_default();
            account.keys.insert(public_key.clone());
        }
        Action::RemoveKey { public_key } => {
            if let Some(account) = accounts.get_mut(&step.login) {
                account.keys.remove(public_key);
            }
        }
    }
}

/// What leads from `projected` to `desired`: accounts that must go first, then account by account
/// what is given before what is taken, so that nobody loses the last key before the new one works.
#[must_use]
pub fn difference(desired: &Accounts, projected: &Accounts) -> Vec<Step> {
    let gone = projected.keys().filter(|login| !desired.contains_key(*login));
    let mut steps: Vec<Step> =
        gone.map(|login| Step { login: login.clone(), action: Action::RemoveUser }).collect();
    for (login, wanted) in desired {
        let actions = match projected.get(login) {
            None => create(wanted),
            Some(present) => adjust(wanted, present),
        };
        steps.extend(actions.into_iter().map(|action| Step { login: login.clone(), action }));
    }
    steps
}

fn create(wanted: &Account) -> Vec<Action> {
    let mut actions = vec![Action::AddUser { sudo: wanted.sudo }];
    actions.extend(wanted.keys.iter().map(add_key));
    actions
}

fn adjust(wanted: &Account, present: &Account) -> Vec<Action> {
    let mut actions: Vec<Action> = wanted.keys.difference(&present.keys).map(add_key).collect();
    let gone = present.keys.difference(&wanted.keys);
    actions.extend(gone.map(|key| Action::RemoveKey { public_key: key.clone() }));
    if wanted.sudo != present.sudo {
        actions.push(Action::UpdateUser { sudo: wanted.sudo });
    }
    actions
}

fn add_key(key: &PublicKey) -> Action {
    Action::AddKey { public_key: key.clone() }
}

#[cfg(test)]
mod tests;
