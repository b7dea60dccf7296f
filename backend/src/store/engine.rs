//! The two engines and all that differs between them: how they are opened, brought to this
//! version, and how a transaction begins.
//!
//! On both, one transaction at a time writes: the audit log's chain, the model's revisions and
//! the order of the queues rely on it. SQLite has one writer by itself. On PostgreSQL every writer
//! first takes the same lock of the database, which its transaction gives back however it ends.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use sqlx::pool::PoolOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection as _, Database, Error, Postgres, Sqlite, Transaction};

use super::StoreError;
use super::url::DatabaseUrl;

/// Connections that read.
const READERS: u32 = 4;
/// One listens to other nodes, and one says that this node is alive, however busy the others are.
const BESIDE: u32 = 2;
/// Rows that SQLite's thread may be ahead of whoever reads them; each time it must wait costs more than many rows.
const ROWS_AHEAD: usize = 1024;
/// What SQLite's writer may keep of the file in memory, in KiB by its sign: a fleet's queue and accounts. Taken as it is
/// needed.
const WRITER_CACHE: &str = "-8192";
/// Pages of 4 KiB in SQLite's log before they go into the file: whoever writes has to wait for that.
const PAGES_BETWEEN_CHECKPOINTS: &str = "8000";
/// How long a connection waits for a lock, and a caller for a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// Limits that PostgreSQL keeps for us, in milliseconds: for a lock, for a statement, and for a
/// transaction of a node that has gone silent and would keep all others from writing. And no
/// compilation to machine code: our statements are short, and it takes longer than any of them.
const POSTGRES_SETTINGS: [(&str, &str); 4] = [
    ("jit", "off"),
    ("lock_timeout", "10000"),
    ("statement_timeout", "60000"),
    ("idle_in_transaction_session_timeout", "15000"),
];
/// Taken by whoever writes. By schema, so that two fleets can share a database.
const WRITER_LOCK: &str = "SELECT pg_advisory_xact_lock(hashtext('bastio ' || current_schema()))";

/// Where nodes tell each other that they have written something.
pub(super) const CHANNEL: &str = "bastio";

/// A transaction that SQL runs on: [`super::sql`].
#[derive(Debug)]
pub enum Connection {
    /// On SQLite.
    Sqlite(Transaction<'static, Sqlite>),
    /// On PostgreSQL.
    Postgres(Transaction<'static, Postgres>),
}

/// Where transactions come from.
#[derive(Debug, Clone)]
pub(super) enum Engine {
    Sqlite { writer: SqlitePool, readers: SqlitePool },
    Postgres { writer: PgPool, readers: PgPool, beside: PgPool },
}

impl Engine {
    /// A file that is there, as it is.
    pub(super) async fn open_file(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(PATIENCE)
            .row_buffer_size(ROWS_AHEAD);
        let writer = options
            .clone()
            .pragma("cache_size", WRITER_CACHE)
            .pragma("wal_autocheckpoint", PAGES_BETWEEN_CHECKPOINTS);
        let writer = sqlite_pool(1).connect_with(writer).await?;
        let readers = sqlite_pool(READERS).connect_with(options).await?;
        Ok(Self::Sqlite { writer, readers })
    }

    /// A PostgreSQL database as it is.
    pub(super) async fn connect(url: &DatabaseUrl) -> Result<Self, StoreError> {
        let options = url.options().clone().options(POSTGRES_SETTINGS);
        let writer = match postgres_pool(1).connect_with(options.clone()).await {
            // A pool tries again and again, and forgets why it had to.
            Err(Error::PoolTimedOut) => return Err(unreachable(&options).await),
            writer => writer?,
        };
        let readers = postgres_pool(READERS).connect_with(options.clone()).await?;
        let beside = postgres_pool(BESIDE).connect_lazy_with(options);
        Ok(Self::Postgres { writer, readers, beside })
    }

    /// Makes the file of a new database: readable by its owner alone. SQLite gives its side files
    /// the mode of the main one.
    pub(super) fn make_file(path: &Path) -> io::Result<()> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))
    }

    /// Brings the database to this version.
    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite { writer, .. } => sqlx::migrate!("migrations/sqlite").run(writer).await?,
            Self::Postgres { writer, .. } => {
                let mut migrator = sqlx::migrate!("migrations/postgres");
                // Those of newer programs: compatibility says whether this one may work beside them.
                migrator.set_ignore_missing(true);
                migrator.run(writer).await?;
                let ours = migrator.iter().map(|migration| migration.version).max().unwrap_or(0);
                let needs: i64 =
                    sqlx::query_scalar("SELECT needs FROM compatibility").fetch_one(writer).await?;
                if needs > ours {
                    return Err(StoreError::TooNew { needs, ours });
                }
            }
        }
        Ok(())
    }

    /// Sees one state of the database until it is dropped.
    pub(super) async fn read(&self) -> Result<Connection, Error> {
        match self {
            Self::Sqlite { readers, .. } => Ok(Connection::Sqlite(readers.begin().await?)),
            Self::Postgres { readers, .. } => {
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";
                Ok(Connection::Postgres(readers.begin_with(begin).await?))
            }
        }
    }

    /// The one that may write at this time.
    pub(super) async fn write(&self) -> Result<Connection, Error> {
        match self {
            Self::Sqlite { writer, .. } => {
                Ok(Connection::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?))
            }
            Self::Postgres { writer, .. } => {
                // What is read after the lock was waited for has to be what it guards, whatever the database's default is.
                let mut tx = writer.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
                sqlx::query(WRITER_LOCK).execute(&mut *tx).await?;
                Ok(Connection::Postgres(tx))
            }
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Self::Postgres { writer, readers, beside } => {
                beside.close().await;
                readers.close().await;
                writer.close().await;
            }
        }
    }
}

impl Connection {
    /// Tells other nodes, once this is committed, that this one has written something.
    pub(super) async fn hint(&mut self, node: &str) -> Result<(), Error> {
        let Self::Postgres(tx) = self else { return Ok(()) };
        let tell = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(node);
        tell.execute(&mut **tx).await?;
        Ok(())
    }

    pub(super) async fn commit(self) -> Result<(), Error> {
        match self {
            Self::Sqlite(tx) => tx.commit().await,
            Self::Postgres(tx) => tx.commit().await,
        }
    }
}

/// A pool that never hands out a connection stuck in a transaction: on a full disk or an I/O error
/// SQLite rolls back by itself, sqlx believes that the transaction goes on, and no other can
/// begin. Such a connection is replaced.
pub(super) fn sqlite_pool(connections: u32) -> SqlitePoolOptions {
    // A file needs no question whether it is still there, which is one more turn of SQLite's thread.
    let options = limited(SqlitePoolOptions::new(), connections).test_before_acquire(false);
    options.before_acquire(|connection, _| {
        Box::pin(async move { Ok(!sqlx::Connection::is_in_transaction(connection)) })
    })
}

fn postgres_pool(connections: u32) -> PgPoolOptions {
    limited(PgPoolOptions::new(), connections).before_acquire(|connection, _| {
        Box::pin(async move { Ok(!sqlx::Connection::is_in_transaction(connection)) })
    })
}

/// Why no connection comes about.
async fn unreachable(options: &PgConnectOptions) -> StoreError {
    let attempt = tokio::time::timeout(PATIENCE, PgConnection::connect_with(options)).await;
    match attempt {
        Ok(Err(error)) => StoreError::Unreachable(error),
        Ok(Ok(_)) | Err(_) => StoreError::Unreachable(Error::PoolTimedOut),
    }
}

fn limited<DB: Database>(options: PoolOptions<DB>, connections: u32) -> PoolOptions<DB> {
    options.max_connections(connections).acquire_timeout(PATIENCE)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn who_cannot_reach_postgresql_is_told_why_and_never_the_password() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("postgres://bastio:s3cret@127.0.0.1:{port}/bastio");
        let url: DatabaseUrl = url.parse().unwrap();
        let told = unreachable(url.options()).await.to_string();
        assert!(told.contains("refused") && told.contains("store.url"), "{told}");
        assert!(!told.contains("s3cret"), "{told}");
    }
}
