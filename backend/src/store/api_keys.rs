//! Rows of API keys: what they may do, and the hash of the secret.

use bastio_protocol::api::{ApiKey, Role};

use super::{Connection, StoreError, sql};

type Columns = (String, String, i64, Option<i64>);

/// All API keys, by name.
pub async fn list(db: &mut Connection) -> Result<Vec<ApiKey>, StoreError> {
    let rows: Vec<Columns> =
        sql::query_as("SELECT name, role, created, last_used FROM api_keys ORDER BY name")
            .fetch_all(db)
            .await?;
    rows.into_iter().map(api_key).collect()
}

/// The API key whose secret has that hash.
pub async fn find_by_hash(db: &mut Connection, hash: &str) -> Result<Option<ApiKey>, StoreError> {
    let row: Option<Columns> =
        sql::query_as("SELECT name, role, created, last_used FROM api_keys WHERE hash = $1")
            .bind(hash)
            .fetch_optional(db)
            .await?;
    row.map(api_key).transpose()
}

/// Adds an API key; `false` when the name is taken.
pub async fn insert(
    db: &mut Connection,
    name: &str,
    role: Role,
    hash: &str,
    now: i64,
) -> Result<bool, StoreError> {
    let done = sql::query(
        "INSERT INTO api_keys (name, role, hash, created) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(name)
    .bind(role_name(role))
    .bind(hash)
    .bind(now)
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Removes an API key.
pub async fn remove(db: &mut Connection, name: &str) -> Result<(), StoreError> {
    sql::query("DELETE FROM api_keys WHERE name = $1").bind(name).execute(db).await?;
    Ok(())
}

/// Notes that an API key was used.
pub async fn used(db: &mut Connection, name: &str, now: i64) -> Result<(), StoreError> {
    sql::query("UPDATE api_keys SET last_used = $1 WHERE name = $2")
        .bind(now)
        .bind(name)
        .execute(db)
        .await?;
    Ok(())
}

/// Writes what is there already: for whoever wants to know whether anything can be written.
pub async fn touch(db: &mut Connection) -> Result<(), StoreError> {
    sql::query("UPDATE api_keys SET created = created").execute(db).await?;
    Ok(())
}

fn api_key((name, role, created, last_used): Columns) -> Result<ApiKey, StoreError> {
    Ok(ApiKey { name, role: parse_role(&role)?, created, last_used })
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
        Role::Enroll => "enroll",
        Role::Metrics => "metrics",
    }
}

fn parse_role(text: &str) -> Result<Role, StoreError> {
    match text {
        "admin" => Ok(Role::Admin),
        "enroll" => Ok(Role::Enroll),
        "metrics" => Ok(Role::Metrics),
        _ => Err(StoreError::Corrupt { what: "the role of an API key" }),
    }
}
