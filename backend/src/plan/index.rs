//! Which grants may be about a server, found without looking at all of them.
//!
//! Pure. A grant by names is found by the server's name, a grant by labels by one label that every server it means has;
//! only grants that no label leads to are looked at for every server.

use std::collections::{BTreeSet, HashMap};

use bastio_protocol::{ServerName, Target};

use super::merge::merge_of;
use super::{Accounts, Conflict, Entitlement, Host};

/// All grants, by what leads to them.
#[derive(Debug)]
pub struct Index<'a> {
    model: &'a [Entitlement],
    by_name: HashMap<&'a ServerName, Vec<usize>>,
    by_label: HashMap<&'a str, HashMap<&'a str, Vec<usize>>>,
    /// For these, every server is to be asked.
    others: Vec<usize>,
}

/// What leads to the servers that grants are about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Whether only asking each server tells.
    pub everywhere: bool,
    /// Servers by name.
    pub names: BTreeSet<ServerName>,
    /// Servers by a label and its value.
    pub labels: BTreeSet<(String, String)>,
}

impl<'a> Index<'a> {
    /// Of all these grants.
    #[must_use]
    pub fn new(model: &'a [Entitlement]) -> Self {
        let mut index =
            Self { model, by_name: HashMap::new(), by_label: HashMap::new(), others: Vec::new() };
        for (place, grant) in model.iter().enumerate() {
            match (&grant.on, grant.on.certain_label()) {
                (Target::Names(names), _) => {
                    for name in names {
                        index.by_name.entry(name).or_default().push(place);
                    }
                }
                (_, Some((label, values))) => {
                    let of_label = index.by_label.entry(label).or_default();
                    for value in values {
                        of_label.entry(value).or_default().push(place);
                    }
                }
                (_, None) => index.others.push(place),
            }
        }
        index
    }

    /// The grants that are about `host`, by their places in the model.
    #[must_use]
    pub fn about(&self, host: &Host) -> Vec<usize> {
        let mut places = self.others.clone();
        places.extend(self.by_name.get(&host.name).into_iter().flatten());
        for (label, value) in &host.labels {
            let of_label = self.by_label.get(label.as_str());
            places.extend(
                of_label.and_then(|values| values.get(value.as_str())).into_iter().flatten(),
            );
        }
        places.retain(|place| {
            let grant = self.model.get(*place);
            grant.is_some_and(|grant| grant.on.includes(&host.name, &host.labels))
        });
        // The order of the grants counts where they say different things.
        places.sort_unstable();
        places
    }

    /// The accounts that `host` must have by the grants that are [`Index::about`] it, and what could not be put
    /// together, as [`super::merge`].
    #[must_use]
    pub fn merge_these(&self, about: &[usize], host: &Host) -> (Accounts, Vec<Conflict>) {
        merge_of(about.iter().filter_map(|place| self.model.get(*place)), &host.name)
    }
}

/// What leads to the servers that these grants are about.
#[must_use]
pub fn reach(model: &[Entitlement]) -> Reach {
    let mut reach = Reach::default();
    for grant in model {
        match (&grant.on, grant.on.certain_label()) {
            (Target::Names(names), _) => reach.names.extend(names.iter().cloned()),
            (_, Some((label, values))) => {
                reach.labels.extend(values.map(|value| (label.to_owned(), value.to_owned())))
            }
            (_, None) => reach.everywhere = true,
        }
    }
    reach
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::{Rights, merge};
    use crate::testing::{host, login};

    fn grant(on: &str, name: &str) -> Entitlement {
        Entitlement { on: on.parse().unwrap(), login: login(name), rights: Rights::default() }
    }

    const TARGETS: [&str; 9] = [
        "*",
        "s1",
        "s1,s2",
        "role=web",
        "role=web|db",
        "role!=web",
        "env=*",
        "role=web,env=prod",
        "env!=*,role=db",
    ];

    proptest! {
        #[test]
        fn finds_what_looking_at_all_finds(
            on in proptest::collection::vec((0..TARGETS.len(), 0..3_u8), 0..12),
            name in 1..4_u8,
            labels in proptest::collection::btree_map("role|env", "web|db|prod", 0..3),
        ) {
            let model: Vec<Entitlement> =
                on.iter().map(|(on, who)| grant(TARGETS[*on], ["a", "b", "c"][usize::from(*who)])).collect();
            let host = Host { name: host(&format!("s{name}")), labels };
            let index = Index::new(&model);
            prop_assert_eq!(index.merge_these(&index.about(&host), &host), merge(&model, &host));
            let reach = reach(&model);
            let reached = reach.everywhere
                || reach.names.contains(&host.name)
                || host.labels.iter().any(|(label, value)| {
                    reach.labels.contains(&(label.clone(), value.clone()))
                });
            prop_assert!(reached || merge(&model, &host).0.is_empty());
        }
    }
}
