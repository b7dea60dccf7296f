//! The audit log: who did what, from where, and what came of it.
//!
//! Rows are only appended, in the transaction of what they tell about, each chained to the row
//! before. This room must not know requests or sessions, nor how the chain is verified.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use bastio_protocol::api::AuditRow;
use bastio_protocol::audit::ChainedRow;
use bastio_protocol::{ServerName, Status, Username};

use crate::store::{self, Connection, StoreError};

/// Room for the words between an action's name and what its agent says, in bytes.
const STATUS: usize = 16;

/// Who does something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    who: Who,
    from: Option<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    ApiKey(String),
    Agent(ServerName),
    Backend,
    StateOwner,
}

/// Something that happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Event<'a> {
    /// What: `user.add`, `action.done`...
    pub action: &'a str,
    /// The person or account concerned.
    pub user: Option<&'a Username>,
    /// The server concerned.
    pub server: Option<&'a ServerName>,
    /// Details for people.
    pub detail: &'a str,
    /// Why, in the words of whoever did it; empty when nothing was said.
    pub reason: &'a str,
    /// What the server answered.
    pub status: Option<Status>,
}

impl Actor {
    /// Somebody with an API key.
    #[must_use]
    pub fn api_key(name: &str, from: Option<IpAddr>) -> Self {
        Self { who: Who::ApiKey(name.to_owned()), from }
    }

    /// The API key's name, for somebody with one.
    #[must_use]
    pub fn api_key_name(&self) -> Option<&str> {
        match &self.who {
            Who::ApiKey(name) => Some(name),
            Who::Agent(_) | Who::Backend | Who::StateOwner => None,
        }
    }

    /// Where it came from, if it came over a network.
    #[must_use]
    pub fn from(&self) -> Option<IpAddr> {
        self.from
    }

    /// The agent of a server.
    #[must_use]
    pub fn agent(name: &ServerName, from: IpAddr) -> Self {
        Self { who: Who::Agent(name.clone()), from: Some(from) }
    }

    /// The backend itself.
    #[must_use]
    pub fn backend() -> Self {
        Self { who: Who::Backend, from: None }
    }

    /// Whoever owns the state folder, at the backend's own host.
    #[must_use]
    pub fn state_owner() -> Self {
        Self { who: Who::StateOwner, from: None }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Who::ApiKey(name) => write!(f, "key:{name}"),
            Who::Agent(name) => write!(f, "agent:{name}"),
            Who::Backend => f.write_str("backend"),
            Who::StateOwner => f.write_str("admin-token"),
        }
    }
}

/// Appends a row.
///
/// # Errors
/// [`StoreError`].
pub async fn append(
    db: &mut Connection,
    now: i64,
    actor: &Actor,
    event: Event<'_>,
) -> Result<(), StoreError> {
    let before = store::audit::head(db).await?;
    let mut row = row(now, actor, event);
    row.id = before.as_ref().map_or(0, |head| head.id).saturating_add(1);
    store::audit::append(db, &ChainedRow::behind(before.as_ref(), row)).await
}

/// A row that is still to be given its number.
#[must_use]
pub fn row(now: i64, actor: &Actor, event: Event<'_>) -> AuditRow {
    AuditRow {
        id: 0,
        at: now,
        actor: actor.to_string(),
        from: actor.from.map(|from| from.to_string()),
        action: event.action.to_owned(),
        user: event.user.map(ToString::to_string),
        server: event.server.map(ToString::to_string),
        detail: event.detail.to_owned(),
        reason: Some(event.reason).filter(|reason| !reason.is_empty()).map(str::to_owned),
        status: event.status,
    }
}

/// The details of an action that has ended.
#[must_use]
pub fn of_action(name: &str, status: Option<Status>, feedback: &str) -> String {
    let mut text = String::with_capacity(name.len() + feedback.len() + STATUS);
    text.push_str(name);
    text.push(':');
    if let Some(status) = status {
        // A text takes all that is written to it.
        let _ = write!(text, " {status}");
    }
    text.push(' ');
    text.push_str(feedback);
    text.truncate(text.trim_end().len());
    text
}
