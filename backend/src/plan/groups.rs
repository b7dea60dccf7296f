//! Who is in which group, groups inside groups included.
//!
//! Pure. This room must not know grants or the database.

use std::collections::{BTreeMap, BTreeSet};

use bastio_protocol::Username;
use bastio_protocol::api::UserGroup;

/// All groups by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Groups(pub BTreeMap<UserGroup, Inside>);

/// A group's own members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inside {
    /// People.
    pub users: BTreeSet<Username>,
    /// Groups.
    pub groups: BTreeSet<UserGroup>,
}

impl Groups {
    /// Everybody in a group, also through groups inside it.
    #[must_use]
    pub fn people(&self, group: &UserGroup) -> BTreeSet<Username> {
        let below = reach(group, |group| self.inside(group));
        let members = below.keys().filter_map(|group| self.0.get(group));
        members.flat_map(|inside| inside.users.iter().cloned()).collect()
    }

    /// A group and all groups that it is in: whatever they have, its people have.
    #[must_use]
    pub fn around(&self, group: &UserGroup) -> BTreeSet<UserGroup> {
        reach(group, |group| self.outside(group)).into_keys().collect()
    }

    /// The groups that a person is in, each with those on the way in, the outermost first.
    #[must_use]
    pub fn of(&self, user: &Username) -> BTreeMap<UserGroup, Vec<UserGroup>> {
        let direct = self.0.iter().filter(|(_, inside)| inside.users.contains(user));
        let direct: Vec<&UserGroup> = direct.map(|(group, _)| group).collect();
        let mut found: BTreeMap<UserGroup, Vec<UserGroup>> =
            direct.iter().map(|group| ((*group).clone(), Vec::new())).collect();
        for inner in direct {
            for (outer, mut way) in reach(inner, |group| self.outside(group)) {
                // The way goes outwards, from the group itself.
                way.pop();
                way.reverse();
                found.entry(outer).or_insert(way);
            }
        }
        found
    }

    /// The circle that there would be with `inner` inside `outer`, from `outer` to `outer`.
    #[must_use]
    pub fn circle(&self, outer: &UserGroup, inner: &UserGroup) -> Option<Vec<UserGroup>> {
        let mut circle = reach(inner, |group| self.inside(group)).remove(outer)?;
        circle.insert(0, outer.clone());
        Some(circle)
    }

    fn inside(&self, group: &UserGroup) -> Vec<&UserGroup> {
        self.0.get(group).into_iter().flat_map(|inside| &inside.groups).collect()
    }

    fn outside(&self, group: &UserGroup) -> Vec<&UserGroup> {
        let around = self.0.iter().filter(|(_, inside)| inside.groups.contains(group));
        around.map(|(name, _)| name).collect()
    }
}

/// Everything that can be reached from `start`, each with one shortest way: both ends included.
fn reach<'a>(
    start: &UserGroup,
    next: impl Fn(&UserGroup) -> Vec<&'a UserGroup>,
) -> BTreeMap<UserGroup, Vec<UserGroup>> {
    let mut found = BTreeMap::from([(start.clone(), vec![start.clone()])]);
    let mut edge = vec![start.clone()];
    while !edge.is_empty() {
        let mut farther = Vec::new();
        for group in edge {
            let way = found.get(&group).cloned().unwrap_or_default();
            for other in next(&group) {
                if !found.contains_key(other) {
                    let way = way.iter().chain([other]).cloned().collect();
                    found.insert(other.clone(), way);
                    farther.push(other.clone());
                }
            }
        }
        edge = farther;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::login;

    fn name(text: &str) -> UserGroup {
        text.parse().expect("a group's name")
    }

    fn names(list: &[&str]) -> Vec<UserGroup> {
        list.iter().map(|text| name(text)).collect()
    }

    /// `ops: alice, +dba`
    fn groups(lines: &[&str]) -> Groups {
        let group = |line: &&str| {
            let (group, members) = line.split_once(':').expect("a line");
            let mut inside = Inside::default();
            for member in members.split(',').map(str::trim).filter(|member| !member.is_empty()) {
                match member.strip_prefix('+') {
                    Some(group) => drop(inside.groups.insert(name(group))),
                    None => drop(inside.users.insert(login(member))),
                }
            }
            (name(group), inside)
        };
        Groups(lines.iter().map(group).collect())
    }

    #[test]
    fn people_of_inner_groups_are_in_the_outer_ones() {
        let groups = groups(&["all: +ops, eve", "ops: alice, +dba", "dba: bob, alice", "none:"]);
        let people = |group| groups.people(&name(group)).into_iter().map(String::from).collect();
        let expected: [(&str, Vec<String>); 5] = [
            ("all", vec!["alice".into(), "bob".into(), "eve".into()]),
            ("ops", vec!["alice".into(), "bob".into()]),
            ("dba", vec!["alice".into(), "bob".into()]),
            ("none", Vec::new()),
            ("unknown", Vec::new()),
        ];
        for (group, expected) in expected {
            let found: Vec<String> = people(group);
            assert_eq!(found, expected, "{group}");
        }
        let around = groups.around(&name("dba"));
        assert_eq!(around, names(&["all", "dba", "ops"]).into_iter().collect());
        let of_bob = groups.of(&login("bob"));
        assert_eq!(of_bob[&name("dba")], []);
        assert_eq!(of_bob[&name("ops")], names(&["dba"]));
        assert_eq!(of_bob[&name("all")], names(&["ops", "dba"]));
        let of_alice = groups.of(&login("alice"));
        assert_eq!(of_alice[&name("ops")], [], "the shortest way counts");
        assert!(groups.of(&login("mallory")).is_empty());
    }

    #[test]
    fn circles_are_found_and_named() {
        let groups = groups(&["a: +b", "b: +c", "c:", "d: +b"]);
        let circle = |outer, inner| groups.circle(&name(outer), &name(inner));
        assert_eq!(circle("c", "a"), Some(names(&["c", "a", "b", "c"])));
        assert_eq!(circle("c", "c"), Some(names(&["c", "c"])));
        assert_eq!(circle("a", "c"), None);
        assert_eq!(circle("d", "a"), None);
    }

    #[test]
    fn a_circle_that_is_there_all_the_same_ends() {
        let groups = groups(&["a: +b, alice", "b: +a, bob"]);
        assert_eq!(groups.people(&name("a")).len(), 2);
        assert_eq!(groups.of(&login("bob")).len(), 2);
    }
}
