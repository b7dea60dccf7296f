//! How far the clocks of servers are from ours, as last compared.

use std::collections::BTreeMap;

use super::{Connection, ServerId, StoreError, sql};

/// How far a server's clock was ahead of ours, in seconds.
pub async fn offset(db: &mut Connection, server: ServerId) -> Result<Option<i64>, StoreError> {
    let offset = sql::query_scalar("SELECT clock_offset FROM servers WHERE id = $1")
        .bind(server)
        .fetch_one(db)
        .await?;
    Ok(offset)
}

/// Notes how far it is now.
pub async fn set(db: &mut Connection, server: ServerId, offset: i64) -> Result<(), StoreError> {
    sql::query("UPDATE servers SET clock_offset = $1 WHERE id = $2")
        .bind(offset)
        .bind(server)
        .execute(db)
        .await?;
    Ok(())
}

/// The servers whose clock was off by more than `limit` seconds, and by how many.
pub async fn off(db: &mut Connection, limit: i64) -> Result<BTreeMap<ServerId, i64>, StoreError> {
    let rows: Vec<(ServerId, i64)> = sql::query_as(
        "SELECT id, clock_offset FROM servers \
         WHERE removed IS NULL AND (clock_offset > $1 OR clock_offset < -$1)",
    )
    .bind(limit)
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().collect())
}
