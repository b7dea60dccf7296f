//! The whole model, or a part of it, read and made so at once: one edit, one revision.
//!
//! [`crate::plan`] says which single edits lead there; each is made by the same function as when
//! asked for by itself. This room must not know how files are written.

use std::collections::{BTreeMap, BTreeSet};

use bastio_protocol::api::{
    Change, Grant, Holder, Key, NamedPolicy, NewGrant, NewUser, Policy, PolicyGrant, PolicyGroup,
    PolicyKey, PolicyName, PolicyServer, PolicyUser, PolicyVersion, RemoveUser, SudoRule, Terms,
    UpdateServer,
};
use bastio_protocol::{KeyGrant, Username};

use super::edit::Edit;
use super::history::Thing;
use super::{Fleet, FleetError, drift, grants, groups, policies, servers, users};
use crate::access::Admin;
use crate::dispatch::queue::Scope;
use crate::plan::{self, GrantIdentity, Groups, Host, Lasting, ModelEdit};
use crate::store::users::UserRow;
use crate::store::{self, Connection, ServerId, StoreError};

impl Fleet {
    /// The whole model.
    ///
    /// # Errors
    /// [`FleetError::Store`].
    pub async fn export(&self, _proof: &Admin) -> Result<Policy, FleetError> {
        let mut db = self.store.read().await?;
        Ok(read(&mut db).await?)
    }

    /// Makes what `wanted` names so. What it does not name in a section that it has goes when
    /// `prune` is said. Where nothing is to change, no revision is made.
    ///
    /// # Errors
    /// [`FleetError::Faults`], [`FleetError::At`] with what the single edit would say,
    /// [`FleetError::Conflict`], [`FleetError::NeedsConfirmation`], [`FleetError::Store`].
    pub async fn apply(
        &self,
        proof: &Admin,
        wanted: &Policy,
        prune: bool,
    ) -> Result<Change, FleetError> {
        let mut edit = Edit::begin(self, proof).await?;
        edit.comes_by("a policy file");
        let summary = |edits: &[ModelEdit]| format!("policy applied: {}", plan::in_numbers(edits));
        make_so(edit, wanted, prune, summary).await
    }
}

/// Makes what `wanted` names so, within an edit that ends with it; `summary` says what that was.
pub(super) async fn make_so(
    mut edit: Edit<'_>,
    wanted: &Policy,
    prune: bool,
    summary: impl FnOnce(&[ModelEdit]) -> String,
) -> Result<Change, FleetError> {
    let now = edit.now();
    let current = plan::without_ended(read(edit.db()).await?, now);
    let wanted = plan::without_ended(wanted.clone(), now);
    let faults = plan::faults(&current, &wanted, prune);
    if !faults.is_empty() {
        return Err(FleetError::Faults(faults));
    }
    let edits = plan::model_edits(&current, &wanted, prune);
    if edits.is_empty() {
        return edit.unchanged().await;
    }
    let before = Seen::read(&mut edit).await?;
    let known = known_grants(edit.db()).await?;
    for one in &edits {
        make(&mut edit, &known, one).await.map_err(|error| at(one, error))?;
    }
    let come = check_options(&mut edit, &edits).await?;
    let after = Seen::read(&mut edit).await?;
    let hosts = before.other_hosts(&after);
    let logins = plan::touched_logins(&before.model, &after.model, &hosts);
    forget_removals(&mut edit, &after, &logins, come).await?;
    let mut change = edit.commit(&summary(&edits), &Scope::Logins(logins)).await?;
    if let Some(preview) = &mut change.preview {
        preview.edits = edits.iter().map(ToString::to_string).collect();
    }
    Ok(change)
}

/// What the plan makes servers from, now and later: what begins by itself is asked for now.
struct Seen {
    model: Vec<Lasting>,
    hosts: BTreeMap<ServerId, Host>,
}

impl Seen {
    async fn read(edit: &mut Edit<'_>) -> Result<Self, StoreError> {
        let now = edit.now();
        let model = store::grants::entitlements_to_come(edit.db(), None, now).await?;
        let hosts = store::servers::names_and_labels(edit.db()).await?.into_iter();
        let hosts = hosts.map(|(id, (name, labels))| (id, Host { name, labels })).collect();
        Ok(Self { model, hosts })
    }

    /// Servers with other labels, as they were and as they are.
    fn other_hosts(&self, after: &Self) -> Vec<(Host, Host)> {
        let both = self.hosts.iter().filter_map(|(id, old)| Some((old, after.hosts.get(id)?)));
        let others = both.filter(|(old, new)| old != new);
        others.map(|(old, new)| (old.clone(), new.clone())).collect()
    }
}

/// The whole model.
pub(super) async fn read(db: &mut Connection) -> Result<Policy, StoreError> {
    let mut keys = store::users::all_keys(db).await?;
    let users = store::users::list(db).await?.into_iter().map(|row| {
        let keys = keys.remove(&row.id).unwrap_or_default();
        (row.name.clone(), person(row, keys))
    });
    let users = users.collect();
    let groups =
        store::groups::all(db).await?.0.into_iter().map(|(name, inside)| {
            (name, PolicyGroup { users: inside.users, groups: inside.groups })
        });
    let servers = store::servers::names_and_labels(db).await?.into_values();
    let servers = servers.map(|(name, mut labels)| {
        labels.retain(|label, _| !plan::is_host_label(label));
        (name, PolicyServer { labels })
    });
    let policies = store::policies::list(db).await?.into_iter().map(rule);
    let drift = store::drift::rules(db).await?;
    let grants = store::grants::list(db).await?.into_iter().map(|grant| PolicyGrant(new(grant)));
    Ok(Policy {
        version: PolicyVersion,
        sudo_policies: Some(policies.collect()),
        users: Some(users),
        groups: Some(groups.collect()),
        servers: Some(servers.collect()),
        drift: Some(drift),
        grants: Some(unique(grants)),
    })
}

/// A sudo policy as in a file.
pub(super) fn rule(policy: NamedPolicy) -> (PolicyName, SudoRule) {
    let NamedPolicy { name, commands, run_as, password } = policy;
    (name, SudoRule { commands, run_as, password })
}

/// A person as in a file.
pub(super) fn person(row: UserRow, keys: Vec<Key>) -> PolicyUser {
    let keys = keys.into_iter().map(|key| {
        let (public_key, options, until) = (key.public_key, key.options, key.until);
        PolicyKey(KeyGrant { public_key, options, until })
    });
    let state = row.state();
    let (full_name, mail, spec) = (row.full_name, row.mail, row.spec);
    PolicyUser { full_name, mail, state, spec, keys: keys.collect() }
}

/// A grant as it would be asked for.
pub(super) fn new(grant: Grant) -> NewGrant {
    let Grant { holder, on, login, sudo, terms, reason, .. } = grant;
    // A person's own name goes without saying.
    let login = login.filter(|login| holder.user() != Some(login));
    NewGrant { holder, on, login, sudo, terms, reason }
}

/// Each grant once: later edits can make two the same, and what one gives, both give.
fn unique(grants: impl Iterator<Item = PolicyGrant>) -> Vec<PolicyGrant> {
    let mut places = BTreeMap::<GrantIdentity, usize>::new();
    let mut all = Vec::<PolicyGrant>::new();
    for grant in grants {
        let place = *places.entry((&grant.0).into()).or_insert(all.len());
        match all.get_mut(place) {
            Some(known) => known.0.sudo |= grant.0.sudo,
            None => all.push(grant),
        }
    }
    all
}

type Known = BTreeMap<GrantIdentity, Vec<Grant>>;

async fn known_grants(db: &mut Connection) -> Result<Known, StoreError> {
    let mut known = Known::new();
    for grant in store::grants::list(db).await? {
        known.entry((&new(grant.clone())).into()).or_default().push(grant);
    }
    Ok(known)
}

fn at(edit: &ModelEdit, error: FleetError) -> FleetError {
    match error {
        FleetError::Store(error) => FleetError::Store(error),
        error => FleetError::At { place: edit.to_string(), error: Box::new(error) },
    }
}

/// Makes one edit within another.
async fn make(edit: &mut Edit<'_>, known: &Known, one: &ModelEdit) -> Result<(), FleetError> {
    match one {
        ModelEdit::AddPolicy(name, rule) => {
            policies::set(edit, "sudo-policy.add", &named(name, rule)).await
        }
        ModelEdit::ChangePolicy(name, rule) => {
            policies::set(edit, "sudo-policy.update", &named(name, rule)).await
        }
        ModelEdit::RemovePolicy(name) => policies::remove(edit, name).await,
        ModelEdit::AddUser(..)
        | ModelEdit::ChangeUser(..)
        | ModelEdit::SetKey(..)
        | ModelEdit::RemoveKey(..)
        | ModelEdit::RemoveUser(_) => make_user(edit, one).await,
        ModelEdit::AddGroup(name) => groups::insert(edit, name).await.map(drop),
        ModelEdit::AddMembers(name, members) | ModelEdit::RemoveMembers(name, members) => {
            let inside = matches!(one, ModelEdit::AddMembers(..));
            let id = edit.group(name).await?;
            let users = members.users.iter().cloned().map(Holder::User);
            for who in users.chain(members.groups.iter().cloned().map(Holder::Group)) {
                groups::set_member(edit, (id, name), &who, inside).await?;
            }
            Ok(())
        }
        ModelEdit::RemoveGroup(name) => {
            let id = edit.group(name).await?;
            let own = store::grants::of_group(edit.db(), name).await?;
            groups::remove(edit, id, name, &own).await.map(drop)
        }
        ModelEdit::Label(name, set, unset) => {
            let (set_labels, unset_labels) = (set.clone(), unset.clone());
            let update = UpdateServer { name: None, set_labels, unset_labels };
            servers::check_labels(&update)?;
            let server = edit.server(name).await?;
            edit.remember(Thing::Labels(&server)).await?;
            let before = store::servers::labels(edit.db(), server.id).await?;
            let done = servers::set_labels(edit, server.id, &before, &update).await?;
            servers::updated(edit, name, done).await.map(drop)
        }
        ModelEdit::SetDrift(on, answer) => drift::set(edit, on, *answer).await,
        ModelEdit::RemoveDrift(on) => drift::remove(edit, on).await,
        ModelEdit::AddGrant(grant) => {
            let data = grants::data(edit, grant).await?;
            grants::insert(edit, &grant.holder, &data, true).await.map(drop)
        }
        ModelEdit::ChangeGrant(grant) => {
            for known in known.get(&grant.into()).into_iter().flatten() {
                grants::change(edit, known, grant).await?;
            }
            Ok(())
        }
        ModelEdit::RemoveGrant(grant) => {
            for known in known.get(&grant.into()).into_iter().flatten() {
                grants::remove(edit, known).await?;
            }
            Ok(())
        }
    }
}

fn named(name: &bastio_protocol::api::PolicyName, rule: &SudoRule) -> NamedPolicy {
    let SudoRule { commands, run_as, password } = rule.clone();
    NamedPolicy { name: name.clone(), commands, run_as, password }
}

/// [`make`] for what concerns one person.
async fn make_user(edit: &mut Edit<'_>, one: &ModelEdit) -> Result<(), FleetError> {
    let (ModelEdit::AddUser(name, _)
    | ModelEdit::ChangeUser(name, _)
    | ModelEdit::SetKey(name, _)
    | ModelEdit::RemoveKey(name, _)
    | ModelEdit::RemoveUser(name)) = one
    else {
        return Ok(());
    };
    if let ModelEdit::AddUser(_, user) = one {
        users::insert(edit, &new_user(name, user)).await?;
    }
    let row = edit.user(name).await?;
    match one {
        ModelEdit::AddUser(_, user) | ModelEdit::ChangeUser(_, user) => {
            let state = Some(user.state).filter(|state| *state != row.state());
            let mut done = users::rename(edit, &row, &user.full_name, &user.mail).await?;
            done.extend(users::update_rights(edit, &row, None, state, &user.spec).await?);
            if !done.is_empty() {
                users::updated(edit, name, done).await?;
            }
        }
        ModelEdit::SetKey(_, key) => {
            users::add_keys(edit, row.id, name, std::slice::from_ref(key)).await?;
        }
        ModelEdit::RemoveKey(_, key) => users::remove_key(edit, &row, &key.fingerprint()).await?,
        _ => drop(users::remove(edit, &row, RemoveUser::default()).await?),
    }
    Ok(())
}

fn new_user(name: &Username, user: &PolicyUser) -> NewUser {
    NewUser {
        name: name.clone(),
        full_name: user.full_name.clone(),
        mail: user.mail.clone(),
        keys: Vec::new(),
        on: None,
        sudo: false,
        terms: Terms::default(),
        spec: user.spec.clone(),
        reason: String::new(),
    }
}

/// Refuses options that do not stand beside each other, of everybody who got a key or a grant; those
/// who got a grant.
async fn check_options(
    edit: &mut Edit<'_>,
    edits: &[ModelEdit],
) -> Result<BTreeSet<Username>, FleetError> {
    let groups: Groups = store::groups::all(edit.db()).await?;
    let (mut concerned, mut come) = (BTreeSet::new(), BTreeSet::new());
    for one in edits {
        match one {
            ModelEdit::SetKey(name, _) => drop(concerned.insert(name.clone())),
            ModelEdit::AddMembers(name, _) => concerned.extend(groups.people(name)),
            ModelEdit::AddGrant(grant) => {
                let people = match &grant.holder {
                    Holder::User(user) => BTreeSet::from([user.clone()]),
                    Holder::Group(group) => groups.people(group),
                };
                match &grant.login {
                    Some(login) => drop(come.insert(login.clone())),
                    None => come.extend(people.iter().cloned()),
                }
                concerned.extend(people);
            }
            _ => {}
        }
    }
    let all = read(edit.db()).await?;
    let restricts = |grant: &PolicyGrant| !grant.0.terms.key_options.is_empty();
    let everybody = all.grants.iter().flatten().any(restricts);
    for (name, user) in all.users.iter().flatten() {
        let own = user.keys.iter().any(|key| !key.0.options.is_empty());
        if (everybody || own) && concerned.contains(name) {
            let id = edit.user(name).await?.id;
            grants::check_options(edit, id).await?;
        }
    }
    Ok(come)
}

/// What was said earlier about the end of accounts that somebody has now does not count.
async fn forget_removals(
    edit: &mut Edit<'_>,
    after: &Seen,
    touched: &BTreeSet<Username>,
    mut come: BTreeSet<Username>,
) -> Result<(), FleetError> {
    let held = after.model.iter().map(|right| &right.grant.login);
    come.extend(held.filter(|login| touched.contains(*login)).cloned());
    let said = store::policies::removals(edit.db()).await?;
    come.retain(|login| said.contains_key(login));
    grants::forget_removals(edit, &come).await
}

#[cfg(test)]
mod tests;
