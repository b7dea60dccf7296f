//! Rights through groups: who gets them, who loses them, and that no order of edits changes that.

use std::collections::BTreeMap;

use bastio_protocol::Status;
use bastio_protocol::api::{Holder, Membership, NewGrant, RemoveUser, Terms, UpdateUser};
use bastio_protocol::audit::LogFilter;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert_eq, proptest};
use proptest::test_runner::{Config, TestCaseError};

use super::*;
use crate::plan::{self, Accounts, Host, Inside};
use crate::testing::{NOW, TestBackend, host, key, login, new_user};

fn group(text: &str) -> UserGroup {
    text.parse().expect("a group's name")
}

/// `alice`, `+dba`
fn members(words: &[&str]) -> Members {
    let (groups, users): (Vec<&str>, Vec<&str>) =
        words.iter().copied().partition(|word| word.starts_with('+'));
    Members {
        users: users.into_iter().map(login).collect(),
        groups: groups.into_iter().map(|word| group(&word[1..])).collect(),
    }
}

fn grant_to(name: &str, on: &str, as_login: Option<&str>, sudo: bool) -> NewGrant {
    let (holder, on) = (Holder::Group(group(name)), on.parse().expect("a target"));
    let (terms, reason) = (Terms::default(), String::new());
    NewGrant { holder, on, login: as_login.map(login), sudo, terms, reason }
}

/// What an edit has queued, as `SERVER ACTION LOGIN`.
fn todo(change: &Change) -> Vec<String> {
    let lines = change.servers.iter().flat_map(|server| {
        let actions = server.actions.iter();
        actions.map(move |a| format!("{} {} {}", server.server, a.action, a.username))
    });
    lines.collect()
}

/// Two servers, and alice, bob and carol with a key each.
async fn three_people() -> TestBackend {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    backend.enroll("db-1", 2).await;
    for (name, number) in [("alice", 10), ("bob", 11), ("carol", 12)] {
        backend.add_user(name, &[key(number)], "", false).await;
    }
    backend
}

impl TestBackend {
    async fn add_group(&self, name: &str, words: &[&str]) -> Change {
        let new = NewGroup { name: group(name), members: members(words) };
        self.fleet.add_group(&self.admin, &new).await.expect("added")
    }

    async fn members(&self, name: &str, add: &[&str], remove: &[&str]) -> Change {
        self.try_members(name, add, remove).await.expect("edited")
    }

    async fn try_members(
        &self,
        name: &str,
        add: &[&str],
        remove: &[&str],
    ) -> Result<Change, FleetError> {
        let update = UpdateGroup { add: members(add), remove: members(remove) };
        self.fleet.update_group(&self.admin, &group(name), &update).await
    }

    async fn grant_group(
        &self,
        name: &str,
        on: &str,
        as_login: Option<&str>,
        sudo: bool,
    ) -> Change {
        let new = grant_to(name, on, as_login, sudo);
        self.fleet.add_grant(&self.admin, &new).await.expect("granted")
    }

    /// What a server should have.
    async fn wanted(&self, server: &str) -> Accounts {
        let mut db = self.store.read().await.expect("a reader");
        let model = store::grants::entitlements(&mut db, None, NOW).await.expect("read");
        plan::desired(&model, &Host { name: host(server), labels: BTreeMap::new() })
    }
}

#[tokio::test]
async fn people_get_what_their_groups_have_and_lose_it_with_them() {
    let backend = three_people().await;
    backend.add_group("dba", &["bob"]).await;
    let added = backend.add_group("ops", &["alice", "+dba"]).await;
    assert_eq!(added.summary, "group ops: added, alice added, group dba added");
    assert!(added.servers.is_empty());
    let granted = backend.grant_group("ops", "web-1", None, true).await;
    assert_eq!(
        todo(&granted),
        ["web-1 add-user alice", "web-1 add-key alice", "web-1 add-user bob", "web-1 add-key bob"]
    );
    let web = backend.connect(1).await;
    backend.answer_all(&web, Status::Done).await;
    let carol = backend.members("dba", &["carol"], &[]).await;
    assert_eq!(todo(&carol), ["web-1 add-user carol", "web-1 add-key carol"]);
    backend.answer_all(&web, Status::Done).await;
    let again = backend.members("dba", &["carol"], &[]).await;
    assert!(again.servers.is_empty() && again.summary.ends_with("nothing to change"));
    let gone = backend.members("ops", &[], &["+dba"]).await;
    assert_eq!(todo(&gone), ["web-1 remove-user bob", "web-1 remove-user carol"]);
    backend.answer_all(&web, Status::Done).await;
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    let refused = fleet.remove_group(admin, &group("ops"), RemoveGroup::default()).await;
    assert!(matches!(refused, Err(FleetError::GroupInUse { .. })), "{refused:?}");
    let how = RemoveGroup { with_grants: true };
    let removed = fleet.remove_group(admin, &group("ops"), how).await.expect("removed");
    assert_eq!(todo(&removed), ["web-1 remove-user alice"]);
    assert_eq!(fleet.grants(admin, None).await.expect("read"), []);
    let left = fleet.groups(admin).await.expect("read");
    assert_eq!(left.len(), 1, "dba stays");
    let rows = backend.log(&LogFilter::default()).await;
    let told: Vec<&str> = rows.iter().map(|chained| chained.row.action.as_str()).collect();
    for action in
        ["group.add", "group.member-add", "group.member-remove", "grant.remove", "group.remove"]
    {
        assert!(told.contains(&action), "{action} in {told:?}");
    }
    let of_carol = rows.iter().filter(|chained| chained.row.user.as_deref() == Some("carol"));
    let details: Vec<&str> = of_carol.map(|chained| chained.row.detail.as_str()).collect();
    assert!(details.contains(&"group dba: carol added"), "{details:?}");
}

#[tokio::test]
async fn one_account_for_a_whole_group_has_the_keys_of_its_people() {
    let backend = three_people().await;
    backend.add_group("ops", &["alice", "bob"]).await;
    let granted = backend.grant_group("ops", "db-1", Some("deploy"), false).await;
    assert_eq!(
        todo(&granted),
        ["db-1 add-user deploy", "db-1 add-key deploy", "db-1 add-key deploy"]
    );
    let session = backend.connect(2).await;
    backend.answer_all(&session, Status::Done).await;
    let gone = backend.members("ops", &[], &["alice"]).await;
    assert_eq!(todo(&gone), ["db-1 remove-key deploy"]);
    backend.answer_all(&session, Status::Done).await;
    let gone = backend.members("ops", &[], &["bob"]).await;
    assert_eq!(todo(&gone), ["db-1 remove-user deploy"]);
    assert!(backend.wanted("db-1").await.is_empty(), "an empty group is nobody");
}

#[tokio::test]
async fn a_group_is_never_inside_itself() {
    let backend = three_people().await;
    backend.add_group("a", &[]).await;
    backend.add_group("b", &["+a"]).await;
    backend.add_group("c", &["+b"]).await;
    for (outer, inner, circle) in [("a", "+c", "a > c > b > a"), ("a", "+a", "a > a")] {
        let refused = backend.try_members(outer, &["alice", inner], &[]).await;
        let words = refused.expect_err("a circle").to_string();
        assert!(words.ends_with(circle), "{words}");
    }
    let a = backend.fleet.group(&backend.admin, &group("a")).await.expect("there");
    assert!(a.members.users.is_empty(), "nothing of a refused edit is kept");
    let both = backend.try_members("a", &["+c"], &[]).await;
    assert!(both.is_err());
    backend.members("b", &[], &["+a"]).await;
    backend.members("a", &["+c"], &[]).await;
}

#[tokio::test]
async fn who_or_what_is_unknown_is_refused() {
    let backend = three_people().await;
    backend.add_group("ops", &[]).await;
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    let twice = NewGroup { name: group("ops"), members: Members::default() };
    let refused = fleet.add_group(admin, &twice).await;
    assert!(matches!(refused, Err(FleetError::GroupTaken(_))), "{refused:?}");
    let refused = backend.try_members("ops", &["mallory"], &[]).await;
    assert!(matches!(refused, Err(FleetError::NoSuchUser(_))), "{refused:?}");
    let refused = backend.try_members("ops", &["+none"], &[]).await;
    assert!(matches!(refused, Err(FleetError::NoSuchGroup(_))), "{refused:?}");
    let refused = fleet.add_grant(admin, &grant_to("none", "*", None, false)).await;
    assert!(matches!(refused, Err(FleetError::NoSuchGroup(_))), "{refused:?}");
    let refused = fleet.add_grant(admin, &grant_to("ops", "*", Some("root"), false)).await;
    assert!(matches!(refused, Err(FleetError::SystemName(_))), "{refused:?}");
}

#[tokio::test]
async fn a_person_is_shown_with_all_groups_and_what_they_give() {
    let backend = three_people().await;
    backend.add_group("dba", &["bob"]).await;
    backend.add_group("ops", &["+dba"]).await;
    backend.grant_group("ops", "*", None, true).await;
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    let bob = fleet.user(admin, &login("bob")).await.expect("there");
    let direct = Membership { group: group("dba"), through: Vec::new() };
    let through = Membership { group: group("ops"), through: vec![group("dba")] };
    assert_eq!(bob.groups, [direct, through]);
    assert_eq!(bob.grants[0].holder, Holder::Group(group("ops")));
    let all = fleet.users(admin).await.expect("read");
    assert_eq!(all[1], bob, "the list says the same");
    let no_sudo = UpdateUser { sudo: Some(false), ..UpdateUser::default() };
    let refused = fleet.update_user(admin, &login("bob"), &no_sudo).await;
    assert!(matches!(refused, Err(FleetError::SudoByGroup { .. })), "{refused:?}");
}

#[tokio::test]
async fn whoever_is_removed_leaves_every_group() {
    let backend = three_people().await;
    backend.add_group("dba", &["bob", "carol"]).await;
    backend.add_group("ops", &["+dba", "bob"]).await;
    backend.grant_group("ops", "web-1", None, true).await;
    backend.grant_group("dba", "db-1", Some("deploy"), false).await;
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    fleet.remove_user(admin, &login("bob"), RemoveUser::default()).await.expect("removed");
    let (web, db) = (backend.wanted("web-1").await, backend.wanted("db-1").await);
    assert_eq!(web.into_keys().collect::<Vec<_>>(), [login("carol")]);
    assert_eq!(db[&login("deploy")].keys.len(), 1);
    backend.add_user("bob", &[key(11)], "", false).await;
    assert!(!backend.wanted("web-1").await.contains_key(&login("bob")), "nothing is inherited");
}

const PEOPLE: [&str; 3] = ["alice", "bob", "carol"];
const GROUPS: [&str; 4] = ["g0", "g1", "g2", "g3"];

/// An edit that is never refused, in whatever order.
#[derive(Debug, Clone)]
enum Fact {
    Member {
        group: usize,
        user: usize,
    },
    /// The inner one has the higher number, so that there is no circle.
    Inner {
        group: usize,
        above: usize,
    },
    Grant {
        group: usize,
        on: &'static str,
        shared: bool,
        sudo: bool,
    },
    Own {
        user: usize,
        on: &'static str,
    },
}

fn facts() -> impl Strategy<Value = Vec<Fact>> {
    use proptest::prelude::prop_oneof;
    let on = || prop_oneof![Just("web-1"), Just("*"), Just("role=web"), Just("db-1")];
    let fact = prop_oneof![
        (0..4_usize, 0..3_usize).prop_map(|(group, user)| Fact::Member { group, user }),
        (0..3_usize, 1..4_usize).prop_map(|(group, above)| Fact::Inner { group, above }),
        (0..4_usize, on(), any::<bool>(), any::<bool>())
            .prop_map(|(group, on, shared, sudo)| Fact::Grant { group, on, shared, sudo }),
        (0..3_usize, on()).prop_map(|(user, on)| Fact::Own { user, on }),
    ];
    vec(fact, 0..14)
}

async fn told(facts: &[Fact]) -> TestBackend {
    let backend = three_people().await;
    for name in GROUPS {
        backend.add_group(name, &[]).await;
    }
    for fact in facts {
        match fact {
            Fact::Member { group, user } => {
                backend.members(GROUPS[*group], &[PEOPLE[*user]], &[]).await;
            }
            Fact::Inner { group, above } => {
                let inner = format!("+{}", GROUPS[(group + above).min(3)]);
                backend.members(GROUPS[*group], &[&inner], &[]).await;
            }
            Fact::Grant { group, on, shared, sudo } => {
                let login = shared.then_some("deploy");
                backend.grant_group(GROUPS[*group], on, login, *sudo).await;
            }
            Fact::Own { user, on } => {
                backend.add_user(PEOPLE[*user], &[], on, false).await;
            }
        }
    }
    backend
}

/// The accounts of web-1, worked out the simple way.
fn expected(facts: &[Fact]) -> BTreeMap<String, (bool, BTreeSet<String>)> {
    let mut groups = Groups(GROUPS.iter().map(|name| (group(name), Inside::default())).collect());
    for fact in facts {
        match fact {
            Fact::Member { group: outer, user } => {
                let inside = groups.0.get_mut(&group(GROUPS[*outer])).expect("there");
                inside.users.insert(login(PEOPLE[*user]));
            }
            Fact::Inner { group: outer, above } => {
                let inner = group(GROUPS[(outer + above).min(3)]);
                groups.0.get_mut(&group(GROUPS[*outer])).expect("there").groups.insert(inner);
            }
            Fact::Grant { .. } | Fact::Own { .. } => {}
        }
    }
    let mut accounts = BTreeMap::<String, (bool, BTreeSet<String>)>::new();
    let mut give = |user: &Username, login: &str, sudo: bool| {
        let number = PEOPLE.iter().position(|name| *name == user.as_str()).expect("known");
        let account = accounts.entry(login.to_owned()).or_default();
        account.0 |= sudo;
        account.1.insert(key(10 + u8::try_from(number).expect("small")).fingerprint());
    };
    for fact in facts {
        match fact {
            Fact::Grant { group: to, on, shared, sudo } if matches!(*on, "web-1" | "*") => {
                for user in groups.people(&group(GROUPS[*to])) {
                    give(&user, if *shared { "deploy" } else { user.as_str() }, *sudo);
                }
            }
            Fact::Own { user, on } if matches!(*on, "web-1" | "*") => {
                give(&login(PEOPLE[*user]), PEOPLE[*user], false);
            }
            _ => {}
        }
    }
    accounts
}

fn simply(accounts: Accounts) -> BTreeMap<String, (bool, BTreeSet<String>)> {
    let simple = |(login, account): (Username, plan::Account)| {
        let keys = account.keys.iter().map(bastio_protocol::PublicKey::fingerprint).collect();
        (login.to_string(), (account.sudo, keys))
    };
    accounts.into_iter().map(simple).collect()
}

proptest! {
    #![proptest_config(Config { cases: 12, max_shrink_iters: 100, ..Config::default() })]

    #[test]
    fn the_order_of_edits_does_not_matter_and_removal_takes_every_path(
        order in facts().prop_flat_map(|facts| (Just(facts.clone()), Just(facts).prop_shuffle())),
        who in 0..3_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let outcome: Result<(), TestCaseError> = runtime.expect("a runtime").block_on(async {
            let (one, other) = order;
            let (first, second) = (told(&one).await, told(&other).await);
            let wanted = simply(first.wanted("web-1").await);
            prop_assert_eq!(&wanted, &expected(&one));
            prop_assert_eq!(&wanted, &simply(second.wanted("web-1").await));
            // What was queued on the way leads there as well.
            let session = first.connect(1).await;
            first.answer_all(&session, Status::Done).await;
            let detail = first.fleet.server(&first.admin, &host("web-1")).await.expect("there");
            let there = detail.accounts.into_iter().map(|account| {
                (account.username.to_string(), (account.sudo, account.keys.into_iter().collect()))
            });
            prop_assert_eq!(there.collect::<BTreeMap<_, _>>(), wanted);
            let gone = login(PEOPLE[who]);
            let how = RemoveUser::default();
            first.fleet.remove_user(&first.admin, &gone, how).await.expect("removed");
            first.answer_all(&session, Status::Done).await;
            let lost = key(10 + u8::try_from(who).expect("small")).fingerprint();
            let detail = first.fleet.server(&first.admin, &host("web-1")).await.expect("there");
            for account in detail.accounts {
                prop_assert_eq!(account.username == gone, false);
                prop_assert_eq!(account.keys.contains(&lost), false);
            }
            Ok(())
        });
        outcome?;
    }
}

#[tokio::test]
async fn a_person_added_anew_is_not_taken_away_as_said_before() {
    let backend = three_people().await;
    backend.add_group("ops", &[]).await;
    backend.grant_group("ops", "web-1", None, false).await;
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    let how = RemoveUser { home: Some(bastio_protocol::Removal::Delete) };
    fleet.remove_user(admin, &login("bob"), how).await.expect("removed");
    fleet.add_user(admin, &new_user("bob", &[key(11)], "", false)).await.expect("added");
    backend.members("ops", &["bob"], &[]).await;
    let mut db = backend.store.read().await.expect("a reader");
    let removals = store::policies::removals(&mut db).await.expect("read");
    assert!(!removals.contains_key(&login("bob")), "{removals:?}");
}
