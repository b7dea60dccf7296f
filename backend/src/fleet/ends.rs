//! The ends of grants and keys: what is over leaves the model at its time.
//!
//! Servers whose agent speaks version 2 end it by themselves, to the second; this is for the model,
//! and for what is left of the account there.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::edit::Edit;
use super::users::logins_of;
use super::{Fleet, FleetError};
use crate::audit::Actor;
use crate::dispatch::queue::Scope;
use crate::store;

/// Longest sleep: clocks are set now and then, and a sleep does not notice.
const LONGEST_SLEEP: i64 = 3600;
/// Pause after the database failed.
const PAUSE: Duration = Duration::from_secs(5);

impl Fleet {
    /// Ends what is over, and then everything else at its time, until `stop`.
    pub async fn end_in_time(&self, stop: &CancellationToken) {
        loop {
            let next = match self.end_overdue().await {
                Ok(next) => next,
                Err(error) => {
                    tracing::error!(%error, "grants that are over could not be ended");
                    Some(self.store.now().saturating_add(1))
                }
            };
            let sleep = async {
                match next {
                    Some(next) => {
                        let seconds = next.saturating_sub(self.store.now());
                        let seconds = u64::try_from(seconds.clamp(0, LONGEST_SLEEP)).unwrap_or(0);
                        tokio::time::sleep(Duration::from_secs(seconds).max(PAUSE / 10)).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.ends.notified() => {}
                () = sleep => {}
            }
        }
    }

    /// Ends what is over by now; when the next end is.
    ///
    /// # Errors
    /// [`FleetError::Store`].
    pub async fn end_overdue(&self) -> Result<Option<i64>, FleetError> {
        let now = self.store.now();
        let mut db = self.store.read().await?;
        let next = store::grants::next_end(&mut db).await?;
        drop(db);
        if next.is_none_or(|next| next > now) {
            return Ok(next);
        }
        let actor = Actor::backend();
        let mut edit = Edit::begin(self, &actor).await?;
        edit.tolerate_conflicts();
        let mut logins = BTreeSet::new();
        let mut over = Vec::new();
        for grant in store::grants::ended(edit.db(), now).await? {
            store::grants::remove(edit.db(), grant.id).await?;
            let detail = format!("grant {}: {} as {} is over", grant.id, grant.on, grant.login);
            edit.note("grant.end", Some(&grant.user), None, &detail).await?;
            over.push(format!("grant {} of {}", grant.id, grant.user));
            logins.insert(grant.login);
        }
        for (user, name, key) in store::users::remove_ended_keys(edit.db(), now).await? {
            edit.note("key.end", Some(&name), None, &format!("{key} is over")).await?;
            logins.extend(logins_of(edit.db(), user).await?);
            over.push(format!("key {key} of {name}"));
        }
        edit.commit(&format!("over: {}", over.join(", ")), &Scope::Logins(logins)).await?;
        let mut db = self.store.read().await?;
        Ok(store::grants::next_end(&mut db).await?)
    }
}
