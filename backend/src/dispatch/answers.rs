//! What an agent's answer changes: the action ends, and what is known of the account follows. Must not know how answers
//! come in, nor what goes to agents.

use bastio_protocol::api::ActionState;
use bastio_protocol::{Action, ActionMessage, FeedbackMessage, Status};

use super::queue;
use super::session::{MAX_DETAIL, MAX_FEEDBACK, Session};
use crate::audit::{self, Actor, Event};
use crate::plan::Step;
use crate::store::actions::{Ending, KnownAction, QueuedAction, step};
use crate::store::requests::detail_text;
use crate::store::{self, Connection, StoreError};

impl Session {
    /// Carries an answer out; whether that queued something more.
    pub(super) async fn take_answer(
        &self,
        db: &mut Connection,
        known: KnownAction,
        feedback: &FeedbackMessage,
    ) -> Result<bool, StoreError> {
        if self.wants_second_try(&known, feedback.status) {
            store::actions::requeue(db, known.action.id).await?;
            return Ok(true);
        }
        let success = feedback.status.is_success();
        if success {
            let asked = step(known.action.message.clone());
            store::accounts::confirm(db, self.server.id, &asked).await?;
            // The original's add-user does not look at the rights of an account that exists.
            let sudo_is_known = !(self.info.legacy && feedback.status == Status::Unchanged);
            store::suspects::resolve(db, self.server.id, &asked, sudo_is_known).await?;
            if let Action::SetUser { wanted } = &asked.action
                && wanted.release.is_some()
            {
                store::adoptions::forget(db, self.server.id, &asked.login).await?;
            }
            self.doubt(db, asked, feedback.status).await?;
            self.take_receipt(db, &known.action.message, feedback).await?;
        }
        let ending = Ending {
            state: if success { ActionState::Done } else { ActionState::Failed },
            status: Some(feedback.status),
            feedback: queue::for_people(&feedback.feedback, MAX_FEEDBACK),
            detail: feedback.detail.as_deref().and_then(|detail| detail_text(detail, MAX_DETAIL)),
        };
        let waited = self.dispatch.store.now().saturating_sub(known.created);
        self.dispatch.meter.ended(feedback.status, waited);
        self.end(db, &known.action, &ending).await
    }

    /// Ends an action; whether that queued something more.
    pub(super) async fn end(
        &self,
        db: &mut Connection,
        action: &QueuedAction,
        ending: &Ending,
    ) -> Result<bool, StoreError> {
        let now = self.dispatch.store.now();
        store::actions::finish(db, action.id, ending, now).await?;
        let message = &action.message;
        self.note(db, message, ending).await?;
        if ending.state == ActionState::Failed && action.tries > 0 {
            self.suspect(db, message).await?;
        }
        let status = ending.status.map(Status::code);
        tracing::info!(server = %self.server.name, mid = %message.mid.text(),
            action = message.action.name(), user = %message.username, status, "action ended");
        queue::settle(db, self.server.id, &message.username, action.id, now).await
    }

    /// Keeps in mind that what was sent and failed may have been done all the same. The removal of
    /// an account that was never confirmed is not tried again, see [`crate::plan`].
    async fn suspect(&self, db: &mut Connection, failed: &ActionMessage) -> Result<(), StoreError> {
        let login = &failed.username;
        if !matches!(failed.action, Action::RemoveUser { .. }) {
            return store::suspects::add(db, self.server.id, &step(failed.clone())).await;
        }
        if !store::suspects::give_up(db, self.server.id, login).await? {
            return Ok(());
        }
        let event = Event {
            action: "account.unknown",
            user: Some(login),
            server: Some(&self.server.name),
            detail: "neither add-user nor remove-user was confirmed, and no removal follows: look \
                     at the account on the server",
            ..Event::default()
        };
        audit::append(db, self.dispatch.store.now(), &Actor::backend(), event).await
    }

    async fn note(
        &self,
        db: &mut Connection,
        message: &ActionMessage,
        ending: &Ending,
    ) -> Result<(), StoreError> {
        let detail = audit::of_action(message.action.name(), ending.status, &ending.feedback);
        let done = ending.state == ActionState::Done;
        let event = Event {
            action: if done { "action.done" } else { "action.failed" },
            user: Some(&message.username),
            server: Some(&self.server.name),
            detail: &detail,
            status: ending.status,
            ..Event::default()
        };
        let actor = Actor::agent(&self.server.name, self.info.address);
        audit::append(db, self.dispatch.store.now(), &actor, event).await
    }

    /// The original's remove-user answers 500 for a missing mail spool although the account is
    /// gone; asked again, it says 300 when it is and 500 when it is not.
    fn wants_second_try(&self, known: &KnownAction, status: Status) -> bool {
        let removes = matches!(known.action.message.action, Action::RemoveUser { .. });
        self.info.legacy && removes && !status.is_success() && known.action.tries < 2
    }

    /// The original's add-user answers 300 for an account that exists without bringing its sudo
    /// rights in line: they do not count as given, and are asked for once more.
    async fn doubt(
        &self,
        db: &mut Connection,
        mut done: Step,
        status: Status,
    ) -> Result<(), StoreError> {
        let Action::AddUser { sudo } = &mut done.action else { return Ok(()) };
        if self.info.legacy && status == Status::Unchanged && *sudo {
            *sudo = false;
            store::accounts::confirm(db, self.server.id, &done).await?;
            store::accounts::set_doubtful(db, self.server.id, &done.login, true).await?;
        }
        Ok(())
    }
}
