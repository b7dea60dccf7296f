//! Statements about many servers at once: what many sessions want is read and written together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bastio_protocol::api::{ActionState, AuditRow};
use bastio_protocol::audit::{ChainedRow, Head};
use bastio_protocol::{ActionMessage, MessageId, Receipt, Username};
use serde::Deserialize;

use super::accounts::parse_whole;
use super::actions::{ActionId, Ending, QueuedAction, parse_message, parse_state, queued_action};
use super::confirmed::Confirmed;
use super::sql::{Flag, Query, QueryBuilder};
use super::{Connection, ServerId, StoreError, corrupt};
use crate::plan::Account;

/// An account of a server.
pub type Place = (ServerId, Username);

/// An action that was sent, and its account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Its number.
    pub id: ActionId,
    /// What went over the wire.
    pub message: Arc<ActionMessage>,
    /// How far it is.
    pub state: ActionState,
    /// When it was queued.
    pub created: i64,
    /// The account as it is confirmed, without a plain one's keys; `None` is no account.
    pub before: Option<Confirmed>,
    /// Something was given to the account and never confirmed, a failure stands, or something older waits for its answer.
    pub uncertain: bool,
    /// A receipt of the account is kept.
    pub certified: bool,
}

/// Of these servers those that have something to be asked as a whole.
pub async fn with_requests(
    db: &mut Connection,
    servers: &[ServerId],
) -> Result<BTreeSet<ServerId>, StoreError> {
    let mut select = QueryBuilder::new(
        "SELECT DISTINCT server_id FROM requests WHERE state = 'queued' \
         AND state IN ('queued', 'sent') AND server_id IN (",
    );
    push_ids(&mut select, servers.iter().map(|id| id.0));
    select.push(")");
    let rows: Vec<ServerId> = select.build_query_scalar().fetch_all(db).await?;
    Ok(rows.into_iter().collect())
}

/// The next queued actions of these servers, so many of each at most.
pub async fn queued(
    db: &mut Connection,
    servers: &[ServerId],
    limit: i64,
) -> Result<BTreeMap<ServerId, Vec<QueuedAction>>, StoreError> {
    let mut select = QueryBuilder::new(
        "SELECT server_id, id, message, tries FROM (SELECT server_id, id, message, tries, \
         ROW_NUMBER() OVER (PARTITION BY server_id ORDER BY id) AS place FROM actions \
         WHERE state = 'queued' AND state IN ('queued', 'sent') AND server_id IN (",
    );
    push_ids(&mut select, servers.iter().map(|id| id.0));
    select.push(")) AS queue WHERE place <= ").push_bind(limit);
    let mut rows: Vec<(ServerId, ActionId, String, i64)> =
        select.build().fetch_packed("server_id, id, message, tries", db).await?;
    rows.sort_unstable_by_key(|(_, id, ..)| *id);
    let mut queues = BTreeMap::<ServerId, Vec<QueuedAction>>::new();
    for (server, id, message, tries) in rows {
        queues.entry(server).or_default().push(queued_action((id, message, tries))?);
    }
    Ok(queues)
}

/// Marks actions as sent once more.
pub async fn mark_sent(
    db: &mut Connection,
    actions: &[ActionId],
    now: i64,
) -> Result<(), StoreError> {
    let mut update = QueryBuilder::new(
        "UPDATE actions SET state = 'sent', tries = tries + 1, steps = steps + 1, sent_at = ",
    );
    update.push_bind(now).push(" WHERE id IN (");
    push_ids(&mut update, actions.iter().map(|id| id.0));
    update.push(")");
    update.build().execute(db).await?;
    Ok(())
}

/// Notes that the sessions of these servers ended.
pub async fn seen_last(
    db: &mut Connection,
    servers: &[ServerId],
    now: i64,
) -> Result<(), StoreError> {
    let mut update = QueryBuilder::new("UPDATE servers SET last_seen = ");
    update.push_bind(now).push(" WHERE id IN (");
    push_ids(&mut update, servers.iter().map(|id| id.0));
    update.push(")");
    update.build().execute(db).await?;
    Ok(())
}

/// The actions of these ids that were ever sent, by server and id. What was asked for with an id is read if it is not
/// known.
pub async fn find_sent(
    db: &mut Connection,
    asked: &[(&MessageId, Option<&Arc<ActionMessage>>)],
) -> Result<HashMap<(ServerId, String), Sent>, StoreError> {
    // No two servers have an action of the same id.
    let known = asked.iter().filter_map(|(mid, message)| Some((mid.text(), (*message)?)));
    let known: HashMap<String, &Arc<ActionMessage>> = known.collect();
    let message = if known.len() == asked.len() { "NULL" } else { "a.message" };
    // Of a login name thousands may be pending, of a server few: the index on login names must not be used (|| '').
    let mut select = QueryBuilder::new("SELECT a.server_id, a.mid, a.id, ");
    select.push(message).push(
        " AS message, a.state, a.created, c.sudo, c.doubtful, c.wanted, \
         EXISTS (SELECT 1 FROM suspects s WHERE s.server_id = a.server_id AND s.login = a.login) \
         AS suspected, \
         EXISTS (SELECT 1 FROM actions f WHERE f.standing = TRUE \
         AND f.server_id = a.server_id AND f.login = a.login) AS failed, \
         EXISTS (SELECT 1 FROM actions o WHERE o.server_id = a.server_id AND o.id < a.id \
         AND o.state IN ('queued', 'sent') AND o.login || '' = a.login) AS preceded, \
         EXISTS (SELECT 1 FROM receipts r WHERE r.server_id = a.server_id AND r.login = a.login) \
         AS certified \
         FROM actions a LEFT JOIN accounts c ON c.server_id = a.server_id AND c.login = a.login \
         WHERE a.tries > 0 AND a.mid IN (",
    );
    let mut list = select.separated(", ");
    for (mid, _) in asked {
        list.push_bind(mid.text());
    }
    select.push(")");
    let columns = "server_id, mid, id, message, state, created, sudo, doubtful, wanted, suspected, failed, \
                   preceded, certified";
    let rows: Vec<SentRow> = select.build().fetch_packed(columns, db).await?;
    let read = |row: SentRow| {
        let known = known.get(&row.mid).copied();
        row.read(known)
    };
    rows.into_iter().map(read).collect()
}

/// In the order of its columns.
#[derive(Deserialize)]
struct SentRow {
    server_id: ServerId,
    mid: String,
    id: ActionId,
    message: Option<String>,
    state: String,
    created: i64,
    // Of the account, if there is one.
    sudo: Option<Flag>,
    doubtful: Option<Flag>,
    wanted: Option<String>,
    suspected: Flag,
    failed: Flag,
    preceded: Flag,
    certified: Flag,
}

impl SentRow {
    fn read(
        self,
        known: Option<&Arc<ActionMessage>>,
    ) -> Result<((ServerId, String), Sent), StoreError> {
        let message = match (known, self.message) {
            (Some(message), _) => Arc::clone(message),
            (None, message) => Arc::new(parse_message(&message.unwrap_or_default())?),
        };
        let (id, state, created) = (self.id, parse_state(&self.state)?, self.created);
        let before = match (self.sudo, self.doubtful, self.wanted) {
            (Some(_), Some(Flag(doubtful)), Some(whole)) => {
                Some(Confirmed { account: parse_whole(&whole)?.into(), doubtful })
            }
            (Some(Flag(sudo)), Some(Flag(doubtful)), None) => {
                Some(Confirmed { account: Account { sudo, ..Account::default() }, doubtful })
            }
            _ => None,
        };
        let uncertain = self.suspected.0 || self.failed.0 || self.preceded.0;
        let certified = self.certified.0;
        let sent = Sent { id, message, state, created, before, uncertain, certified };
        Ok(((self.server_id, self.mid), sent))
    }
}

/// What forgets what servers have signed about these accounts.
pub fn forget_receipts<'q>(places: &[Place]) -> Option<Query<'q>> {
    if places.is_empty() {
        return None;
    }
    let mut delete = QueryBuilder::new("DELETE FROM receipts WHERE (server_id, login) IN (");
    push_places(&mut delete, places);
    delete.push(")");
    Some(delete.build())
}

/// What keeps the good receipts that servers have signed last about accounts of which none is kept.
pub fn keep_receipts<'q>(
    receipts: &[(Place, Box<Receipt>)],
    now: i64,
) -> Result<Option<Query<'q>>, StoreError> {
    if receipts.is_empty() {
        return Ok(None);
    }
    let mut kept = Vec::with_capacity(receipts.len());
    for (place, receipt) in receipts {
        kept.push((place, serde_json::to_string(receipt).map_err(corrupt("a receipt"))?));
    }
    let mut insert = QueryBuilder::new("INSERT INTO receipts (server_id, login, received, body) ");
    insert.push_values(kept, |mut row, ((server, login), body)| {
        row.push_bind(*server).push_bind(login.to_string()).push_bind(now).push_bind(body);
    });
    Ok(Some(insert.build()))
}

/// What ends actions that were done.
pub fn finish(done: &[(ActionId, Ending)], now: i64) -> Query<'_> {
    let mut update = QueryBuilder::new(
        "UPDATE actions SET state = 'done', standing = FALSE, status = ending.column2, \
         feedback = ending.column3, detail = ending.column4, steps = steps + 1, finished_at = ",
    );
    update.push_bind(now).push(" FROM (");
    update.push_values(done, |mut row, (id, ending)| {
        row.push_bind(*id).push_bind(ending.status.map(|status| i64::from(status.code())));
        row.push_bind(ending.feedback.as_str()).push_bind(&ending.detail);
    });
    update.push(") AS ending WHERE actions.id = ending.column1");
    update.build()
}

/// What appends rows to the audit log, chained to its last one, `head`. Their numbers are given here.
pub fn append(mut head: Option<Head>, rows: Vec<AuditRow>) -> Query<'static> {
    let mut chained = Vec::with_capacity(rows.len());
    for mut row in rows {
        row.id = head.as_ref().map_or(0, |head| head.id).saturating_add(1);
        let row = ChainedRow::behind(head.as_ref(), row);
        head = Some(row.head());
        chained.push(row);
    }
    let mut insert = QueryBuilder::new(
        "INSERT INTO audit (id, at, actor, origin, action, username, server, detail, reason, \
         status, prev_hash, hash) ",
    );
    insert.push_values(chained, |mut values, chained| {
        let row = chained.row;
        values.push_bind(row.id).push_bind(row.at).push_bind(row.actor).push_bind(row.from);
        values.push_bind(row.action).push_bind(row.user).push_bind(row.server);
        values.push_bind(row.detail).push_bind(row.reason);
        values.push_bind(row.status.map(|status| i64::from(status.code())));
        values.push_bind(chained.prev_hash).push_bind(chained.hash);
    });
    insert.build()
}

pub(super) fn push_ids(builder: &mut QueryBuilder<'_>, ids: impl IntoIterator<Item = i64>) {
    let mut list = builder.separated(", ");
    for id in ids {
        list.push_bind(id);
    }
}

pub(super) fn push_places(builder: &mut QueryBuilder<'_>, places: &[Place]) {
    builder.push_values(places, |mut row, (server, login)| {
        row.push_bind(*server).push_bind(login.to_string());
    });
}
