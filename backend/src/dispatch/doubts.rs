//! What an agent says of its host that somebody must know: a clock that is off, or that it runs on
//! another machine than before.

use std::collections::BTreeMap;

use bastio_protocol::api::{CLOCK_LIMIT, Question, QuestionKind};

use super::DispatchError;
use super::meeting::Guest;
use super::queue;
use super::session::Session;
use crate::audit::{self, Actor, Event};
use crate::store::questions::{self, Open};
use crate::store::{self, Connection, StoreError};

/// The fact that tells machines apart (machine-id(5)).
const MACHINE: &str = "machine_id";
/// Longest id of a machine that is kept, in bytes.
const MAX_MACHINE: usize = 64;

/// The machine that these facts are of.
pub(super) fn machine(facts: &BTreeMap<String, String>) -> Option<String> {
    let told = facts.get(MACHINE).map(|id| queue::for_people(id, MAX_MACHINE));
    told.filter(|id| !id.is_empty())
}

impl Session {
    /// The agent refused an order as too old: it is not obeyed before the clocks agree.
    ///
    /// # Errors
    /// [`DispatchError::Store`].
    pub async fn late(&self, clock_there: i64) -> Result<(), DispatchError> {
        let mut tx = self.write().await?;
        self.guest().note_clock(&mut tx, clock_there).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(())
    }

    /// The agent speaks version 1, which says no hello. A server that is taken for a machine is held thereby.
    ///
    /// # Errors
    /// [`DispatchError::Held`] when somebody must decide, [`DispatchError::Store`].
    pub async fn says_no_hello(&self) -> Result<(), DispatchError> {
        let known =
            questions::machine(&mut *self.dispatch.store.read().await?, self.server.id).await?;
        if known.is_none() {
            return Ok(());
        }
        let mut tx = self.write().await?;
        let is_it = self.guest().is_the_machine(&mut tx, &BTreeMap::new()).await?;
        tx.commit().await.map_err(StoreError::from)?;
        self.dispatch.presence.step();
        if is_it { Ok(()) } else { Err(DispatchError::Held) }
    }
}

impl Guest {
    /// Notes how far the clock of the agent's host is from ours; tells when that begins and when it
    /// ends.
    pub(super) async fn note_clock(
        &self,
        db: &mut Connection,
        there: i64,
    ) -> Result<(), StoreError> {
        let now = self.dispatch.store.now();
        let offset = there.saturating_sub(now);
        let before = store::clocks::offset(db, self.server.id).await?;
        store::clocks::set(db, self.server.id, offset).await?;
        let is_off = |offset: i64| offset.unsigned_abs() > CLOCK_LIMIT.unsigned_abs();
        let detail = match (before.is_some_and(is_off), is_off(offset)) {
            (true, false) => "its clock agrees with the backend's again".to_owned(),
            (_, true) if before.is_none_or(|before| before.abs_diff(offset) > 60) => {
                let side = if offset > 0 { "ahead of" } else { "behind" };
                format!("its clock is {} s {side} the backend's", offset.unsigned_abs())
            }
            _ => return Ok(()),
        };
        let server = &self.server.name;
        tracing::warn!(%server, seconds = offset, detail, "clocks");
        let event = Event {
            action: "server.clock",
            server: Some(server),
            detail: &detail,
            ..Event::default()
        };
        audit::append(db, now, &Actor::agent(server, self.address), event).await
    }

    /// Whether the agent runs on the machine that this server is taken for; if not, or if it does not tell any more,
    /// somebody is asked, and it gets nothing before that is answered.
    pub(super) async fn is_the_machine(
        &self,
        db: &mut Connection,
        facts: &BTreeMap<String, String>,
    ) -> Result<bool, StoreError> {
        let known = questions::machine(db, self.server.id).await?;
        let (known, told) = match (known, machine(facts)) {
            (None, None) => return Ok(true),
            (None, Some(told)) => {
                questions::set_machine(db, self.server.id, Some(&told)).await?;
                return Ok(true);
            }
            (Some(known), told) if told.as_ref() == Some(&known) => return Ok(true),
            (Some(known), told) => (known, told),
        };
        let from = self.address;
        let text = match &told {
            Some(told) => format!(
                "its agent's key is on the machine {told} now (from {from}), before it was on \
                 {known}: set up anew, or copied?"
            ),
            None => format!(
                "its agent tells no machine id any more (from {from}), before it was on {known}: \
                 is it an older agent, or was the key copied?"
            ),
        };
        let question = Question { kind: QuestionKind::Machine, holds: true, text, since: 0 };
        self.ask(db, question, &told.unwrap_or_default()).await?;
        Ok(false)
    }

    async fn ask(
        &self,
        db: &mut Connection,
        question: Question,
        subject: &str,
    ) -> Result<(), StoreError> {
        let now = self.dispatch.store.now();
        let open = Open { question: Question { since: now, ..question }, subject: subject.into() };
        if !questions::ask(db, self.server.id, &open).await? {
            return Ok(());
        }
        let (server, detail) = (&self.server.name, &open.question.text);
        tracing::warn!(%server, detail, "somebody must decide: bastio server show {server}");
        let event =
            Event { action: "server.question", server: Some(server), detail, ..Event::default() };
        audit::append(db, now, &Actor::agent(server, self.address), event).await
    }
}

#[cfg(test)]
mod tests;
