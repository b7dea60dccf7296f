//! Rows of the audit log. They are inserted and read, never changed: the database refuses it.

use bastio_protocol::Status;
use bastio_protocol::api::AuditRow;
use bastio_protocol::audit::{ChainedRow, Head, LogFilter, Pattern};

use super::{Connection, StoreError, corrupt, sql};

/// Which of the rows that a filter lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The last ones.
    Last,
    /// The first ones behind that row.
    After(i64),
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    at: i64,
    actor: String,
    origin: Option<String>,
    action: String,
    username: Option<String>,
    server: Option<String>,
    detail: String,
    reason: Option<String>,
    status: Option<i64>,
    prev_hash: String,
    hash: String,
}

macro_rules! select {
    ($order:literal) => {
        concat!(
            "SELECT id, at, actor, origin, action, username, server, detail, reason, status, \
             prev_hash, hash FROM audit WHERE id > $1 \
             AND ($2 IS NULL OR username = $2) AND ($3 IS NULL OR server = $3) \
             AND ($4 IS NULL OR actor = $4) \
             AND ($5 IS NULL OR substr(actor, 1, length($5)) = $5) \
             AND ($6 IS NULL OR action = $6) \
             AND ($7 IS NULL OR substr(action, 1, length($7)) = $7) \
             AND ($8 IS NULL OR at >= $8) AND ($9 IS NULL OR at < $9) ORDER BY id ",
            $order,
            " LIMIT $10"
        )
    };
}

/// The last row.
pub async fn head(db: &mut Connection) -> Result<Option<Head>, StoreError> {
    let last: Option<(i64, String)> =
        sql::query_as("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1")
            .fetch_optional(db)
            .await?;
    Ok(last.map(|(id, hash)| Head { id, hash }))
}

/// Appends a row.
pub async fn append(db: &mut Connection, chained: &ChainedRow) -> Result<(), StoreError> {
    let row = &chained.row;
    sql::query(
        "INSERT INTO audit (id, at, actor, origin, action, username, server, detail, reason, \
         status, prev_hash, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(row.id)
    .bind(row.at)
    .bind(&row.actor)
    .bind(&row.from)
    .bind(&row.action)
    .bind(&row.user)
    .bind(&row.server)
    .bind(&row.detail)
    .bind(&row.reason)
    .bind(row.status.map(|status| i64::from(status.code())))
    .bind(&chained.prev_hash)
    .bind(&chained.hash)
    .execute(db)
    .await?;
    Ok(())
}

/// At most `limit` rows of that page, the oldest first.
pub async fn list(
    db: &mut Connection,
    filter: &LogFilter,
    page: Page,
    limit: i64,
) -> Result<Vec<ChainedRow>, StoreError> {
    let ((actor, actor_begin), (action, action_begin)) =
        (parts(filter.actor.as_ref()), parts(filter.action.as_ref()));
    let (text, after) = match page {
        Page::Last => (select!("DESC"), 0),
        Page::After(id) => (select!("ASC"), id),
    };
    let rows: Vec<Row> = sql::query_as(text)
        .bind(after)
        .bind(filter.user.as_ref().map(ToString::to_string))
        .bind(filter.server.as_ref().map(ToString::to_string))
        .bind(actor)
        .bind(actor_begin)
        .bind(action)
        .bind(action_begin)
        .bind(filter.since)
        .bind(filter.until)
        .bind(limit)
        .fetch_all(db)
        .await?;
    let mut rows = rows.into_iter().map(chained).collect::<Result<Vec<_>, _>>()?;
    if page == Page::Last {
        rows.reverse();
    }
    Ok(rows)
}

/// What a value must be, and what it must begin with.
fn parts(pattern: Option<&Pattern>) -> (Option<&str>, Option<&str>) {
    match pattern {
        None => (None, None),
        Some(Pattern::Exactly(text)) => (Some(text), None),
        Some(Pattern::Beginning(text)) => (None, Some(text)),
    }
}

fn chained(row: Row) -> Result<ChainedRow, StoreError> {
    let status = row.status.map(|code| {
        let code = u16::try_from(code).map_err(corrupt("a status in the audit log"))?;
        Status::try_from(code).map_err(corrupt("a status in the audit log"))
    });
    Ok(ChainedRow {
        row: AuditRow {
            id: row.id,
            at: row.at,
            actor: row.actor,
            from: row.origin,
            action: row.action,
            user: row.username,
            server: row.server,
            detail: row.detail,
            reason: row.reason,
            status: status.transpose()?,
        },
        prev_hash: row.prev_hash,
        hash: row.hash,
    })
}
