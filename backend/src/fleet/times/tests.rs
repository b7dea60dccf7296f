//! Grants that begin later, and clocks that are set.

use std::sync::atomic::{AtomicI64, Ordering};

use bastio_protocol::Status;
use bastio_protocol::api::{Holder, NewGrant, Terms};
use bastio_protocol::audit::{ChainedRow, LogFilter, Scope as Kept, Verdict, Verifier};

use super::*;
use crate::store::sql;
use crate::testing::{NOW, TestBackend, key, login, new_user};

fn grant(terms: Terms) -> NewGrant {
    let (holder, on) = (Holder::User(login("alice")), "*".parse().expect("a target"));
    NewGrant { holder, on, login: None, sudo: true, terms, reason: String::new() }
}

#[tokio::test]
async fn a_grant_gives_nothing_before_it_begins() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect(1).await;
    backend.add_user("alice", &[key(10)], "", false).await;
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    let terms = Terms { from: Some(NOW + 60), ..Terms::default() };
    let change = fleet.add_grant(admin, &grant(terms.clone())).await.expect("granted");
    assert!(change.servers.is_empty());
    let again = fleet.add_grant(admin, &grant(terms)).await.expect("granted");
    assert!(again.servers.is_empty());
    let listed = fleet.grants(admin, None).await.expect("read");
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].terms.from, Some(NOW + 60));
    assert_eq!(fleet.turn().await.expect("a store"), Some(NOW + 60));
    assert!(backend.answer_all(&session, Status::Done).await.is_empty());
    // The clock of these tests stands still: the grant's begin comes to it.
    let mut tx = backend.store.write().await.expect("a writer");
    sql::query("UPDATE grants SET starts = $1").bind(NOW).execute(&mut tx).await.expect("set");
    tx.commit().await.expect("committed");
    assert_eq!(fleet.turn().await.expect("a store"), None);
    assert_eq!(
        backend.answer_all(&session, Status::Done).await,
        ["add-user alice", "add-key alice"]
    );
    let rows = backend.log(&LogFilter::default()).await;
    let begun = rows.iter().filter(|chained| chained.row.action == "grant.begin").count();
    assert_eq!(begun, 1);
    let before = fleet.status(admin, String::new()).await.expect("read").revision;
    assert_eq!(fleet.turn().await.expect("a store"), None);
    let after = fleet.status(admin, String::new()).await.expect("read").revision;
    assert_eq!(after, before, "it begins once");
}

#[tokio::test]
async fn what_has_begun_by_now_begins_at_once_and_what_ends_before_is_refused() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    backend.add_user("alice", &[key(10)], "", false).await;
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    for (from, until) in [(NOW + 60, NOW + 60), (NOW + 61, NOW + 60)] {
        let terms = Terms { from: Some(from), until: Some(until), ..Terms::default() };
        let refused = fleet.add_grant(admin, &grant(terms)).await;
        assert!(matches!(refused, Err(FleetError::Backwards)), "{refused:?}");
    }
    let terms = Terms { from: Some(NOW - 5), ..Terms::default() };
    let change = fleet.add_grant(admin, &grant(terms)).await.expect("granted");
    assert_eq!(change.servers.len(), 1);
    assert_eq!(fleet.turn().await.expect("a store"), None);
}

const DAY: i64 = 86_400;
static CLOCK: AtomicI64 = AtomicI64::new(NOW);

#[tokio::test]
async fn grants_follow_the_clock_whichever_way_it_is_set() {
    let backend = TestBackend::with_clock(|| CLOCK.load(Ordering::Relaxed)).await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect_v2(1).await;
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    for (number, name, from, until) in
        [(10, "alice", None, Some(NOW + 3600)), (11, "bob", Some(NOW + 3600), None)]
    {
        let terms = Terms { from, until, ..Terms::default() };
        let new = new_user(name, &[key(number)], "", false);
        fleet.add_user(admin, &new).await.expect("added");
        let holder = Holder::User(login(name));
        let new = NewGrant { holder, ..grant(terms) };
        fleet.add_grant(admin, &new).await.expect("granted");
    }
    let has = async || {
        backend.answer_all(&session, Status::Done).await;
        let shown = fleet.server(admin, &"web-1".parse().expect("a name")).await.expect("read");
        shown.accounts.into_iter().map(|it| it.username.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(has().await, ["alice"]);
    for (number, clock, expected) in [
        (20, NOW + DAY, vec!["bob"]),
        // Nothing that has ended comes back, nothing that has begun is taken back.
        (21, NOW - DAY, vec!["bob"]),
        (22, NOW + 2 * DAY, vec!["bob"]),
    ] {
        CLOCK.store(clock, Ordering::Relaxed);
        fleet.turn().await.expect("a store");
        // Both accounts are planned anew.
        for name in ["alice", "bob"] {
            backend.add_user(name, &[key(number)], "", false).await;
        }
        assert_eq!(has().await, expected, "{clock}");
        fleet.tell_clock(clock - NOW).await;
    }
    let rows = backend.log(&LogFilter::default()).await;
    let count = |action| rows.iter().filter(|row| row.row.action == action).count();
    assert_eq!((count("grant.begin"), count("grant.end"), count("backend.clock")), (1, 1, 3));
    assert!(rows.windows(2).any(|pair| pair[0].row.at > pair[1].row.at), "times go backwards");
    let head = rows.last().map(ChainedRow::head);
    let mut verifier = Verifier::new(Kept::Whole, head, None);
    rows.iter().for_each(|row| verifier.row(Some(row.clone())));
    assert!(matches!(verifier.finish(), Verdict::Intact(_)), "the chain is whole all the same");
}

#[tokio::test]
async fn a_contradiction_to_come_is_refused_when_it_is_made() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    backend.add_user("alice", &[key(10)], "", false).await;
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    for name in ["one", "two"] {
        let policy = serde_json::json!({"name": name, "commands": [format!("/usr/bin/{name}")]});
        let policy = serde_json::from_value(policy).expect("a policy");
        fleet.add_policy(admin, &policy).await.expect("added");
    }
    let with = |name: &str, from: Option<i64>, until: Option<i64>| {
        let sudo_policy = Some(name.parse().expect("a name"));
        NewGrant { sudo: false, ..grant(Terms { from, until, sudo_policy, ..Terms::default() }) }
    };
    fleet.add_grant(admin, &with("one", None, Some(NOW + 100))).await.expect("granted");
    let refused = fleet.add_grant(admin, &with("two", Some(NOW + 50), None)).await;
    let refused = refused.expect_err("both hold from then on");
    assert!(
        matches!(refused, FleetError::ConflictLater { at, .. } if at == NOW + 50),
        "{refused:?}"
    );
    assert!(refused.to_string().starts_with("from 2027-01-15 08:00:50 UTC on"), "{refused}");
    fleet.add_grant(admin, &with("two", Some(NOW + 100), None)).await.expect("one after the other");
    // A third one that holds now contradicts the first at once, and one that begins with the second
    // contradicts that.
    let now = fleet.add_grant(admin, &with("two", None, Some(NOW + 60))).await;
    assert!(matches!(now, Err(FleetError::Conflict(_))), "{now:?}");
    let later = fleet.add_grant(admin, &with("one", Some(NOW + 200), None)).await;
    assert!(
        matches!(later, Err(FleetError::ConflictLater { at, .. }) if at == NOW + 200),
        "{later:?}"
    );
}
