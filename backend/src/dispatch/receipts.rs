//! Receipts as they come in: verified against the key on record, and kept with what is wrong with them.
//!
//! A receipt counts for the action that it answers, of the server that was asked, and for the state that was ordered; a
//! replay is of another action. What does not count is kept as it came, shown as unproven, and told to the log. The
//! answer itself counts as it did before there were receipts. This file must not know who looks at them later.

use bastio_protocol::{
    Action, ActionMessage, FeedbackMessage, MessageId, Receipt, Standing, StateHash,
    StateOfAccount, Status, Username, VerifyingKey, WantedAccount, WantedState,
};
use tokio::time::Instant;

use super::meeting::Guest;
use super::queue;
use super::session::Session;
use crate::audit::{self, Actor, Event};
use crate::store::receipts::ReceiptRow;
use crate::store::{self, Connection, StoreError};

/// Longest text about a receipt, in bytes.
const MAX_WORDS: usize = 300;

impl Guest {
    /// Takes note of the key that the agent says signs its receipts: the first one is kept, another one is told to the
    /// log and counts for nothing. The one that counts.
    pub(super) async fn meet_receipt_key(
        &self,
        db: &mut Connection,
        told: Option<&VerifyingKey>,
    ) -> Result<Option<VerifyingKey>, StoreError> {
        let server = self.server.id;
        let known = store::receipts::key(db, server).await?;
        let (action, detail) = match (&known, told) {
            (None, Some(key)) => {
                store::receipts::pin(db, server, key).await?;
                ("server.receipt-key", format!("{}, said by its agent", key.fingerprint()))
            }
            (Some(known), Some(key)) if known != key => {
                let (known, key) = (known.fingerprint(), key.fingerprint());
                let detail = format!(
                    "{key} in place of {known}: its receipts prove nothing until \
                                      it is enrolled again"
                );
                ("server.receipt-key-differs", detail)
            }
            _ => return Ok(known),
        };
        tracing::warn!(server = %self.server.name, action, detail, "receipt key");
        let key = known.or(told.copied());
        if self.dispatch.drift_rows.row(server, Instant::now()).is_none() {
            return Ok(key);
        }
        let server = Some(&self.server.name);
        let event = Event { action, server, detail: &detail, ..Event::default() };
        let actor = Actor::agent(&self.server.name, self.address);
        audit::append(db, self.dispatch.store.now(), &actor, event).await?;
        Ok(key)
    }
}

impl Session {
    /// Keeps what was signed about the account of an action that went well.
    pub(super) async fn take_receipt(
        &self,
        db: &mut Connection,
        message: &ActionMessage,
        feedback: &FeedbackMessage,
    ) -> Result<(), StoreError> {
        let (server, login) = (self.server.id, &message.username);
        let Some(key) = &self.receipt_key else {
            return store::receipts::forget(db, server, login).await;
        };
        let place = (server, login.clone());
        let known = store::receipts::sequences(db, std::slice::from_ref(&place)).await?;
        let fault = match &feedback.receipt {
            None => Some("the answer had no receipt".to_owned()),
            Some(receipt) => check(receipt, key, server, message, feedback.status)
                .and_then(|()| goes_on(receipt, known.get(&place).copied()))
                .err(),
        };
        if let Some(why) = &fault {
            self.refuse(db, Some(login), why).await?;
        }
        let row = ReceiptRow { body: feedback.receipt.clone(), fault };
        store::receipts::keep(db, server, login, &row, self.dispatch.store.now()).await
    }

    /// Keeps what was signed about a whole server after a sync that went well: the last one of each server. One that is
    /// refused does not take the place of what was signed before.
    pub(super) async fn take_sync_receipt(
        &self,
        db: &mut Connection,
        wanted: &WantedState,
        feedback: &FeedbackMessage,
    ) -> Result<(), StoreError> {
        let server = self.server.id;
        let Some(key) = &self.receipt_key else { return Ok(()) };
        let Some(receipt) = feedback.receipt.as_deref() else { return Ok(()) };
        let known = store::receipts::of_sync(db, server).await?;
        let known = known.map(|known| known.occasion().sequence);
        let fault = check_sync(receipt, key, server, wanted, feedback)
            .and_then(|()| goes_on(receipt, known))
            .err();
        match fault {
            Some(why) => self.refuse(db, None, &why).await,
            None => {
                let now = self.dispatch.store.now();
                store::receipts::keep_of_sync(db, server, receipt, now).await
            }
        }
    }

    async fn refuse(
        &self,
        db: &mut Connection,
        user: Option<&Username>,
        why: &str,
    ) -> Result<(), StoreError> {
        let why = queue::for_people(why, MAX_WORDS);
        let user_name = user.map(Username::as_str);
        tracing::warn!(server = %self.server.name, user = user_name, why, "a receipt was refused");
        let event = Event {
            action: "receipt.refused",
            user,
            server: Some(&self.server.name),
            detail: &why,
            ..Event::default()
        };
        audit::append(db, self.dispatch.store.now(), &Actor::backend(), event).await
    }
}

/// Whether the receipt is the key's own, about this action on this server, and says what was ordered.
pub(super) fn check(
    receipt: &Receipt,
    key: &VerifyingKey,
    server: store::ServerId,
    message: &ActionMessage,
    status: Status,
) -> Result<(), String> {
    receipt.verify(key).map_err(|fault| fault.to_string())?;
    check_occasion(receipt, server, &message.mid, message.action.name(), status)?;
    if says(receipt, message) { Ok(()) } else { Err("it says another state".to_owned()) }
}

/// Whether the receipt is not from before the one that is known: a server never forgets which orders it has obeyed.
pub(super) fn goes_on(receipt: &Receipt, known: Option<u64>) -> Result<(), String> {
    let found = receipt.occasion().sequence;
    match known.filter(|known| found < *known) {
        None => Ok(()),
        Some(known) => {
            Err(format!("it is old: signed after order {found}, another one after order {known}"))
        }
    }
}

/// Whether the receipt is the key's own, about this sync of this server, and says what was ordered of every account that
/// it lists.
fn check_sync(
    receipt: &Receipt,
    key: &VerifyingKey,
    server: store::ServerId,
    wanted: &WantedState,
    feedback: &FeedbackMessage,
) -> Result<(), String> {
    receipt.verify(key).map_err(|fault| fault.to_string())?;
    check_occasion(receipt, server, &feedback.mid, "sync", feedback.status)?;
    for (login, account) in &wanted.accounts {
        let standing = standing(account, receipt.at());
        if receipt.state_of(login).is_some_and(|found| !is_state(login, standing, found)) {
            return Err(format!("it says another state of {login}"));
        }
    }
    Ok(())
}

/// Whether the receipt is about that order of this server.
fn check_occasion(
    receipt: &Receipt,
    server: store::ServerId,
    mid: &MessageId,
    name: &str,
    status: Status,
) -> Result<(), String> {
    let found = receipt.occasion();
    if found.server != bastio_protocol::ServerId::from_number(server.0) {
        return Err(format!("it is of the server {}", found.server));
    }
    if found.mid != *mid {
        return Err(format!("it is of another action ({})", found.mid.text()));
    }
    if (found.action.as_str(), found.status) != (name, status) {
        return Err(format!("it is of {} with {}", found.action, found.status));
    }
    Ok(())
}

/// What is left of an account that was to be so, at that time of the server's clock.
fn standing(wanted: &WantedAccount, at: i64) -> Standing<'_> {
    let is_over = wanted.until.is_some_and(|until| until <= at);
    if wanted.locked || is_over { Standing::Locked } else { Standing::Present(wanted) }
}

fn is_state(login: &Username, standing: Standing<'_>, found: StateHash) -> bool {
    [true, false]
        .into_iter()
        .any(|sessions_ended| StateOfAccount { login, standing, sessions_ended }.hash() == found)
}

/// Whether the receipt says the state that the action orders, as far as the action alone tells.
fn says(receipt: &Receipt, message: &ActionMessage) -> bool {
    let login = &message.username;
    let Some(found) = receipt.state_of(login) else { return false };
    let standing = match &message.action {
        Action::RemoveUser { .. } => return receipt.ends_access(login),
        Action::LockUser => Standing::Locked,
        Action::SetUser { wanted } => standing(wanted, receipt.at()),
        Action::AddUser { .. }
        | Action::UpdateUser { .. }
        | Action::AddKey { .. }
        | Action::RemoveKey { .. }
        | Action::UnlockUser
        | Action::EndSessions => return true,
    };
    is_state(login, standing, found)
}

#[cfg(test)]
mod tests;
