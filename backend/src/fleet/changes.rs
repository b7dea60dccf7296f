//! What became of an edit, and waiting for it.

use std::time::Duration;

use bastio_protocol::api::{ActionState, Change, ServerOutcome};
use tokio::time::Instant;

use super::{Fleet, FleetError};
use crate::access::Admin;
use crate::store::{self, ServerId};

/// Longest wait for an edit to get on.
pub const MAX_WAIT: Duration = Duration::from_secs(30);
/// Who waits for a change of many servers is told how far it is after so much time for each of them.
const EACH: Duration = Duration::from_micros(100);
/// A shorter pause is none.
const WORTHWHILE: Duration = Duration::from_millis(10);

impl Fleet {
    /// What became of an edit: as soon as its progress is larger than `after`, a server concerned
    /// came or went, or nothing is left to happen; after `wait` (at most 30 s) in any case.
    ///
    /// # Errors
    /// [`FleetError::NoSuchRevision`], [`FleetError::Store`].
    pub async fn change(
        &self,
        _proof: &Admin,
        revision: i64,
        after: Option<u64>,
        wait: Duration,
    ) -> Result<Change, FleetError> {
        let deadline = Instant::now() + wait.min(MAX_WAIT);
        let mut steps = self.dispatch.steps();
        let mut known = None;
        loop {
            steps.mark_unchanged();
            let (change, servers) = self.read(revision).await?;
            let connected = *known.get_or_insert_with(|| self.connected(&servers));
            let news = after.is_none_or(|after| change.progress > after);
            if change.complete || after.is_none() {
                return Ok(change);
            }
            if news || self.connected(&servers) != connected {
                let pause = EACH * u32::try_from(servers.len()).unwrap_or(u32::MAX);
                if pause < WORTHWHILE {
                    return Ok(change);
                }
                // Of a large change more is told, and less often.
                tokio::time::sleep_until(deadline.min(Instant::now() + pause)).await;
                return self.read_change(revision).await;
            }
            while self.progress(revision).await? == change.progress
                && self.connected(&servers) == connected
            {
                let Ok(Ok(())) = tokio::time::timeout_at(deadline, steps.changed()).await else {
                    return self.read_change(revision).await;
                };
            }
        }
    }

    /// What has become of an edit so far.
    pub(super) async fn read_change(&self, revision: i64) -> Result<Change, FleetError> {
        Ok(self.read(revision).await?.0)
    }

    /// An edit so far, and the servers concerned.
    async fn read(&self, revision: i64) -> Result<(Change, Vec<ServerId>), FleetError> {
        let mut db = self.store.read().await?;
        let summary = store::revisions::summary(&mut db, revision).await?;
        let summary = summary.ok_or(FleetError::NoSuchRevision(revision))?;
        let mut progress = 0;
        let mut servers = Vec::<ServerOutcome>::new();
        let mut ids = Vec::new();
        for row in store::outcomes::outcomes(&mut db, revision).await? {
            if ids.last() != Some(&row.server) {
                ids.push(row.server);
                let presence = self.presence(row.server, row.last_seen);
                servers.push(ServerOutcome { server: row.name, presence, actions: Vec::new() });
            }
            progress += u64::from(row.steps);
            if let Some(outcome) = servers.last_mut() {
                outcome.actions.push(row.report);
            }
        }
        let ended = |state| matches!(state, ActionState::Done | ActionState::Failed);
        let complete = servers.iter().flat_map(|server| &server.actions).all(|a| ended(a.state));
        let request = None;
        let preview = None;
        Ok((Change { revision, summary, progress, complete, servers, request, preview }, ids))
    }

    /// How many of these servers are connected.
    fn connected(&self, servers: &[ServerId]) -> usize {
        servers.iter().filter(|server| self.dispatch.is_connected(**server)).count()
    }

    async fn progress(&self, revision: i64) -> Result<u64, FleetError> {
        let mut db = self.store.read().await?;
        Ok(store::outcomes::progress(&mut db, revision).await?)
    }
}
