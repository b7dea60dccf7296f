//! Migrations that are interrupted anywhere, databases of every older version, and an older program beside a newer
//! schema: what was in the database is there afterwards, and every way leads to the same schema.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::migrate::{Migration, Migrator};
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqlSafeStr, SqliteConnection,
};
use tempfile::TempDir;

use super::*;
use crate::testing::{NOW, fresh_location, host, key, login, on_postgres};

/// What a database of a version holds: by the first version that knows it. PostgreSQL begins with 8.
const ROWS: [(i64, &[&str]); 6] = [
    (
        1,
        &[
            "INSERT INTO servers (name, created) VALUES ('web-1', 1)",
            "INSERT INTO labels (server_id, name, value) VALUES (1, 'role', 'web')",
            "INSERT INTO users (name, full_name, mail, created) VALUES ('alice', 'Alice', '', 1)",
            "INSERT INTO grants (user_id, target, login, sudo, reason, created) \
             VALUES (1, 'role=web', 'alice', TRUE, 'why', 5)",
            "INSERT INTO accounts (server_id, login, sudo, doubtful) VALUES (1, 'alice', TRUE, FALSE)",
            "INSERT INTO revisions (revision, summary, at) VALUES (1, 'an edit', 5)",
        ],
    ),
    (7, &["INSERT INTO user_groups (name, created) VALUES ('ops', 1)"]),
    (9, &["INSERT INTO receipts (server_id, login, received, fault) VALUES (1, 'alice', 5, 'no')"]),
    (11, &["INSERT INTO uids (uid, login, pooled, since) VALUES (5001, 'alice', TRUE, 5)"]),
    (
        13,
        &["INSERT INTO questions (server_id, kind, holds, subject, detail, asked) \
           VALUES (1, 'rivals', FALSE, '', 'two', 5)"],
    ),
    (34, &["INSERT INTO drift_rules (selector, answer) VALUES ('*', 'heal')"]),
];

fn all() -> Vec<Migration> {
    let migrator = if on_postgres() {
        sqlx::migrate!("migrations/postgres")
    } else {
        sqlx::migrate!("migrations/sqlite")
    };
    migrator.iter().cloned().collect()
}

/// The migrations up to that version.
fn up_to(version: i64) -> Migrator {
    Migrator::with_migrations(all().into_iter().filter(|it| it.version <= version).collect())
}

/// A migration with another text.
fn with_text(migration: &Migration, text: String) -> Migration {
    let (version, name) = (migration.version, migration.description.clone());
    let text = AssertSqlSafe(text).into_sql_str();
    Migration::new(version, name, migration.migration_type, text, migration.no_tx)
}

/// The statements of a file: each ends with its line, those inside of triggers and functions do not.
fn statements(text: &str) -> Vec<String> {
    let (mut all, mut one, mut inside) = (Vec::new(), String::new(), false);
    for line in text.lines().filter(|line| !line.trim_start().starts_with("--")) {
        let bare = line.trim();
        one.push_str(line);
        one.push('\n');
        inside = match bare {
            "BEGIN" => true,
            "END;" | "$$;" => false,
            _ => inside || bare.ends_with("AS $$"),
        };
        if !inside && bare.ends_with(';') {
            all.push(std::mem::take(&mut one));
        }
    }
    assert!(one.trim().is_empty(), "a statement without an end: {one}");
    all
}

/// A connection of the test's own.
enum Db {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Db {
    async fn open(location: &Location) -> Self {
        match location {
            Location::File(path) => {
                let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
                let options = options.journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
                let db = SqliteConnection::connect_with(&options.foreign_keys(true)).await;
                Self::Sqlite(db.expect("opened"))
            }
            Location::Postgres(url) => {
                Self::Postgres(PgConnection::connect_with(url.options()).await.expect("opened"))
            }
        }
    }

    async fn run(&mut self, text: &str) -> Result<(), sqlx::Error> {
        let text = AssertSqlSafe(text.to_owned());
        match self {
            Self::Sqlite(db) => db.execute(text).await.map(drop),
            Self::Postgres(db) => db.execute(text).await.map(drop),
        }
    }

    async fn migrate(&mut self, migrator: &Migrator) -> Result<(), MigrateError> {
        match self {
            Self::Sqlite(db) => migrator.run(&mut *db).await,
            Self::Postgres(db) => migrator.run(&mut *db).await,
        }
    }

    async fn texts(&mut self, text: &str) -> Vec<String> {
        let text = AssertSqlSafe(text.to_owned());
        match self {
            Self::Sqlite(db) => sqlx::query_scalar(text).fetch_all(db).await.expect("read"),
            Self::Postgres(db) => sqlx::query_scalar(text).fetch_all(db).await.expect("read"),
        }
    }

    /// The schema in words, and the migrations that count as done.
    async fn schema(&mut self) -> BTreeSet<String> {
        let text = match self {
            Self::Sqlite(_) => {
                "SELECT m.type || ' ' || m.name || ' ' || COALESCE(c.name || ' ' || c.type || ' ' \
                 || c.\"notnull\" || c.pk, '') FROM sqlite_master m \
                 LEFT JOIN pragma_table_info(m.name) c WHERE m.name NOT LIKE 'sqlite_%'"
            }
            Self::Postgres(_) => {
                "SELECT table_name || ' ' || column_name || ' ' || data_type || ' ' || is_nullable \
                 FROM information_schema.columns WHERE table_schema = current_schema() UNION ALL \
                 SELECT tablename || ' ' || indexname FROM pg_indexes WHERE schemaname = current_schema()"
            }
        };
        let own = "_sqlx_migrations";
        let is_there = if matches!(self, Self::Sqlite(_)) {
            format!("SELECT name FROM sqlite_master WHERE name = '{own}'")
        } else {
            format!(
                "SELECT table_name::TEXT FROM information_schema.tables \
                     WHERE table_schema = current_schema() AND table_name = '{own}'"
            )
        };
        let mut schema: BTreeSet<String> = self.texts(text).await.into_iter().collect();
        schema.retain(|line| !line.contains(own));
        if !self.texts(&is_there).await.is_empty() {
            let done = format!("SELECT 'done ' || CAST(version AS TEXT) FROM {own}");
            schema.extend(self.texts(&done).await);
        }
        schema
    }

    /// Writes what a database of that version holds, but for what one of `since` held already.
    async fn fill(&mut self, since: i64, version: i64) {
        for (_, rows) in ROWS.iter().filter(|(first, _)| *first > since && *first <= version) {
            for row in *rows {
                self.run(row).await.expect(row);
            }
        }
    }

    async fn close(self) {
        match self {
            Self::Sqlite(db) => db.close().await.expect("closed"),
            Self::Postgres(db) => db.close().await.expect("closed"),
        }
    }
}

/// Opens the database as the program does, and looks for what one of that version held; its history begins with that
/// revision.
async fn check(location: &Location, version: i64, begin: i64) {
    let store = Store::open_with_clock(location.clone(), || NOW).await.expect("finished");
    let mut db = store.read().await.expect("a reader");
    if version > 0 {
        let servers = servers::names_and_labels(&mut db).await.expect("read");
        let labels = BTreeMap::from([("role".to_owned(), "web".to_owned())]);
        assert_eq!(servers, [(ServerId(1), (host("web-1"), labels))].into());
        let users = users::list(&mut db).await.expect("read");
        assert_eq!(users.len(), 1);
        assert_eq!((&users[0].name, users[0].full_name.as_str()), (&login("alice"), "Alice"));
        let grants = grants::list(&mut db).await.expect("read");
        assert_eq!((grants.len(), grants[0].sudo, grants[0].reason.as_str()), (1, true, "why"));
        let accounts = accounts::of_server(&mut db, ServerId(1)).await.expect("read");
        assert!(accounts[&login("alice")].sudo);
        assert_eq!(revisions::current(&mut db).await.expect("read"), 1);
        assert_eq!(history::begin(&mut db).await.expect("read"), begin);
    }
    let known = |first| usize::from(version >= first);
    assert_eq!(groups::all(&mut db).await.expect("read").0.len(), known(7));
    let receipts = receipts::of_login(&mut db, &login("alice")).await.expect("read");
    assert_eq!(receipts.len(), known(9));
    assert_eq!(uids::reserved(&mut db).await.expect("read").len(), known(11));
    assert_eq!(questions::all(&mut db).await.expect("read").len(), known(13));
    assert_eq!(drift::rules(&mut db).await.expect("read").len(), known(34));
    drop(db);
    store.close().await;
}

async fn newest_schema() -> BTreeSet<String> {
    let dir = TempDir::new().expect("a folder");
    let location = fresh_location(&dir).await;
    Store::open(location.clone()).await.expect("made").close().await;
    Db::open(&location).await.schema().await
}

#[tokio::test]
async fn every_older_version_comes_to_the_newest_with_all_that_it_held() {
    let newest = newest_schema().await;
    for migration in all() {
        let dir = TempDir::new().expect("a folder");
        let location = fresh_location(&dir).await;
        let mut db = Db::open(&location).await;
        db.migrate(&up_to(migration.version)).await.expect("made");
        db.fill(0, migration.version).await;
        db.close().await;
        check(&location, migration.version, i64::from(migration.version < 12)).await;
        let mut db = Db::open(&location).await;
        assert_eq!(db.schema().await, newest, "from {}", migration.version);
        // What an older program writes, a newer schema takes: they work side by side.
        db.fill(migration.version, i64::MAX).await;
    }
}

#[tokio::test]
async fn a_migration_that_fails_at_any_statement_changes_nothing_and_is_finished_later() {
    let dir = TempDir::new().expect("a folder");
    let location = fresh_location(&dir).await;
    let (mut before, mut tried) = (0, 0);
    for migration in all() {
        let all = statements(migration.sql.as_str());
        assert!(!all.is_empty(), "{}", migration.version);
        for count in 0..=all.len() {
            let mut db = Db::open(&location).await;
            let schema = db.schema().await;
            let text = all[..count].concat() + "INSERT INTO a_table_that_is_not_there VALUES (1);";
            let mut migrations: Vec<_> = up_to(before).iter().cloned().collect();
            migrations.push(with_text(&migration, text));
            let failed = db.migrate(&Migrator::with_migrations(migrations)).await;
            failed.expect_err("it failed");
            // The process ends, and another one looks.
            drop(db);
            let mut db = Db::open(&location).await;
            assert_eq!(db.schema().await, schema, "{} after {count}", migration.version);
            tried += 1;
        }
        let mut db = Db::open(&location).await;
        db.migrate(&up_to(migration.version)).await.expect("finished");
        db.fill(before, migration.version).await;
        db.close().await;
        before = migration.version;
    }
    assert!(tried > 60, "{tried}");
    assert_eq!(Db::open(&location).await.schema().await, newest_schema().await);
}

/// The database as a program leaves it that is killed within its transaction.
async fn killed(mut db: Db, location: &Location, dir: &TempDir) -> Location {
    match (&mut db, location) {
        (Db::Sqlite(_), Location::File(path)) => {
            let left = dir.path().join(format!("left-{}.db", rand::random::<u64>()));
            for side in ["", "-wal"] {
                let name = |path: &Path| format!("{}{side}", path.display());
                std::fs::copy(name(path), name(&left)).expect("copied");
            }
            left.into()
        }
        (Db::Postgres(_), _) => {
            let process = db.texts("SELECT CAST(pg_backend_pid() AS TEXT)").await.remove(0);
            let mut other = Db::open(location).await;
            other
                .run(&format!("SELECT pg_terminate_backend({process}, 10000)"))
                .await
                .expect("killed");
            location.clone()
        }
        (Db::Sqlite(_), Location::Postgres(_)) => panic!("another engine"),
    }
}

#[tokio::test]
async fn a_program_that_is_killed_at_any_statement_leaves_the_version_before() {
    let dir = TempDir::new().expect("a folder");
    let location = fresh_location(&dir).await;
    let mut before = 0;
    for migration in all() {
        let all = statements(migration.sql.as_str());
        for count in 1..=all.len() {
            let mut db = Db::open(&location).await;
            let schema = db.schema().await;
            if let Db::Sqlite(_) = &db {
                // So that the file has what is not committed, too.
                db.run("PRAGMA cache_size = 1").await.expect("set");
            }
            db.run("BEGIN").await.expect("begun");
            for one in &all[..count] {
                db.run(one).await.expect(one);
            }
            let left = killed(db, &location, &dir).await;
            assert_eq!(Db::open(&left).await.schema().await, schema, "{}", migration.version);
            if left != location && count == all.len() {
                check(&left, before, 1).await;
            }
        }
        let mut db = Db::open(&location).await;
        db.migrate(&up_to(migration.version)).await.expect("made");
        db.fill(before, migration.version).await;
        db.close().await;
        before = migration.version;
    }
    assert_eq!(Db::open(&location).await.schema().await, newest_schema().await);
}

/// What nodes of the version before must be able to work beside, unless the migration says that they cannot.
#[test]
fn a_migration_of_postgresql_adds_or_says_that_older_programs_must_go() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/postgres");
    let mut seen = 0;
    for file in std::fs::read_dir(folder).expect("a folder") {
        let file = file.expect("a file");
        let name = file.file_name().into_string().expect("text");
        let version: i64 = name[..4].parse().expect("a number");
        let text = std::fs::read_to_string(file.path()).expect("read");
        // Before that there were no nodes.
        if version <= 20 || text.contains(&format!("UPDATE compatibility SET needs = {version};")) {
            continue;
        }
        for one in statements(&text) {
            seen += 1;
            assert!(is_addition(&one), "{name}: older programs may not know this: {one}");
        }
    }
    assert!(seen > 0);
}

/// Whether whoever does not know of it can go on: a new table or index, or a column that need not be given.
fn is_addition(statement: &str) -> bool {
    let text = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    let column = text.starts_with("ALTER TABLE ") && text.contains(" ADD COLUMN ");
    let optional = !text.contains(" NOT NULL") || text.contains(" DEFAULT ");
    text.starts_with("CREATE TABLE ")
        || text.starts_with("CREATE INDEX ")
        || text.starts_with("INSERT INTO ")
        || text.starts_with("COMMENT ON ")
        || column && optional && !text.contains("UNIQUE")
}

#[test]
fn what_is_no_addition_is_seen() {
    for (text, expected) in [
        ("CREATE TABLE a (b TEXT NOT NULL);", true),
        ("ALTER TABLE a ADD COLUMN c TEXT;", true),
        ("ALTER TABLE a\n    ADD COLUMN c BIGINT NOT NULL DEFAULT 0;", true),
        ("ALTER TABLE a ADD COLUMN c BIGINT NOT NULL;", false),
        ("ALTER TABLE a ADD COLUMN c TEXT UNIQUE;", false),
        ("ALTER TABLE a DROP COLUMN c;", false),
        ("ALTER TABLE a RENAME TO b;", false),
        ("CREATE UNIQUE INDEX i ON a (b);", false),
        ("DROP TABLE a;", false),
        ("UPDATE a SET b = 1;", false),
    ] {
        assert_eq!(is_addition(text), expected, "{text}");
    }
}

mod on_postgres {
    use super::*;
    use crate::testing::TestBackend;
    use bastio_protocol::Status;

    /// A schema of a program to come: a table more, and a column more in each table that there is.
    async fn newer(backend: &TestBackend, needs: i64) {
        let mut db = Db::open(&backend.location).await;
        let tables = "SELECT tablename::TEXT FROM pg_tables WHERE schemaname = current_schema() \
                      AND tablename <> '_sqlx_migrations'";
        for table in db.texts(tables).await {
            let add = format!("ALTER TABLE \"{table}\" ADD COLUMN to_come TEXT");
            db.run(&add).await.expect("added");
        }
        db.run("CREATE TABLE to_come (id BIGINT NOT NULL PRIMARY KEY)").await.expect("made");
        db.run(&format!("UPDATE compatibility SET needs = {needs}")).await.expect("set");
        db.run(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (9000, 'to come', TRUE, '', 1)",
        )
        .await
        .expect("noted");
    }

    #[tokio::test]
    async fn a_node_of_the_version_before_works_on_and_starts_beside_a_newer_schema() {
        let backend = TestBackend::new().await;
        backend.enroll("web-1", 1).await;
        let session = backend.connect_v2(1).await;
        backend.add_user("alice", &[key(10)], "*", true).await;
        newer(&backend, 20).await;
        // What it has prepared before the change it runs behind it.
        assert!(!backend.answer_all(&session, Status::Done).await.is_empty());
        backend.add_user("bob", &[key(11)], "*", false).await;
        assert!(!backend.answer_all(&session, Status::Done).await.is_empty());
        let (fleet, admin) = (&backend.fleet, &backend.admin);
        let servers = fleet.servers(admin).await.expect("read");
        assert_eq!((servers[0].pending, servers[0].failed), (0, 0));
        let backend = backend.after_kill().await;
        backend.enroll("web-2", 2).await;
        backend.add_user("carol", &[key(12)], "*", false).await;
        let model = backend.fleet.export(&backend.admin).await.expect("read");
        assert_eq!(model.users.expect("whole").len(), 3);
        backend.fleet.export_at(&backend.admin, 1).await.expect("read");
    }

    #[tokio::test]
    async fn a_node_that_a_newer_schema_does_not_bear_says_so_and_changes_nothing() {
        let backend = TestBackend::new().await;
        newer(&backend, 9000).await;
        let refused = Store::open(backend.location.clone()).await.expect_err("too new");
        let newest = all().iter().map(|migration| migration.version).max().expect("some");
        let StoreError::TooNew { needs, ours } = &refused else { panic!("{refused:?}") };
        assert_eq!((*needs, *ours), (9000, newest));
        assert!(refused.to_string().contains("update bastio-backend on this machine"));
    }
}

#[test]
fn statements_are_found_in_triggers_and_functions_too() {
    let text = "-- Why; because.\nCREATE TABLE a (\n  b TEXT\n);\nCREATE TRIGGER t BEFORE UPDATE ON a\nBEGIN\n\
                SELECT RAISE(ABORT, 'no');\nEND;\nCREATE FUNCTION f() AS $$\nBEGIN\n x;\nEND\n$$;\nDROP TABLE a;\n";
    assert_eq!(statements(text).len(), 4);
}
