//! The model and its edits: servers, people, keys, grants.
//!
//! Every edit is one transaction: the model changes, its revision rises, the difference is queued
//! for every server concerned and the audit log tells; then the sessions concerned are woken.
//! This room must not know HTTP or SSH.

mod adoption;
mod approvals;
mod begun;
mod changes;
mod clock;
mod convergence;
mod declared;
mod drift;
mod edit;
mod enroll;
mod error;
mod grants;
mod groups;
mod history;
mod log;
mod names;
mod overtaken;
mod policies;
mod questions;
mod rails;
mod requests;
mod revocation;
mod servers;
mod times;
mod uids;
mod undo;
mod users;

use std::collections::BTreeSet;
use std::sync::Arc;

use bastio_protocol::api::{CLOCK_LIMIT, Presence, StatusReport};
use bastio_protocol::{GroupName, Username};
use tokio::sync::Notify;

use crate::access::Admin;
use crate::dispatch::{Dispatch, healing};
use crate::plan::Rails;
use crate::store::uids::UidRange;
use crate::store::{self, ServerId, Store};
pub use enroll::{EnrollError, Enrolled, Enrolment};
pub use error::FleetError;
pub use log::MAX_LOG;

/// The model and its edits. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fleet {
    store: Store,
    dispatch: Dispatch,
    original_agents: bool,
    rails: Rails,
    /// From where login names get numeric ids, if they do.
    uids: Option<UidRange>,
    /// Names of the system's own accounts that may be logins all the same.
    system_names: Arc<BTreeSet<Username>>,
    /// So many revisions can be undone.
    history: i64,
    /// Whether what makes root needs a second operator.
    needs_approval: bool,
    /// A site's own groups whose members can become root.
    root_groups: Arc<BTreeSet<GroupName>>,
    /// Told after every edit: the next begin or end may be another.
    turns: Arc<Notify>,
}

impl Fleet {
    /// The model in `store`; `dispatch` must be over the same store.
    #[must_use]
    pub fn new(store: Store, dispatch: Dispatch) -> Self {
        let (rails, turns, system_names) = (Rails::default(), Arc::default(), Arc::default());
        let (original_agents, uids, history) = (false, None, undo::REVISIONS);
        let (needs_approval, root_groups) = (false, Arc::default());
        Self {
            store,
            dispatch,
            original_agents,
            rails,
            uids,
            system_names,
            history,
            needs_approval,
            root_groups,
            turns,
        }
    }

    /// Whether what makes root needs a second operator.
    #[must_use]
    pub fn with_approvals(mut self, needed: bool) -> Self {
        self.needs_approval = needed;
        self
    }

    /// A site's own groups whose members can become root.
    #[must_use]
    pub fn with_root_groups(mut self, groups: BTreeSet<GroupName>) -> Self {
        self.root_groups = groups.into();
        self
    }

    /// Whether there is a port for original agents, which cannot prove what newer ones must.
    #[must_use]
    pub fn with_original_agents(mut self, original_agents: bool) -> Self {
        self.original_agents = original_agents;
        self
    }

    /// How large an edit may be before it needs a confirmation.
    #[must_use]
    pub fn with_rails(mut self, rails: Rails) -> Self {
        self.rails = rails;
        self
    }

    /// The fleet in numbers; `host_key` is the fingerprint that the agents' port shows.
    ///
    /// # Errors
    /// [`FleetError::Store`].
    pub async fn status(
        &self,
        _proof: &Admin,
        host_key: String,
    ) -> Result<StatusReport, FleetError> {
        let mut db = self.store.read().await?;
        let (queued, sent, failed) = store::outcomes::counts(&mut db).await?;
        let servers = store::servers::count(&mut db).await?;
        let mut numbers = store::standing::numbers(&mut db).await?;
        let drifting = healing::drifting(&mut db, self.store.now()).await?;
        numbers.drifted.retain(|server| drifting.get(server).is_some_and(|it| it.is_trouble()));
        let all = [&numbers.pending, &numbers.failed, &numbers.drifted, &numbers.undecided];
        let out_of_sync: BTreeSet<ServerId> = all.into_iter().flatten().copied().collect();
        let count = |set: &BTreeSet<ServerId>| u32::try_from(set.len()).unwrap_or(u32::MAX);
        Ok(StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host_key,
            revision: store::revisions::current(&mut db).await?,
            servers,
            connected: u32::try_from(self.dispatch.connected()).unwrap_or(u32::MAX),
            users: store::users::count(&mut db).await?,
            grants: store::grants::count(&mut db).await?,
            queued,
            sent,
            failed,
            drifted: count(&numbers.drifted),
            keep_drifting: u32::try_from(drifting.values().filter(|it| it.keeps).count())
                .unwrap_or(u32::MAX),
            clocks_off: u32::try_from(store::clocks::off(&mut db, CLOCK_LIMIT).await?.len())
                .unwrap_or(u32::MAX),
            undecided: count(&numbers.undecided),
            in_sync: servers.saturating_sub(count(&out_of_sync)),
            pending_servers: count(&numbers.pending),
            failed_servers: count(&numbers.failed),
            sealed: None,
        })
    }

    fn presence(&self, server: ServerId, last_seen: Option<i64>) -> Presence {
        if self.dispatch.is_connected(server) {
            Presence::Connected
        } else if last_seen.is_some() {
            Presence::Offline
        } else {
            Presence::NeverSeen
        }
    }
}

#[cfg(test)]
mod storm;
#[cfg(test)]
mod tests;
