//! The frame of every edit: one transaction, one revision, and then the sessions are woken.

use bastio_protocol::api::Change;
use bastio_protocol::{KeyPolicy, PublicKey, ServerName, Username};

use super::{Fleet, FleetError};
use crate::audit::{self, Actor, Event};
use crate::dispatch::queue::{self, Scope};
use crate::dispatch::{Dispatch, EndReason};
use crate::store::servers::ServerRow;
use crate::store::users::UserRow;
use crate::store::{self, Connection, ServerId, StoreError, Tx};

/// Longest text for people, in bytes.
const MAX_TEXT: usize = 1000;

/// An edit under way; dropped before [`Edit::commit`] it never was.
pub(super) struct Edit<'a> {
    fleet: &'a Fleet,
    actor: &'a Actor,
    tx: Tx,
    now: i64,
    notify: Notify,
}

/// The sessions to be told. Told when dropped, so that they are told even when the caller has
/// stopped waiting while the transaction is being written.
struct Notify {
    dispatch: Dispatch,
    wake: Vec<ServerId>,
    end: Vec<(ServerId, EndReason)>,
}

impl Drop for Notify {
    fn drop(&mut self) {
        for (server, reason) in &self.end {
            self.dispatch.end(*server, *reason);
        }
        for server in &self.wake {
            self.dispatch.wake(*server);
        }
        self.dispatch.step();
    }
}

impl<'a> Edit<'a> {
    /// Waits for the edits before it and begins.
    pub(super) async fn begin(fleet: &'a Fleet, actor: &'a Actor) -> Result<Self, FleetError> {
        let dispatch = fleet.dispatch.clone();
        let notify = Notify { dispatch, wake: Vec::new(), end: Vec::new() };
        Ok(Self { fleet, actor, tx: fleet.store.write().await?, now: fleet.store.now(), notify })
    }

    /// The database, within this edit.
    pub(super) fn db(&mut self) -> &mut Connection {
        &mut self.tx
    }

    /// When this edit happens.
    pub(super) fn now(&self) -> i64 {
        self.now
    }

    /// Appends to the audit log.
    pub(super) async fn note(
        &mut self,
        action: &str,
        user: Option<&Username>,
        server: Option<&ServerName>,
        detail: &str,
    ) -> Result<(), FleetError> {
        let event = Event { action, user, server, detail };
        Ok(audit::append(&mut self.tx, self.now, self.actor, event).await?)
    }

    /// Lets the server's session end once this edit is done.
    pub(super) fn end_session(&mut self, server: ServerId, reason: EndReason) {
        self.notify.end.push((server, reason));
    }

    /// Queues what follows from the edit, makes it durable and tells the sessions.
    pub(super) async fn commit(
        mut self,
        summary: &str,
        scope: &Scope,
    ) -> Result<Change, FleetError> {
        let revision = store::revisions::begin(&mut self.tx, summary, self.now).await?;
        self.notify.wake = queue::replan(&mut self.tx, revision, scope, self.now).await?;
        let Self { fleet, actor, tx, notify, .. } = self;
        let servers = notify.wake.len();
        tx.commit().await.map_err(StoreError::from)?;
        drop(notify);
        tracing::info!(revision, %actor, servers, summary, "model edited");
        fleet.read_change(revision).await
    }

    /// The person of that name.
    pub(super) async fn user(&mut self, name: &Username) -> Result<UserRow, FleetError> {
        let user = store::users::find(&mut self.tx, name).await?;
        user.ok_or_else(|| FleetError::NoSuchUser(name.clone()))
    }

    /// The server of that name.
    pub(super) async fn server(&mut self, name: &ServerName) -> Result<ServerRow, FleetError> {
        let server = store::servers::find(&mut self.tx, name).await?;
        server.ok_or_else(|| FleetError::NoSuchServer(name.clone()))
    }
}

/// Parses key lines; one that is no usable key spoils all.
pub(super) fn parse_keys(lines: &[String]) -> Result<Vec<PublicKey>, FleetError> {
    let parse = |(number, line): (usize, &String)| {
        PublicKey::parse(line, &KeyPolicy::default())
            .map_err(|fault| FleetError::BadKey { number, fault })
    };
    (1..).zip(lines).map(parse).collect()
}

/// Checks a text for people.
pub(super) fn check_text(what: &'static str, text: &str) -> Result<(), FleetError> {
    if text.len() > MAX_TEXT || text.chars().any(char::is_control) {
        return Err(FleetError::BadText { what, limit: MAX_TEXT });
    }
    Ok(())
}
