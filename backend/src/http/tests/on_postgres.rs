//! A PostgreSQL that is gone, read-only or held by others: what clients read, and that nothing is
//! lost. Runs with `tests/with-postgres` only.

use sqlx::{Connection as _, Executor as _};

use super::*;
use crate::testing::{login, own_role};

/// Runs a statement as somebody who may do everything.
async fn as_owner(sql: String) {
    let server = std::env::var("BASTIO_TEST_STORE").expect("tests/with-postgres runs this");
    let mut db = sqlx::PgConnection::connect(&server).await.expect("the server");
    db.execute(sqlx::AssertSqlSafe(sql)).await.expect("done");
    db.close().await.expect("closed");
}

fn cut(role: &str) -> String {
    format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'")
}

impl TestSite {
    async fn add(&self, name: &str) -> (u16, Value) {
        self.call(Actor::Admin, "POST", "/api/v1/users", json!({ "name": name })).await
    }

    async fn ready(&self) -> u16 {
        // What was found within the last two seconds counts: let them pass.
        tokio::time::sleep(Duration::from_millis(2100)).await;
        self.call(Actor::Nobody, "GET", "/readyz", Value::Null).await.0
    }
}

#[tokio::test]
async fn a_database_that_goes_and_comes_back_is_told_and_loses_nothing() {
    let (backend, role) = TestBackend::of_own_role().await;
    backend.enroll("web-1", 1).await;
    backend.add_user("alice", &[], "web-1", false).await;
    let session = backend.connect(1).await;
    let actions = session.next(10).await.expect("a queue");
    let site = TestSite::before(backend).await;
    assert_eq!(site.ready().await, 200);

    as_owner(format!("ALTER ROLE {role} NOLOGIN")).await;
    as_owner(cut(&role)).await;
    let (status, body) = site.add("bob").await;
    assert_eq!(status, 503, "{body}");
    assert_eq!(body["error"], "the backend's database is gone, or cannot be reached");
    assert!(body["hint"].is_string() && !body.to_string().contains(&role), "{body}");
    assert_eq!(site.ready().await, 503);
    let answer = actions[0].reply(bastio_protocol::Status::Done, "done");
    session.feedback(&answer).await.expect_err("not taken");

    as_owner(format!("ALTER ROLE {role} LOGIN")).await;
    assert_eq!(site.ready().await, 200);
    assert_eq!(site.add("bob").await.0, 200);
    session.feedback(&answer).await.expect("taken, the lease holds");
    let (_, server) = site.get("/api/v1/servers/web-1").await;
    assert_eq!((&server["pending"], &server["failed"]), (&json!(0), &json!(0)), "{server}");
}

#[tokio::test]
async fn a_database_that_only_reads_is_told_and_still_shown() {
    let (backend, role) = TestBackend::of_own_role().await;
    let site = TestSite::before(backend).await;
    // As after a failover to a standby.
    as_owner(format!("ALTER ROLE {role} SET default_transaction_read_only = on")).await;
    as_owner(cut(&role)).await;
    let (status, body) = site.add("alice").await;
    assert_eq!(status, 503, "{body}");
    assert_eq!(site.get("/api/v1/users").await, (200, json!([])), "it can be looked at");
    assert_eq!(site.ready().await, 503);
    as_owner(format!("ALTER ROLE {role} RESET default_transaction_read_only")).await;
    as_owner(cut(&role)).await;
    assert_eq!(site.ready().await, 200);
    assert_eq!(site.add("alice").await.0, 200);
}

#[tokio::test]
async fn a_writer_that_does_not_let_go_is_told_and_waited_for() {
    let (backend, _) = TestBackend::of_own_role().await;
    let other = Store::open_as_it_is(&backend.location).await.expect("another node");
    let site = TestSite::before(backend).await;
    let held = other.write().await.expect("the lock");
    let (status, body) = site.add("alice").await;
    assert_eq!(status, 503, "{body}");
    assert_eq!(body["error"], "the backend's database is held by others, or too slow");
    drop(held);
    other.close().await;
    assert_eq!(site.add("alice").await.0, 200);
}

#[tokio::test]
async fn a_migration_that_was_interrupted_is_finished_by_the_next_start() {
    let (location, role) = own_role().await;
    let starting = tokio::spawn({
        let location = location.clone();
        async move { Store::open(&location).await.map(|_| ()) }
    });
    for _ in 0..20 {
        as_owner(cut(&role)).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Interrupted or not: the next start finds all or nothing of each step, and goes on.
    let _ = starting.await.expect("no panic");
    let store = Store::open(&location).await.expect("finished");
    let mut tx = store.write().await.expect("a writer");
    crate::store::users::insert(&mut tx, &login("alice"), "", "", 1).await.expect("usable");
    tx.commit().await.expect("committed");
}
