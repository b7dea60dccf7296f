//! Rows of what servers have signed, and of the keys that they sign with.

use std::collections::BTreeMap;

use bastio_protocol::{Receipt, Username, VerifyingKey};

use super::{Connection, ServerId, StoreError, corrupt, sql};

/// What a server has signed last about an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptRow {
    /// The receipt, if the answer had one.
    pub body: Option<Box<Receipt>>,
    /// Why it proves nothing.
    pub fault: Option<String>,
}

/// The key that signs a server's receipts.
pub async fn key(
    db: &mut Connection,
    server: ServerId,
) -> Result<Option<VerifyingKey>, StoreError> {
    let key: Option<Option<String>> =
        sql::query_scalar("SELECT receipt_key FROM servers WHERE id = $1")
            .bind(server)
            .fetch_optional(db)
            .await?;
    key.flatten().map(|key| key.parse().map_err(corrupt("a receipt key"))).transpose()
}

/// The keys of all servers that have one.
pub async fn keys(db: &mut Connection) -> Result<BTreeMap<ServerId, VerifyingKey>, StoreError> {
    let rows: Vec<(ServerId, String)> = sql::query_as(
        "SELECT id, receipt_key FROM servers WHERE removed IS NULL AND receipt_key IS NOT NULL",
    )
    .fetch_all(db)
    .await?;
    let parse = |(id, key): (ServerId, String)| Ok((id, key.parse().map_err(corrupt("a key"))?));
    rows.into_iter().map(parse).collect()
}

/// From now on this key signs the server's receipts.
pub async fn pin(
    db: &mut Connection,
    server: ServerId,
    key: &VerifyingKey,
) -> Result<(), StoreError> {
    sql::query("UPDATE servers SET receipt_key = $1 WHERE id = $2")
        .bind(key.to_string())
        .bind(server)
        .execute(db)
        .await?;
    Ok(())
}

/// Keeps what a server has signed last about an account.
pub async fn keep(
    db: &mut Connection,
    server: ServerId,
    login: &Username,
    row: &ReceiptRow,
    now: i64,
) -> Result<(), StoreError> {
    let body = row.body.as_deref().map(serde_json::to_string).transpose();
    let body = body.map_err(corrupt("a receipt"))?;
    sql::query(
        "INSERT INTO receipts (server_id, login, received, body, fault) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (server_id, login) DO UPDATE \
         SET received = excluded.received, body = excluded.body, fault = excluded.fault",
    )
    .bind(server)
    .bind(login.as_str())
    .bind(now)
    .bind(body)
    .bind(row.fault.as_deref())
    .execute(db)
    .await?;
    Ok(())
}

/// What was signed about an account holds no more.
pub async fn forget(
    db: &mut Connection,
    server: ServerId,
    login: &Username,
) -> Result<(), StoreError> {
    sql::query("DELETE FROM receipts WHERE server_id = $1 AND login = $2")
        .bind(server)
        .bind(login.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// What servers on record have signed last about the accounts of that name.
pub async fn of_login(
    db: &mut Connection,
    login: &Username,
) -> Result<BTreeMap<ServerId, ReceiptRow>, StoreError> {
    let rows: Vec<(ServerId, Option<String>, Option<String>)> = sql::query_as(
        "SELECT r.server_id, r.body, r.fault FROM receipts r JOIN servers s \
         ON s.id = r.server_id WHERE r.login = $1 AND s.removed IS NULL",
    )
    .bind(login.as_str())
    .fetch_all(db)
    .await?;
    let parse = |(id, body, fault): (ServerId, Option<String>, Option<String>)| {
        let body = body.as_deref().map(serde_json::from_str).transpose();
        Ok((id, ReceiptRow { body: body.map_err(corrupt("a receipt"))?, fault }))
    };
    rows.into_iter().map(parse).collect()
}
