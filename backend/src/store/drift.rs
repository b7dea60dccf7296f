//! Rows of what is done about drift, and of when servers were brought back.

use std::collections::{BTreeMap, BTreeSet};

use bastio_protocol::Target;
use bastio_protocol::api::{DriftAnswer, RequestKind};

use super::{Connection, ServerId, StoreError, corrupt, sql};

/// All rules.
pub async fn rules(db: &mut Connection) -> Result<BTreeMap<Target, DriftAnswer>, StoreError> {
    let rows: Vec<(String, String)> =
        sql::query_as("SELECT selector, answer FROM drift_rules").fetch_all(db).await?;
    let rule = |(on, answer): (String, String)| {
        let on: Target = on.parse().map_err(corrupt("a selector of a drift rule"))?;
        let answer = answer.parse().map_err(|_| StoreError::Corrupt { what: "a drift rule" })?;
        Ok((on, answer))
    };
    rows.into_iter().map(rule).collect()
}

/// Adds a rule, or makes the one of these servers so.
pub async fn set_rule(
    db: &mut Connection,
    on: &Target,
    answer: DriftAnswer,
) -> Result<(), StoreError> {
    sql::query(
        "INSERT INTO drift_rules (selector, answer) VALUES ($1, $2) \
         ON CONFLICT (selector) DO UPDATE SET answer = excluded.answer",
    )
    .bind(on.to_string())
    .bind(answer.name())
    .execute(db)
    .await?;
    Ok(())
}

/// Takes a rule away.
pub async fn remove_rule(db: &mut Connection, on: &Target) -> Result<(), StoreError> {
    sql::query("DELETE FROM drift_rules WHERE selector = $1")
        .bind(on.to_string())
        .execute(db)
        .await?;
    Ok(())
}

/// When the servers that differ now were brought back last, as far as they were.
pub async fn tries(db: &mut Connection) -> Result<BTreeMap<ServerId, Vec<i64>>, StoreError> {
    let rows: Vec<(ServerId, String)> = sql::query_as(
        "SELECT h.server_id, h.tries FROM drift_heals h JOIN drifts d ON d.server_id = h.server_id \
         WHERE d.healed = FALSE",
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(|(server, tries)| Ok((server, parse_tries(&tries)?))).collect()
}

/// When one server was brought back last.
pub async fn tries_of(db: &mut Connection, server: ServerId) -> Result<Vec<i64>, StoreError> {
    let tries: Option<String> =
        sql::query_scalar("SELECT tries FROM drift_heals WHERE server_id = $1")
            .bind(server)
            .fetch_optional(db)
            .await?;
    tries.as_deref().map_or(Ok(Vec::new()), parse_tries)
}

/// Keeps when a server was brought back.
pub async fn set_tries(
    db: &mut Connection,
    server: ServerId,
    tries: &[i64],
) -> Result<(), StoreError> {
    sql::query(
        "INSERT INTO drift_heals (server_id, tries) VALUES ($1, $2) \
         ON CONFLICT (server_id) DO UPDATE SET tries = excluded.tries",
    )
    .bind(server)
    .bind(serde_json::to_string(tries).expect("numbers always serialise"))
    .execute(db)
    .await?;
    Ok(())
}

/// Queues the sync that a rule asks for.
pub async fn insert_sync(
    db: &mut Connection,
    server: ServerId,
    now: i64,
) -> Result<(), StoreError> {
    let id = super::requests::insert(db, server, RequestKind::Sync, false, now).await?;
    sql::query("UPDATE requests SET by_rule = TRUE WHERE id = $1").bind(id).execute(db).await?;
    Ok(())
}

/// The servers for which the sync of a rule waits.
pub async fn waiting(db: &mut Connection) -> Result<Vec<ServerId>, StoreError> {
    Ok(sql::query_scalar(
        "SELECT DISTINCT server_id FROM requests WHERE state = 'queued' \
         AND state IN ('queued', 'sent') AND by_rule = TRUE",
    )
    .fetch_all(db)
    .await?)
}

/// Whether the sync of a rule waits for that server.
pub async fn waits(db: &mut Connection, server: ServerId) -> Result<bool, StoreError> {
    Ok(sql::query(
        "SELECT 1 FROM requests WHERE server_id = $1 AND state = 'queued' \
         AND state IN ('queued', 'sent') AND by_rule = TRUE",
    )
    .bind(server)
    .exists(db)
    .await?)
}

/// The servers to which a sync is on its way.
pub async fn syncing(db: &mut Connection) -> Result<BTreeSet<ServerId>, StoreError> {
    let servers: Vec<ServerId> = sql::query_scalar(
        "SELECT DISTINCT server_id FROM requests WHERE state IN ('queued', 'sent') AND kind = 'sync'",
    )
    .fetch_all(db)
    .await?;
    Ok(servers.into_iter().collect())
}

/// Whether a sync is on its way to that server.
pub async fn is_syncing(db: &mut Connection, server: ServerId) -> Result<bool, StoreError> {
    Ok(sql::query(
        "SELECT 1 FROM requests WHERE server_id = $1 AND state IN ('queued', 'sent') \
         AND kind = 'sync'",
    )
    .bind(server)
    .exists(db)
    .await?)
}

fn parse_tries(text: &str) -> Result<Vec<i64>, StoreError> {
    serde_json::from_str(text).map_err(corrupt("the times of healing"))
}
