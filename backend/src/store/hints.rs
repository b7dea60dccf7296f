//! What other nodes tell when they have written something. Hints may get lost, so whoever waits for
//! one looks now and then all the same.

use std::time::Duration;

use sqlx::postgres::PgListener;

use super::engine::{CHANNEL, Engine};
use super::{Store, StoreError};

/// The ear of one node.
#[derive(Debug)]
pub struct Hints {
    listener: PgListener,
    node: String,
}

impl Hints {
    /// Begins to listen; `None` where nobody else writes.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn of(store: &Store) -> Result<Option<Self>, StoreError> {
        let Engine::Postgres { beside, .. } = &store.engine else { return Ok(None) };
        let mut listener = PgListener::connect_with(beside).await?;
        listener.listen(CHANNEL).await?;
        Ok(Some(Self { listener, node: store.node().to_owned() }))
    }

    /// Waits until another node has written something, or for so long; whether one has. Nothing is
    /// lost when the wait is given up.
    ///
    /// # Errors
    /// [`StoreError::Database`]: the connection is gone, begin anew.
    pub async fn next(&mut self, limit: Duration) -> Result<bool, StoreError> {
        let others = async {
            loop {
                let hint = self.listener.recv().await?;
                if hint.payload() != self.node {
                    return Ok(true);
                }
            }
        };
        tokio::time::timeout(limit, others).await.unwrap_or(Ok(false))
    }
}
