//! The frame of every edit: one transaction, one revision, and then the sessions are woken.

use std::collections::BTreeSet;
use std::sync::Arc;

use bastio_protocol::api::{Change, UserGroup};
use bastio_protocol::{AccountSpec, ActionMessage, KeyPolicy, PublicKey, ServerName, Username};

use super::begun::Begun;
use super::history::{History, Thing};
use super::{Fleet, FleetError, overtaken, rails, uids};
use crate::access::{Admin, Intent};
use crate::approvals::{self, Approval};
use crate::audit::{self, Actor, Event};
use crate::dispatch::later;
use crate::dispatch::prompt::Prompt;
use crate::dispatch::queue::{self, Replanned, Scope};
use crate::dispatch::{Dispatch, EndReason};
use crate::plan;
use crate::store::groups::GroupId;
use crate::store::servers::ServerRow;
use crate::store::users::UserRow;
use crate::store::{self, Connection, ServerId, StoreError, Tx};

/// Longest text for people, in bytes.
const MAX_TEXT: usize = 1000;

/// An edit under way; dropped before [`Edit::commit`] it never was.
pub(super) struct Edit<'a> {
    fleet: &'a Fleet,
    actor: &'a Actor,
    intent: Intent,
    /// What it carries out, if not a single command.
    by: Option<&'static str>,
    /// Whether an operator asks, and a second one's word for it.
    asked: bool,
    approval: Option<Arc<Approval>>,
    /// What it adds to what makes root beside what the model says.
    gains: BTreeSet<String>,
    tx: Tx,
    now: i64,
    notify: Notify,
    /// What is queued beside what follows from the model.
    extra: Vec<(ServerId, ActionMessage)>,
    /// Whether grants that contradict each other are refused.
    strict: bool,
    /// How what it changes was before.
    history: History,
}

/// The sessions to be told.
struct Notify {
    dispatch: Dispatch,
    wake: Vec<ServerId>,
    end: Vec<(ServerId, EndReason)>,
    rename: Vec<(ServerId, ServerName)>,
    /// What is handed over to sessions once it is on the disk.
    prompt: Option<Prompt>,
}

impl Notify {
    /// Makes an edit durable, tells the sessions, and lets `then` be done. All of it comes to its end even when the caller
    /// stops waiting: what is on the disk as sent has to be handed over.
    async fn commit(
        mut self,
        tx: Tx,
        then: impl FnOnce() + Send + 'static,
    ) -> Result<(), StoreError> {
        let dispatch = self.dispatch.clone();
        let committed = dispatch.finish(async move {
            let committed = tx.commit().await;
            match (self.prompt.take(), &committed) {
                (Some(prompt), Ok(())) => prompt.hand_over(),
                (Some(prompt), Err(_)) => prompt.has_failed(),
                (None, _) => {}
            }
            if committed.is_ok() {
                self.tell();
                then();
            }
            committed
        });
        Ok(committed.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))?)
    }

    fn tell(self) {
        for (server, name) in &self.rename {
            self.dispatch.rename(*server, name);
        }
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
    /// Whose edit it is, for the keys that it brings.
    pub(super) fn origin(&self) -> String {
        match self.by {
            Some(by) => format!("{}, {by}", self.actor),
            None => self.actor.to_string(),
        }
    }

    /// It carries out `what`: a policy file, an undo.
    pub(super) fn comes_by(&mut self, what: &'static str) {
        self.by = Some(what);
    }

    /// Waits for the edits before it and begins.
    pub(super) async fn begin(fleet: &'a Fleet, proof: &'a Admin) -> Result<Self, FleetError> {
        let mut edit = Self::begin_as(fleet, proof.actor()).await?;
        (edit.intent, edit.asked) = (proof.intent(), true);
        edit.approval = proof.approval().cloned();
        if let Some(seen) = edit.intent.if_revision {
            overtaken::check(edit.db(), seen).await?;
        }
        Ok(edit)
    }

    /// As [`Edit::begin`], for who is no operator.
    pub(super) async fn begin_as(fleet: &'a Fleet, actor: &'a Actor) -> Result<Self, FleetError> {
        let dispatch = fleet.dispatch.clone();
        let (wake, end, rename) = (Vec::new(), Vec::new(), Vec::new());
        let notify = Notify { dispatch, wake, end, rename, prompt: None };
        let (tx, now) = (fleet.store.write().await?, fleet.store.now());
        let (intent, extra) = (Intent::default(), Vec::new());
        let (asked, approval, gains) = (false, None, BTreeSet::new());
        let history = History::default();
        let strict = true;
        Ok(Self {
            fleet,
            actor,
            intent,
            by: None,
            asked,
            approval,
            gains,
            tx,
            now,
            notify,
            extra,
            strict,
            history,
        })
    }

    /// Lets this edit happen although grants contradict each other, or it needs a confirmation:
    /// nobody is there to hear why not. What contradicts is left out.
    pub(super) fn nobody_is_asked(&mut self) {
        self.strict = false;
    }

    /// The database, within this edit.
    pub(super) fn db(&mut self) -> &mut Connection {
        &mut self.tx
    }

    /// Keeps in mind how that was before this edit changes it; called before each change.
    pub(super) async fn remember(&mut self, thing: Thing<'_>) -> Result<(), FleetError> {
        Ok(self.history.remember(&mut self.tx, thing).await?)
    }

    /// The model's history from that revision on leads back to it.
    pub(super) fn oldest(&self, revision: i64) -> i64 {
        revision.saturating_sub(self.fleet.history)
    }

    /// When this edit happens.
    pub(super) fn now(&self) -> i64 {
        self.now
    }

    /// Refuses names of accounts that belong to the system.
    pub(super) fn check_login(&self, login: &Username) -> Result<(), FleetError> {
        self.fleet.check_login(login)
    }

    /// Appends to the audit log.
    pub(super) async fn note(
        &mut self,
        action: &str,
        user: Option<&Username>,
        server: Option<&ServerName>,
        detail: &str,
    ) -> Result<(), FleetError> {
        self.record(Event { action, user, server, detail, ..Event::default() }).await
    }

    /// Appends to the audit log what has a reason of its own.
    pub(super) async fn record(&mut self, event: Event<'_>) -> Result<(), FleetError> {
        Ok(audit::append(&mut self.tx, self.now, self.actor, event).await?)
    }

    /// Whether the edit is only worked out.
    pub(super) fn is_tried(&self) -> bool {
        self.intent.dry_run
    }

    /// Lets the server's session end once this edit is done.
    pub(super) fn end_session(&mut self, server: ServerId, reason: EndReason) {
        self.notify.end.push((server, reason));
    }

    /// Lets the server's session know its new name once this edit is done.
    pub(super) fn rename_session(&mut self, server: ServerId, name: &ServerName) {
        self.notify.rename.push((server, name.clone()));
    }

    /// Lets the server's session look for work once this edit is done.
    pub(super) fn wake(&mut self, server: ServerId) {
        self.notify.wake.push(server);
    }

    /// Queues an action that does not follow from the model.
    pub(super) fn enqueue(&mut self, server: ServerId, message: ActionMessage) {
        self.extra.push((server, message));
        self.wake(server);
    }

    /// Queues what follows from the edit, makes it durable and tells the sessions.
    pub(super) async fn commit(
        mut self,
        summary: &str,
        scope: &Scope,
    ) -> Result<Change, FleetError> {
        self.assign_uids(scope).await?;
        let revision = store::revisions::begin(&mut self.tx, summary, self.now).await?;
        store::revisions::by(&mut self.tx, revision, &self.actor.to_string()).await?;
        let mut planned = queue::replan(&mut self.tx, revision, scope, self.now).await?;
        for conflict in &planned.conflicts {
            if self.strict {
                return Err(FleetError::Conflict(conflict.clone()));
            }
            tracing::warn!(%conflict, "left out: the grants of this account contradict each other");
        }
        if self.strict {
            let to_come = later::conflict_to_come(&mut self.tx, scope, self.now).await?;
            if let Some((at, conflict)) = to_come {
                return Err(FleetError::ConflictLater { at, conflict });
            }
        }
        if self.intent.dry_run {
            return self.tried(revision, summary, &planned, scope).await;
        }
        if self.strict && !self.intent.confirmed {
            let stops = rails::stops(self.fleet, &mut self.tx, &planned, scope).await?;
            if !stops.is_empty() {
                return Err(FleetError::NeedsConfirmation(stops));
            }
        }
        let gains = self.gains(scope).await?;
        approvals::check(true, self.approval.as_deref(), gains)
            .map_err(FleetError::NeedsApproval)?;
        self.end_proposal().await?;
        self.enqueue_all(revision, &mut planned).await?;
        let oldest = self.oldest(revision);
        store::history::made_by(&mut self.tx, revision, &self.actor.to_string()).await?;
        self.history.keep(&mut self.tx, revision, oldest).await?;
        let touched = planned.servers.iter().map(|server| server.id);
        let prompt = self.notify.prompt.as_ref();
        let begun = prompt.filter(|_| self.extra.is_empty());
        let begun = begun.and_then(|prompt| Begun::of(&planned, prompt));
        let is_left = |server: &ServerId| prompt.is_none_or(|prompt| !prompt.includes(*server));
        self.notify.wake.extend(touched.filter(is_left));
        let servers = planned.servers.len();
        let Self { fleet, actor, tx, notify, .. } = self;
        let (turns, actor, text) = (Arc::clone(&fleet.turns), actor.clone(), summary.to_owned());
        let then = move || {
            turns.notify_one();
            tracing::info!(revision, %actor, servers, summary = text, "model edited");
        };
        notify.commit(tx, then).await?;
        match begun.and_then(|begun| begun.change(fleet, revision, summary)) {
            Some(change) => Ok(change),
            None => fleet.read_change(revision).await,
        }
    }

    /// Queues what follows from the edit, and what was queued beside it.
    async fn enqueue_all(
        &mut self,
        revision: i64,
        planned: &mut Replanned,
    ) -> Result<(), FleetError> {
        let (dispatch, queue) = (self.notify.dispatch.clone(), std::mem::take(&mut planned.queue));
        let mut prompt = dispatch.enqueue(&mut self.tx, revision, queue, self.now).await?;
        if !planned.only_gives() {
            prompt.hurry();
        }
        self.notify.prompt = Some(prompt);
        Ok(store::actions::enqueue(&mut self.tx, &[revision], &self.extra, self.now).await?)
    }

    /// Says of something that it makes root, which the model does not.
    pub(super) fn makes_root(&mut self, what: String) {
        self.gains.insert(what);
    }

    /// Refuses to leave to the host what makes root, where that needs a second operator: the account
    /// would keep it, and the model would not say so.
    pub(super) fn check_left(
        &self,
        old: &AccountSpec,
        new: &AccountSpec,
    ) -> Result<(), FleetError> {
        match plan::left_behind(old, new, &self.fleet.root_groups) {
            Some(what) if self.fleet.needs_approval => Err(FleetError::LeftBehind(what)),
            _ => Ok(()),
        }
    }

    /// What the edit adds to what makes root, where that needs a second operator.
    async fn gains(&mut self, scope: &Scope) -> Result<BTreeSet<String>, FleetError> {
        if !self.fleet.needs_approval || !self.asked {
            return Ok(BTreeSet::new());
        }
        let mut gains = std::mem::take(&mut self.gains);
        let store = &self.fleet.store;
        let (tx, groups) = (&mut self.tx, &self.fleet.root_groups);
        gains.extend(super::approvals::gained(store, tx, scope, groups, self.now).await?);
        Ok(gains)
    }

    /// Ends the proposal that this edit carries out, if it does.
    async fn end_proposal(&mut self) -> Result<(), FleetError> {
        match &self.approval {
            Some(approval) if !approval.carry_out(&mut self.tx, self.now).await? => {
                Err(FleetError::ProposalEnded(approval.id()))
            }
            _ => Ok(()),
        }
    }

    /// Gives numeric ids to login names that get their first grant.
    async fn assign_uids(&mut self, scope: &Scope) -> Result<(), FleetError> {
        let (Some(range), Some(logins)) = (self.fleet.uids, scope.logins()) else { return Ok(()) };
        match uids::assign(&mut self.tx, range, logins, self.now).await? {
            Ok(()) => Ok(()),
            Err(login) if self.strict => Err(FleetError::NoUidLeft(login)),
            Err(login) => {
                tracing::warn!(%login, "no numeric id is left in [uids]: servers choose one");
                Ok(())
            }
        }
    }

    /// What the edit would do; it never was.
    async fn tried(
        mut self,
        revision: i64,
        summary: &str,
        planned: &Replanned,
        scope: &Scope,
    ) -> Result<Change, FleetError> {
        if !self.extra.is_empty() {
            return Err(FleetError::NotTriable);
        }
        let mut preview = rails::preview(self.fleet, &mut self.tx, planned, scope).await?;
        preview.approval = self.gains(scope).await?.into_iter().collect();
        Ok(Change {
            revision,
            summary: summary.to_owned(),
            progress: 0,
            complete: true,
            servers: Vec::new(),
            request: None,
            preview: Some(Box::new(preview)),
        })
    }

    /// Ends an edit that changes nothing: the model stays at its revision.
    pub(super) async fn unchanged(mut self) -> Result<Change, FleetError> {
        Ok(Change {
            revision: store::revisions::current(&mut self.tx).await?,
            summary: "nothing to change".to_owned(),
            progress: 0,
            complete: true,
            servers: Vec::new(),
            request: None,
            preview: self.intent.dry_run.then(Box::default),
        })
    }

    /// Makes an edit durable from which nothing follows for any server.
    pub(super) async fn keep(mut self) -> Result<(), FleetError> {
        if self.intent.dry_run {
            return Err(FleetError::NotTriable);
        }
        self.end_proposal().await?;
        let next = store::revisions::current(&mut self.tx).await?.saturating_add(1);
        let oldest = self.oldest(next);
        self.history.keep(&mut self.tx, next, oldest).await?;
        let Self { tx, notify, .. } = self;
        Ok(notify.commit(tx, || {}).await?)
    }

    /// The person of that name.
    pub(super) async fn user(&mut self, name: &Username) -> Result<UserRow, FleetError> {
        let user = store::users::find(&mut self.tx, name).await?;
        user.ok_or_else(|| FleetError::NoSuchUser(name.clone()))
    }

    /// The group of that name.
    pub(super) async fn group(&mut self, name: &UserGroup) -> Result<GroupId, FleetError> {
        let group = store::groups::find(&mut self.tx, name).await?;
        group.ok_or_else(|| FleetError::NoSuchGroup(name.clone()))
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
