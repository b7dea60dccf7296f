//! Rows of actions: every server's queue, and what became of each action.
//!
//! An action is queued, sent, then done or failed; a lost connection takes it from sent back to
//! queued. Every change of state is one step more.
//!
//! Queries for one state of the two pending ones repeat the condition of the index on them, which
//! is used only where it stands word for word.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use bastio_protocol::api::ActionState;
use bastio_protocol::{ActionMessage, KeyPolicy, Message, MessageId, Status, Username};

use super::sql::{Query, QueryBuilder};
use super::{Connection, ServerId, StoreError, sql};
use crate::plan::Step;

/// Rows of one INSERT; ten values each stay far below the engine's limit of 32766.
const ROWS_AT_ONCE: usize = 500;
/// Login names that one query names.
const LOGINS_AT_ONCE: usize = 5000;

/// An action's number; its order in the queue of its server.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type, serde::Deserialize,
)]
#[sqlx(transparent)]
pub struct ActionId(pub i64);

/// An action as it stands in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedAction {
    /// Its number.
    pub id: ActionId,
    /// What goes over the wire.
    pub message: ActionMessage,
    /// How often it was sent.
    pub tries: u32,
}

/// An action that a feedback may answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownAction {
    /// The action.
    pub action: QueuedAction,
    /// How far it is.
    pub state: ActionState,
    /// When it was queued.
    pub created: i64,
}

/// How an action ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// [`ActionState::Done`] or [`ActionState::Failed`].
    pub state: ActionState,
    /// The agent's status, if an agent answered.
    pub status: Option<Status>,
    /// The agent's words, or the backend's if no agent was asked.
    pub feedback: String,
    /// The agent's words for programs, as JSON.
    pub detail: Option<String>,
}

type Pending = BTreeMap<ServerId, Vec<QueuedAction>>;
type QueuedColumns = (ActionId, String, i64);

/// Puts actions at the end of their servers' queues, and lets these revisions wait for them.
pub async fn enqueue(
    db: &mut Connection,
    revisions: &[i64],
    actions: &[(ServerId, ActionMessage)],
    now: i64,
) -> Result<(), StoreError> {
    enqueue_or_send(db, revisions, actions, |_| false, now).await
}

/// As [`enqueue`]; those of servers that get theirs as soon as it is on the disk are sent by then.
pub async fn enqueue_or_send<M: Borrow<ActionMessage>>(
    db: &mut Connection,
    revisions: &[i64],
    actions: &[(ServerId, M)],
    is_sent: impl Fn(ServerId) -> bool,
    now: i64,
) -> Result<(), StoreError> {
    if actions.is_empty() {
        return Ok(());
    }
    let before: i64 =
        sql::query_scalar("SELECT COALESCE(MAX(id), 0) FROM actions").fetch_one(&mut *db).await?;
    let mut inserts = actions.chunks(ROWS_AT_ONCE).map(|some| insert(some, &is_sent, now));
    let mut next = inserts.next();
    while let Some(insert) = next {
        // While the database works, the next is prepared.
        let (inserted, prepared) = tokio::join!(insert.execute(&mut *db), async { inserts.next() });
        inserted?;
        next = prepared;
    }
    // Nobody else writes meanwhile: all that is newer is ours.
    let link = "INSERT INTO revision_actions (revision, action_id) \
                SELECT $1, id FROM actions WHERE id > $2";
    for revision in revisions {
        sql::query(link).bind(*revision).bind(before).execute(&mut *db).await?;
    }
    Ok(())
}

/// What puts these at the end of their servers' queues.
fn insert<'q, M: Borrow<ActionMessage>>(
    actions: &'q [(ServerId, M)],
    is_sent: impl Fn(ServerId) -> bool,
    now: i64,
) -> Query<'q> {
    let mut insert = QueryBuilder::new(
        "INSERT INTO actions \
         (mid, server_id, login, action, message, state, steps, tries, created, sent_at) ",
    );
    insert.push_values(actions, |mut row, (server, message)| {
        let message = message.borrow();
        let (state, steps, tries, sent_at) = match is_sent(*server) {
            true => (ActionState::Sent, 2_i64, 1_i64, Some(now)),
            false => (ActionState::Queued, 1, 0, None),
        };
        row.push_bind(message.mid.text())
            .push_bind(*server)
            .push_bind(message.username.as_str())
            .push_bind(message.action.name())
            .push_bind(String::from_utf8_lossy(&message.to_json()).into_owned())
            .push_bind(state_name(state))
            .push_bind(steps)
            .push_bind(tries)
            .push_bind(now)
            .push_bind(sent_at);
    });
    insert.build()
}

/// The servers that something is queued for, or was sent to and not answered.
pub async fn busy(db: &mut Connection) -> Result<BTreeSet<ServerId>, StoreError> {
    let select = "SELECT DISTINCT server_id FROM actions WHERE state IN ('queued', 'sent') \
                  UNION SELECT server_id FROM requests WHERE state IN ('queued', 'sent')";
    let rows: Vec<(ServerId,)> = sql::query(select).fetch_packed("server_id", db).await?;
    Ok(rows.into_iter().map(|(server,)| server).collect())
}

/// The next queued actions of a server.
pub async fn queued(
    db: &mut Connection,
    server: ServerId,
    limit: i64,
) -> Result<Vec<QueuedAction>, StoreError> {
    let rows: Vec<QueuedColumns> = sql::query_as(
        "SELECT id, message, tries FROM actions WHERE server_id = $1 AND state = 'queued' \
         AND state IN ('queued', 'sent') ORDER BY id LIMIT $2",
    )
    .bind(server)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(queued_action).collect()
}

/// Everything queued or sent for a server, in order.
pub async fn pending_of_server(
    db: &mut Connection,
    server: ServerId,
) -> Result<Vec<QueuedAction>, StoreError> {
    let rows: Vec<QueuedColumns> = sql::query_as(
        "SELECT id, message, tries FROM actions WHERE server_id = $1 \
         AND state IN ('queued', 'sent') ORDER BY id",
    )
    .bind(server)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(queued_action).collect()
}

/// Everything queued or sent for a login name on all servers, in order.
pub async fn pending_of_login(
    db: &mut Connection,
    login: &Username,
) -> Result<Pending, StoreError> {
    let mut rows: Vec<(ServerId, ActionId, String, i64)> = sql::query(
        "SELECT server_id, id, message, tries FROM actions WHERE login = $1 \
         AND state IN ('queued', 'sent')",
    )
    .bind(login.as_str())
    .fetch_packed("server_id, id, message, tries", db)
    .await?;
    rows.sort_unstable_by_key(|(_, id, ..)| *id);
    let mut servers = Pending::new();
    for (server, id, message, tries) in rows {
        servers.entry(server).or_default().push(queued_action((id, message, tries))?);
    }
    Ok(servers)
}

/// Marks an action as sent once more.
pub async fn mark_sent(db: &mut Connection, id: ActionId, now: i64) -> Result<(), StoreError> {
    sql::query(
        "UPDATE actions SET state = 'sent', tries = tries + 1, steps = steps + 1, sent_at = $1 \
         WHERE id = $2",
    )
    .bind(now)
    .bind(id)
    .execute(db)
    .await?;
    Ok(())
}

/// Puts one action back into its queue, at its old place.
pub async fn requeue(db: &mut Connection, id: ActionId) -> Result<(), StoreError> {
    sql::query("UPDATE actions SET state = 'queued', steps = steps + 1 WHERE id = $1")
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// The action of that id, if it is one of this server and was ever sent.
pub async fn find_sent(
    db: &mut Connection,
    server: ServerId,
    mid: &MessageId,
) -> Result<Option<KnownAction>, StoreError> {
    let row: Option<(ActionId, String, String, i64, i64)> = sql::query_as(
        "SELECT id, message, state, tries, created FROM actions \
         WHERE mid = $1 AND server_id = $2 AND tries > 0",
    )
    .bind(mid.text())
    .bind(server)
    .fetch_optional(db)
    .await?;
    let Some((id, message, state, tries, created)) = row else { return Ok(None) };
    let action = queued_action((id, message, tries))?;
    if action.message.mid != *mid {
        return Ok(None);
    }
    Ok(Some(KnownAction { action, state: parse_state(&state)?, created }))
}

/// Whether something older for the same account is queued, or was sent to and not answered.
pub async fn is_preceded(
    db: &mut Connection,
    server: ServerId,
    action: &QueuedAction,
) -> Result<bool, StoreError> {
    // The server's index, not that of the login name, of which thousands may be pending.
    let older = "SELECT 1 FROM actions WHERE server_id = $1 AND login || '' = $2 AND id < $3 \
                 AND state IN ('queued', 'sent') LIMIT 1";
    let older = sql::query(older).bind(server).bind(action.message.username.as_str());
    Ok(older.bind(action.id).exists(db).await?)
}

/// Ends an action.
pub async fn finish(
    db: &mut Connection,
    id: ActionId,
    ending: &Ending,
    now: i64,
) -> Result<(), StoreError> {
    sql::query(
        "UPDATE actions SET state = $1, standing = $2, status = $3, feedback = $4, \
         detail = $5, finished_at = $6, steps = steps + 1 WHERE id = $7",
    )
    .bind(state_name(ending.state))
    .bind(ending.state == ActionState::Failed)
    .bind(ending.status.map(|status| i64::from(status.code())))
    .bind(&ending.feedback)
    .bind(&ending.detail)
    .bind(now)
    .bind(id)
    .execute(db)
    .await?;
    Ok(())
}

/// Ends actions that were never sent and are not needed any more.
pub async fn end_unsent(
    db: &mut Connection,
    actions: &[ActionId],
    state: ActionState,
    reason: &str,
    now: i64,
) -> Result<(), StoreError> {
    for chunk in actions.chunks(ROWS_AT_ONCE) {
        let mut update = QueryBuilder::new("UPDATE actions SET state = ");
        update.push_bind(state_name(state)).push(", feedback = ");
        update.push_bind(reason).push(", finished_at = ").push_bind(now);
        update.push(", steps = steps + 1 WHERE id IN (");
        let mut list = update.separated(", ");
        for id in chunk {
            list.push_bind(*id);
        }
        update.push(")");
        update.build().execute(&mut *db).await?;
    }
    Ok(())
}

/// Ends everything pending of a server that is being removed.
pub async fn abandon(
    db: &mut Connection,
    server: ServerId,
    reason: &str,
    now: i64,
) -> Result<(), StoreError> {
    sql::query(
        "UPDATE actions SET state = 'failed', feedback = $1, finished_at = $2, \
         steps = steps + 1 WHERE server_id = $3 AND state IN ('queued', 'sent')",
    )
    .bind(reason)
    .bind(now)
    .bind(server)
    .execute(&mut *db)
    .await?;
    sql::query("UPDATE actions SET standing = FALSE WHERE server_id = $1 AND standing = TRUE")
        .bind(server)
        .execute(db)
        .await?;
    Ok(())
}

/// Whether anything is queued or sent for an account of a server.
pub async fn is_pending(
    db: &mut Connection,
    server: ServerId,
    login: &Username,
) -> Result<bool, StoreError> {
    Ok(sql::query(
        "SELECT 1 FROM actions WHERE server_id = $1 AND login = $2 \
         AND state IN ('queued', 'sent') LIMIT 1",
    )
    .bind(server)
    .bind(login.as_str())
    .exists(db)
    .await?)
}

/// The failures that stand for an account of a server.
pub async fn standing(
    db: &mut Connection,
    server: ServerId,
    login: &Username,
) -> Result<Vec<(ActionId, Step)>, StoreError> {
    let rows: Vec<QueuedColumns> = sql::query_as(
        "SELECT id, message, tries FROM actions WHERE server_id = $1 AND login = $2 \
         AND standing = TRUE ORDER BY id",
    )
    .bind(server)
    .bind(login.as_str())
    .fetch_all(db)
    .await?;
    let steps = rows.into_iter().map(|row| {
        let QueuedAction { id, message, .. } = queued_action(row)?;
        Ok((id, step(message)))
    });
    steps.collect()
}

/// Lets a failure stand no more.
pub async fn forget_failure(db: &mut Connection, id: ActionId) -> Result<(), StoreError> {
    sql::query("UPDATE actions SET standing = FALSE WHERE id = $1").bind(id).execute(db).await?;
    Ok(())
}

/// Takes note that failures are taken up again: those of one server or of all, of these accounts
/// or of all.
pub async fn supersede(
    db: &mut Connection,
    server: Option<ServerId>,
    logins: Option<&BTreeSet<Username>>,
) -> Result<(), StoreError> {
    let Some(logins) = logins else { return supersede_some(db, server, None).await };
    let logins: Vec<&Username> = logins.iter().collect();
    for some in logins.chunks(LOGINS_AT_ONCE) {
        supersede_some(db, server, Some(some)).await?;
    }
    Ok(())
}

async fn supersede_some(
    db: &mut Connection,
    server: Option<ServerId>,
    logins: Option<&[&Username]>,
) -> Result<(), StoreError> {
    let mut update = QueryBuilder::new("UPDATE actions SET standing = FALSE WHERE standing = TRUE");
    if let Some(server) = server {
        update.push(" AND server_id = ").push_bind(server);
    }
    if let Some(logins) = logins {
        update.push(" AND login IN (");
        let mut list = update.separated(", ");
        for login in logins {
            list.push_bind(login.to_string());
        }
        update.push(")");
    }
    update.build().execute(db).await?;
    Ok(())
}

/// Lets a revision wait for actions.
pub async fn link(
    db: &mut Connection,
    revision: i64,
    actions: &[ActionId],
) -> Result<(), StoreError> {
    for chunk in actions.chunks(ROWS_AT_ONCE) {
        let mut insert = QueryBuilder::new("INSERT INTO revision_actions (revision, action_id) ");
        insert.push_values(chunk, |mut row, id| {
            row.push_bind(revision).push_bind(*id);
        });
        insert.push(" ON CONFLICT (revision, action_id) DO NOTHING");
        insert.build().execute(&mut *db).await?;
    }
    Ok(())
}

/// The revisions that wait for an action.
pub async fn revisions_of(db: &mut Connection, id: ActionId) -> Result<Vec<i64>, StoreError> {
    let rows = sql::query_scalar("SELECT revision FROM revision_actions WHERE action_id = $1")
        .bind(id)
        .fetch_all(db)
        .await?;
    Ok(rows)
}

/// What a message does to which account.
#[must_use]
pub fn step(message: ActionMessage) -> Step {
    Step { login: message.username, action: message.action }
}

pub(super) fn queued_action(
    (id, message, tries): QueuedColumns,
) -> Result<QueuedAction, StoreError> {
    Ok(QueuedAction { id, message: parse_message(&message)?, tries: count(tries) })
}

pub(super) fn parse_message(text: &str) -> Result<ActionMessage, StoreError> {
    match Message::parse(text.as_bytes(), &KeyPolicy::ANY) {
        Ok(Message::Action(message)) => Ok(message),
        Ok(Message::Feedback(_) | Message::Host(_)) | Err(_) => {
            Err(StoreError::Corrupt { what: "a queued action" })
        }
    }
}

pub(super) fn state_name(state: ActionState) -> &'static str {
    match state {
        ActionState::Queued => "queued",
        ActionState::Sent => "sent",
        ActionState::Done => "done",
        ActionState::Failed => "failed",
    }
}

pub(super) fn parse_state(text: &str) -> Result<ActionState, StoreError> {
    match text {
        "queued" => Ok(ActionState::Queued),
        "sent" => Ok(ActionState::Sent),
        "done" => Ok(ActionState::Done),
        "failed" => Ok(ActionState::Failed),
        _ => Err(StoreError::Corrupt { what: "the state of an action" }),
    }
}

pub(super) fn count(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
