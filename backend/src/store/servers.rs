//! Rows of servers, their agents' keys and their labels.

use std::collections::{BTreeMap, BTreeSet};

use bastio_protocol::api::Labels;
use bastio_protocol::{PublicKey, ServerName};

use super::{Connection, ServerId, StoreError, corrupt, sql};

/// A server that was not removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerRow {
    /// Its number.
    pub id: ServerId,
    /// Its name.
    pub name: ServerName,
    /// Enrolled at.
    pub created: i64,
    /// Last time a session began or ended.
    pub last_seen: Option<i64>,
    /// Where the last session came from.
    pub address: Option<String>,
    /// The agent's SSH identification.
    pub agent: Option<String>,
    /// Fingerprint of the agent's key.
    pub fingerprint: String,
    /// Actions queued or sent.
    pub pending: u32,
    /// Failures that stand.
    pub failed: u32,
}

type Columns =
    (ServerId, String, i64, Option<i64>, Option<String>, Option<String>, String, i64, i64);

macro_rules! select_servers {
    () => {
        "SELECT s.id, s.name, s.created, s.last_seen, s.address, s.agent, k.fingerprint, \
         (SELECT COUNT(*) FROM actions a WHERE a.server_id = s.id \
          AND a.state IN ('queued', 'sent')), \
         (SELECT COUNT(*) FROM actions a WHERE a.server_id = s.id AND a.standing = TRUE) \
         FROM servers s JOIN server_keys k ON k.server_id = s.id \
         WHERE s.removed IS NULL"
    };
}

/// All servers, by name.
pub async fn list(db: &mut Connection) -> Result<Vec<ServerRow>, StoreError> {
    let rows: Vec<Columns> =
        sql::query_as(concat!(select_servers!(), " ORDER BY s.name")).fetch_all(db).await?;
    rows.into_iter().map(server).collect()
}

/// The server of that name.
pub async fn find(db: &mut Connection, name: &ServerName) -> Result<Option<ServerRow>, StoreError> {
    let row: Option<Columns> = sql::query_as(concat!(select_servers!(), " AND s.name = $1"))
        .bind(name.as_str())
        .fetch_optional(db)
        .await?;
    row.map(server).transpose()
}

/// How many servers there are.
pub async fn count(db: &mut Connection) -> Result<u32, StoreError> {
    let count: i64 = sql::query_scalar("SELECT COUNT(*) FROM servers WHERE removed IS NULL")
        .fetch_one(db)
        .await?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// When the servers that were ever there were last seen.
pub async fn last_seen(db: &mut Connection) -> Result<BTreeMap<ServerId, i64>, StoreError> {
    let rows: Vec<(ServerId, i64)> = sql::query_as(
        "SELECT id, last_seen FROM servers WHERE removed IS NULL AND last_seen IS NOT NULL",
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().collect())
}

/// Whether a server, not removed, has that name.
pub async fn name_is_taken(db: &mut Connection, name: &ServerName) -> Result<bool, StoreError> {
    Ok(sql::query("SELECT 1 FROM servers WHERE removed IS NULL AND name = $1")
        .bind(name.as_str())
        .exists(db)
        .await?)
}

/// The server whose agent has that key.
pub async fn find_by_key(
    db: &mut Connection,
    fingerprint: &str,
) -> Result<Option<(ServerId, ServerName)>, StoreError> {
    let row: Option<(ServerId, String)> = sql::query_as(
        "SELECT s.id, s.name FROM server_keys k JOIN servers s ON s.id = k.server_id \
         WHERE k.fingerprint = $1 AND s.removed IS NULL",
    )
    .bind(fingerprint)
    .fetch_optional(db)
    .await?;
    row.map(|(id, name)| Ok((id, parse_name(&name)?))).transpose()
}

/// The name of a server that was not removed.
pub async fn name(db: &mut Connection, server: ServerId) -> Result<Option<ServerName>, StoreError> {
    let name: Option<String> =
        sql::query_scalar("SELECT name FROM servers WHERE id = $1 AND removed IS NULL")
            .bind(server)
            .fetch_optional(db)
            .await?;
    name.map(|name| parse_name(&name)).transpose()
}

/// Names and labels of all servers.
pub async fn names_and_labels(
    db: &mut Connection,
) -> Result<BTreeMap<ServerId, (ServerName, Labels)>, StoreError> {
    let names: Vec<(ServerId, String)> =
        sql::query("SELECT id, name FROM servers WHERE removed IS NULL")
            .fetch_packed("id, name", &mut *db)
            .await?;
    let mut servers = BTreeMap::new();
    for (id, name) in names {
        servers.insert(id, (parse_name(&name)?, Labels::new()));
    }
    let labels: Vec<(ServerId, String, String)> =
        sql::query("SELECT server_id, name, value FROM labels")
            .fetch_packed("server_id, name, value", db)
            .await?;
    for (id, name, value) in labels {
        if let Some((_, of_server)) = servers.get_mut(&id) {
            of_server.insert(name, value);
        }
    }
    Ok(servers)
}

/// The labels of one server.
pub async fn labels(db: &mut Connection, server: ServerId) -> Result<Labels, StoreError> {
    let rows: Vec<(String, String)> =
        sql::query_as("SELECT name, value FROM labels WHERE server_id = $1")
            .bind(server)
            .fetch_all(db)
            .await?;
    Ok(rows.into_iter().collect())
}

/// Adds a server with its agent's key.
pub async fn insert(
    db: &mut Connection,
    name: &ServerName,
    key: &PublicKey,
    now: i64,
) -> Result<ServerId, StoreError> {
    let id: ServerId =
        sql::query_scalar("INSERT INTO servers (name, created) VALUES ($1, $2) RETURNING id")
            .bind(name.as_str())
            .bind(now)
            .fetch_one(&mut *db)
            .await?;
    sql::query(
        "INSERT INTO server_keys (fingerprint, server_id, public_key, created) \
         VALUES ($1, $2, $3, $4)",
    )
    .bind(key.fingerprint())
    .bind(id)
    .bind(key.to_string())
    .bind(now)
    .execute(db)
    .await?;
    Ok(id)
}

/// The SSH identification of a server's agent at its last session.
pub async fn agent(db: &mut Connection, server: ServerId) -> Result<Option<String>, StoreError> {
    let agent = sql::query_scalar("SELECT agent FROM servers WHERE id = $1")
        .bind(server)
        .fetch_one(db)
        .await?;
    Ok(agent)
}

/// Gives a server's agent another key.
pub async fn replace_key(
    db: &mut Connection,
    server: ServerId,
    key: &PublicKey,
    now: i64,
) -> Result<(), StoreError> {
    super::leases::revoke(db, server).await?;
    sql::query(
        "UPDATE server_keys SET fingerprint = $1, public_key = $2, created = $3 \
         WHERE server_id = $4",
    )
    .bind(key.fingerprint())
    .bind(key.to_string())
    .bind(now)
    .bind(server)
    .execute(db)
    .await?;
    Ok(())
}

/// Gives a server another name.
pub async fn rename(
    db: &mut Connection,
    server: ServerId,
    name: &ServerName,
) -> Result<(), StoreError> {
    sql::query("UPDATE servers SET name = $1 WHERE id = $2")
        .bind(name.as_str())
        .bind(server)
        .execute(db)
        .await?;
    Ok(())
}

/// Sets one label.
pub async fn set_label(
    db: &mut Connection,
    server: ServerId,
    name: &str,
    value: &str,
) -> Result<(), StoreError> {
    sql::query(
        "INSERT INTO labels (server_id, name, value) VALUES ($1, $2, $3) \
         ON CONFLICT (server_id, name) DO UPDATE SET value = excluded.value",
    )
    .bind(server)
    .bind(name)
    .bind(value)
    .execute(db)
    .await?;
    Ok(())
}

/// Takes one label away.
pub async fn unset_label(
    db: &mut Connection,
    server: ServerId,
    name: &str,
) -> Result<(), StoreError> {
    sql::query("DELETE FROM labels WHERE server_id = $1 AND name = $2")
        .bind(server)
        .bind(name)
        .execute(db)
        .await?;
    Ok(())
}

/// Forgets a server: its key, labels and what it had confirmed. The row stays for old changes.
pub async fn remove(db: &mut Connection, server: ServerId, now: i64) -> Result<(), StoreError> {
    super::leases::revoke(db, server).await?;
    for sql in [
        "DELETE FROM server_keys WHERE server_id = $1",
        "DELETE FROM labels WHERE server_id = $1",
        "DELETE FROM accounts WHERE server_id = $1",
        "DELETE FROM suspects WHERE server_id = $1",
        "DELETE FROM receipts WHERE server_id = $1",
        "DELETE FROM sync_receipts WHERE server_id = $1",
        "DELETE FROM questions WHERE server_id = $1",
    ] {
        sql::query(sql).bind(server).execute(&mut *db).await?;
    }
    sql::query("UPDATE servers SET removed = $1 WHERE id = $2")
        .bind(now)
        .bind(server)
        .execute(db)
        .await?;
    Ok(())
}

/// Notes that a session ended.
pub async fn seen_last(db: &mut Connection, server: ServerId, now: i64) -> Result<(), StoreError> {
    sql::query("UPDATE servers SET last_seen = $1 WHERE id = $2")
        .bind(now)
        .bind(server)
        .execute(db)
        .await?;
    Ok(())
}

/// Reserves `count` numbers for orders of a server; the last of them.
pub async fn reserve_numbers(
    db: &mut Connection,
    server: ServerId,
    count: u32,
) -> Result<u64, StoreError> {
    let last: i64 = sql::query_scalar(
        "UPDATE servers SET sequence = sequence + $1 WHERE id = $2 RETURNING sequence",
    )
    .bind(i64::from(count))
    .bind(server)
    .fetch_one(db)
    .await?;
    u64::try_from(last).map_err(corrupt("the number of an order"))
}

/// Notes which signing key a server's agent was given, unless we know which one it obeys.
pub async fn handed_key(
    db: &mut Connection,
    server: ServerId,
    fingerprint: &str,
) -> Result<(), StoreError> {
    sql::query("UPDATE servers SET signing_key = COALESCE(signing_key, $1) WHERE id = $2")
        .bind(fingerprint)
        .bind(server)
        .execute(db)
        .await?;
    Ok(())
}

/// Notes that a server's agent obeys another signing key from now on.
pub async fn obeys_key(
    db: &mut Connection,
    server: ServerId,
    fingerprint: &str,
) -> Result<(), StoreError> {
    sql::query("UPDATE servers SET signing_key = $1 WHERE id = $2")
        .bind(fingerprint)
        .bind(server)
        .execute(db)
        .await?;
    Ok(())
}

/// The fingerprints of all signing keys that some agent obeys.
pub async fn signing_keys(db: &mut Connection) -> Result<BTreeSet<String>, StoreError> {
    let rows: Vec<String> = sql::query_scalar(
        "SELECT DISTINCT signing_key FROM servers \
         WHERE removed IS NULL AND signing_key IS NOT NULL",
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().collect())
}

/// What a server's agent has told about it.
pub async fn facts(
    db: &mut Connection,
    server: ServerId,
) -> Result<BTreeMap<String, String>, StoreError> {
    let text: Option<String> = sql::query_scalar("SELECT facts FROM servers WHERE id = $1")
        .bind(server)
        .fetch_one(db)
        .await?;
    text.map_or_else(
        || Ok(BTreeMap::new()),
        |text| serde_json::from_str(&text).map_err(corrupt("the facts of a server")),
    )
}

fn server(row: Columns) -> Result<ServerRow, StoreError> {
    let (id, name, created, last_seen, address, agent, fingerprint, pending, failed) = row;
    Ok(ServerRow {
        id,
        name: parse_name(&name)?,
        created,
        last_seen,
        address,
        agent,
        fingerprint,
        pending: u32::try_from(pending).unwrap_or(u32::MAX),
        failed: u32::try_from(failed).unwrap_or(u32::MAX),
    })
}

pub(super) fn parse_name(text: &str) -> Result<ServerName, StoreError> {
    ServerName::parse(text).map_err(corrupt("the name of a server"))
}
