//! From the model to what each server must look like, and from there to actions.
//!
//! Pure: values in, values out. This room must not know the database, sessions, clocks or who
//! asked. [`difference`] is the only place that decides what a server is told; [`revise`] fits it
//! to what is queued already.
//!
//! What is taken away must be gone also where nobody knows whether it was ever there: something
//! given that was sent and failed (killed half way, no sync of the folder) is suspected. Whoever
//! wishes for it still gets it planned again, as for something absent; whoever does not, gets its
//! removal planned, as for something present ([`with_suspects`]). An answer to that removal ends
//! the suspicion, with one exception: a failed remove-key or update-user stands as a failure, as
//! its account is ours. A failed remove-user of an account that was never confirmed is tried once:
//! most likely the account is a stranger's, which failed add-user in the first place and would fail
//! every removal to come. That edit fails visibly, the audit log tells, and then it is let go.

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

/// What is present, and of the `suspects` what nobody wants: what is wanted is planned as absent
/// until it is confirmed, what is not must be taken away. An account that is wanted and not yet
/// there comes first; what is suspected of it is taken once it is confirmed.
#[must_use]
pub fn with_suspects(mut present: Accounts, suspects: &Accounts, wanted: &Accounts) -> Accounts {
    for (login, suspect) in suspects {
        match wanted.get(login) {
            None => {
                present.entry(login.clone()).or_default();
            }
            Some(wanted) => {
                let Some(account) = present.get_mut(login) else { continue };
                account.sudo |= suspect.sudo && !wanted.sudo;
                account.keys.extend(suspect.keys.difference(&wanted.keys).cloned());
            }
        }
    }
    present
}

/// Takes over what an agent says it has done. A key or right that it gave to an account not known
/// here makes that account known: what gives access must never be forgotten.
pub fn confirm(accounts: &mut Accounts, step: &Step) {
    match &step.action {
        Action::AddUser { sudo } | Action::UpdateUser { sudo } => {
            accounts.entry(step.login.clone()).or_default().sudo = *sudo;
        }
        Action::RemoveUser { .. } => {
            accounts.remove(&step.login);
        }
        Action::AddKey { public_key } => {
            let account = accounts.entry(step.login.clone()).or_default();
            account.keys.insert(public_key.clone());
        }
        Action::SetUser { .. } | Action::LockUser | Action::UnlockUser | Action::EndSessions => {}
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
    let mut steps: Vec<Step> = gone
        .map(|login| Step { login: login.clone(), action: Action::RemoveUser { removal: None } })
        .collect();
    for (login, wanted) in desired {
        let actions = match projected.get(login) {
            None => create(wanted),
            Some(present) => adjust(wanted, present),
        };
        steps.extend(actions.into_iter().map(|action| Step { login: login.clone(), action }));
    }
    steps
}

/// Everything that `desired` gives to accounts which are there already, said once more: for a
/// server that may have lost what it once confirmed. Every action may safely be done twice.
#[must_use]
pub fn repeat(desired: &Accounts, present: &Accounts) -> Vec<Step> {
    let known = desired.iter().filter(|(login, _)| present.contains_key(*login));
    let steps = known.flat_map(|(login, wanted)| {
        create(wanted).into_iter().map(|action| Step { login: login.clone(), action })
    });
    steps.collect()
}

/// How a queue changes: what is dropped from its unsent end and what is added behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revised {
    /// Places in `unsent`.
    pub drop: Vec<usize>,
    /// What is added.
    pub add: Vec<Step>,
}

/// Leads to `desired` from `projected`, the accounts as they will be after everything that was
/// ever sent, and from the steps still `unsent`. Unsent steps that are not needed any more are
/// dropped: nobody comes to a server, were it for a moment, after the right to it has ended.
#[must_use]
pub fn revise(desired: &Accounts, projected: &Accounts, unsent: &[Step]) -> Revised {
    let logins: BTreeSet<&Username> = desired
        .keys()
        .chain(projected.keys())
        .chain(unsent.iter().map(|step| &step.login))
        .collect();
    let mut revised = Revised::default();
    for login in logins {
        let own = unsent.iter().enumerate().filter(|(_, step)| step.login == *login).collect();
        let Revised { drop, add } =
            revise_account(&only(desired, login), &only(projected, login), own);
        revised.drop.extend(drop);
        revised.add.extend(add);
    }
    revised.drop.sort_unstable();
    revised.add.sort_by_key(|step| !matches!(step.action, Action::RemoveUser { .. }));
    revised
}

/// [`revise`] for one account.
fn revise_account(wanted: &Accounts, present: &Accounts, unsent: Vec<(usize, &Step)>) -> Revised {
    let steps = |queue: &[(usize, &Step)]| queue.iter().map(|(_, step)| *step).cloned().collect();
    let reaches = |queue: &Vec<Step>| projected(present.clone(), queue) == *wanted;
    if reaches(&steps(&unsent)) {
        return Revised::default();
    }
    let todo = difference(wanted, present);
    let lacks = |kept: &[(usize, &Step)], step: &Step| kept.iter().all(|(_, kept)| *kept != step);
    let mut kept = Vec::new();
    for (place, step) in unsent.iter().copied().filter(|(_, step)| todo.contains(step)) {
        if lacks(&kept, step) {
            kept.push((place, step));
        }
    }
    if todo.iter().any(|step| gives(step) && lacks(&kept, step)) {
        kept.retain(|(_, step)| gives(step));
    }
    let mut add: Vec<Step> = todo.iter().filter(|step| lacks(&kept, step)).cloned().collect();
    let mut queue: Vec<Step> = steps(&kept);
    queue.extend(add.iter().cloned());
    if !reaches(&queue) {
        kept.clear();
        add = todo;
    }
    let dropped = unsent.iter().map(|(place, _)| *place);
    let stays = |place: &usize| kept.iter().any(|(kept, _)| kept == place);
    Revised { drop: dropped.filter(|place| !stays(place)).collect(), add }
}

fn only(accounts: &Accounts, login: &Username) -> Accounts {
    accounts.get(login).map(|account| (login.clone(), account.clone())).into_iter().collect()
}

fn gives(step: &Step) -> bool {
    matches!(step.action, Action::AddUser { .. } | Action::AddKey { .. })
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
