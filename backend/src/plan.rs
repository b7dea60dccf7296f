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
//!
//! Accounts that version 1 of the wire can describe are led to in its five plain steps, so that
//! every agent understands them. Where more is to be said, one set-user says all of it; and where the
//! agent is known to understand it, a new account comes with its keys or not at all ([`at_once`]).

mod adoption;
mod at_once;
mod blast;
mod declared;
mod drift;
mod groups;
mod host_labels;
mod index;
mod merge;
mod retract;
mod root;
mod undo;

use std::collections::{BTreeMap, BTreeSet};

use bastio_protocol::api::{Labels, utc};
use bastio_protocol::{Action, KeyGrant, PublicKey, ServerName, Sudo, Username, WantedAccount};

pub use adoption::{People, Person};
pub use at_once::at_once;
pub use blast::{Effect, Rails, Stop, effect, radius};
pub use declared::{
    Fault, GrantIdentity, ModelEdit, faults, in_numbers, model_edits, touched_logins, without_ended,
};
pub use drift::{DriftRules, HEAL_WINDOW, HEALS, Heals, drift_answer};
pub use groups::{Groups, Inside};
pub use host_labels::{host_labels, is_host_label};
pub use index::{Index, Reach, reach};
pub use merge::{Clash, Conflict, Entitlement, Rights, join, merge};
pub use retract::retract;
pub use root::{Beside, Lasting, Roots, gained, left_behind, roots};
pub use undo::{Before, model_at, model_for_one};

/// The accounts of one server that are bastio's.
pub type Accounts = BTreeMap<Username, Account>;

/// One account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Whether it may use sudo in any way.
    pub sudo: bool,
    /// The keys that log in.
    pub keys: BTreeSet<PublicKey>,
    /// What else there is to it.
    pub more: More,
}

/// What version 1 of the wire cannot say of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum More {
    /// Nothing: it is plain.
    #[default]
    Nothing,
    /// Something; this is all of it, sudo rights and keys included.
    Whole(Box<WantedAccount>),
    /// Nobody knows: a set-user was sent and failed.
    Unsure,
}

/// A server as grants see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: ServerName,
    /// Its labels.
    pub labels: Labels,
}

/// Something to be done for one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The account.
    pub login: Username,
    /// What to do.
    pub action: Action,
}

impl Account {
    /// Whether the five plain steps can lead to it, or from it to another.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.more == More::Nothing
    }

    /// All of it.
    #[must_use]
    pub fn whole(&self) -> WantedAccount {
        if let More::Whole(whole) = &self.more {
            return (**whole).clone();
        }
        WantedAccount {
            sudo: plain_sudo(self.sudo),
            keys: self.keys.iter().cloned().map(KeyGrant::plain).collect(),
            ..WantedAccount::default()
        }
    }

    /// Carries out one of the plain steps on all of it.
    fn edit(&mut self, edit: impl FnOnce(&mut WantedAccount)) {
        let unsure = self.more == More::Unsure;
        let mut whole = self.whole();
        edit(&mut whole);
        *self = whole.into();
        if unsure {
            self.more = More::Unsure;
        }
    }
}

impl From<WantedAccount> for Account {
    fn from(wanted: WantedAccount) -> Self {
        Self {
            sudo: !wanted.sudo.is_none(),
            keys: wanted.keys.iter().map(|key| key.public_key.clone()).collect(),
            more: if wanted.is_plain() { More::Nothing } else { More::Whole(Box::new(wanted)) },
        }
    }
}

/// A whole account for people: `with sudo, 2 keys, until 2026-12-01 18:00:00 UTC, locked`.
#[must_use]
pub fn in_words(wanted: &WantedAccount) -> String {
    let mut words = match &wanted.sudo {
        Sudo::None => Vec::new(),
        Sudo::Plain => vec!["with sudo".to_owned()],
        Sudo::Policy(_) => vec!["with a sudo policy".to_owned()],
    };
    words.push(match wanted.keys.len() {
        1 => "1 key".to_owned(),
        count => format!("{count} keys"),
    });
    words.extend(wanted.until.map(|until| format!("until {} UTC", utc(until))));
    words.extend(wanted.spec.uid.map(|uid| format!("uid {uid}")));
    words.extend(wanted.locked.then(|| "locked".to_owned()));
    words.extend(wanted.take_over.then(|| "taken over".to_owned()));
    words.extend(wanted.release.is_some().then(|| "given back as it was".to_owned()));
    words.join(", ")
}

fn plain_sudo(sudo: bool) -> Sudo {
    if sudo { Sudo::Plain } else { Sudo::None }
}

/// The accounts that `host` must have. Several grants of one login there become one account.
#[must_use]
pub fn desired(model: &[Entitlement], host: &Host) -> Accounts {
    merge(model, host).0
}

/// The accounts whose rights on a server begin or end with other labels or another name of it.
#[must_use]
pub fn touched(model: &[Entitlement], before: &Host, after: &Host) -> BTreeSet<Username> {
    let on = |grant: &Entitlement, host: &Host| grant.on.includes(&host.name, &host.labels);
    let touched = model.iter().filter(|grant| on(grant, before) != on(grant, after));
    touched.map(|grant| grant.login.clone()).collect()
}

/// What stands for the accounts where the agent speaks version 1, which cannot lock and cannot be
/// told ids: a locked account has neither keys nor rights there, and where a numeric id is all that
/// it cannot be told, the server chooses one.
pub fn for_version_1(accounts: &mut Accounts) {
    for account in accounts.values_mut() {
        let More::Whole(whole) = &mut account.more else { continue };
        if whole.locked {
            *account = Account::default();
            continue;
        }
        let mut numberless = whole.as_ref().clone();
        numberless.spec.uid = None;
        if numberless.is_plain() {
            *account = numberless.into();
        }
    }
}

/// What is confirmed, as it will be when everything under way has been done. An action for an
/// account that will not be there changes nothing.
#[must_use]
pub fn projected<'a>(
    mut accounts: Accounts,
    pending: impl IntoIterator<Item = &'a Step>,
) -> Accounts {
    for step in pending {
        let makes_account = matches!(step.action, Action::AddUser { .. } | Action::SetUser { .. });
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
        if suspect.more == More::Unsure {
            present.entry(login.clone()).or_default().more = More::Unsure;
        }
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
    confirm_action(accounts, &step.login, &step.action);
}

/// As [`confirm`], of an action on that account.
pub fn confirm_action(accounts: &mut Accounts, login: &Username, action: &Action) {
    match action {
        Action::AddUser { sudo } | Action::UpdateUser { sudo } => {
            let account = accounts.entry(login.clone()).or_default();
            account.edit(|whole| whole.sudo = plain_sudo(*sudo));
        }
        Action::RemoveUser { .. } => {
            accounts.remove(login);
        }
        Action::AddKey { public_key } => {
            let account = accounts.entry(login.clone()).or_default();
            if !account.keys.contains(public_key) {
                let key = KeyGrant::plain(public_key.clone());
                account.edit(|whole| {
                    whole.keys.insert(key);
                });
            }
        }
        Action::RemoveKey { public_key } => {
            if let Some(account) = accounts.get_mut(login) {
                account.edit(|whole| whole.keys.retain(|key| key.public_key != *public_key));
            }
        }
        Action::SetUser { wanted } => {
            accounts.insert(login.clone(), (**wanted).clone().into());
        }
        Action::LockUser | Action::UnlockUser | Action::EndSessions => {}
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
        let own = unsent.iter().enumerate();
        let own = own.filter(|(_, step)| step.login == *login && changes(step)).collect();
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
    let lacks =
        |kept: &[(usize, &Step)], step: &Step| kept.iter().all(|(_, kept)| !same(kept, step));
    let mut kept = Vec::new();
    let needed = |step: &Step| todo.iter().any(|todo| same(todo, step));
    for (place, step) in unsent.iter().copied().filter(|(_, step)| needed(step)) {
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

/// Whether a server with these accounts is as the step would leave it.
#[must_use]
pub fn is_so(accounts: &Accounts, step: &Step) -> bool {
    let own = only(accounts, &step.login);
    // Nobody's key cannot be there.
    let can_be = !own.is_empty() || !gives(step);
    can_be && projected(own.clone(), std::slice::from_ref(step)) == own
}

fn only(accounts: &Accounts, login: &Username) -> Accounts {
    accounts.get(login).map(|account| (login.clone(), account.clone())).into_iter().collect()
}

/// Whether two steps are the same to a plan; what becomes of a home is not the plan's to say.
#[must_use]
pub fn same(one: &Step, other: &Step) -> bool {
    let removes = |step: &Step| matches!(step.action, Action::RemoveUser { .. });
    one == other || (one.login == other.login && removes(one) && removes(other))
}

/// Whether a step changes what an account is.
fn changes(step: &Step) -> bool {
    !matches!(step.action, Action::EndSessions)
}

fn gives(step: &Step) -> bool {
    matches!(step.action, Action::AddUser { .. } | Action::AddKey { .. } | Action::SetUser { .. })
}

fn set(wanted: &Account) -> Vec<Action> {
    vec![Action::SetUser { wanted: Box::new(wanted.whole()) }]
}

fn create(wanted: &Account) -> Vec<Action> {
    if !wanted.is_plain() {
        return set(wanted);
    }
    let mut actions = vec![Action::AddUser { sudo: wanted.sudo }];
    actions.extend(wanted.keys.iter().map(add_key));
    actions
}

fn adjust(wanted: &Account, present: &Account) -> Vec<Action> {
    if !wanted.is_plain() || !present.is_plain() {
        return if wanted == present { Vec::new() } else { set(wanted) };
    }
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
