//! Rows of grants.

use std::collections::{BTreeMap, BTreeSet};

use bastio_protocol::api::Grant;
use bastio_protocol::{PublicKey, Target, Username};
use sqlx::QueryBuilder;

use super::accounts::{parse_key, parse_login};
use super::{Connection, StoreError, UserId, corrupt};
use crate::plan::Entitlement;

/// A grant to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantData<'a> {
    /// The person.
    pub user: UserId,
    /// The servers.
    pub on: &'a Target,
    /// The account there.
    pub login: &'a Username,
    /// Whether with sudo rights.
    pub sudo: bool,
    /// Why.
    pub reason: &'a str,
}

type Columns = (i64, String, String, String, bool, String, i64);

/// All grants, the oldest first; those of one person when `user` is given.
pub async fn list(db: &mut Connection, user: Option<UserId>) -> Result<Vec<Grant>, StoreError> {
    let rows: Vec<Columns> = sqlx::query_as(
        "SELECT g.id, u.name, g.target, g.login, g.sudo, g.reason, g.created \
         FROM grants g JOIN users u ON u.id = g.user_id \
         WHERE $1 IS NULL OR g.user_id = $1 ORDER BY g.id",
    )
    .bind(user)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(grant).collect()
}

/// The grant of that number.
pub async fn find(db: &mut Connection, id: i64) -> Result<Option<Grant>, StoreError> {
    let row: Option<Columns> = sqlx::query_as(
        "SELECT g.id, u.name, g.target, g.login, g.sudo, g.reason, g.created \
         FROM grants g JOIN users u ON u.id = g.user_id WHERE g.id = $1",
    )
    .bind(id)
    .fetch_optional(db)
    .await?;
    row.map(grant).transpose()
}

/// Adds a grant. One that is there already stays; sudo rights are only ever added to it.
pub async fn upsert(
    db: &mut Connection,
    grant: &GrantData<'_>,
    now: i64,
) -> Result<(), StoreError> {
    let known = sqlx::query(
        "UPDATE grants SET sudo = sudo OR $1, \
         reason = CASE WHEN $2 = '' THEN reason ELSE $2 END \
         WHERE user_id = $3 AND target = $4 AND login = $5",
    )
    .bind(grant.sudo)
    .bind(grant.reason)
    .bind(grant.user)
    .bind(grant.on.to_string())
    .bind(grant.login.as_str())
    .execute(&mut *db)
    .await?;
    if known.rows_affected() == 0 {
        insert(db, grant, now).await?;
    }
    Ok(())
}

async fn insert(db: &mut Connection, grant: &GrantData<'_>, now: i64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO grants (user_id, target, login, sudo, reason, created) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(grant.user)
    .bind(grant.on.to_string())
    .bind(grant.login.as_str())
    .bind(grant.sudo)
    .bind(grant.reason)
    .bind(now)
    .execute(db)
    .await?;
    Ok(())
}

/// Gives or takes the sudo rights of every grant of a person.
pub async fn set_sudo(db: &mut Connection, user: UserId, sudo: bool) -> Result<(), StoreError> {
    sqlx::query("UPDATE grants SET sudo = $1 WHERE user_id = $2")
        .bind(sudo)
        .bind(user)
        .execute(db)
        .await?;
    Ok(())
}

/// Lets a grant be about other servers.
pub async fn set_target(db: &mut Connection, id: i64, on: &Target) -> Result<(), StoreError> {
    sqlx::query("UPDATE grants SET target = $1 WHERE id = $2")
        .bind(on.to_string())
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// Removes a grant.
pub async fn remove(db: &mut Connection, id: i64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM grants WHERE id = $1").bind(id).execute(db).await?;
    Ok(())
}

/// How many grants there are.
pub async fn count(db: &mut Connection) -> Result<u32, StoreError> {
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM grants").fetch_one(db).await?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// The grants of these login names, with the keys of their people; of all when `None`.
pub async fn entitlements(
    db: &mut Connection,
    logins: Option<&BTreeSet<Username>>,
) -> Result<Vec<Entitlement>, StoreError> {
    let mut select =
        QueryBuilder::<sqlx::Sqlite>::new("SELECT user_id, target, login, sudo FROM grants");
    push_logins(&mut select, " WHERE login IN (", logins);
    let rows: Vec<(UserId, String, String, bool)> =
        select.build_query_as().fetch_all(&mut *db).await?;
    let mut select = QueryBuilder::<sqlx::Sqlite>::new(
        "SELECT k.user_id, k.public_key FROM user_keys k \
         WHERE k.user_id IN (SELECT g.user_id FROM grants g",
    );
    push_logins(&mut select, " WHERE g.login IN (", logins);
    select.push(")");
    let keys: Vec<(UserId, String)> = select.build_query_as().fetch_all(db).await?;
    let mut keys_of = BTreeMap::<UserId, Vec<PublicKey>>::new();
    for (user, line) in keys {
        keys_of.entry(user).or_default().push(parse_key(&line)?);
    }
    let entitled = rows.into_iter().map(|(user, target, login, sudo)| {
        Ok(Entitlement {
            on: parse_target(&target)?,
            login: parse_login(&login)?,
            sudo,
            keys: keys_of.get(&user).cloned().unwrap_or_default(),
        })
    });
    entitled.collect()
}

fn push_logins(
    select: &mut QueryBuilder<sqlx::Sqlite>,
    condition: &str,
    logins: Option<&BTreeSet<Username>>,
) {
    let Some(logins) = logins else { return };
    select.push(condition);
    let mut list = select.separated(", ");
    for login in logins {
        list.push_bind(login.to_string());
    }
    select.push(")");
}

fn grant(row: Columns) -> Result<Grant, StoreError> {
    let (id, user, target, login, sudo, reason, created) = row;
    Ok(Grant {
        id,
        user: parse_login(&user)?,
        on: parse_target(&target)?,
        login: parse_login(&login)?,
        sudo,
        reason,
        created,
    })
}

fn parse_target(text: &str) -> Result<Target, StoreError> {
    text.parse().map_err(corrupt("the servers of a grant"))
}
