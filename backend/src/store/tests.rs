//! The file, its modes, what survives a kill, and that SQL and memory agree on what is confirmed.

use std::os::unix::fs::PermissionsExt;

use bastio_protocol::audit::LogFilter;
use bastio_protocol::{Action, ActionMessage, MessageId};

use sqlx::sqlite::SqliteConnectOptions;

use super::engine::sqlite_pool as pool;
use super::*;
use crate::plan::{self, Accounts, Step};
use crate::testing::{NOW, TestBackend, host, key, login};

mod migrations;

#[tokio::test]
async fn the_file_is_its_owners_alone() {
    let backend = TestBackend::on_file().await;
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
    let backend = TestBackend::on_file().await;
    let mut tx = backend.store.write().await.expect("a writer");
    for (pragma, expected) in [("PRAGMA synchronous", 2_i64), ("PRAGMA foreign_keys", 1)] {
        let value: i64 = sql::query_scalar(pragma).fetch_one(&mut tx).await.expect(pragma);
        assert_eq!(value, expected, "{pragma}");
    }
    let mode: String =
        sql::query_scalar("PRAGMA journal_mode").fetch_one(&mut tx).await.expect("a mode");
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
    super::actions::enqueue(&mut tx, &[], &actions, NOW).await.expect("queued");
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
    assert_eq!(servers::reserve_numbers(&mut tx, server, 3).await.expect("reserved"), 3);
    assert_eq!(servers::reserve_numbers(&mut tx, server, 1).await.expect("reserved"), 4);
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
        format!("INSERT INTO audit {copied} ON CONFLICT (id) DO UPDATE SET at = 7"),
        "TRUNCATE audit".to_owned(),
    ] {
        // What only one engine knows.
        let (replace, truncate) = (sql.contains("OR REPLACE"), sql.starts_with("TRUNCATE"));
        if matches!(backend.location, Location::Postgres(_)) && replace
            || matches!(backend.location, Location::File(_)) && truncate
        {
            continue;
        }
        if truncate {
            // It waits for everybody who reads, and the connection that has read the log gives its transaction back
            // some time after it is dropped. Nobody else is left here.
            backend.store.close().await;
            let store = Store::open_as_it_is(backend.location.clone()).await.expect("opened");
            let mut tx = store.write().await.expect("a writer");
            let refused = sql::query("TRUNCATE audit").execute(&mut tx).await;
            let error = refused.expect_err("refused").to_string();
            assert!(error.contains("the audit log is only appended to"), "{error}");
            drop(tx);
            let mut db = store.read().await.expect("a reader");
            let rows: i64 = sql::query_scalar("SELECT COUNT(*) FROM audit")
                .fetch_one(&mut db)
                .await
                .expect("read");
            assert_eq!(rows, 2);
            break;
        }
        let mut tx = backend.store.write().await.expect("a writer");
        let refused = sql::query(sqlx::AssertSqlSafe(sql.clone())).execute(&mut tx).await;
        let error = refused.expect_err(&sql).to_string();
        assert!(error.contains("the audit log is only appended to"), "{sql}: {error}");
        drop(tx);
        assert_eq!(backend.log(&LogFilter::default()).await, before, "{sql}");
    }
}

/// The migrations of release 0.2.0.
const OF_0_2: [(&str, &str); 5] = [
    ("0001_first.sql", include_str!("../../migrations/sqlite/0001_first.sql")),
    ("0002_version_2.sql", include_str!("../../migrations/sqlite/0002_version_2.sql")),
    ("0003_suspects.sql", include_str!("../../migrations/sqlite/0003_suspects.sql")),
    ("0004_whole_accounts.sql", include_str!("../../migrations/sqlite/0004_whole_accounts.sql")),
    ("0005_requests.sql", include_str!("../../migrations/sqlite/0005_requests.sql")),
];

/// What such a database holds: a grant of alice's, one that was removed, and one of bob's with terms.
const ROWS_OF_0_2: [&str; 9] = [
    "INSERT INTO servers (name, created) VALUES ('web-1', 1)",
    "INSERT INTO users (name, full_name, mail, created) VALUES ('alice', '', '', 1)",
    "INSERT INTO users (name, full_name, mail, created) VALUES ('bob', '', '', 1)",
    "INSERT INTO sudo_policies (name, policy, created) VALUES ('all', '{}', 1)",
    "INSERT INTO grants (user_id, target, login, sudo, reason, created) \
     VALUES (1, 'role=web,env!=prod', 'alice', TRUE, 'why', 5)",
    "INSERT INTO grants (user_id, target, login, sudo, reason, created, until, sudo_policy, \
     key_options, take_over) VALUES (2, '*', 'deploy', FALSE, '', 6, 9, 'all', 'restrict', TRUE)",
    "INSERT INTO grants (user_id, target, login, sudo, reason, created) \
     VALUES (2, '*', 'gone', FALSE, '', 7)",
    "INSERT INTO accounts (server_id, login, sudo, doubtful) VALUES (1, 'alice', TRUE, FALSE)",
    "DELETE FROM grants WHERE id = 3",
];

#[tokio::test]
async fn a_database_of_0_2_keeps_its_grants_and_what_refers_to_what() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("migrations");
    std::fs::create_dir(&folder).expect("made");
    for (name, text) in OF_0_2 {
        std::fs::write(folder.join(name), text).expect("written");
    }
    let path = dir.path().join("bastio.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let old = pool(1).connect_with(options.foreign_keys(true)).await.expect("opened");
    sqlx::migrate::Migrator::new(folder).await.expect("read").run(&old).await.expect("made");
    for row in ROWS_OF_0_2 {
        sqlx::query(row).execute(&old).await.expect(row);
    }
    old.close().await;

    let store = Store::open(&path).await.expect("migrated");
    let mut tx = store.write().await.expect("a writer");
    let grants = grants::list(&mut tx).await.expect("read");
    let [alices, bobs] = &grants[..] else { panic!("{grants:?}") };
    assert_eq!((alices.id, alices.sudo, alices.reason.as_str()), (1, true, "why"));
    assert_eq!(alices.on.to_string(), "env!=prod,role=web");
    assert_eq!(bobs.holder.user(), Some(&login("bob")));
    let policy = bobs.terms.sudo_policy.as_ref().map(|policy| policy.as_str());
    assert_eq!((bobs.terms.until, policy, bobs.terms.take_over), (Some(9), Some("all"), true));
    let broken: Vec<(String, i64, String, i64)> =
        sql::query_as("PRAGMA foreign_key_check").fetch_all(&mut tx).await.expect("checked");
    assert_eq!(broken, []);
    // The same once more is found although its text is not sorted.
    let terms = bastio_protocol::api::Terms::default();
    let (holder, alice) = (grants::HolderId::User(UserId(1)), login("alice"));
    let (on, login, reason) = (&alices.on, Some(&alice), "");
    let same = grants::GrantData { holder, on, login, sudo: false, terms: &terms, reason };
    grants::upsert(&mut tx, &same, NOW).await.expect("there already");
    assert_eq!(grants::count(&mut tx).await.expect("counted"), 2);
    // No number is given twice, what is in use is kept, and people take their grants along.
    let other = "db-1".parse().expect("a target");
    let new = grants::GrantData { on: &other, ..same };
    grants::upsert(&mut tx, &new, NOW).await.expect("added");
    assert!(grants::find(&mut tx, 4).await.expect("read").is_some());
    let in_use = sql::query("DELETE FROM sudo_policies").execute(&mut tx).await;
    assert!(in_use.is_err(), "a grant refers to it");
    users::remove(&mut tx, UserId(1)).await.expect("removed");
    users::remove(&mut tx, UserId(2)).await.expect("removed");
    assert_eq!(grants::count(&mut tx).await.expect("counted"), 0);
}

/// The first file of PostgreSQL is the sum of SQLite's up to its number.
#[test]
fn each_migration_is_there_for_both_engines() {
    let names = |engine: &str| -> Vec<String> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let files = std::fs::read_dir(folder.join(engine)).expect("a folder");
        let name = |file: std::io::Result<std::fs::DirEntry>| {
            file.expect("a file").file_name().into_string().expect("text")
        };
        files.map(name).collect()
    };
    let theirs = names("postgres");
    for name in names("sqlite") {
        assert!(*name < *"0009" || theirs.contains(&name), "migrations/postgres/{name} is missing");
    }
}
