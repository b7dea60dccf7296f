//! Whatever two models are given: the edits lead from one to the other, and say nothing twice.

use bastio_protocol::api::{PolicyKey, UserState};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::{
    BoxedStrategy, Just, Strategy, any, prop_assert, prop_assert_eq, proptest,
};
use proptest::sample::select;

use super::*;
use crate::testing::{host, key, login};

const PEOPLE: [&str; 4] = ["alice", "bob", "carol", "dave"];
const GROUPS: [&str; 4] = ["a", "b", "c", "d"];
const POLICIES: [&str; 2] = ["dba", "web"];
const SERVERS: [&str; 2] = ["db-1", "web-1"];

fn rule() -> impl Strategy<Value = SudoRule> {
    any::<bool>().prop_map(|password| SudoRule { password, ..SudoRule::default() })
}

fn person() -> impl Strategy<Value = PolicyUser> {
    let key = (0_u8..4, select(vec![None, Some(2_000_000_000_i64)])).prop_map(|(number, until)| {
        PolicyKey(KeyGrant { public_key: key(number), options: KeyOptions::default(), until })
    });
    let fields = (select(vec!["", "A"]), any::<bool>(), vec(key, 0..4));
    fields.prop_map(|(name, locked, mut keys)| {
        keys.sort();
        keys.dedup_by(|one, other| one.0.public_key == other.0.public_key);
        let state = if locked { UserState::Locked } else { UserState::Active };
        PolicyUser { full_name: name.to_owned(), state, keys, ..PolicyUser::default() }
    })
}

/// A group has only later ones inside, so that there is no circle.
fn groups() -> BoxedStrategy<BTreeMap<UserGroup, PolicyGroup>> {
    let group = (btree_set(0..PEOPLE.len(), 0..3), btree_set(0..GROUPS.len(), 0..3));
    let all = btree_map(0..GROUPS.len(), group, 0..4);
    all.prop_map(|groups| {
        let named = groups.into_iter().map(|(number, (users, inner))| {
            let users = users.into_iter().map(|user| login(PEOPLE[user])).collect();
            let inner = inner.into_iter().filter(|inner| *inner > number);
            (group_name(number), PolicyGroup { users, groups: inner.map(group_name).collect() })
        });
        named.collect()
    })
    .boxed()
}

fn group_name(number: usize) -> UserGroup {
    GROUPS[number].parse().expect("a name")
}

fn grant() -> impl Strategy<Value = PolicyGrant> {
    let holder = (any::<bool>(), select(PEOPLE.to_vec()), select(GROUPS.to_vec()));
    let holder = holder.prop_map(|(person, user, group)| {
        if person {
            Holder::User(login(user))
        } else {
            Holder::Group(group.parse().expect("a name"))
        }
    });
    let on = select(vec!["*", "web-1", "db-1,web-1", "role=web"]);
    let policy = select(vec![None, Some("dba"), Some("web")]);
    let rest = (select(vec![None, Some("deploy"), Some("alice")]), any::<bool>(), any::<bool>());
    (holder, on, policy, rest).prop_map(|(holder, on, policy, (as_login, sudo, why))| {
        let sudo_policy = policy.map(|policy| policy.parse().expect("a name"));
        PolicyGrant(NewGrant {
            holder,
            on: on.parse().expect("a target"),
            login: as_login.map(login),
            sudo,
            terms: Terms { sudo_policy, ..Terms::default() },
            reason: if why { "why".to_owned() } else { String::new() },
        })
    })
}

fn servers() -> impl Strategy<Value = BTreeMap<ServerName, PolicyServer>> {
    let labels = btree_map(select(vec!["env", "role"]), select(vec!["web", "db"]), 0..3);
    btree_map(select(SERVERS.to_vec()), labels, 0..3).prop_map(|servers| {
        let named = servers.into_iter().map(|(name, labels)| {
            let labels = labels.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            (host(name), PolicyServer { labels })
        });
        named.collect()
    })
}

fn drift() -> impl Strategy<Value = DriftRules> {
    let rule = (select(vec!["*", "web-1", "role=web"]), select(DriftAnswer::ALL.to_vec()));
    vec(rule, 0..4).prop_map(|rules| {
        let named = rules.into_iter().map(|(on, answer)| (on.parse().expect("a target"), answer));
        named.collect()
    })
}

/// Everything there is, and no name that leads nowhere.
fn whole() -> impl Strategy<Value = Policy> {
    let policies = btree_map(select(POLICIES.to_vec()), rule(), 0..3);
    let people = btree_map(select(PEOPLE.to_vec()), person(), 0..5);
    (policies, people, groups(), servers(), drift(), vec(grant(), 0..6)).prop_map(
        |(policies, people, groups, mut servers, drift, mut grants)| {
            for name in SERVERS {
                servers.entry(host(name)).or_default();
            }
            let named = policies.into_iter().map(|(name, rule)| (name.parse().expect("one"), rule));
            let people = people.into_iter().map(|(name, person)| (login(name), person));
            let mut seen = BTreeSet::new();
            grants.retain(|PolicyGrant(grant)| seen.insert(GrantIdentity::from(grant)));
            mended(Policy {
                sudo_policies: Some(named.collect()),
                users: Some(people.collect()),
                groups: Some(groups),
                servers: Some(servers),
                drift: Some(drift),
                grants: Some(grants),
                ..Policy::default()
            })
        },
    )
}

/// The model without what refers to things that are not there.
fn mended(mut policy: Policy) -> Policy {
    let users: BTreeSet<Username> = policy.users.iter().flatten().map(|(n, _)| n.clone()).collect();
    let names: BTreeSet<UserGroup> =
        policy.groups.iter().flatten().map(|(n, _)| n.clone()).collect();
    for group in policy.groups.iter_mut().flat_map(BTreeMap::values_mut) {
        group.users.retain(|user| users.contains(user));
        group.groups.retain(|inner| names.contains(inner));
    }
    let policies = policy.sudo_policies.clone().unwrap_or_default();
    if let Some(grants) = &mut policy.grants {
        grants.retain(|PolicyGrant(grant)| {
            let holder = match &grant.holder {
                Holder::User(user) => users.contains(user),
                Holder::Group(group) => names.contains(group),
            };
            holder && grant.terms.sudo_policy.iter().all(|name| policies.contains_key(name))
        });
    }
    policy
}

/// What the store does with each edit, and refuses.
fn apply(mut policy: Policy, edits: &[ModelEdit]) -> Policy {
    for edit in edits {
        apply_one(&mut policy, edit);
    }
    policy
}

fn apply_one(policy: &mut Policy, edit: &ModelEdit) {
    let policies = policy.sudo_policies.as_mut().expect("whole");
    let users = policy.users.as_mut().expect("whole");
    let groups = policy.groups.as_mut().expect("whole");
    let servers = policy.servers.as_mut().expect("whole");
    let drift = policy.drift.as_mut().expect("whole");
    let grants = policy.grants.as_mut().expect("whole");
    let is = |one: &NewGrant, other: &NewGrant| GrantIdentity::from(one) == other.into();
    match edit {
        ModelEdit::AddPolicy(name, rule) => {
            assert!(policies.insert(name.clone(), rule.clone()).is_none());
        }
        ModelEdit::ChangePolicy(name, rule) => {
            *policies.get_mut(name).expect("there") = rule.clone()
        }
        ModelEdit::AddUser(..)
        | ModelEdit::ChangeUser(..)
        | ModelEdit::SetKey(..)
        | ModelEdit::RemoveKey(..)
        | ModelEdit::RemoveUser(_) => apply_to_users(policy, edit),
        ModelEdit::AddGroup(name) => {
            assert!(groups.insert(name.clone(), PolicyGroup::default()).is_none());
        }
        ModelEdit::AddMembers(name, members) => {
            assert!(members.users.iter().all(|user| users.contains_key(user)));
            assert!(members.groups.iter().all(|inner| groups.contains_key(inner)));
            let group = groups.get_mut(name).expect("there");
            group.users.extend(members.users.iter().cloned());
            group.groups.extend(members.groups.iter().cloned());
        }
        ModelEdit::RemoveMembers(name, members) => {
            let group = groups.get_mut(name).expect("there");
            group.users.retain(|user| !members.users.contains(user));
            group.groups.retain(|inner| !members.groups.contains(inner));
        }
        ModelEdit::RemoveGroup(name) => {
            assert!(groups.remove(name).is_some());
            groups.values_mut().for_each(|group| group.groups.retain(|inner| inner != name));
            grants.retain(|PolicyGrant(grant)| grant.holder.group() != Some(name));
        }
        ModelEdit::Label(name, set, unset) => {
            let labels = &mut servers.get_mut(name).expect("there").labels;
            labels.extend(set.clone());
            labels.retain(|label, _| !unset.contains(label));
        }
        ModelEdit::SetDrift(on, answer) => {
            assert_ne!(drift.insert(on.clone(), *answer), Some(*answer));
        }
        ModelEdit::RemoveDrift(on) => assert!(drift.remove(on).is_some()),
        ModelEdit::AddGrant(grant) => {
            assert!(!grants.iter().any(|known| is(&known.0, grant)));
            match &grant.holder {
                Holder::User(user) => assert!(users.contains_key(user)),
                Holder::Group(group) => assert!(groups.contains_key(group)),
            }
            assert!(grant.terms.sudo_policy.iter().all(|name| policies.contains_key(name)));
            grants.push(PolicyGrant(grant.clone()));
        }
        ModelEdit::ChangeGrant(grant) => {
            let known = grants.iter_mut().find(|known| is(&known.0, grant)).expect("there");
            (known.0.sudo, known.0.reason) = (grant.sudo, grant.reason.clone());
        }
        ModelEdit::RemoveGrant(grant) => grants.retain(|known| !is(&known.0, grant)),
        ModelEdit::RemovePolicy(name) => assert!(policies.remove(name).is_some()),
    }
}

fn apply_to_users(policy: &mut Policy, edit: &ModelEdit) {
    let users = policy.users.as_mut().expect("whole");
    let groups = policy.groups.as_mut().expect("whole");
    let grants = policy.grants.as_mut().expect("whole");
    match edit {
        ModelEdit::AddUser(name, user) => {
            assert!(users.insert(name.clone(), user.clone()).is_none());
        }
        ModelEdit::ChangeUser(name, user) => {
            let known = users.get_mut(name).expect("there");
            *known = PolicyUser { keys: known.keys.clone(), ..user.clone() };
        }
        ModelEdit::SetKey(name, key) => {
            let keys = &mut users.get_mut(name).expect("there").keys;
            keys.retain(|known| known.0.public_key != key.public_key);
            keys.push(PolicyKey(key.clone()));
            keys.sort();
        }
        ModelEdit::RemoveKey(name, key) => {
            let keys = &mut users.get_mut(name).expect("there").keys;
            keys.retain(|known| known.0.public_key != *key);
        }
        ModelEdit::RemoveUser(name) => {
            assert!(users.remove(name).is_some());
            groups.values_mut().for_each(|group| group.users.retain(|user| user != name));
            grants.retain(|PolicyGrant(grant)| grant.holder.user() != Some(name));
        }
        other => panic!("{other} is about no user"),
    }
}

/// A file: some of the sections, whatever else there is now.
fn file() -> impl Strategy<Value = Policy> {
    (whole(), any::<[bool; 5]>()).prop_map(|(whole, [policies, users, groups, servers, grants])| {
        Policy {
            sudo_policies: whole.sudo_policies.filter(|_| policies),
            users: whole.users.filter(|_| users),
            groups: whole.groups.filter(|_| groups),
            servers: whole.servers.filter(|_| servers),
            grants: whole.grants.filter(|_| grants),
            ..Policy::default()
        }
    })
}

proptest! {
    #[test]
    fn a_model_needs_nothing_to_become_itself(model in whole(), prune: bool) {
        prop_assert_eq!(faults(&model, &model, prune), []);
        prop_assert_eq!(model_edits(&model, &model, prune), []);
    }

    #[test]
    fn what_was_applied_is_so(current in whole(), wanted in file(), prune: bool) {
        if !faults(&current, &wanted, prune).is_empty() {
            return Ok(());
        }
        let edits = model_edits(&current, &wanted, prune);
        let after = apply(current.clone(), &edits);
        prop_assert_eq!(model_edits(&after, &wanted, prune), []);
        // What has no section stays.
        if wanted.users.is_none() {
            prop_assert_eq!(&after.users, &current.users);
        }
    }

    #[test]
    fn a_whole_file_with_prune_is_all_there_is(current in whole(), wanted in whole()) {
        prop_assert_eq!(faults(&current, &wanted, true), []);
        let mut after = apply(current.clone(), &model_edits(&current, &wanted, true));
        // Members of a group, and all else, but for the order of grants.
        let order = |policy: &mut Policy| {
            let grants = policy.grants.as_mut().expect("whole");
            grants.sort_by_key(|PolicyGrant(grant)| GrantIdentity::from(grant));
            grants.iter_mut().for_each(|PolicyGrant(grant)| {
                grant.login = grant.login.clone().or_else(|| grant.holder.user().cloned());
            });
        };
        let mut wanted = wanted;
        order(&mut after);
        order(&mut wanted);
        prop_assert_eq!(after, wanted);
    }

    #[test]
    fn without_prune_nothing_goes(current in whole(), wanted in file()) {
        if !faults(&current, &wanted, false).is_empty() {
            return Ok(());
        }
        let after = apply(current.clone(), &model_edits(&current, &wanted, false));
        for (name, user) in current.users.iter().flatten() {
            let left = after.users.as_ref().and_then(|users| users.get(name)).expect("stays");
            let keys = keys(&left.keys);
            prop_assert!(user.keys.iter().all(|key| keys.contains_key(&key.0.public_key)));
        }
        for (name, group) in current.groups.iter().flatten() {
            let left = after.groups.as_ref().and_then(|groups| groups.get(name)).expect("stays");
            prop_assert!(group.users.is_subset(&left.users) && group.groups.is_subset(&left.groups));
        }
        for (name, server) in current.servers.iter().flatten() {
            let left = after.servers.as_ref().and_then(|all| all.get(name)).expect("stays");
            prop_assert!(server.labels.keys().all(|label| left.labels.contains_key(label)));
        }
        let left: Vec<GrantIdentity> =
            after.grants.iter().flatten().map(|grant| (&grant.0).into()).collect();
        let stays = |grant: &PolicyGrant| left.contains(&(&grant.0).into());
        prop_assert!(current.grants.iter().flatten().all(stays));
        let names = |policy: &Policy| -> Vec<PolicyName> {
            policy.sudo_policies.iter().flatten().map(|(name, _)| name.clone()).collect()
        };
        prop_assert!(names(&current).iter().all(|name| names(&after).contains(name)));
    }

    #[test]
    fn the_order_in_a_file_says_nothing(
        current in whole(),
        (wanted, turned) in file().prop_flat_map(|file| {
            let grants = Just(file.grants.clone().unwrap_or_default()).prop_shuffle();
            let turned = file.clone();
            let turned = grants.prop_map(move |grants| {
                let mut turned = turned.clone();
                turned.grants = turned.grants.map(|_| grants);
                for user in turned.users.iter_mut().flat_map(BTreeMap::values_mut) {
                    user.keys.reverse();
                }
                turned
            });
            (Just(file), turned)
        }),
        prune: bool,
    ) {
        prop_assert_eq!(model_edits(&current, &wanted, prune), model_edits(&current, &turned, prune));
    }
}

fn read(text: &str) -> Policy {
    serde_json::from_str(text).expect("a policy")
}

#[test]
fn everything_wrong_is_named_with_its_place() {
    let current = read(
        r#"{"version":1,"users":{"alice":{}},"groups":{"old":{"groups":["ops"]},"ops":{}},
            "servers":{"web-1":{}}}"#,
    );
    for (file, expected) in [
        (
            r#"{"groups":{"ops":{"users":["zoe"],"groups":["none"]}}"#,
            &[
                "groups: ops: there is no user named zoe",
                "groups: ops: there is no group named none",
            ][..],
        ),
        (
            r#"{"grants":[{"user":"zoe","on":"web-1,web-9","sudo-policy":"dba"}]"#,
            &[
                "grants: user zoe on web-1,web-9 with the sudo policy dba: there is no user named zoe",
                "grants: user zoe on web-1,web-9 with the sudo policy dba: there is no sudo policy \
                 named dba",
                "grants: user zoe on web-1,web-9 with the sudo policy dba: there is no server named \
                 web-9",
            ],
        ),
        (
            r#"{"grants":[{"user":"alice","on":"a=b,c=d"},{"user":"alice","on":"c=d,a=b","login":"alice",
                "reason":"again"}]"#,
            &["grants: user alice on a=b,c=d as alice is there twice"],
        ),
        (r#"{"servers":{"web-9":{}}"#, &["servers: there is no server named web-9"]),
        (r#"{"groups":{"ops":{"groups":["ops"]}}"#, &["groups: ops > ops is a circle"]),
        (r#"{"groups":{"ops":{"groups":["old"]}}"#, &["groups: old > ops > old is a circle"]),
    ] {
        let file = format!("{},\"version\":1}}", file);
        let faults: Vec<String> =
            faults(&current, &read(&file), false).iter().map(ToString::to_string).collect();
        assert_eq!(faults, expected, "{file}");
    }
    let turned = read(r#"{"version":1,"groups":{"old":{},"ops":{"groups":["old"]}}}"#);
    assert_eq!(faults(&current, &turned, true), [], "with prune they change places");
    let twice = format!("{} a", key(1));
    let file = format!(r#"{{"version":1,"users":{{"bob":{{"keys":["{twice}","{}"]}}}}}}"#, key(1));
    let found = faults(&current, &read(&file), false);
    assert!(matches!(found.as_slice(), [Fault::KeyTwice { user, .. }] if user.as_str() == "bob"));
    let pruned = read(r#"{"version":1,"users":{},"grants":[{"user":"alice","on":"*"}]}"#);
    let found = faults(&current, &pruned, true);
    assert!(matches!(found.as_slice(), [Fault::Unknown { .. }]), "{found:?}");
}

#[test]
fn a_long_chain_of_groups_is_no_circle_and_costs_little() {
    let inner = |number: usize| format!("\"g{number}\":{{\"groups\":[\"g{}\"]}}", number + 1);
    let chain: Vec<String> = (0..20_000).map(inner).collect();
    let open = format!(r#"{{"version":1,"groups":{{{},"g20000":{{}}}}}}"#, chain.join(","));
    assert_eq!(faults(&Policy::default(), &read(&open), false), []);
    let closed =
        format!(r#"{{"version":1,"groups":{{{},"g20000":{{"groups":["g7"]}}}}}}"#, chain.join(","));
    let found = faults(&Policy::default(), &read(&closed), false);
    assert!(
        matches!(found.as_slice(), [Fault::Circle(way)] if way.len() == 19_995),
        "{}",
        found.len()
    );
}

#[test]
fn what_is_over_is_not_there() {
    let file = format!(
        r#"{{"version":1,"users":{{"alice":{{"keys":[{{"key":"{}","until":100}},"{}"]}}}},
            "grants":[{{"user":"alice","on":"*","until":100}},{{"user":"alice","on":"*"}}]}}"#,
        key(1),
        key(2)
    );
    let left = without_ended(read(&file), 100);
    assert_eq!(left.grants.map(|grants| grants.len()), Some(1));
    assert_eq!(left.users.map(|users| users[&login("alice")].keys.len()), Some(1));
    assert_eq!(without_ended(read(&file), 99), read(&file));
}

#[test]
fn edits_are_counted_for_people() {
    let current =
        read(r#"{"version":1,"users":{"alice":{}},"grants":[{"user":"alice","on":"*"}]}"#);
    let wanted = format!(
        r#"{{"version":1,"sudo-policies":{{"a":{{}},"b":{{}}}},"users":{{"bob":{{"keys":["{}"]}}}},
            "grants":[{{"user":"bob","on":"*"}}]}}"#,
        key(1)
    );
    let edits = model_edits(&current, &read(&wanted), true);
    assert_eq!(
        in_numbers(&edits),
        "2 sudo policies added, 1 user added, 1 user removed, 1 key set, 1 grant added, \
         1 grant removed"
    );
    assert_eq!(edits.last().map(ToString::to_string), Some("user alice: removed".to_owned()));
    assert_eq!(in_numbers(&[]), "nothing to change");
}
