//! The file, its modes, what survives a kill, and that SQL and memory agree on what is confirmed.

use std::os::unix::fs::PermissionsExt;

use bastio_protocol::audit::LogFilter;
use bastio_protocol::{Action, ActionMessage, MessageId};

use super::*;
use crate::plan::{self, Accounts, Step};
use crate::testing::{NOW, TestBackend, host, key, login};

#[tokio::test]
async fn the_file_is_its_owners_alone() {
    let backend = TestBackend::new().await;
    for name in ["bastio.db", "bastio.db-wal", "bastio.db-shm"] {
        let path = backend.dir.path().join(name);
        let mode = std::fs::metadata(&path).expect(name).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_database_left_open_to_all_is_closed_to_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("bastio.db");
    std::fs::write(&path, "").expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("set");
    let store = Store::open(&path).await.expect("opened");
    let mode = std::fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    store.close().await;
}

#[tokio::test]
async fn the_settings_are_the_durable_ones() {
    let backend = TestBackend::new().await;
    let mut tx = backend.store.write().await.expect("a writer");
    for (pragma, expected) in [("PRAGMA synchronous", 2_i64), ("PRAGMA foreign_keys", 1)] {
        let value: i64 = sqlx::query_scalar(pragma).fetch_one(&mut *tx).await.expect(pragma);
        assert_eq!(value, expected, "{pragma}");
    }
    let mode: String =
        sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *tx).await.expect("a mode");
    assert_eq!(mode, "wal");
}

#[tokio::test]
async fn no_database_is_an_error_and_not_an_empty_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("bastio.db");
    std::fs::write(&path, "this is not a database, it only pretends to be one").expect("written");
    assert!(Store::open(&path).await.is_err());
    let text = std::fs::read_to_string(&path).expect("still there");
    assert!(text.starts_with("this is not"), "the file was not overwritten");
    let missing = dir.path().join("no-such-folder").join("bastio.db");
    assert!(matches!(Store::open(&missing).await, Err(StoreError::File(_))));
}

#[tokio::test]
async fn what_was_not_committed_never_was() {
    let backend = TestBackend::new().await;
    let mut tx = backend.store.write().await.expect("a writer");
    servers::insert(&mut tx, &host("web-1"), &key(1), NOW).await.expect("inserted");
    drop(tx);
    let mut db = backend.store.read().await.expect("a reader");
    assert_eq!(servers::count(&mut db).await.expect("counted"), 0);
}

#[tokio::test]
async fn queue_order_survives_a_kill_and_thousands_of_rows() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await.id;
    let db = backend.enroll("db-1", 2).await.id;
    let actions: Vec<(ServerId, ActionMessage)> = (0..2500_u64)
        .map(|number| {
            let mid = MessageId::from_number(number);
            let action = Action::UpdateUser { sudo: number % 2 == 0 };
            let server = if number % 5 == 0 { db } else { web };
            (server, ActionMessage { mid, username: login("alice"), action })
        })
        .collect();
    let mut tx = backend.store.write().await.expect("a writer");
    let ids = super::actions::enqueue(&mut tx, &actions, NOW).await.expect("queued");
    assert_eq!(ids.len(), 2500);
    tx.commit().await.expect("committed");
    let backend = backend.after_kill().await;
    let mut tx = backend.store.read().await.expect("a reader");
    for server in [web, db] {
        let expected: Vec<ActionMessage> =
            actions.iter().filter(|(of, _)| *of == server).map(|(_, a)| a.clone()).collect();
        let queued = super::actions::queued(&mut tx, server, 10_000).await.expect("a queue");
        let found: Vec<ActionMessage> = queued.into_iter().map(|queued| queued.message).collect();
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn the_database_confirms_as_the_plan_does() {
    let backend = TestBackend::new().await;
    let server = backend.enroll("web-1", 1).await.id;
    let steps = [
        ("alice", Action::AddUser { sudo: true }),
        ("alice", Action::AddKey { public_key: key(3) }),
        ("alice", Action::AddKey { public_key: key(3) }),
        ("bob", Action::AddKey { public_key: key(4) }),
        ("alice", Action::AddKey { public_key: key(5) }),
        ("alice", Action::RemoveKey { public_key: key(3) }),
        ("alice", Action::RemoveKey { public_key: key(9) }),
        ("carol", Action::UpdateUser { sudo: true }),
        ("alice", Action::AddUser { sudo: false }),
        ("bob", Action::RemoveUser { removal: None }),
        ("dave", Action::RemoveKey { public_key: key(3) }),
        ("bob", Action::RemoveUser { removal: None }),
        ("carol", Action::UpdateUser { sudo: false }),
    ];
    let mut expected = Accounts::new();
    let mut tx = backend.store.write().await.expect("a writer");
    for (name, action) in steps {
        let step = Step { login: login(name), action };
        plan::confirm(&mut expected, &step);
        accounts::confirm(&mut tx, server, &step).await.expect("confirmed");
        let stored = accounts::of_server(&mut tx, server).await.expect("read");
        assert_eq!(stored, expected, "after {step:?}");
    }
    assert_eq!(expected.len(), 2, "alice and carol are left");
    let of_login = accounts::of_login(&mut tx, &login("alice")).await.expect("read");
    assert_eq!(of_login[&server][&login("alice")], expected[&login("alice")]);
}

#[tokio::test]
async fn an_opened_database_is_not_made_anew() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let backend = backend.after_kill().await;
    let mut db = backend.store.read().await.expect("a reader");
    let found = servers::find(&mut db, &host("web-1")).await.expect("read").expect("there");
    assert_eq!((found.created, found.fingerprint), (NOW, key(1).fingerprint()));
}

#[tokio::test]
async fn a_database_of_the_first_version_is_brought_to_this_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let first = dir.path().join("migrations");
    std::fs::create_dir(&first).expect("made");
    let text = include_str!("../../migrations/sqlite/0001_first.sql");
    std::fs::write(first.join("0001_first.sql"), text).expect("written");
    let path = dir.path().join("bastio.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let old = pool(1).connect_with(options).await.expect("opened");
    sqlx::migrate::Migrator::new(first).await.expect("read").run(&old).await.expect("made");
    sqlx::query("INSERT INTO servers (name, created) VALUES ('web-1', 1)")
        .execute(&old)
        .await
        .expect("inserted");
    // As the first version wrote it.
    sqlx::query(
        "INSERT INTO audit VALUES (1, 5, 'backend', NULL, 'api-key.add', NULL, NULL, 'admin', '', \
         'e2f7966394004b7815f783a36779062a41cca96a08cabe6099753a19b84ebc26')",
    )
    .execute(&old)
    .await
    .expect("inserted");
    old.close().await;

    let store = Store::open(&path).await.expect("migrated");
    let mut tx = store.write().await.expect("a writer");
    let server = ServerId(1);
    let name = servers::name(&mut tx, server).await.expect("read").expect("there");
    assert_eq!(name.as_str(), "web-1");
    assert!(servers::facts(&mut tx, server).await.expect("read").is_empty());
    assert!(servers::signing_keys(&mut tx).await.expect("read").is_empty());
    assert_eq!(servers::take_sequence(&mut tx, server, 3).await.expect("taken"), 1);
    assert_eq!(servers::take_sequence(&mut tx, server, 1).await.expect("taken"), 4);
    let rows = audit::list(&mut tx, &LogFilter::default(), audit::Page::Last, 10).await;
    let rows = rows.expect("read");
    assert!(rows.len() == 1 && rows[0].is_whole(), "a row's hash stays good: {rows:?}");
}

#[tokio::test]
async fn the_database_refuses_to_change_what_was_logged() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let before = backend.log(&LogFilter::default()).await;
    assert_eq!(before.len(), 2);
    let copied = "SELECT 1, 5, actor, origin, action, username, server, detail, prev_hash, hash, \
                  reason, status FROM audit WHERE id = 1";
    for sql in [
        "UPDATE audit SET detail = 'x' WHERE id = 1".to_owned(),
        "UPDATE audit SET id = 7 WHERE id = 2".to_owned(),
        "DELETE FROM audit WHERE id = 2".to_owned(),
        "DELETE FROM audit".to_owned(),
        format!("INSERT INTO audit {copied}"),
        format!("INSERT OR REPLACE INTO audit {copied}"),
        format!("INSERT OR REPLACE INTO audit {}", copied.replacen('1', "4", 1)),
    ] {
        let mut tx = backend.store.write().await.expect("a writer");
        let refused = sqlx::query(sqlx::AssertSqlSafe(sql.clone())).execute(&mut *tx).await;
        let error = refused.expect_err(&sql).to_string();
        assert!(error.contains("the audit log is only appended to"), "{sql}: {error}");
        drop(tx);
        assert_eq!(backend.log(&LogFilter::default()).await, before, "{sql}");
    }
}
