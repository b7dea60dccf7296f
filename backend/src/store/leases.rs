//! Which node serves which server's agent. On PostgreSQL only: an SQLite file has one backend.
//!
//! A lease lasts as long as its session, and counts as long as its node says every few seconds
//! that it is alive. Safety does not rest on that time but on the epoch: it rises with each session,
//! and what an older one writes is refused. This file must not know what a session does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use sqlx::Error;

use super::engine::Engine;
use super::sql::QueryBuilder;
use super::{Connection, ServerId, Store, StoreError, sql};

/// For how long a node is taken for alive after it said so, in seconds.
pub const ALIVE_FOR: i64 = 10;

macro_rules! now {
    () => {
        "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS BIGINT)"
    };
}

/// Takes a server for a session of this node, from whoever had it; the session's epoch.
pub async fn take(db: &mut Connection, server: ServerId, node: &str) -> Result<i64, StoreError> {
    Ok(sql::query_scalar(
        "INSERT INTO leases (server_id, epoch, node) VALUES ($1, 1, $2) \
         ON CONFLICT (server_id) DO UPDATE SET epoch = leases.epoch + 1, lost_by = leases.node, \
         node = excluded.node RETURNING epoch",
    )
    .bind(server)
    .bind(node)
    .fetch_one(db)
    .await?)
}

/// Takes each of these servers, which must be different ones, as [`take`] does; the epoch of each.
pub async fn take_all(
    db: &mut Connection,
    servers: &[ServerId],
    node: &str,
) -> Result<BTreeMap<ServerId, i64>, StoreError> {
    if servers.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut insert = QueryBuilder::new("INSERT INTO leases (server_id, epoch, node) ");
    insert.push_values(servers, |mut row, server| {
        row.push_bind(*server).push_bind(1_i64).push_bind(node.to_owned());
    });
    insert.push(
        " ON CONFLICT (server_id) DO UPDATE SET epoch = leases.epoch + 1, lost_by = leases.node, \
         node = excluded.node RETURNING server_id, epoch",
    );
    let rows: Vec<(ServerId, i64)> = insert.build_query_as().fetch_all(db).await?;
    Ok(rows.into_iter().collect())
}

/// Whether that is the server's session still.
pub async fn holds(db: &mut Connection, server: ServerId, epoch: i64) -> Result<bool, StoreError> {
    Ok(sql::query("SELECT 1 FROM leases WHERE server_id = $1 AND epoch = $2 AND node IS NOT NULL")
        .bind(server)
        .bind(epoch)
        .exists(db)
        .await?)
}

/// Of these servers, each with the epoch of a session, those whose lease is another session's or nobody's.
pub async fn not_held(
    db: &mut Connection,
    sessions: &[(ServerId, i64)],
) -> Result<BTreeSet<(ServerId, i64)>, StoreError> {
    if sessions.is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut select = QueryBuilder::new(
        "SELECT server_id, epoch FROM leases WHERE node IS NOT NULL AND (server_id, epoch) IN (",
    );
    push_sessions(&mut select, sessions);
    select.push(")");
    let held: Vec<(ServerId, i64)> = select.build_query_as().fetch_all(db).await?;
    let mut lost: BTreeSet<_> = sessions.iter().copied().collect();
    held.iter().for_each(|held| {
        lost.remove(held);
    });
    Ok(lost)
}

/// Gives many back that are held by these sessions.
pub async fn release_all(
    db: &mut Connection,
    sessions: &[(ServerId, i64)],
) -> Result<(), StoreError> {
    if sessions.is_empty() {
        return Ok(());
    }
    let mut update =
        QueryBuilder::new("UPDATE leases SET node = NULL WHERE (server_id, epoch) IN (");
    push_sessions(&mut update, sessions);
    update.push(")");
    update.build().execute(db).await?;
    Ok(())
}

fn push_sessions(builder: &mut QueryBuilder<'_>, sessions: &[(ServerId, i64)]) {
    builder.push_values(sessions, |mut row, (server, epoch)| {
        row.push_bind(*server).push_bind(*epoch);
    });
}

/// Gives a server back; whether it was that session's still.
pub async fn release(
    db: &mut Connection,
    server: ServerId,
    epoch: i64,
) -> Result<bool, StoreError> {
    let done = sql::query("UPDATE leases SET node = NULL WHERE server_id = $1 AND epoch = $2")
        .bind(server)
        .bind(epoch)
        .execute(db)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Takes a server from its session, wherever that is.
pub async fn revoke(db: &mut Connection, server: ServerId) -> Result<(), StoreError> {
    if matches!(db, Connection::Postgres(_)) {
        sql::query(
            "UPDATE leases SET epoch = epoch + 1, lost_by = node, node = NULL \
             WHERE server_id = $1 AND node IS NOT NULL",
        )
        .bind(server)
        .execute(db)
        .await?;
    }
    Ok(())
}

/// Says that a node is alive, and forgets those that are not. Waits for no writer.
pub async fn beat(store: &Store, node: &str) -> Result<(), StoreError> {
    let Engine::Postgres { beside, .. } = &store.engine else { return Ok(()) };
    sqlx::query(concat!(
        "INSERT INTO nodes (node, until) VALUES ($1, ",
        now!(),
        " + $2) ON CONFLICT (node) DO UPDATE SET until = excluded.until"
    ))
    .bind(node)
    .bind(ALIVE_FOR)
    .execute(beside)
    .await?;
    let forget = concat!("DELETE FROM nodes WHERE until < ", now!(), " - 3600");
    sqlx::query(forget).execute(beside).await?;
    Ok(())
}

/// Says that a node is there no more.
pub async fn leave(store: &Store, node: &str) -> Result<(), Error> {
    let Engine::Postgres { beside, .. } = &store.engine else { return Ok(()) };
    sqlx::query("DELETE FROM nodes WHERE node = $1").bind(node).execute(beside).await?;
    Ok(())
}

/// The servers that this node has lost, each with the epoch of whoever has it now.
pub async fn lost(db: &mut Connection, node: &str) -> Result<Vec<(ServerId, i64)>, StoreError> {
    Ok(sql::query_as("SELECT server_id, epoch FROM leases WHERE lost_by = $1")
        .bind(node)
        .fetch_all(db)
        .await?)
}

/// The servers that this node holds, each with its session's epoch.
pub async fn mine(db: &mut Connection, node: &str) -> Result<Vec<(ServerId, i64)>, StoreError> {
    Ok(sql::query_as("SELECT server_id, epoch FROM leases WHERE node = $1")
        .bind(node)
        .fetch_all(db)
        .await?)
}

/// From where the server's agent came that another living node serves, if one does.
pub async fn rival(
    db: &mut Connection,
    server: ServerId,
    node: &str,
) -> Result<Option<IpAddr>, StoreError> {
    if !matches!(db, Connection::Postgres(_)) {
        return Ok(None);
    }
    // Whoever takes a lease notes the address in the same transaction.
    let address: Option<Option<String>> = sql::query_scalar(concat!(
        "SELECT s.address FROM leases l JOIN nodes n ON n.node = l.node \
         JOIN servers s ON s.id = l.server_id \
         WHERE l.server_id = $1 AND l.node <> $2 AND n.until > ",
        now!()
    ))
    .bind(server)
    .bind(node)
    .fetch_optional(db)
    .await?;
    Ok(address.flatten().and_then(|address| address.parse().ok()))
}

/// The servers that other living nodes serve.
pub async fn elsewhere(db: &mut Connection, node: &str) -> Result<Vec<ServerId>, StoreError> {
    Ok(sql::query_scalar(concat!(
        "SELECT l.server_id FROM leases l JOIN nodes n ON n.node = l.node \
         WHERE l.node <> $1 AND n.until > ",
        now!()
    ))
    .bind(node)
    .fetch_all(db)
    .await?)
}

/// The servers of this node for which something waits that was queued after these numbers, or all
/// along; and the numbers up to which was looked.
pub async fn waiting(
    db: &mut Connection,
    node: &str,
    (action, request): (i64, i64),
) -> Result<(Vec<ServerId>, (i64, i64)), StoreError> {
    let servers = sql::query_scalar(
        "SELECT l.server_id FROM leases l WHERE l.node = $1 AND (\
         EXISTS (SELECT 1 FROM actions a WHERE a.server_id = l.server_id AND a.id > $2 \
                 AND a.state = 'queued' AND a.state IN ('queued', 'sent')) \
         OR EXISTS (SELECT 1 FROM requests r WHERE r.server_id = l.server_id AND r.id > $3 \
                    AND r.state = 'queued' AND r.state IN ('queued', 'sent')))",
    )
    .bind(node)
    .bind(action)
    .bind(request)
    .fetch_all(&mut *db)
    .await?;
    let upto = sql::query_as(
        "SELECT COALESCE((SELECT MAX(id) FROM actions), 0), \
         COALESCE((SELECT MAX(id) FROM requests), 0)",
    )
    .fetch_one(db)
    .await?;
    Ok((servers, upto))
}
