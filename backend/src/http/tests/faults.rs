//! What clients read when the database fails or a body is out of the ordinary, and that all works again
//! afterwards.

use super::*;
use crate::dispatch::DispatchError;
use crate::store::sql;

impl TestSite {
    async fn readiness(&self) -> (u16, Value) {
        // What was found within the last two seconds counts: let them pass.
        tokio::time::sleep(Duration::from_millis(2100)).await;
        self.call(Actor::Nobody, "GET", "/readyz", Value::Null).await
    }

    async fn add_user(&self, name: &str) -> (u16, Value) {
        self.call(Actor::Admin, "POST", "/api/v1/users", json!({ "name": name })).await
    }
}

fn hint(body: &Value) -> &str {
    body["hint"].as_str().expect("a hint")
}

#[tokio::test]
async fn a_database_that_was_closed_is_told_without_its_secrets() {
    let site = TestSite::new().await;
    site.backend.store.close().await;
    let (status, body) = site.get("/api/v1/servers").await;
    assert_eq!(status, 503);
    assert_eq!(body["error"], "the backend's database is gone, or cannot be reached");
    assert!(!body.to_string().contains(site.backend.dir.path().to_str().expect("text")), "{body}");
}

#[tokio::test]
async fn a_full_disk_is_told_and_costs_nothing() {
    let site = TestSite::on_file().await;
    let mut tx = site.backend.store.write().await.expect("a writer");
    let pages: i64 =
        sql::query_scalar("PRAGMA page_count").fetch_one(&mut tx).await.expect("counted");
    let full = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
    sql::query(full).execute(&mut tx).await.expect("set");
    drop(tx);
    let keys: Vec<String> = (10..200).map(|number| key(number).to_string()).collect();
    let new = json!({ "name": "alice", "keys": keys });
    let (status, body) = site.call(Actor::Admin, "POST", "/api/v1/users", new.clone()).await;
    assert_eq!((status, &body["error"]), (507, &json!("the backend's database has no space left")));
    assert!(hint(&body).contains("free space"), "{body}");
    assert_eq!(site.get("/api/v1/users").await, (200, json!([])), "it can be looked at");
    let mut tx = site.backend.store.write().await.expect("a writer");
    sql::query("PRAGMA max_page_count = 1000000").execute(&mut tx).await.expect("set");
    drop(tx);
    assert_eq!(site.call(Actor::Admin, "POST", "/api/v1/users", new).await.0, 200);
}

/// What is written into a file that has no name any more would be lost with the next start.
#[tokio::test]
async fn a_database_that_was_moved_away_takes_nothing_until_it_is_back() {
    let site = TestSite::on_file().await;
    let backend = &site.backend;
    backend.enroll("web-1", 1).await;
    backend.add_user("alice", &[], "web-1", false).await;
    let session = backend.connect(1).await;
    let actions = session.next(10).await.expect("a queue");
    assert_eq!(site.readiness().await.0, 200);
    let (here, away) = (backend.dir.path().join("bastio.db"), backend.dir.path().join("away"));
    std::fs::rename(&here, &away).expect("moved");

    let (status, body) = site.add_user("bob").await;
    assert_eq!(status, 503, "{body}");
    assert!(hint(&body).contains("mounted"), "{body}");
    assert_eq!(site.readiness().await, (503, json!({ "status": "database" })));
    // The agent's answer is not taken: the session ends, and it comes again.
    let answer = actions[0].reply(Status::Done, "done");
    let lost = session.feedback(&answer).await;
    assert!(matches!(lost, Err(DispatchError::Store(_))), "{lost:?}");

    std::fs::rename(&away, &here).expect("moved back");
    assert_eq!(site.readiness().await.0, 200);
    assert_eq!(site.add_user("bob").await.0, 200);
    session.feedback(&answer).await.expect("taken");
    let (_, server) = site.get("/api/v1/servers/web-1").await;
    assert_eq!(
        (&server["pending"], &server["accounts"][0]["username"]),
        (&json!(0), &json!("alice"))
    );
}

/// As `sqlite3 bastio.db` with an open transaction does; takes as long as the backend is patient.
#[tokio::test]
async fn a_database_that_another_program_holds_is_told_and_waited_for() {
    let site = TestSite::on_file().await;
    let held =
        Store::open_as_it_is(&site.backend.dir.path().join("bastio.db")).await.expect("opened");
    let lock = held.write().await.expect("the lock");
    let (status, body) = site.add_user("alice").await;
    assert_eq!(status, 503, "{body}");
    assert_eq!(body["error"], "the backend's database is held by others, or too slow");
    assert!(hint(&body).contains("another program"), "{body}");
    assert_eq!(site.readiness().await, (503, json!({ "status": "database" })));
    drop(lock);
    held.close().await;
    assert_eq!(site.add_user("alice").await.0, 200);
    assert_eq!(site.readiness().await.0, 200);
}

#[tokio::test]
async fn a_whole_model_may_have_sixteen_mebibytes() {
    let site = TestSite::new().await;
    let reason = "x".repeat(900);
    let person = |number: usize| (format!("user{number}"), json!({ "full-name": reason }));
    let users: serde_json::Map<String, Value> = (0..3000).map(person).collect();
    let body = json!({ "version": 1, "users": users });
    let length = body.to_string().len();
    assert!(length > 2 * MAX_BODY && length < MAX_POLICY_BODY, "{length}");
    let (status, change) = site.call(Actor::Admin, "POST", "/api/v1/policy", body).await;
    assert_eq!(status, 200, "{change}");
    assert_eq!(change["summary"], "policy applied: 3000 users added");
    let (_, users) = site.get("/api/v1/users").await;
    assert_eq!(users.as_array().map(Vec::len), Some(3000));

    let padded = |length: usize| {
        let mut text = json!({ "version": 1 }).to_string();
        text.push_str(&" ".repeat(length - text.len()));
        Body::from(text)
    };
    for (length, expected) in [(MAX_POLICY_BODY, 200), (MAX_POLICY_BODY + 1, 413)] {
        let body = padded(length);
        let (status, answer) =
            site.send(Actor::Admin, "POST", "/api/v1/policy", "application/json", body).await;
        assert_eq!(status, expected, "{length}: {answer}");
        assert!(status == 200 || hint(&answer).contains("in parts"), "{answer}");
    }
}

/// Deep nesting is refused before it costs the stack.
#[tokio::test]
async fn a_body_of_a_million_brackets_is_refused() {
    let site = TestSite::new().await;
    for body in
        ["[".repeat(1_000_000), format!(r#"{{"version":1,"users":{}"#, "{\"a\":".repeat(200_000))]
    {
        let body = Body::from(body);
        let answer =
            site.send(Actor::Admin, "POST", "/api/v1/policy", "application/json", body).await;
        assert!(matches!(answer.0, 400 | 422), "{answer:?}");
    }
    assert_eq!(site.get("/api/v1/users").await, (200, json!([])));
}
