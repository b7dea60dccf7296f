//! Rows of the audit log. They are inserted and read, never changed.

use bastio_protocol::api::AuditRow;

use super::{Connection, StoreError};

/// A row with the hashes that chain it to the row before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainedRow {
    /// The row.
    pub row: AuditRow,
    /// Hash of the row before, in hexadecimal digits.
    pub prev_hash: String,
    /// Hash of this row.
    pub hash: String,
}

type Columns = (
    i64,
    i64,
    String,
    Option<String>,
    String,
    Option<String>,
    Option<String>,
    String,
    String,
    String,
);

/// Number and hash of the last row.
pub async fn last(db: &mut Connection) -> Result<Option<(i64, String)>, StoreError> {
    Ok(sqlx::query_as("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1")
        .fetch_optional(db)
        .await?)
}

/// Appends a row.
pub async fn append(db: &mut Connection, chained: &ChainedRow) -> Result<(), StoreError> {
    let row = &chained.row;
    sqlx::query(
        "INSERT INTO audit (id, at, actor, origin, action, username, server, detail, \
         prev_hash, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(row.id)
    .bind(row.at)
    .bind(&row.actor)
    .bind(&row.from)
    .bind(&row.action)
    .bind(&row.user)
    .bind(&row.server)
    .bind(&row.detail)
    .bind(&chained.prev_hash)
    .bind(&chained.hash)
    .execute(db)
    .await?;
    Ok(())
}

/// The last `limit` rows about `user` and `server` where given, the oldest first.
pub async fn list(
    db: &mut Connection,
    limit: i64,
    user: Option<&str>,
    server: Option<&str>,
) -> Result<Vec<ChainedRow>, StoreError> {
    let rows: Vec<Columns> = sqlx::query_as(
        "SELECT id, at, actor, origin, action, username, server, detail, prev_hash, hash \
         FROM audit WHERE ($1 IS NULL OR username = $1) AND ($2 IS NULL OR server = $2) \
         ORDER BY id DESC LIMIT $3",
    )
    .bind(user)
    .bind(server)
    .bind(limit)
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().rev().map(chained).collect())
}

fn chained(row: Columns) -> ChainedRow {
    let (id, at, actor, from, action, user, server, detail, prev_hash, hash) = row;
    ChainedRow {
        row: AuditRow { id, at, actor, from, action, user, server, detail },
        prev_hash,
        hash,
    }
}
