//! Rows of what servers have signed, and of the keys that they sign with.

use std::collections::BTreeMap;

use bastio_protocol::{Receipt, Username, VerifyingKey};

use super::accounts::parse_login;
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

/// What a server has signed last about all of it.
pub async fn of_sync(
    db: &mut Connection,
    server: ServerId,
) -> Result<Option<Box<Receipt>>, StoreError> {
    let body: Option<String> =
        sql::query_scalar("SELECT body FROM sync_receipts WHERE server_id = $1")
            .bind(server)
            .fetch_optional(db)
            .await?;
    let body = body.as_deref().map(serde_json::from_str).transpose();
    body.map_err(corrupt("a receipt"))
}

/// Keeps what a server has signed last about all of it.
pub async fn keep_of_sync(
    db: &mut Connection,
    server: ServerId,
    receipt: &Receipt,
    now: i64,
) -> Result<(), StoreError> {
    sql::query(
        "INSERT INTO sync_receipts (server_id, received, body) VALUES ($1, $2, $3) \
         ON CONFLICT (server_id) DO UPDATE SET received = excluded.received, body = excluded.body",
    )
    .bind(server)
    .bind(now)
    .bind(serde_json::to_string(receipt).map_err(corrupt("a receipt"))?)
    .execute(db)
    .await?;
    Ok(())
}

/// The number of the order in the last good receipt about each of these accounts.
pub async fn sequences(
    db: &mut Connection,
    accounts: &[(ServerId, Username)],
) -> Result<BTreeMap<(ServerId, Username), u64>, StoreError> {
    #[derive(serde::Deserialize)]
    struct Numbered {
        sequence: u64,
    }
    if accounts.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut select = sql::QueryBuilder::new(
        "SELECT server_id, login, body FROM receipts WHERE fault IS NULL AND body IS NOT NULL \
         AND (server_id, login) IN (",
    );
    super::batch::push_places(&mut select, accounts);
    select.push(")");
    let rows: Vec<(ServerId, String, String)> = select.build_query_as().fetch_all(db).await?;
    let parse = |(server, login, body): (ServerId, String, String)| {
        let Numbered { sequence } = serde_json::from_str(&body).map_err(corrupt("a receipt"))?;
        Ok(((server, parse_login(&login)?), sequence))
    };
    rows.into_iter().map(parse).collect()
}

/// What servers on record have signed last about the accounts of that name. What a sync's receipt proves of one counts
/// where there is nothing better of its own.
pub async fn of_login(
    db: &mut Connection,
    login: &Username,
) -> Result<BTreeMap<ServerId, ReceiptRow>, StoreError> {
    type Columns = (ServerId, i64, Option<String>, Option<String>);
    let rows: Vec<Columns> = sql::query_as(
        "SELECT r.server_id, r.received, r.body, r.fault FROM receipts r JOIN servers s \
         ON s.id = r.server_id WHERE r.login = $1 AND s.removed IS NULL",
    )
    .bind(login.as_str())
    .fetch_all(&mut *db)
    .await?;
    let mut own = BTreeMap::new();
    for (server, received, body, fault) in rows {
        let body: Option<Box<Receipt>> =
            body.as_deref().map(serde_json::from_str).transpose().map_err(corrupt("a receipt"))?;
        own.insert(server, (received, ReceiptRow { body, fault }));
    }
    let whole: Vec<(ServerId, i64, String)> = sql::query_as(
        "SELECT r.server_id, r.received, r.body FROM sync_receipts r JOIN servers s \
         ON s.id = r.server_id WHERE s.removed IS NULL",
    )
    .fetch_all(db)
    .await?;
    for (server, received, body) in whole {
        if own.get(&server).is_some_and(|(since, row)| *since >= received || proves(row, login)) {
            continue;
        }
        let receipt: Box<Receipt> = serde_json::from_str(&body).map_err(corrupt("a receipt"))?;
        if receipt.ends_access(login) {
            own.insert(server, (received, ReceiptRow { body: Some(receipt), fault: None }));
        }
    }
    Ok(own.into_iter().map(|(server, (_, row))| (server, row)).collect())
}

fn proves(row: &ReceiptRow, login: &Username) -> bool {
    row.fault.is_none() && row.body.as_ref().is_some_and(|receipt| receipt.ends_access(login))
}
