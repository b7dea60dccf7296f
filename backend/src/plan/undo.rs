//! The model as it was: from the model of now, and how each thing was before later revisions
//! changed it.
//!
//! Pure: this room must not know the database, nor who may go back.

use std::collections::BTreeMap;

use bastio_protocol::api::{
    Holder, Labels, NewGrant, Policy, PolicyGrant, PolicyGroup, PolicyName, PolicyServer,
    PolicyUser, SudoRule, UserGroup,
};
use bastio_protocol::{ServerName, Target, Username};

use super::declared::grant_in_words;
use super::{DriftRules, is_host_label};

/// How one thing was before a revision. Servers have the names that they had then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    /// A person with keys; `None` for who was not there.
    User(Username, Option<PolicyUser>),
    /// A group with its members.
    Group(UserGroup, Option<PolicyGroup>),
    /// All grants of a person or of a group itself.
    Grants(Holder, Vec<PolicyGrant>),
    /// A sudo policy.
    Policy(PolicyName, Option<SudoRule>),
    /// All rules about drift.
    Drift(DriftRules),
    /// The labels that operators had given a server.
    Labels(ServerName, Labels),
    /// A server had the first name, and has had the other since.
    Renamed(ServerName, ServerName),
    /// A server was removed. One of its name that comes later is another.
    Removed(ServerName),
}

/// The whole model as it was, from how it is and what later revisions have changed, the last first.
/// What was said about servers that are gone is left out.
#[must_use]
pub fn model_at(current: &Policy, behind: &[(i64, Before)]) -> Policy {
    let mut users = current.users.clone().unwrap_or_default();
    let mut groups = current.groups.clone().unwrap_or_default();
    let mut policies = current.sudo_policies.clone().unwrap_or_default();
    let mut servers = current.servers.clone().unwrap_or_default();
    let mut drift = current.drift.clone().unwrap_or_default();
    let mut grants = BTreeMap::<Holder, Vec<PolicyGrant>>::new();
    for grant in current.grants.iter().flatten() {
        grants.entry(grant.0.holder.clone()).or_default().push(grant.clone());
    }
    let names = Names::new(behind);
    for (revision, before) in behind {
        match before.clone() {
            Before::User(name, was) => put(&mut users, name, was),
            Before::Group(name, was) => put(&mut groups, name, was),
            Before::Policy(name, was) => put(&mut policies, name, was),
            Before::Grants(holder, was) => {
                let was = was.into_iter().filter_map(|PolicyGrant(grant)| {
                    let on = names.target_now(*revision, grant.on)?;
                    Some(PolicyGrant(NewGrant { on, ..grant }))
                });
                grants.insert(holder, was.collect());
            }
            Before::Drift(was) => {
                let rule = |(on, answer)| Some((names.target_now(*revision, on)?, answer));
                drift = was.into_iter().filter_map(rule).collect();
            }
            Before::Labels(name, labels) => {
                let name = names.now(*revision, &name);
                if let Some(server) = name.and_then(|name| servers.get_mut(&name)) {
                    server.labels = labels;
                }
            }
            Before::Renamed(..) | Before::Removed(_) => {}
        }
    }
    let there = |PolicyGrant(grant): PolicyGrant| {
        Some(PolicyGrant(NewGrant { on: still_there(grant.on, &servers)?, ..grant }))
    };
    let grants = grants.into_values().flatten().filter_map(there).collect();
    let rule = |(on, answer)| Some((still_there(on, &servers)?, answer));
    let drift = drift.into_iter().filter_map(rule).collect();
    Policy {
        version: current.version,
        sudo_policies: Some(policies),
        users: Some(users),
        groups: Some(groups),
        servers: Some(servers),
        drift: Some(drift),
        grants: Some(grants),
    }
}

/// The model of now, with what concerns one server alone as it was: its labels, and the grants that
/// reach it. People, their keys and groups are the same everywhere and stay.
///
/// # Errors
/// The grants that reach the server now and did not then, and cannot end there alone.
pub fn model_for_one(
    current: &Policy,
    then: &Policy,
    server: &ServerName,
    host_labels: &Labels,
) -> Result<Policy, Vec<String>> {
    let own = |policy: &Policy| -> Option<Labels> {
        policy.servers.as_ref()?.get(server).map(|server| server.labels.clone())
    };
    let then_labels = own(then).unwrap_or_default();
    let mut labels = then_labels.clone();
    labels.extend(host_labels.iter().filter(|(name, _)| is_host_label(name)).map(pair));
    let reaches = |grant: &NewGrant| grant.on.includes(server, &labels);
    let here = |grant: &NewGrant| {
        let on = Target::Names([server.clone()].into());
        NewGrant { on, reason: String::new(), ..grant.clone() }
    };
    let wanted: Vec<NewGrant> = reaching(then, reaches);
    let present: Vec<NewGrant> = reaching(current, reaches);
    let has = |all: &[NewGrant], one: &NewGrant| all.iter().any(|it| here(it) == here(one));
    let mut grants = Vec::new();
    let mut stuck = Vec::new();
    for PolicyGrant(grant) in current.grants.iter().flatten() {
        if !reaches(grant) || has(&wanted, grant) {
            grants.push(PolicyGrant(grant.clone()));
            continue;
        }
        match &grant.on {
            Target::Names(names) => {
                let mut rest = names.clone();
                rest.remove(server);
                if !rest.is_empty() {
                    grants.push(PolicyGrant(NewGrant { on: Target::Names(rest), ..grant.clone() }));
                }
            }
            _ => stuck.push(grant_in_words(grant)),
        }
    }
    if !stuck.is_empty() {
        return Err(stuck);
    }
    for grant in wanted.iter().filter(|grant| !has(&present, grant)) {
        grants.push(PolicyGrant(NewGrant { reason: grant.reason.clone(), ..here(grant) }));
    }
    let mut model = current.clone();
    if let Some(server) = model.servers.as_mut().and_then(|all| all.get_mut(server)) {
        server.labels = then_labels;
    }
    model.grants = Some(grants);
    Ok(model)
}

fn pair((name, value): (&String, &String)) -> (String, String) {
    (name.clone(), value.clone())
}

fn reaching(policy: &Policy, reaches: impl Fn(&NewGrant) -> bool) -> Vec<NewGrant> {
    let all = policy.grants.iter().flatten().map(|grant| &grant.0);
    all.filter(|grant| reaches(grant)).cloned().collect()
}

fn put<K: Ord, V>(things: &mut BTreeMap<K, V>, name: K, was: Option<V>) {
    match was {
        Some(was) => drop(things.insert(name, was)),
        None => drop(things.remove(&name)),
    }
}

/// The target without servers that are not there; none when nothing is left of it.
fn still_there(mut target: Target, servers: &BTreeMap<ServerName, PolicyServer>) -> Option<Target> {
    if let Target::Names(names) = &mut target {
        names.retain(|name| servers.contains_key(name));
        if names.is_empty() {
            return None;
        }
    }
    Some(target)
}

/// What became of the names of servers.
struct Names<'a> {
    /// The first first.
    events: Vec<(i64, &'a Before)>,
}

impl<'a> Names<'a> {
    fn new(behind: &'a [(i64, Before)]) -> Self {
        let events = behind.iter().rev().filter_map(|(revision, before)| {
            let event = matches!(before, Before::Renamed(..) | Before::Removed(_));
            event.then_some((*revision, before))
        });
        Self { events: events.collect() }
    }

    /// What the server of that name before that revision is called now, if it is there.
    fn now(&self, revision: i64, name: &ServerName) -> Option<ServerName> {
        let mut name = name.clone();
        for (_, event) in self.events.iter().filter(|(at, _)| *at >= revision) {
            match event {
                Before::Renamed(old, new) if *old == name => name = new.clone(),
                Before::Removed(gone) if *gone == name => return None,
                _ => {}
            }
        }
        Some(name)
    }

    fn target_now(&self, revision: i64, mut target: Target) -> Option<Target> {
        if let Target::Names(names) = &mut target {
            *names = names.iter().filter_map(|name| self.now(revision, name)).collect();
            if names.is_empty() {
                return None;
            }
        }
        Some(target)
    }
}
