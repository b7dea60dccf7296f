//! Grants that begin later.

use bastio_protocol::Status;
use bastio_protocol::api::{Holder, NewGrant, Terms};
use bastio_protocol::audit::LogFilter;

use super::*;
use crate::store::sql;
use crate::testing::{NOW, TestBackend, key, login};

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
