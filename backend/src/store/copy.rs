//! Copies of an SQLite database: made beside whoever uses it, looked at, and told that time has gone
//! on without it. PostgreSQL has tools of its own for that.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection as _, Executor as _};

use super::StoreError;

/// How long it waits for whoever writes.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a restored database was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aftermath {
    /// The revision that the model had in the backup.
    pub revision: i64,
    /// When its last edit or answer was, in seconds since the Unix epoch.
    pub last: i64,
    /// Servers that are in it.
    pub servers: i64,
    /// What was on its way to servers and is forgotten.
    pub dropped: i64,
}

async fn open(path: &Path) -> Result<SqliteConnection, StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(PATIENCE);
    Ok(SqliteConnection::connect_with(&options).await?)
}

/// Writes one consistent state of the database into the file `copy`, which is there and empty.
pub async fn into(database: &Path, copy: &Path) -> Result<(), StoreError> {
    let mut db = open(database).await?;
    let name = copy.to_string_lossy().into_owned();
    sqlx::query("VACUUM INTO $1").bind(name).execute(&mut db).await?;
    db.close().await?;
    // The journal mode is part of the file: a copy needs no side files.
    let options =
        SqliteConnectOptions::new().filename(copy).journal_mode(SqliteJournalMode::Delete);
    Ok(SqliteConnection::connect_with(&options).await?.close().await?)
}

/// What is wrong with a database, if anything is.
pub async fn fault(database: &Path) -> Result<Option<String>, StoreError> {
    let mut db = match open(database).await {
        Ok(db) => db,
        Err(error) => return Ok(Some(error.to_string())),
    };
    let checked: Result<String, _> =
        sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_one(&mut db).await;
    db.close().await?;
    Ok(match checked {
        Ok(word) if word == "ok" => None,
        Ok(fault) => Some(fault),
        Err(error) => Some(error.to_string()),
    })
}

/// Tells a database from a backup that it is one. Numbers go on behind all that may have been given
/// out since, nothing that was on its way is sent, and no server is believed to be as on record: what
/// was decided behind the backup is not undone by itself.
pub async fn restored(database: &Path, now: i64) -> Result<Aftermath, StoreError> {
    // The columns that are needed here may have come with this version.
    super::Store::open(database).await?.close().await;
    let mut db = open(database).await?;
    let mut tx = db.begin().await?;
    let revision: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(revision), 0) FROM revisions")
        .fetch_one(&mut *tx)
        .await?;
    let last: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(at), $1) FROM audit")
        .bind(now)
        .fetch_one(&mut *tx)
        .await?;
    // Far fewer than one a second are made.
    let gap = now.saturating_sub(last).clamp(0, 1_000_000_000).saturating_add(1000);
    sqlx::query("UPDATE sqlite_sequence SET seq = seq + $1").bind(gap).execute(&mut *tx).await?;
    sqlx::query("INSERT INTO revisions (revision, summary, at) VALUES ($1, $2, $3)")
        .bind(revision.saturating_add(gap))
        .bind(format!("restored from a backup of revision {revision}"))
        .bind(now)
        .execute(&mut *tx)
        .await?;
    let mut dropped = 0;
    for sql in [
        "UPDATE actions SET state = 'failed', standing = FALSE, finished_at = $1, \
         feedback = 'not sent: the backend was restored from a backup' \
         WHERE state IN ('queued', 'sent')",
        "UPDATE requests SET state = 'failed', finished_at = $1, \
         feedback = 'not sent: the backend was restored from a backup' \
         WHERE state IN ('queued', 'sent')",
    ] {
        let done = sqlx::query(sql).bind(now).execute(&mut *tx).await?.rows_affected();
        dropped += i64::try_from(done).unwrap_or(i64::MAX);
    }
    // Whatever an account is said to be, the next edit says all of it.
    tx.execute(
        "INSERT INTO suspects (server_id, login, gift) SELECT a.server_id, a.login, 'whole' \
         FROM accounts a JOIN servers s ON s.id = a.server_id WHERE s.facts IS NOT NULL \
         ON CONFLICT DO NOTHING",
    )
    .await?;
    let servers = sqlx::query(
        "INSERT INTO questions (server_id, kind, holds, subject, detail, asked) \
         SELECT id, 'restored', FALSE, '', 'the backend was restored from a backup: what this server \
         was told later is not known here', $1 FROM servers WHERE removed IS NULL \
         ON CONFLICT (server_id, kind) DO NOTHING",
    )
    .bind(now)
    .execute(&mut *tx)
    .await?
    .rows_affected();
    tx.commit().await?;
    db.close().await?;
    let servers = i64::try_from(servers).unwrap_or(i64::MAX);
    Ok(Aftermath { revision, last, servers, dropped })
}
