//! Rows of people and their keys.

use std::collections::BTreeMap;

use bastio_protocol::api::{Key, UserState};
use bastio_protocol::{AccountSpec, KeyGrant, Username};

use super::accounts::{parse_key, parse_login};
use super::grants::{parse_options, parse_spec};
use super::{Connection, StoreError, UserId, sql};

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
    /// Whether the person is locked out.
    pub locked: bool,
    /// Whether the person has no access at all.
    pub disabled: bool,
    /// What the accounts of that name must be.
    pub spec: AccountSpec,
}

impl UserRow {
    /// Whether the person may log in.
    #[must_use]
    pub fn state(&self) -> UserState {
        match (self.disabled, self.locked) {
            (true, _) => UserState::Disabled,
            (false, true) => UserState::Locked,
            (false, false) => UserState::Active,
        }
    }
}

type Columns = (UserId, String, String, String, i64, bool, bool, String);
type KeyColumns = (String, String, i64, String, Option<i64>, String);
type OwnedKeyColumns = (UserId, String, String, i64, String, Option<i64>, String);

macro_rules! select_users {
    () => {
        "SELECT id, name, full_name, mail, created, locked, disabled, spec FROM users"
    };
}

/// All people, by name.
pub async fn list(db: &mut Connection) -> Result<Vec<UserRow>, StoreError> {
    let rows: Vec<Columns> =
        sql::query_as(concat!(select_users!(), " ORDER BY name")).fetch_all(db).await?;
    rows.into_iter().map(user).collect()
}

/// How many people there are.
pub async fn count(db: &mut Connection) -> Result<u32, StoreError> {
    let count: i64 = sql::query_scalar("SELECT COUNT(*) FROM users").fetch_one(db).await?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// The person of that name.
pub async fn find(db: &mut Connection, name: &Username) -> Result<Option<UserRow>, StoreError> {
    let row: Option<Columns> = sql::query_as(concat!(select_users!(), " WHERE name = $1"))
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
    let id = sql::query_scalar(
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
    sql::query("UPDATE users SET full_name = $1, mail = $2 WHERE id = $3")
        .bind(full_name)
        .bind(mail)
        .bind(user)
        .execute(db)
        .await?;
    Ok(())
}

/// Says whether a person may log in.
pub async fn set_state(
    db: &mut Connection,
    user: UserId,
    state: UserState,
) -> Result<(), StoreError> {
    sql::query("UPDATE users SET locked = $1, disabled = $2 WHERE id = $3")
        .bind(state == UserState::Locked)
        .bind(state == UserState::Disabled)
        .bind(user)
        .execute(db)
        .await?;
    Ok(())
}

/// Says what the accounts of a person's name must be.
pub async fn set_spec(
    db: &mut Connection,
    user: UserId,
    spec: &AccountSpec,
) -> Result<(), StoreError> {
    let spec = serde_json::to_string(spec).expect("texts, numbers and lists always serialise");
    sql::query("UPDATE users SET spec = $1 WHERE id = $2")
        .bind(spec)
        .bind(user)
        .execute(db)
        .await?;
    Ok(())
}

/// Removes a person with keys and grants.
pub async fn remove(db: &mut Connection, user: UserId) -> Result<(), StoreError> {
    sql::query("DELETE FROM users WHERE id = $1").bind(user).execute(db).await?;
    Ok(())
}

/// A person's keys, the oldest first.
pub async fn keys(db: &mut Connection, user: UserId) -> Result<Vec<Key>, StoreError> {
    let rows: Vec<KeyColumns> = sql::query_as(
        "SELECT fingerprint, public_key, created, options, until, origin FROM user_keys \
         WHERE user_id = $1 \
         ORDER BY created, fingerprint",
    )
    .bind(user)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(key).collect()
}

/// Everybody's keys.
pub async fn all_keys(db: &mut Connection) -> Result<BTreeMap<UserId, Vec<Key>>, StoreError> {
    let rows: Vec<OwnedKeyColumns> = sql::query_as(
        "SELECT user_id, fingerprint, public_key, created, options, until, origin FROM user_keys \
         ORDER BY created, fingerprint",
    )
    .fetch_all(db)
    .await?;
    let mut users = BTreeMap::<UserId, Vec<Key>>::new();
    for (user, fingerprint, line, created, options, until, origin) in rows {
        let key = key((fingerprint, line, created, options, until, origin))?;
        users.entry(user).or_default().push(key);
    }
    Ok(users)
}

/// Adds a key to a person, or gives it other options or another end; whether that changed anything.
pub async fn add_key(
    db: &mut Connection,
    user: UserId,
    key: &KeyGrant,
    origin: &str,
    now: i64,
) -> Result<bool, StoreError> {
    let done = sql::query(
        "INSERT INTO user_keys (user_id, fingerprint, public_key, created, options, until, origin) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (user_id, fingerprint) DO UPDATE \
         SET options = excluded.options, until = excluded.until \
         WHERE user_keys.options <> excluded.options \
         OR user_keys.until IS DISTINCT FROM excluded.until",
    )
    .bind(user)
    .bind(key.public_key.fingerprint())
    .bind(key.public_key.to_string())
    .bind(now)
    .bind(key.options.as_str())
    .bind(key.until)
    .bind(origin)
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Takes away the keys that have ended by `now`: whose, and their fingerprints.
pub async fn remove_ended_keys(
    db: &mut Connection,
    now: i64,
) -> Result<Vec<(UserId, Username, String)>, StoreError> {
    let rows: Vec<(UserId, String, String)> = sql::query_as(
        "SELECT k.user_id, u.name, k.fingerprint FROM user_keys k \
         JOIN users u ON u.id = k.user_id WHERE k.until IS NOT NULL AND k.until <= $1",
    )
    .bind(now)
    .fetch_all(&mut *db)
    .await?;
    sql::query("DELETE FROM user_keys WHERE until IS NOT NULL AND until <= $1")
        .bind(now)
        .execute(db)
        .await?;
    rows.into_iter().map(|(user, name, key)| Ok((user, parse_login(&name)?, key))).collect()
}

/// Takes a key from a person; whether the person had it.
pub async fn remove_key(
    db: &mut Connection,
    user: UserId,
    fingerprint: &str,
) -> Result<bool, StoreError> {
    let done = sql::query("DELETE FROM user_keys WHERE user_id = $1 AND fingerprint = $2")
        .bind(user)
        .bind(fingerprint)
        .execute(db)
        .await?;
    Ok(done.rows_affected() > 0)
}

fn user(row: Columns) -> Result<UserRow, StoreError> {
    let (id, name, full_name, mail, created, locked, disabled, spec) = row;
    let (name, spec) = (parse_login(&name)?, parse_spec(&spec)?);
    Ok(UserRow { id, name, full_name, mail, created, locked, disabled, spec })
}

fn key(
    (fingerprint, line, created, options, until, origin): KeyColumns,
) -> Result<Key, StoreError> {
    let options = parse_options(&options)?;
    Ok(Key { fingerprint, public_key: parse_key(&line)?, options, until, created, origin })
}
