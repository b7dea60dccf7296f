//! The audit log: who did what, from where, and what came of it.
//!
//! Rows are only appended, in the transaction of what they tell about. Each carries the SHA-256
//! of the row before, so that a changed, removed or reordered row shows. This room must not know
//! requests or sessions.

use std::fmt;
use std::net::IpAddr;

use bastio_protocol::api::AuditRow;
use bastio_protocol::{ServerName, Username};
use ring::digest;

use crate::store::audit::ChainedRow;
use crate::store::{self, Connection, StoreError};

/// What the first row's predecessor hashes to.
const GENESIS: &str = "";

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// What: `user.add`, `action.done`...
    pub action: &'a str,
    /// The person or account concerned.
    pub user: Option<&'a Username>,
    /// The server concerned.
    pub server: Option<&'a ServerName>,
    /// Details for people.
    pub detail: &'a str,
}

/// What a walk along the chain found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every row follows from the row before.
    Intact,
    /// This row, or one before it, was changed, removed or moved.
    BrokenAt(i64),
}

impl Actor {
    /// Somebody with an API key.
    #[must_use]
    pub fn api_key(name: &str, from: Option<IpAddr>) -> Self {
        Self { who: Who::ApiKey(name.to_owned()), from }
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
    let (last, prev_hash) =
        store::audit::last(db).await?.unwrap_or_else(|| (0, GENESIS.to_owned()));
    let row = AuditRow {
        id: last + 1,
        at: now,
        actor: actor.to_string(),
        from: actor.from.map(|from| from.to_string()),
        action: event.action.to_owned(),
        user: event.user.map(ToString::to_string),
        server: event.server.map(ToString::to_string),
        detail: event.detail.to_owned(),
    };
    let hash = hash(&prev_hash, &row);
    store::audit::append(db, &ChainedRow { row, prev_hash, hash }).await
}

/// Walks along consecutive rows.
#[must_use]
pub fn verify(rows: &[ChainedRow]) -> Verdict {
    let mut before: Option<&ChainedRow> = None;
    for row in rows {
        let follows = match before {
            None => row.row.id != 1 || row.prev_hash == GENESIS,
            Some(before) => row.row.id == before.row.id + 1 && row.prev_hash == before.hash,
        };
        if !follows || row.hash != hash(&row.prev_hash, &row.row) {
            return Verdict::BrokenAt(row.row.id);
        }
        before = Some(row);
    }
    Verdict::Intact
}

/// SHA-256 over the JSON list of the previous hash and every value of the row.
fn hash(prev_hash: &str, row: &AuditRow) -> String {
    let values = serde_json::json!([
        prev_hash, row.id, row.at, row.actor, row.from, row.action, row.user, row.server,
        row.detail
    ]);
    hex(digest::digest(&digest::SHA256, values.to_string().as_bytes()).as_ref())
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(details: &[&str]) -> Vec<ChainedRow> {
        let mut rows = Vec::<ChainedRow>::new();
        for (id, detail) in (1..).zip(details) {
            let prev_hash = rows.last().map_or_else(String::new, |row| row.hash.clone());
            let row = AuditRow {
                id,
                at: 5,
                actor: "backend".into(),
                from: None,
                action: "user.add".into(),
                user: None,
                server: None,
                detail: (*detail).to_owned(),
            };
            let hash = hash(&prev_hash, &row);
            rows.push(ChainedRow { row, prev_hash, hash });
        }
        rows
    }

    #[test]
    fn an_untouched_chain_is_intact() {
        assert_eq!(verify(&[]), Verdict::Intact);
        let rows = chain(&["a", "b", "c"]);
        assert_eq!(verify(&rows), Verdict::Intact);
        assert_eq!(verify(&rows[1..]), Verdict::Intact, "a tail of the chain");
    }

    #[test]
    fn a_changed_removed_or_moved_row_shows() {
        let mut changed = chain(&["a", "b", "c"]);
        changed[1].row.detail = "x".into();
        assert_eq!(verify(&changed), Verdict::BrokenAt(2));
        let mut removed = chain(&["a", "b", "c"]);
        removed.remove(1);
        assert_eq!(verify(&removed), Verdict::BrokenAt(3));
        let mut moved = chain(&["a", "b", "c"]);
        moved.swap(1, 2);
        assert_eq!(verify(&moved), Verdict::BrokenAt(3));
        let mut forged = chain(&["a", "b", "c"]);
        forged[0] = chain(&["x"]).remove(0);
        assert_eq!(verify(&forged), Verdict::BrokenAt(2));
    }
}
