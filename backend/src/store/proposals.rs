//! Rows of requests that wait for a second operator, and of the keys with which operators approve.

use std::collections::BTreeSet;

use bastio_protocol::VerifyingKey;
use bastio_protocol::api::{OperatorKey, ProposalState};

use super::{Connection, StoreError, corrupt, sql};

/// A request to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewProposal {
    /// The API key that sent it.
    pub proposer: String,
    /// The address it came from.
    pub origin: Option<String>,
    /// When.
    pub created: i64,
    /// Until when it can be approved.
    pub expires: i64,
    /// The model's revision.
    pub revision: i64,
    /// Why.
    pub reason: String,
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The body.
    pub body: String,
    /// Whether it said that it is meant, however large.
    pub confirmed: bool,
    /// What it gives.
    pub gains: BTreeSet<String>,
}

/// A request that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposalRow {
    /// Its number.
    pub id: i64,
    /// How far it is.
    pub state: ProposalState,
    /// What was kept.
    pub what: NewProposal,
    /// When it ended, and by whom.
    pub ended: Option<(i64, String)>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    state: String,
    proposer: String,
    origin: Option<String>,
    created: i64,
    expires: i64,
    revision: i64,
    reason: String,
    method: String,
    path: String,
    body: String,
    confirmed: bool,
    gains: String,
    ended: Option<i64>,
    ended_by: Option<String>,
}

macro_rules! select {
    ($body:literal) => {
        concat!(
            "SELECT id, state, proposer, origin, created, expires, revision, reason, method, path, ",
            $body,
            " AS body, confirmed, gains, ended, ended_by FROM proposals "
        )
    };
}

/// Keeps a request; its number.
pub async fn insert(db: &mut Connection, new: &NewProposal) -> Result<i64, StoreError> {
    let id = sql::query_scalar(
        "INSERT INTO proposals (state, proposer, origin, created, expires, revision, reason, \
         method, path, body, confirmed, gains) \
         VALUES ('open', $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING id",
    )
    .bind(&new.proposer)
    .bind(new.origin.as_deref())
    .bind(new.created)
    .bind(new.expires)
    .bind(new.revision)
    .bind(&new.reason)
    .bind(&new.method)
    .bind(&new.path)
    .bind(&new.body)
    .bind(new.confirmed)
    .bind(text(&new.gains))
    .fetch_one(db)
    .await?;
    Ok(id)
}

/// Whether the time of one that waits is over.
pub async fn any_over(db: &mut Connection, now: i64) -> Result<bool, StoreError> {
    let over = sql::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM proposals WHERE state = 'open' AND expires <= $1)",
    );
    Ok(over.bind(now).fetch_one(db).await?)
}

/// The last ones, at most so many, the newest first; without their bodies, which may be long.
pub async fn list(db: &mut Connection, limit: i64) -> Result<Vec<ProposalRow>, StoreError> {
    let rows: Vec<Row> = sql::query_as(concat!(select!("''"), "ORDER BY id DESC LIMIT $1"))
        .bind(limit)
        .fetch_all(db)
        .await?;
    rows.into_iter().map(row).collect()
}

/// How many wait.
pub async fn open(db: &mut Connection) -> Result<i64, StoreError> {
    let count = sql::query_scalar("SELECT COUNT(*) FROM proposals WHERE state = 'open'");
    Ok(count.fetch_one(db).await?)
}

/// That one.
pub async fn find(db: &mut Connection, id: i64) -> Result<Option<ProposalRow>, StoreError> {
    let found: Option<Row> = sql::query_as(concat!(select!("body"), "WHERE id = $1"))
        .bind(id)
        .fetch_optional(db)
        .await?;
    found.map(row).transpose()
}

/// Ends one that waits; whether it did.
pub async fn end(
    db: &mut Connection,
    id: i64,
    state: ProposalState,
    by: &str,
    now: i64,
) -> Result<bool, StoreError> {
    let done = sql::query(
        "UPDATE proposals SET state = $1, ended_by = $2, ended = $3 \
         WHERE id = $4 AND state = 'open'",
    )
    .bind(state.name())
    .bind(by)
    .bind(now)
    .bind(id)
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Ends those whose time is over; their numbers.
pub async fn expire(db: &mut Connection, now: i64) -> Result<Vec<i64>, StoreError> {
    let ended = sql::query_scalar(
        "UPDATE proposals SET state = 'expired', ended_by = 'backend', ended = $1 \
         WHERE state = 'open' AND expires <= $2 RETURNING id",
    );
    Ok(ended.bind(now).bind(now).fetch_all(db).await?)
}

/// Keeps what one would give by now.
pub async fn set_gains(
    db: &mut Connection,
    id: i64,
    gains: &BTreeSet<String>,
) -> Result<(), StoreError> {
    sql::query("UPDATE proposals SET gains = $1 WHERE id = $2 AND state = 'open'")
        .bind(text(gains))
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// All keys of operators, by API key.
pub async fn operator_keys(db: &mut Connection) -> Result<Vec<OperatorKey>, StoreError> {
    let rows: Vec<(String, String, i64)> =
        sql::query_as("SELECT api_key, public_key, since FROM operator_keys ORDER BY api_key")
            .fetch_all(db)
            .await?;
    let key = |(api_key, public_key, since): (String, String, i64)| {
        let public_key: VerifyingKey =
            public_key.parse().map_err(corrupt("the key of an operator"))?;
        Ok(OperatorKey { api_key, public_key, since })
    };
    rows.into_iter().map(key).collect()
}

/// Registers a key, in place of another of that API key.
pub async fn set_operator_key(db: &mut Connection, key: &OperatorKey) -> Result<(), StoreError> {
    sql::query(
        "INSERT INTO operator_keys (api_key, public_key, since) VALUES ($1, $2, $3) \
         ON CONFLICT (api_key) DO UPDATE SET public_key = excluded.public_key, \
         since = excluded.since",
    )
    .bind(&key.api_key)
    .bind(key.public_key.to_string())
    .bind(key.since)
    .execute(db)
    .await?;
    Ok(())
}

fn text(gains: &BTreeSet<String>) -> String {
    serde_json::to_string(gains).expect("a list of texts always serialises")
}

fn row(row: Row) -> Result<ProposalRow, StoreError> {
    let state = match row.state.as_str() {
        "open" => ProposalState::Open,
        "approved" => ProposalState::Approved,
        "rejected" => ProposalState::Rejected,
        "expired" => ProposalState::Expired,
        _ => return Err(StoreError::Corrupt { what: "the state of a proposal" }),
    };
    let gains = serde_json::from_str(&row.gains).map_err(corrupt("what a proposal gives"))?;
    Ok(ProposalRow {
        id: row.id,
        state,
        what: NewProposal {
            proposer: row.proposer,
            origin: row.origin,
            created: row.created,
            expires: row.expires,
            revision: row.revision,
            reason: row.reason,
            method: row.method,
            path: row.path,
            body: row.body,
            confirmed: row.confirmed,
            gains,
        },
        ended: row.ended.map(|at| (at, row.ended_by.unwrap_or_default())),
    })
}
