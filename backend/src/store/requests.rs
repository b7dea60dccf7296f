//! Rows of what is asked of servers as a whole, and of the drift that they report.

use bastio_protocol::api::{ActionState, RequestKind, RequestReport};
use bastio_protocol::{
    Detail, DriftMessage, HostMessage, HostRequest, KeyPolicy, Message, MessageId, Status,
};

use super::actions::{count, parse_state, state_name};
use super::{Connection, ServerId, StoreError, corrupt, sql};

/// Finished requests that are kept for each server; reports are large.
const KEPT: i64 = 20;

/// A request's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, sqlx::Type)]
#[sqlx(transparent)]
pub struct RequestId(pub i64);

/// A request that waits for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenRequest {
    /// Its number.
    pub id: RequestId,
    /// What is asked.
    pub kind: RequestKind,
    /// Whether a sync may leave a server without admin.
    pub allow_no_admin: bool,
    /// Whether a rule about drift asked for it, and nobody else.
    pub by_rule: bool,
}

/// A request that a feedback may answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRequest {
    /// Its number.
    pub id: RequestId,
    /// What was sent.
    pub request: HostRequest,
    /// How far it is.
    pub state: ActionState,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    server_id: ServerId,
    name: String,
    kind: String,
    state: String,
    tries: i64,
    status: Option<i64>,
    feedback: Option<String>,
    detail: Option<String>,
    created: i64,
    finished_at: Option<i64>,
}

/// Queues a request; old finished ones of the server are forgotten.
pub async fn insert(
    db: &mut Connection,
    server: ServerId,
    kind: RequestKind,
    allow_no_admin: bool,
    now: i64,
) -> Result<RequestId, StoreError> {
    let id = sql::query_scalar(
        "INSERT INTO requests (server_id, kind, allow_no_admin, state, created) \
         VALUES ($1, $2, $3, 'queued', $4) RETURNING id",
    )
    .bind(server)
    .bind(kind.name())
    .bind(allow_no_admin)
    .bind(now)
    .fetch_one(&mut *db)
    .await?;
    sql::query(
        "DELETE FROM requests WHERE server_id = $1 AND state IN ('done', 'failed') AND id < \
         (SELECT MIN(id) FROM (SELECT id FROM requests WHERE server_id = $1 \
          ORDER BY id DESC LIMIT $2) newest)",
    )
    .bind(server)
    .bind(KEPT)
    .execute(db)
    .await?;
    Ok(id)
}

/// The requests that wait for a server's agent, in order.
pub async fn queued(
    db: &mut Connection,
    server: ServerId,
    limit: i64,
) -> Result<Vec<OpenRequest>, StoreError> {
    let rows: Vec<(RequestId, String, bool, bool)> = sql::query_as(
        "SELECT id, kind, allow_no_admin, by_rule FROM requests WHERE server_id = $1 \
         AND state = 'queued' AND state IN ('queued', 'sent') ORDER BY id LIMIT $2",
    )
    .bind(server)
    .bind(limit)
    .fetch_all(db)
    .await?;
    let open = |(id, kind, allow_no_admin, by_rule): (RequestId, String, bool, bool)| {
        Ok(OpenRequest { id, kind: parse_kind(&kind)?, allow_no_admin, by_rule })
    };
    rows.into_iter().map(open).collect()
}

/// Notes what is being sent.
pub async fn mark_sent(
    db: &mut Connection,
    id: RequestId,
    message: &HostMessage,
) -> Result<(), StoreError> {
    sql::query(
        "UPDATE requests SET state = 'sent', tries = tries + 1, mid = $1, message = $2 \
         WHERE id = $3",
    )
    .bind(message.mid.text())
    .bind(String::from_utf8_lossy(&message.to_json()).into_owned())
    .bind(id)
    .execute(db)
    .await?;
    Ok(())
}

/// The request that was last sent under that id to this server.
pub async fn find_sent(
    db: &mut Connection,
    server: ServerId,
    mid: &MessageId,
) -> Result<Option<KnownRequest>, StoreError> {
    let row: Option<(RequestId, String, String)> =
        sql::query_as("SELECT id, message, state FROM requests WHERE mid = $1 AND server_id = $2")
            .bind(mid.text())
            .bind(server)
            .fetch_optional(db)
            .await?;
    let Some((id, message, state)) = row else { return Ok(None) };
    let message = parse_message(&message)?;
    if message.mid != *mid {
        return Ok(None);
    }
    Ok(Some(KnownRequest { id, request: message.request, state: parse_state(&state)? }))
}

/// What was last sent of a request, if it was sent.
pub async fn last_sent(
    db: &mut Connection,
    id: RequestId,
) -> Result<Option<HostRequest>, StoreError> {
    let message: Option<String> = sql::query_scalar("SELECT message FROM requests WHERE id = $1")
        .bind(id)
        .fetch_one(db)
        .await?;
    message.map(|message| Ok(parse_message(&message)?.request)).transpose()
}

/// Ends a request.
pub async fn finish(
    db: &mut Connection,
    id: RequestId,
    ending: &super::actions::Ending,
    now: i64,
) -> Result<(), StoreError> {
    sql::query(
        "UPDATE requests SET state = $1, status = $2, feedback = $3, detail = $4, \
         finished_at = $5 WHERE id = $6",
    )
    .bind(state_name(ending.state))
    .bind(ending.status.map(|status| i64::from(status.code())))
    .bind(&ending.feedback)
    .bind(&ending.detail)
    .bind(now)
    .bind(id)
    .execute(db)
    .await?;
    Ok(())
}

/// Ends what is open of a server that is being removed.
pub async fn abandon(
    db: &mut Connection,
    server: ServerId,
    reason: &str,
    now: i64,
) -> Result<(), StoreError> {
    sql::query(
        "UPDATE requests SET state = 'failed', feedback = $1, finished_at = $2 \
         WHERE server_id = $3 AND state IN ('queued', 'sent')",
    )
    .bind(reason)
    .bind(now)
    .bind(server)
    .execute(&mut *db)
    .await?;
    for forget in
        ["DELETE FROM drifts WHERE server_id = $1", "DELETE FROM drift_heals WHERE server_id = $1"]
    {
        sql::query(forget).bind(server).execute(&mut *db).await?;
    }
    Ok(())
}

/// A request for people, and its server.
pub async fn report(
    db: &mut Connection,
    id: RequestId,
) -> Result<Option<(ServerId, RequestReport)>, StoreError> {
    let row: Option<Row> = sql::query_as(
        "SELECT r.id, r.server_id, s.name, r.kind, r.state, r.tries, r.status, r.feedback, \
         r.detail, r.created, r.finished_at FROM requests r JOIN servers s ON s.id = r.server_id \
         WHERE r.id = $1",
    )
    .bind(id)
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let status = row.status.map(|code| {
        let code = u16::try_from(code).map_err(corrupt("a status"))?;
        Status::try_from(code).map_err(corrupt("a status"))
    });
    let report = RequestReport {
        id: row.id,
        server: super::servers::parse_name(&row.name)?,
        kind: parse_kind(&row.kind)?,
        connected: false,
        state: parse_state(&row.state)?,
        tries: count(row.tries),
        status: status.transpose()?,
        feedback: row.feedback,
        detail: row.detail.as_deref().map(parse_detail).transpose()?,
        created: row.created,
        finished: row.finished_at,
    };
    Ok(Some((row.server_id, report)))
}

/// Keeps what a server's agent has said of drift; nothing when all is as wanted again.
pub async fn set_drift(
    db: &mut Connection,
    server: ServerId,
    drift: Option<&DriftMessage>,
) -> Result<(), StoreError> {
    let Some(drift) = drift else {
        sql::query("DELETE FROM drifts WHERE server_id = $1").bind(server).execute(db).await?;
        return Ok(());
    };
    sql::query(
        "INSERT INTO drifts (server_id, drift, healed) VALUES ($1, $2, $3) \
         ON CONFLICT (server_id) DO UPDATE SET drift = excluded.drift, healed = excluded.healed",
    )
    .bind(server)
    .bind(String::from_utf8_lossy(&drift.to_json()).into_owned())
    .bind(drift.healed)
    .execute(db)
    .await?;
    Ok(())
}

/// What a server's agent has last said of drift.
pub async fn drift(
    db: &mut Connection,
    server: ServerId,
) -> Result<Option<DriftMessage>, StoreError> {
    let text: Option<String> = sql::query_scalar("SELECT drift FROM drifts WHERE server_id = $1")
        .bind(server)
        .fetch_optional(db)
        .await?;
    text.map(|text| serde_json::from_str(&text).map_err(corrupt("a drift"))).transpose()
}

/// The servers that differ from what is wanted, by what their agents say.
pub async fn drifted(db: &mut Connection) -> Result<Vec<ServerId>, StoreError> {
    Ok(sql::query_scalar("SELECT server_id FROM drifts WHERE healed = FALSE").fetch_all(db).await?)
}

/// The JSON of a detail, when it is not too long to be kept.
#[must_use]
pub fn detail_text(detail: &Detail, limit: usize) -> Option<String> {
    let text = serde_json::to_string(detail).expect("texts and numbers always serialise");
    (*detail != Detail::default() && text.len() <= limit).then_some(text)
}

/// A detail as it is kept.
pub(super) fn parse_detail(text: &str) -> Result<Box<Detail>, StoreError> {
    serde_json::from_str(text).map_err(corrupt("a detail"))
}

fn parse_message(text: &str) -> Result<HostMessage, StoreError> {
    match Message::parse(text.as_bytes(), &KeyPolicy::ANY) {
        Ok(Message::Host(message)) => Ok(message),
        _ => Err(StoreError::Corrupt { what: "a request" }),
    }
}

fn parse_kind(text: &str) -> Result<RequestKind, StoreError> {
    let all = [RequestKind::Sync, RequestKind::Check, RequestKind::Report];
    let kind = all.into_iter().find(|kind| kind.name() == text);
    kind.ok_or(StoreError::Corrupt { what: "the kind of a request" })
}
