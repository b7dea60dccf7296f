//! Rows of people and their keys.

use std::collections::BTreeMap;

use bastio_protocol::api::Key;
use bastio_protocol::{PublicKey, Username};

use super::accounts::{parse_key, parse_login};
use super::{Connection, StoreError, UserId};

/// A person, without keys and grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRow {
    /// The person's number.
    pub id: UserId,
    /// Unique name.
    pub name: Username,
    /// Name for people.
    pub full_name: String,
    /// Mail address.
    pub mail: String,
    /// Added at.
    pub created: i64,
}

type Columns = (UserId, String, String, String, i64);

/// All people, by name.
pub async fn list(db: &mut Connection) -> Result<Vec<UserRow>, StoreError> {
    let rows: Vec<Columns> =
        sqlx::query_as("SELECT id, name, full_name, mail, created FROM users ORDER BY name")
            .fetch_all(db)
            .await?;
    rows.into_iter().map(user).collect()
}

/// How many people there are.
pub async fn count(db: &mut Connection) -> Result<u32, StoreError> {
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM users").fetch_one(db).await?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// The person of that name.
pub async fn find(db: &mut Connection, name: &Username) -> Result<Option<UserRow>, StoreError> {
    let row: Option<Columns> =
        sqlx::query_as("SELECT id, name, full_name, mail, created FROM users WHERE name = $1")
            .bind(name.as_str())
            .fetch_optional(db)
            .await?;
    row.map(user).transpose()
}

/// Adds a person.
pub async fn insert(
    db: &mut Connection,
    name: &Username,
    full_name: &str,
    mail: &str,
    now: i64,
) -> Result<UserId, StoreError> {
    let id = sqlx::query_scalar(
        "INSERT INTO users (name, full_name, mail, created) VALUES ($1, $2, $3, $4) RETURNING id",
    )
    .bind(name.as_str())
    .bind(full_name)
    .bind(mail)
    .bind(now)
    .fetch_one(db)
    .await?;
    Ok(id)
}

/// Changes how a person is called and reached.
pub async fn update(
    db: &mut Connection,
    user: UserId,
    full_name: &str,
    mail: &str,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE users SET full_name = $1, mail = $2 WHERE id = $3")
        .bind(full_name)
        .bind(mail)
        .bind(user)
        .execute(db)
        .await?;
    Ok(())
}

/// Removes a person with keys and grants.
pub async fn remove(db: &mut Connection, user: UserId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM users WHERE id = $1").bind(user).execute(db).await?;
    Ok(())
}

/// A person's keys, the oldest first.
pub async fn keys(db: &mut Connection, user: UserId) -> Result<Vec<Key>, StoreError> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT fingerprint, public_key, created FROM user_keys WHERE user_id = $1 \
         ORDER BY created, fingerprint",
    )
    .bind(user)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(|(fingerprint, line, created)| key(fingerprint, &line, created)).collect()
}

/// Everybody's keys.
pub async fn all_keys(db: &mut Connection) -> Result<BTreeMap<UserId, Vec<Key>>, StoreError> {
    let rows: Vec<(UserId, String, String, i64)> = sqlx::query_as(
        "SELECT user_id, fingerprint, public_key, created FROM user_keys \
         ORDER BY created, fingerprint",
    )
    .fetch_all(db)
    .await?;
    let mut users = BTreeMap::<UserId, Vec<Key>>::new();
    for (user, fingerprint, line, created) in rows {
        users.entry(user).or_default().push(key(fingerprint, &line, created)?);
    }
    Ok(users)
}

/// Adds a key to a person; whether the person did not have it.
pub async fn add_key(
    db: &mut Connection,
    user: UserId,
    key: &PublicKey,
    now: i64,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO user_keys (user_id, fingerprint, public_key, created) \
         VALUES ($1, $2, $3, $4) ON CONFLICT (user_id, fingerprint) DO NOTHING",
    )
    .bind(user)
    .bind(key.fingerprint())
    .bind(key.to_string())
    .bind(now)
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Takes a key from a person; whether the person had it.
pub async fn remove_key(
    db: &mut Connection,
    user: UserId,
    fingerprint: &str,
) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM user_keys WHERE user_id = $1 AND fingerprint = $2")
        .bind(user)
        .bind(fingerprint)
        .execute(db)
        .await?;
    Ok(done.rows_affected() > 0)
}

fn user((id, name, full_name, mail, created): Columns) -> Result<UserRow, StoreError> {
    Ok(UserRow { id, name: parse_login(&name)?, full_name, mail, created })
}

fn key(fingerprint: String, line: &str, created: i64) -> Result<Key, StoreError> {
    Ok(Key { fingerprint, public_key: parse_key(line)?, created })
}
