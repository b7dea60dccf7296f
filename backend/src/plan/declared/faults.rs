//! What is wrong with a file, found before anything is changed: each fault with its place.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use bastio_protocol::api::{Holder, NewGrant, Policy, PolicyGrant, PolicyGroup, UserGroup};
use bastio_protocol::{Target, Username};
use thiserror::Error;

use super::GrantIdentity;
use super::words::grant_in_words;

/// Why a file cannot be made so.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// A person has the same key twice.
    #[error("users: {user}: the key {fingerprint} is there twice")]
    KeyTwice {
        /// The person.
        user: Username,
        /// The key.
        fingerprint: String,
    },
    /// The same grant twice.
    #[error("grants: {0} is there twice")]
    GrantTwice(String),
    /// Something named that is not there.
    #[error("{place}: there is no {what} named {name}")]
    Unknown {
        /// Where it is named.
        place: String,
        /// What it would be.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Groups inside themselves.
    #[error("groups: {} is a circle", .0.iter().map(UserGroup::as_str).collect::<Vec<_>>().join(" > "))]
    Circle(Vec<UserGroup>),
}

/// Everything that is wrong with `wanted`, with what of `current` stays beside it.
#[must_use]
pub fn faults(current: &Policy, wanted: &Policy, prune: bool) -> Vec<Fault> {
    let names = Names {
        policies: left(&current.sudo_policies, &wanted.sudo_policies, prune),
        users: left(&current.users, &wanted.users, prune),
        groups: left(&current.groups, &wanted.groups, prune),
        // A file labels servers; it neither enrols nor removes any.
        servers: current.servers.iter().flat_map(BTreeMap::keys).collect(),
    };
    let mut faults = keys_twice(wanted);
    let mut seen = BTreeSet::new();
    for PolicyGrant(grant) in wanted.grants.iter().flatten() {
        if !seen.insert(GrantIdentity::from(grant)) {
            faults.push(Fault::GrantTwice(grant_in_words(grant)));
        }
        names.check_grant(grant, &mut faults);
    }
    for (name, group) in wanted.groups.iter().flatten() {
        let place = || format!("groups: {name}");
        faults.extend(unknown(&group.users, &names.users, "user", place));
        faults.extend(unknown(&group.groups, &names.groups, "group", place));
    }
    for on in wanted.drift.iter().flat_map(BTreeMap::keys) {
        if let Target::Names(servers) = on {
            faults.extend(unknown(servers, &names.servers, "server", || format!("drift: {on}")));
        }
    }
    let servers: BTreeSet<_> = wanted.servers.iter().flat_map(BTreeMap::keys).cloned().collect();
    faults.extend(unknown(&servers, &names.servers, "server", || "servers".to_owned()));
    faults.extend(circle(current, wanted, prune).map(Fault::Circle));
    faults
}

/// The names that there are afterwards.
struct Names<'a> {
    policies: BTreeSet<&'a bastio_protocol::api::PolicyName>,
    users: BTreeSet<&'a Username>,
    groups: BTreeSet<&'a UserGroup>,
    servers: BTreeSet<&'a bastio_protocol::ServerName>,
}

impl Names<'_> {
    fn check_grant(&self, grant: &NewGrant, faults: &mut Vec<Fault>) {
        let place = || format!("grants: {}", grant_in_words(grant));
        match &grant.holder {
            Holder::User(user) => faults.extend(unknown([user], &self.users, "user", place)),
            Holder::Group(group) => faults.extend(unknown([group], &self.groups, "group", place)),
        }
        let policy = grant.terms.sudo_policy.as_ref();
        faults.extend(unknown(policy, &self.policies, "sudo policy", place));
        if let Target::Names(servers) = &grant.on {
            faults.extend(unknown(servers, &self.servers, "server", place));
        }
    }
}

fn left<'a, K: Ord, V>(
    current: &'a Option<BTreeMap<K, V>>,
    wanted: &'a Option<BTreeMap<K, V>>,
    prune: bool,
) -> BTreeSet<&'a K> {
    let stays = !prune || wanted.is_none();
    let current = current.iter().filter(|_| stays);
    current.chain(wanted).flat_map(BTreeMap::keys).collect()
}

fn unknown<'a, T: Ord + Display + 'a>(
    named: impl IntoIterator<Item = &'a T>,
    known: &BTreeSet<&'a T>,
    what: &'static str,
    place: impl Fn() -> String,
) -> Vec<Fault> {
    let missing = named.into_iter().filter(|name| !known.contains(name));
    missing.map(|name| Fault::Unknown { place: place(), what, name: name.to_string() }).collect()
}

fn keys_twice(wanted: &Policy) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (user, fields) in wanted.users.iter().flatten() {
        let mut seen = BTreeSet::new();
        for key in &fields.keys {
            if !seen.insert(&key.0.public_key) {
                let fingerprint = key.0.public_key.fingerprint();
                faults.push(Fault::KeyTwice { user: user.clone(), fingerprint });
            }
        }
    }
    faults
}

/// A circle of groups as they would be, if there is one.
fn circle(current: &Policy, wanted: &Policy, prune: bool) -> Option<Vec<UserGroup>> {
    let wanted = wanted.groups.as_ref()?;
    let mut inside = BTreeMap::<&UserGroup, BTreeSet<&UserGroup>>::new();
    for (name, PolicyGroup { groups, .. }) in wanted {
        inside.entry(name).or_default().extend(groups);
    }
    // With prune only what the file says is left.
    for (name, group) in current.groups.iter().flatten().filter(|_| !prune) {
        inside.entry(name).or_default().extend(&group.groups);
    }
    // Groups without others inside are in no circle, nor are those around them alone.
    let mut around = BTreeMap::<&UserGroup, Vec<&UserGroup>>::new();
    for (outer, groups) in &inside {
        groups.iter().for_each(|inner| around.entry(inner).or_default().push(outer));
    }
    let mut open: BTreeMap<&UserGroup, usize> =
        inside.iter().map(|(name, groups)| (*name, groups.len())).collect();
    let mut closed: Vec<&UserGroup> = around.keys().copied().collect();
    closed.extend(inside.keys());
    closed.retain(|name| open.get(name).is_none_or(|left| *left == 0));
    closed.sort_unstable();
    closed.dedup();
    while let Some(inner) = closed.pop() {
        open.remove(inner);
        for outer in around.get(inner).into_iter().flatten() {
            if let Some(left) = open.get_mut(outer) {
                *left -= 1;
                if *left == 0 {
                    closed.push(outer);
                }
            }
        }
    }
    // Each that is left has one inside that is left.
    let mut way = vec![*open.keys().next()?];
    let mut places = BTreeMap::from([(*way.first()?, 0)]);
    loop {
        let next = *inside.get(way.last()?)?.iter().find(|inner| open.contains_key(**inner))?;
        let begin = *places.entry(next).or_insert(way.len());
        way.push(next);
        if begin + 1 < way.len() {
            return Some(way.split_off(begin).into_iter().cloned().collect());
        }
    }
}
