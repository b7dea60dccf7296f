//! What is asked of a server as a whole: sync, check, report; and ending sessions.

use std::collections::BTreeSet;
use std::time::Duration;

use bastio_protocol::api::{
    ActionState, Change, EndSessions, NewRequest, RequestKind, RequestReport,
};
use bastio_protocol::{Action, ActionMessage, ServerName, Username};
use tokio::time::Instant;

use super::changes::MAX_WAIT;
use super::edit::Edit;
use super::{Fleet, FleetError};
use crate::access::Admin;
use crate::dispatch::mid::new_mid;
use crate::dispatch::queue::Scope;
use crate::store::requests::RequestId;
use crate::store::speech::Speech;
use crate::store::{self, ServerId};

impl Fleet {
    /// Asks a server to say what would change or what there is, or to become exactly as wanted.
    ///
    /// # Errors
    /// [`FleetError::NoSuchServer`], [`FleetError::Version1`], [`FleetError::NotConnected`] for
    /// what is of no use later, [`FleetError::Store`].
    pub async fn request(
        &self,
        proof: &Admin,
        name: &ServerName,
        new: NewRequest,
    ) -> Result<RequestReport, FleetError> {
        let mut edit = Edit::begin(self, proof).await?;
        let server = edit.server(name).await?.id;
        if store::speech::spoken_by(edit.db(), server).await? == Speech::Version1 {
            return Err(FleetError::Version1(name.clone()));
        }
        if new.kind != RequestKind::Sync && !self.dispatch.is_connected(server) {
            return Err(FleetError::NotConnected(name.clone()));
        }
        let now = edit.now();
        let (kind, bold) = (new.kind, new.allow_no_admin);
        let id = store::requests::insert(edit.db(), server, kind, bold, now).await?;
        edit.note(&format!("server.{}", kind.name()), None, Some(name), "").await?;
        edit.wake(server);
        edit.keep().await?;
        Ok(self.read_request(id).await?.1)
    }

    /// A sync as the answer to an edit of which nothing else follows.
    pub(super) async fn sync_at_once(
        &self,
        proof: &Admin,
        name: &ServerName,
    ) -> Result<Change, FleetError> {
        let new = NewRequest { kind: RequestKind::Sync, allow_no_admin: false };
        let request = self.request(proof, name, new).await?;
        let mut db = self.store.read().await?;
        Ok(Change {
            revision: store::revisions::current(&mut db).await?,
            summary: format!("server {name}: sync"),
            progress: 0,
            complete: true,
            servers: Vec::new(),
            request: Some(Box::new(request)),
            preview: None,
        })
    }

    /// A request as soon as it has ended, after `wait` (at most 30 s) in any case.
    ///
    /// # Errors
    /// [`FleetError::NoSuchRequest`], [`FleetError::Store`].
    pub async fn await_request(
        &self,
        _proof: &Admin,
        id: i64,
        wait: Duration,
    ) -> Result<RequestReport, FleetError> {
        let deadline = Instant::now() + wait.min(MAX_WAIT);
        let mut steps = self.dispatch.steps();
        loop {
            steps.mark_unchanged();
            let (_, report) = self.read_request(RequestId(id)).await?;
            let over = matches!(report.state, ActionState::Done | ActionState::Failed);
            if over || !report.connected {
                return Ok(report);
            }
            let Ok(Ok(())) = tokio::time::timeout_at(deadline, steps.changed()).await else {
                return Ok(report);
            };
        }
    }

    async fn read_request(&self, id: RequestId) -> Result<(ServerId, RequestReport), FleetError> {
        let mut db = self.store.read().await?;
        let found = store::requests::report(&mut db, id).await?;
        let (server, mut report) = found.ok_or(FleetError::NoSuchRequest(id.0))?;
        report.connected = self.dispatch.is_connected(server);
        Ok((server, report))
    }

    /// Ends the sessions of every account that a person may use.
    ///
    /// # Errors
    /// [`FleetError::NoSuchUser`], [`FleetError::Store`].
    pub async fn end_sessions(
        &self,
        proof: &Admin,
        name: &Username,
        how: &EndSessions,
    ) -> Result<Change, FleetError> {
        let mut edit = Edit::begin(self, proof).await?;
        let row = edit.user(name).await?;
        let grants = store::grants::of_user(edit.db(), row.id).await?;
        let mut accounts = BTreeSet::new();
        for (server, (host, labels)) in store::servers::names_and_labels(edit.db()).await? {
            let meant = how.on.as_ref().is_none_or(|on| on.includes(&host, &labels));
            let here = grants.iter().filter(|grant| meant && grant.on.includes(&host, &labels));
            accounts
                .extend(here.map(|grant| (server, grant.login.as_ref().unwrap_or(name).clone())));
        }
        for (server, username) in accounts {
            let mid = new_mid();
            edit.enqueue(server, ActionMessage { mid, username, action: Action::EndSessions });
        }
        edit.note("user.end-sessions", Some(name), None, "").await?;
        let summary = format!("user {name}: sessions ended");
        edit.commit(&summary, &Scope::Logins(BTreeSet::new())).await
    }
}
