//! The database that holds the model, every server's queue and the audit log: an SQLite file, or
//! PostgreSQL.
//!
//! All SQL text stands in this room, in a form that both engines accept; what differs stands in
//! `engine`. One connection writes, in transactions that are on the disk before they count as
//! done; a few read. This room must not know what an edit means, nor who may make one.

pub mod accounts;
pub mod actions;
pub mod adoptions;
pub mod api_keys;
pub mod arrivals;
pub mod audit;
pub mod batch;
pub mod clocks;
pub mod confirmed;
pub mod copy;
pub mod drift;
mod engine;
pub mod grants;
pub mod groups;
pub mod hints;
pub mod history;
pub mod leases;
pub mod outcomes;
pub mod policies;
pub mod proposals;
pub mod questions;
pub mod reached;
pub mod receipts;
pub mod requests;
pub mod revisions;
pub mod secrets;
pub mod servers;
pub mod speech;
pub mod sql;
pub mod standing;
pub mod suspects;
mod trouble;
pub mod uids;
mod url;
pub mod users;

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::migrate::MigrateError;
use thiserror::Error;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use crate::meters::{StoreMeter, Timer};
pub use engine::Connection;
use engine::Engine;
use trouble::FileIdentity;
pub use trouble::Trouble;
pub use url::DatabaseUrl;

/// How long it counts that the database took something: anybody may ask, and each look is a write.
const TAKES_FOR: Duration = Duration::from_secs(2);

/// Where a database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// An SQLite file.
    File(PathBuf),
    /// A PostgreSQL database.
    Postgres(Box<DatabaseUrl>),
}

/// A server's number.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type, serde::Deserialize,
)]
#[sqlx(transparent)]
pub struct ServerId(pub i64);

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A person's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
#[sqlx(transparent)]
pub struct UserId(pub i64);

/// An open database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    engine: Engine,
    clock: fn() -> i64,
    written: Arc<watch::Sender<()>>,
    meter: StoreMeter,
    /// The name of this process among those that share the database.
    node: Arc<str>,
    /// The file, where the database is one.
    file: Option<FileIdentity>,
    /// When it last took something, or did not, because somebody asked whether it does.
    takes: Arc<Mutex<Option<(Instant, bool)>>>,
}

/// A transaction that reads: it sees one state of the database and is simply dropped.
#[derive(Debug)]
pub struct ReadTx {
    inner: Connection,
    /// Dropped last: the time ends with the transaction.
    _timer: Timer,
}

/// A transaction that writes. It never was when it is dropped without [`Tx::commit`].
#[derive(Debug)]
pub struct Tx {
    inner: Connection,
    written: Arc<watch::Sender<()>>,
    node: Arc<str>,
    file: Option<FileIdentity>,
    timer: Timer,
}

/// Tells those who wait for something new when dropped, so that they are told even when the caller
/// has stopped waiting while the transaction is being written.
#[derive(Debug)]
struct Told(Arc<watch::Sender<()>>);

/// Why the database did not do what was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file cannot be made or protected.
    #[error("the database file cannot be made: {0}; check the state folder's owner and free space")]
    File(#[source] io::Error),
    /// The database is of another version, or damaged.
    #[error("the database cannot be brought to this version: {0}")]
    Migrate(#[from] MigrateError),
    /// A newer program has changed the database in a way that this one cannot work with.
    #[error(
        "the database needs a program that knows its version {needs}, this one knows {ours}; \
         update bastio-backend on this machine"
    )]
    TooNew {
        /// The oldest version of the schema that it must know.
        needs: i64,
        /// The newest that this program knows.
        ours: i64,
    },
    /// PostgreSQL does not let this program in.
    #[error(
        "PostgreSQL cannot be reached: {0}; is it running, and are address, name and password in \
         store.url right?"
    )]
    Unreachable(#[source] sqlx::Error),
    /// A statement failed: disk full, I/O error, locked for too long.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// A stored value is not what this program stores.
    #[error("the database holds a value that cannot be read: {what}")]
    Corrupt {
        /// Which value.
        what: &'static str,
    },
}

impl Store {
    /// Opens or makes the database and brings it to this version. A file is readable by its owner
    /// alone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(location: impl Into<Location>) -> Result<Self, StoreError> {
        Self::open_with_clock(location, unix_now).await
    }

    /// As [`Store::open`], with `clock` telling the seconds since the Unix epoch.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open_with_clock(
        location: impl Into<Location>,
        clock: fn() -> i64,
    ) -> Result<Self, StoreError> {
        let location = location.into();
        if let Location::File(path) = &location {
            Engine::make_file(path).map_err(StoreError::File)?;
        }
        let store = Self::connect(&location, clock).await?;
        store.engine.migrate().await?;
        Ok(store)
    }

    /// Opens a database that is there, as it is: a running backend may use it and be of another
    /// version.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn open_as_it_is(location: impl Into<Location>) -> Result<Self, StoreError> {
        Self::connect(&location.into(), unix_now).await
    }

    async fn connect(location: &Location, clock: fn() -> i64) -> Result<Self, StoreError> {
        let (engine, file) = match location {
            Location::File(path) => {
                let engine = Engine::open_file(path).await?;
                (engine, Some(FileIdentity::of(path).map_err(StoreError::File)?))
            }
            Location::Postgres(url) => (Engine::connect(url).await?, None),
        };
        let (written, meter, takes) = (Arc::default(), StoreMeter::new(), Arc::default());
        let node = format!("{:032x}", rand::random::<u128>()).into();
        Ok(Self { engine, clock, written, meter, node, file, takes })
    }

    /// Seconds since the Unix epoch.
    #[must_use]
    pub fn now(&self) -> i64 {
        (self.clock)()
    }

    /// A view of the database as it is now.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn read(&self) -> Result<ReadTx, StoreError> {
        let _timer = self.meter.read();
        Ok(ReadTx { inner: self.engine.read().await?, _timer })
    }

    /// The one transaction that may write at this time.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn write(&self) -> Result<Tx, StoreError> {
        let timer = self.meter.write();
        let inner = self.engine.write().await?;
        let (written, file) = (Arc::clone(&self.written), self.file.clone());
        Ok(Tx { inner, written, node: Arc::clone(&self.node), file, timer })
    }

    /// Whether other processes may work on the same database.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.engine, Engine::Postgres { .. })
    }

    /// The name of this process among those that share the database.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Tells those who wait for something new, as others have written something.
    pub(crate) fn tell(&self) {
        self.written.send_replace(());
    }

    /// Changes whenever this process has written something. Others may write, too, and say nothing
    /// unless they are nodes: [`hints`].
    #[must_use]
    pub fn written(&self) -> watch::Receiver<()> {
        self.written.subscribe()
    }

    /// Whether it reads and writes something in that time. What it did within the last two seconds
    /// counts, so that asking often costs little.
    pub async fn answers_within(&self, limit: Duration) -> bool {
        let works = async {
            let mut last = self.takes.lock().await;
            if let Some((at, takes)) = *last
                && at.elapsed() < TAKES_FOR
            {
                return takes;
            }
            // Whoever asks may give up: then it did not.
            *last = Some((Instant::now(), false));
            let takes = self.probe().await.is_ok();
            *last = Some((Instant::now(), takes));
            takes
        };
        tokio::time::timeout(limit, works).await.unwrap_or(false)
    }

    /// Reads, and writes a row as it is: a full disk shows only so.
    async fn probe(&self) -> Result<(), StoreError> {
        revisions::current(&mut *self.read().await?).await?;
        let mut tx = self.write().await?;
        api_keys::touch(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    /// How long transactions take.
    #[must_use]
    pub fn meter(&self) -> &StoreMeter {
        &self.meter
    }

    /// Waits for what is under way and closes the file.
    pub async fn close(&self) {
        self.engine.close().await;
    }
}

impl Tx {
    /// Puts everything on the disk, and tells those who wait for something new.
    ///
    /// # Errors
    /// What the database says; then nothing was written, unless PostgreSQL was lost just then: nobody knows.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        let Self { mut inner, written, node, file, timer: _timer } = self;
        let _told = Told(written);
        file.as_ref().map_or(Ok(()), FileIdentity::check)?;
        inner.hint(&node).await?;
        inner.commit().await
    }
}

#[cfg(test)]
impl Tx {
    /// As when the hint to other nodes gets lost.
    pub(crate) async fn commit_silently(self) -> Result<(), sqlx::Error> {
        self.inner.commit().await
    }
}

impl<P: AsRef<Path>> From<P> for Location {
    fn from(path: P) -> Self {
        Self::File(path.as_ref().to_owned())
    }
}

impl From<&Location> for Location {
    fn from(location: &Location) -> Self {
        location.clone()
    }
}

impl Deref for ReadTx {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.inner
    }
}

impl DerefMut for ReadTx {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.inner
    }
}

impl Deref for Tx {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.inner
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.inner
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.0.send_replace(());
    }
}

fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// For a stored value that does not parse.
fn corrupt<E>(what: &'static str) -> impl FnOnce(E) -> StoreError {
    move |_| StoreError::Corrupt { what }
}

#[cfg(test)]
mod tests;
