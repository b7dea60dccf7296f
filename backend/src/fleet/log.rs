//! The audit log, and waiting for what is new in it.

use std::time::Duration;

use bastio_protocol::audit::{ChainedRow, LogFilter};
use tokio::time::Instant;

use super::changes::MAX_WAIT;
use super::{Fleet, FleetError};
use crate::access::Admin;
use crate::store;
use crate::store::audit::Page;

/// Most rows of the audit log in one answer.
pub const MAX_LOG: u32 = 1000;

impl Fleet {
    /// At most `limit` rows of that page, never more than [`MAX_LOG`], the oldest first.
    ///
    /// # Errors
    /// [`FleetError::Store`].
    pub async fn log(
        &self,
        _proof: &Admin,
        filter: &LogFilter,
        page: Page,
        limit: u32,
    ) -> Result<Vec<ChainedRow>, FleetError> {
        let mut db = self.store.read().await?;
        Ok(store::audit::list(&mut db, filter, page, i64::from(limit.min(MAX_LOG))).await?)
    }

    /// The first rows behind `after`, as soon as there are any; after `wait` (at most 30 s) in any
    /// case.
    ///
    /// # Errors
    /// [`FleetError::Store`].
    pub async fn await_log(
        &self,
        proof: &Admin,
        filter: &LogFilter,
        mut after: i64,
        limit: u32,
        wait: Duration,
    ) -> Result<Vec<ChainedRow>, FleetError> {
        let deadline = Instant::now() + wait.min(MAX_WAIT);
        let mut written = self.store.written();
        loop {
            written.mark_unchanged();
            let mut db = self.store.read().await?;
            let head = store::audit::head(&mut db).await?;
            drop(db);
            let rows = self.log(proof, filter, Page::After(after), limit).await?;
            if !rows.is_empty() {
                return Ok(rows);
            }
            // Nothing up to there passes the filter, now or later.
            after = head.map_or(after, |head| head.id.max(after));
            let Ok(Ok(())) = tokio::time::timeout_at(deadline, written.changed()).await else {
                return Ok(Vec::new());
            };
        }
    }
}
