//! Files against a real store: what is queued, logged and refused, and that again is nothing.

use bastio_protocol::Status;
use bastio_protocol::api::{RemoveUser, Undo, UserState};
use bastio_protocol::audit::LogFilter;
use serde_json::{Value, json};

use super::*;
use crate::access::Intent;
use crate::testing::{NOW, TestBackend, key, login, numbered_key};

fn policy(mut value: Value) -> Policy {
    value["version"] = json!(1);
    serde_json::from_value(value).expect("a policy")
}

/// What an edit has queued, as `SERVER ACTION LOGIN`.
fn todo(change: &Change) -> Vec<String> {
    let lines = change.servers.iter().flat_map(|server| {
        let actions = server.actions.iter();
        actions.map(move |a| format!("{} {} {}", server.server, a.action, a.username))
    });
    lines.collect()
}

impl TestBackend {
    async fn apply(&self, value: Value, prune: bool) -> Change {
        self.fleet.apply(&self.admin, &policy(value), prune).await.expect("applied")
    }

    async fn refuse(&self, value: Value, prune: bool) -> String {
        let before = self.fleet.export(&self.admin).await.expect("read");
        let refused = self.fleet.apply(&self.admin, &policy(value), prune).await;
        let after = self.fleet.export(&self.admin).await.expect("read");
        assert_eq!(before, after, "nothing is changed");
        refused.expect_err("refused").to_string()
    }

    async fn revision(&self) -> i64 {
        let mut db = self.store.read().await.expect("a reader");
        store::revisions::current(&mut db).await.expect("read")
    }
}

async fn two_servers() -> TestBackend {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    backend.enroll("db-1", 2).await;
    backend
}

fn team() -> Value {
    json!({
        "sudo-policies": {"dba": {"commands": ["/usr/bin/psql"], "run-as": ["postgres"]}},
        "users": {
            "alice": {"full-name": "Alice", "keys": [key(10).to_string()]},
            "bob": {"account": {"uid": 5002}, "keys": [key(11).to_string()]},
        },
        "groups": {"all": {"users": ["bob"], "groups": ["ops"]}, "ops": {"users": ["alice"]}},
        "servers": {"web-1": {"labels": {"role": "web"}}},
        "grants": [
            {"user": "alice", "on": "db-1", "sudo": true, "reason": "on call"},
            {"group": "ops", "on": "role=web"},
            {"group": "all", "on": "db-1", "login": "deploy", "until": NOW + 1000},
        ],
    })
}

#[tokio::test]
async fn a_file_is_made_so_in_one_revision_and_again_is_nothing() {
    let backend = two_servers().await;
    let before = backend.revision().await;
    let change = backend.apply(team(), false).await;
    assert_eq!(change.revision, before + 1);
    assert_eq!(
        change.summary,
        "policy applied: 1 sudo policy added, 2 users added, 2 keys set, 2 groups added, \
         2 groups with new members, 1 server labelled, 3 grants added"
    );
    assert_eq!(
        todo(&change),
        [
            "db-1 add-user alice",
            "db-1 add-key alice",
            "db-1 set-user deploy",
            "web-1 add-user alice",
            "web-1 add-key alice"
        ]
    );
    for prune in [false, true] {
        let again = backend.apply(team(), prune).await;
        assert_eq!((again.revision, again.summary.as_str()), (before + 1, "nothing to change"));
    }
    let export = backend.fleet.export(&backend.admin).await.expect("read");
    let again = backend.fleet.apply(&backend.admin, &export, true).await.expect("applied");
    assert_eq!((again.revision, again.complete), (before + 1, true));
    let rows = backend.log(&LogFilter::default()).await;
    let told: Vec<&str> = rows.iter().map(|chained| chained.row.action.as_str()).collect();
    for (action, times) in [
        ("sudo-policy.add", 1),
        ("user.add", 2),
        ("key.add", 2),
        ("group.add", 2),
        ("group.member-add", 3),
        ("server.update", 1),
        ("grant.add", 3),
    ] {
        assert_eq!(
            told.iter().filter(|told| **told == action).count(),
            times,
            "{action}: {told:?}"
        );
    }
}

#[tokio::test]
async fn what_is_not_named_goes_only_when_asked() {
    let backend = two_servers().await;
    backend.apply(team(), false).await;
    let (web, db) = (backend.connect_v2(1).await, backend.connect_v2(2).await);
    backend.answer_all(&web, Status::Done).await;
    backend.answer_all(&db, Status::Done).await;
    let mut less = team();
    less["users"].as_object_mut().expect("a map").remove("alice");
    less["groups"] = json!({"all": {"users": ["bob"]}});
    less["grants"] =
        json!([{"group": "all", "on": "db-1", "login": "deploy", "until": NOW + 1000}]);
    less["servers"] = json!({"web-1": {}});
    let kept = backend.apply(less.clone(), false).await;
    assert_eq!(kept.summary, "nothing to change");
    let pruned = backend.apply(less.clone(), true).await;
    assert_eq!(
        todo(&pruned),
        ["db-1 remove-user alice", "db-1 set-user deploy", "web-1 remove-user alice"]
    );
    let left = backend.fleet.export(&backend.admin).await.expect("read");
    assert_eq!(left.users.map(|users| users.into_keys().collect()), Some(vec![login("bob")]));
    assert_eq!(left.groups.map(|groups| groups.len()), Some(1));
    assert!(left.servers.iter().flatten().all(|(_, server)| server.labels.is_empty()));
    assert_eq!(left.grants.map(|grants| grants.len()), Some(1));
    assert_eq!(backend.apply(less, true).await.summary, "nothing to change");
    assert_eq!(backend.apply(json!({}), true).await.summary, "nothing to change");
}

#[tokio::test]
async fn fields_become_what_they_are_written() {
    let backend = two_servers().await;
    backend.apply(team(), false).await;
    let (web, db) = (backend.connect_v2(1).await, backend.connect_v2(2).await);
    backend.answer_all(&web, Status::Done).await;
    backend.answer_all(&db, Status::Done).await;
    let change = backend
        .apply(
            json!({
                "users": {"bob": {"state": "locked", "keys": [{"key": key(11), "until": NOW + 50}]}},
                "grants": [{"user": "alice", "on": "db-1"}],
            }),
            false,
        )
        .await;
    assert_eq!(change.summary, "policy applied: 1 user changed, 1 key set, 1 grant changed");
    assert_eq!(todo(&change), ["db-1 update-user alice", "db-1 set-user deploy"]);
    let bob = backend.fleet.user(&backend.admin, &login("bob")).await.expect("there");
    assert!(bob.spec.is_empty() && bob.state == UserState::Locked);
    assert_eq!(bob.keys.first().and_then(|key| key.until), Some(NOW + 50));
    let policy = json!({"sudo-policies": {"dba": {"commands": ["/usr/bin/pg_dump"]}},
                        "grants": [{"group": "ops", "on": "web-1", "sudo-policy": "dba"}]});
    backend.apply(policy, false).await;
    backend.answer_all(&web, Status::Done).await;
    backend.answer_all(&db, Status::Done).await;
    let other = json!({"sudo-policies": {"dba": {"commands": ["/usr/bin/psql"]}}});
    assert_eq!(todo(&backend.apply(other, false).await), ["web-1 set-user alice"]);
}

#[tokio::test]
async fn groups_that_change_places_are_no_circle() {
    let backend = TestBackend::new().await;
    let nested =
        |outer: &str, inner: &str| json!({"groups": {outer: {"groups": [inner]}, inner: {}}});
    backend.apply(nested("b", "a"), false).await;
    backend.apply(nested("a", "b"), true).await;
    let refused = backend.refuse(nested("b", "a"), false).await;
    assert_eq!(refused, "groups: a > b > a is a circle");
}

#[tokio::test]
async fn what_is_wrong_is_named_and_nothing_is_changed() {
    let backend = two_servers().await;
    backend.apply(team(), false).await;
    for (file, prune, expected) in [
        (
            json!({"users": {"carol": {}}, "grants": [{"user": "zoe", "on": "web-9"}]}),
            false,
            "grants: user zoe on web-9: there is no user named zoe; grants: user zoe on web-9: there \
             is no server named web-9",
        ),
        (
            json!({"users": {"root": {}}}),
            false,
            "user root: added: root is an account of the system",
        ),
        (
            json!({"users": {"carol": {"full-name": "a\nb"}}}),
            false,
            "user carol: added: the full name must be one line",
        ),
        (
            json!({"servers": {"web-1": {"labels": {"host/os": "x"}}}}),
            false,
            "server web-1: label host/os=x: the label \"host/os\" is not yours",
        ),
        (
            json!({"grants": [{"user": "bob", "on": "*", "sudo": true, "sudo-policy": "dba"}]}),
            false,
            "user bob on * with the sudo policy dba: added: a grant gives plain sudo or a policy",
        ),
        (
            json!({"grants": [{"user": "bob", "on": "*", "from": NOW + 9, "until": NOW + 8}]}),
            false,
            "user bob on *: added: the end of it is not behind its begin",
        ),
        (
            json!({"users": {"bob": {"keys": [{"key": key(11), "options": "verify-required"}]}}}),
            false,
            "the key SHA256:",
        ),
    ] {
        let error = backend.refuse(file.clone(), prune).await;
        assert!(error.starts_with(expected), "{file}: {error}");
    }
    backend
        .apply(
            json!({"sudo-policies": {"dba": {}}, "grants": [{"user": "bob", "on": "*", "sudo-policy": "dba"}]}),
            false,
        )
        .await;
    let error = backend.refuse(json!({"sudo-policies": {}}), true).await;
    assert!(
        error.starts_with("sudo policy dba: removed: the sudo policy dba is given by"),
        "{error}"
    );
}

#[tokio::test]
async fn tried_it_shows_every_edit_and_changes_nothing() {
    let backend = two_servers().await;
    let dry = backend.admin.clone().with_intent(Intent { dry_run: true, ..Intent::default() });
    let before = backend.fleet.export(&backend.admin).await.expect("read");
    let change = backend.fleet.apply(&dry, &policy(team()), true).await.expect("tried");
    let preview = change.preview.expect("a preview");
    assert_eq!(preview.edits.len(), 13, "{:?}", preview.edits);
    assert_eq!(preview.edits.first().map(String::as_str), Some("sudo policy dba: added"));
    assert_eq!((preview.servers.len(), preview.blast.gained), (2, 3));
    assert_eq!(backend.fleet.export(&backend.admin).await.expect("read"), before);
    let nothing = backend.fleet.apply(&dry, &policy(json!({})), true).await.expect("tried");
    assert!(nothing.preview.is_some_and(|preview| preview.edits.is_empty()));
}

#[tokio::test]
async fn what_is_over_is_as_if_it_were_not_there() {
    let backend = two_servers().await;
    backend.add_user("alice", &[key(10)], "", false).await;
    let over = json!({"grants": [{"user": "alice", "on": "*", "until": NOW}]});
    assert_eq!(backend.apply(over, false).await.summary, "nothing to change");
}

#[tokio::test]
async fn a_hundred_thousand_lines_are_applied() {
    let backend = two_servers().await;
    let person = |number: usize| {
        let key = numbered_key(number).to_string();
        (format!("user{number}"), json!({"full-name": format!("User {number}"), "keys": [key]}))
    };
    // A statement costs more where the database is a server of its own.
    let people = if crate::testing::on_postgres() { 2_000 } else { 20_000 };
    let users: serde_json::Map<String, Value> = (0..people).map(person).collect();
    let grant = |number: usize| json!({"user": format!("user{number}"), "on": "web-1"});
    let grants: Vec<Value> = (0..people / 2).map(grant).collect();
    let file = json!({"users": users, "grants": grants});
    let change = backend.apply(file.clone(), false).await;
    assert_eq!(todo(&change).len(), people);
    let again = backend.apply(file, true).await;
    assert_eq!(again.summary, "nothing to change");
}

#[tokio::test]
async fn a_key_says_whose_edit_brought_it() {
    let backend = two_servers().await;
    backend.add_user("alice", &[key(9)], "web-1", false).await;
    backend.apply(team(), false).await;
    let before = backend.revision().await;
    backend.fleet.remove_user(&backend.admin, &login("bob"), RemoveUser::default()).await.unwrap();
    let undo = Undo { to: before, server: None, reason: String::new() };
    backend.fleet.undo(&backend.admin, &undo).await.expect("undone");
    let mut origins = Vec::new();
    for name in ["alice", "bob"] {
        for one in backend.fleet.user(&backend.admin, &login(name)).await.expect("there").keys {
            let key = (9..12).find(|n| key(*n).fingerprint() == one.fingerprint);
            origins.push((name, key.expect("one of ours"), one.origin));
        }
    }
    origins.sort_unstable();
    let by = |how: &str| format!("{}{how}", backend.admin.actor());
    let expected =
        [("alice", 9, by("")), ("alice", 10, by(", a policy file")), ("bob", 11, by(", an undo"))];
    assert_eq!(origins, expected);
}
