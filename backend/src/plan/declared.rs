//! From the model as it is, and as a file wants it, to the single edits that lead there.
//!
//! What the file names is made as it says. What a section of it does not name goes only when that is
//! asked for (`prune`), and what has no section stays in any case. Pure: this room must not know the
//! database, nor who may edit.

mod faults;
mod words;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bastio_protocol::api::{
    DriftAnswer, Holder, Labels, Members, NewGrant, Policy, PolicyGrant, PolicyGroup, PolicyName,
    PolicyServer, PolicyUser, SudoRule, Terms, UserGroup,
};
use bastio_protocol::{KeyGrant, KeyOptions, PublicKey, ServerName, Target, Username};

use super::{DriftRules, Host, Lasting};
pub use faults::{Fault, faults};
pub(super) use words::grant_in_words;
pub use words::in_numbers;

/// One edit of the model, as it could have been made by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelEdit {
    /// A sudo policy comes.
    AddPolicy(PolicyName, SudoRule),
    /// A sudo policy becomes another, for every grant that gives it.
    ChangePolicy(PolicyName, SudoRule),
    /// A person comes, without keys yet.
    AddUser(Username, PolicyUser),
    /// A person's fields become these; keys are left alone.
    ChangeUser(Username, PolicyUser),
    /// A person has that key, with these options and that end.
    SetKey(Username, KeyGrant),
    /// A group comes, empty.
    AddGroup(UserGroup),
    /// These are in a group no more.
    RemoveMembers(UserGroup, Members),
    /// These are in a group.
    AddMembers(UserGroup, Members),
    /// A server gets labels and loses others.
    Label(ServerName, Labels, Vec<String>),
    /// Drift on these servers is answered so.
    SetDrift(Target, DriftAnswer),
    /// A rule about drift goes.
    RemoveDrift(Target),
    /// A grant comes.
    AddGrant(NewGrant),
    /// A grant is with or without plain sudo, and for that reason.
    ChangeGrant(NewGrant),
    /// A grant goes.
    RemoveGrant(NewGrant),
    /// A person loses a key.
    RemoveKey(Username, PublicKey),
    /// A group goes, with its grants.
    RemoveGroup(UserGroup),
    /// A person goes, with keys and grants.
    RemoveUser(Username),
    /// A sudo policy goes.
    RemovePolicy(PolicyName),
}

/// What makes two grants the same one. Plain sudo and the reason do not: they can change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GrantIdentity {
    holder: Holder,
    on: String,
    login: Option<Username>,
    from: Option<i64>,
    until: Option<i64>,
    sudo_policy: Option<PolicyName>,
    key_options: KeyOptions,
    take_over: bool,
}

impl From<&NewGrant> for GrantIdentity {
    fn from(grant: &NewGrant) -> Self {
        let Terms { from, until, sudo_policy, key_options, take_over } = grant.terms.clone();
        let own = || grant.holder.user().cloned();
        Self {
            holder: grant.holder.clone(),
            on: grant.on.to_string(),
            login: grant.login.clone().or_else(own),
            from,
            until,
            sudo_policy,
            key_options,
            take_over,
        }
    }
}

/// What leads from `current` to `wanted`, in an order in which every edit is possible.
#[must_use]
pub fn model_edits(current: &Policy, wanted: &Policy, prune: bool) -> Vec<ModelEdit> {
    let (mut edits, mut removals) = (Vec::new(), Vec::new());
    let mut done = Changes { edits: &mut edits, removals: &mut removals, prune };
    // What is taken away comes last, the things that others refer to at the very end.
    if let Some(wanted) = &wanted.grants {
        done.grants(current.grants.iter().flatten(), wanted);
    }
    if let Some(wanted) = &wanted.groups {
        done.groups(&section(&current.groups), wanted);
    }
    if let Some(wanted) = &wanted.users {
        done.users(&section(&current.users), wanted);
    }
    if let Some(wanted) = &wanted.sudo_policies {
        done.policies(&section(&current.sudo_policies), wanted);
    }
    if let Some(wanted) = &wanted.servers {
        done.servers(&section(&current.servers), wanted);
    }
    if let Some(wanted) = &wanted.drift {
        done.drift(&section(&current.drift), wanted);
    }
    edits.sort_by_key(place);
    edits.extend(removals);
    edits
}

/// The model without grants and keys that have ended by `now`: they are over, whatever a file says.
#[must_use]
pub fn without_ended(mut policy: Policy, now: i64) -> Policy {
    let lasts = |until: Option<i64>| until.is_none_or(|until| until > now);
    if let Some(grants) = &mut policy.grants {
        grants.retain(|PolicyGrant(grant)| lasts(grant.terms.until));
    }
    for user in policy.users.iter_mut().flat_map(BTreeMap::values_mut) {
        user.keys.retain(|key| lasts(key.0.until));
    }
    policy
}

/// The accounts for which anything changes, from the rights before and after, and from hosts that
/// are others than before.
#[must_use]
pub fn touched_logins(
    before: &[Lasting],
    after: &[Lasting],
    hosts: &[(Host, Host)],
) -> BTreeSet<Username> {
    fn by_login(model: &[Lasting]) -> BTreeMap<&Username, Vec<&Lasting>> {
        let mut logins = BTreeMap::<_, Vec<_>>::new();
        model.iter().for_each(|right| logins.entry(&right.grant.login).or_default().push(right));
        logins
    }
    let (old, new) = (by_login(before), by_login(after));
    let both: BTreeSet<&Username> = old.keys().chain(new.keys()).copied().collect();
    let mut touched: BTreeSet<Username> =
        both.into_iter().filter(|login| old.get(login) != new.get(login)).cloned().collect();
    // Many people have the same servers.
    let mut targets = HashMap::<&Target, BTreeSet<&Username>>::new();
    if !hosts.is_empty() {
        for right in after {
            targets.entry(&right.grant.on).or_default().insert(&right.grant.login);
        }
    }
    for (target, logins) in targets {
        let on = |host: &Host| target.includes(&host.name, &host.labels);
        if hosts.iter().any(|(old, new)| on(old) != on(new)) {
            touched.extend(logins.into_iter().cloned());
        }
    }
    touched
}

fn section<K: Ord + Clone, V: Clone>(section: &Option<BTreeMap<K, V>>) -> BTreeMap<K, V> {
    section.clone().unwrap_or_default()
}

/// What must be there before what refers to it.
fn place(edit: &ModelEdit) -> u8 {
    match edit {
        ModelEdit::AddPolicy(..) | ModelEdit::ChangePolicy(..) => 0,
        ModelEdit::AddUser(..) | ModelEdit::ChangeUser(..) | ModelEdit::SetKey(..) => 1,
        ModelEdit::AddGroup(_) => 2,
        // Before others come, or groups that change places would be in a circle for a moment.
        ModelEdit::RemoveMembers(..) => 3,
        ModelEdit::AddMembers(..) => 4,
        ModelEdit::Label(..) => 5,
        ModelEdit::AddGrant(_) | ModelEdit::ChangeGrant(_) | ModelEdit::SetDrift(..) => 6,
        ModelEdit::RemoveDrift(_)
        | ModelEdit::RemoveGrant(_)
        | ModelEdit::RemoveKey(..)
        | ModelEdit::RemoveGroup(_)
        | ModelEdit::RemoveUser(_)
        | ModelEdit::RemovePolicy(_) => 7,
    }
}

struct Changes<'a> {
    edits: &'a mut Vec<ModelEdit>,
    removals: &'a mut Vec<ModelEdit>,
    prune: bool,
}

impl Changes<'_> {
    /// Names that are there and not wanted, where they are to go.
    fn gone<'a, K: Ord, V, W>(
        &self,
        current: &'a BTreeMap<K, V>,
        wanted: &'a BTreeMap<K, W>,
    ) -> impl Iterator<Item = &'a K> + use<'a, K, V, W> {
        let prune = self.prune;
        current.keys().filter(move |name| prune && !wanted.contains_key(name))
    }

    fn policies(
        &mut self,
        current: &BTreeMap<PolicyName, SudoRule>,
        wanted: &BTreeMap<PolicyName, SudoRule>,
    ) {
        for (name, rule) in wanted {
            match current.get(name) {
                None => self.edits.push(ModelEdit::AddPolicy(name.clone(), rule.clone())),
                Some(same) if same == rule => {}
                Some(_) => self.edits.push(ModelEdit::ChangePolicy(name.clone(), rule.clone())),
            }
        }
        let gone = self.gone(current, wanted);
        self.removals.extend(gone.cloned().map(ModelEdit::RemovePolicy));
    }

    fn users(
        &mut self,
        current: &BTreeMap<Username, PolicyUser>,
        wanted: &BTreeMap<Username, PolicyUser>,
    ) {
        let fields = |user: &PolicyUser| PolicyUser { keys: Vec::new(), ..user.clone() };
        for (name, user) in wanted {
            let present = current.get(name);
            match present.map(fields) {
                None => self.edits.push(ModelEdit::AddUser(name.clone(), fields(user))),
                Some(same) if same == fields(user) => {}
                Some(_) => self.edits.push(ModelEdit::ChangeUser(name.clone(), fields(user))),
            }
            let present = keys(present.map(|user| user.keys.as_slice()).unwrap_or_default());
            let keys = keys(&user.keys);
            for (key, grant) in &keys {
                if present.get(key) != Some(grant) {
                    self.edits.push(ModelEdit::SetKey(name.clone(), (*grant).clone()));
                }
            }
            let gone = self.gone(&present, &keys);
            self.removals
                .extend(gone.map(|key| ModelEdit::RemoveKey(name.clone(), (*key).clone())));
        }
        let gone = self.gone(current, wanted);
        self.removals.extend(gone.cloned().map(ModelEdit::RemoveUser));
    }

    fn groups(
        &mut self,
        current: &BTreeMap<UserGroup, PolicyGroup>,
        wanted: &BTreeMap<UserGroup, PolicyGroup>,
    ) {
        for (name, group) in wanted {
            let present = current.get(name).cloned().unwrap_or_default();
            if !current.contains_key(name) {
                self.edits.push(ModelEdit::AddGroup(name.clone()));
            }
            let come = without(group, &present);
            if !come.users.is_empty() || !come.groups.is_empty() {
                self.edits.push(ModelEdit::AddMembers(name.clone(), come));
            }
            let gone = without(&present, group);
            if self.prune && (!gone.users.is_empty() || !gone.groups.is_empty()) {
                self.edits.push(ModelEdit::RemoveMembers(name.clone(), gone));
            }
        }
        let gone = self.gone(current, wanted);
        self.removals.extend(gone.cloned().map(ModelEdit::RemoveGroup));
    }

    fn servers(
        &mut self,
        current: &BTreeMap<ServerName, PolicyServer>,
        wanted: &BTreeMap<ServerName, PolicyServer>,
    ) {
        for (name, PolicyServer { labels }) in wanted {
            let present = current.get(name).map(|server| server.labels.clone()).unwrap_or_default();
            let new = labels.iter().filter(|(label, value)| present.get(*label) != Some(value));
            let set: Labels = new.map(|(label, value)| (label.clone(), value.clone())).collect();
            let unset: Vec<String> = self.gone(&present, labels).cloned().collect();
            if !set.is_empty() || !unset.is_empty() {
                self.edits.push(ModelEdit::Label(name.clone(), set, unset));
            }
        }
    }

    fn drift(&mut self, current: &DriftRules, wanted: &DriftRules) {
        let new = wanted.iter().filter(|(on, answer)| current.get(on) != Some(*answer));
        self.edits.extend(new.map(|(on, answer)| ModelEdit::SetDrift(on.clone(), *answer)));
        let gone = self.gone(current, wanted);
        self.removals.extend(gone.cloned().map(ModelEdit::RemoveDrift));
    }

    fn grants<'a>(
        &mut self,
        current: impl Iterator<Item = &'a PolicyGrant>,
        wanted: &[PolicyGrant],
    ) {
        let mut present = BTreeMap::<GrantIdentity, NewGrant>::new();
        for PolicyGrant(grant) in current {
            // Those that became the same by later edits count as one.
            let known = present.entry(grant.into()).or_insert_with(|| grant.clone());
            known.sudo |= grant.sudo;
        }
        let wanted: BTreeMap<GrantIdentity, &NewGrant> =
            wanted.iter().map(|PolicyGrant(grant)| (grant.into(), grant)).collect();
        for (identity, grant) in &wanted {
            match present.get(identity) {
                None => self.edits.push(ModelEdit::AddGrant((*grant).clone())),
                Some(same) if (same.sudo, &same.reason) == (grant.sudo, &grant.reason) => {}
                Some(_) => self.edits.push(ModelEdit::ChangeGrant((*grant).clone())),
            }
        }
        let gone = self.gone(&present, &wanted).filter_map(|identity| present.get(identity));
        self.removals.extend(gone.cloned().map(ModelEdit::RemoveGrant));
    }
}

fn keys(keys: &[bastio_protocol::api::PolicyKey]) -> BTreeMap<&PublicKey, &KeyGrant> {
    keys.iter().map(|key| (&key.0.public_key, &key.0)).collect()
}

/// Those of `group` that are not in `other`.
fn without(group: &PolicyGroup, other: &PolicyGroup) -> Members {
    fn rest<T: Ord + Clone>(all: &BTreeSet<T>, but: &BTreeSet<T>) -> Vec<T> {
        all.difference(but).cloned().collect()
    }
    Members { users: rest(&group.users, &other.users), groups: rest(&group.groups, &other.groups) }
}

#[cfg(test)]
mod tests;
