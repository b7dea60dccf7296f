//! Rows of grants.

use std::collections::{BTreeMap, BTreeSet};

use bastio_protocol::api::{Grant, PolicyName, Terms};
use bastio_protocol::{AccountSpec, KeyGrant, KeyOptions, Sudo, SudoPolicy, Target, Username};
use sqlx::QueryBuilder;

use super::accounts::{parse_key, parse_login};
use super::{Connection, StoreError, UserId, corrupt};
use crate::plan::{Entitlement, Rights};

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
    /// More about it.
    pub terms: &'a Terms,
    /// Why.
    pub reason: &'a str,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    name: String,
    target: String,
    login: String,
    sudo: bool,
    reason: String,
    created: i64,
    until: Option<i64>,
    sudo_policy: Option<String>,
    key_options: String,
    take_over: bool,
}

macro_rules! select_grants {
    () => {
        "SELECT g.id, u.name, g.target, g.login, g.sudo, g.reason, g.created, g.until, \
         g.sudo_policy, g.key_options, g.take_over \
         FROM grants g JOIN users u ON u.id = g.user_id "
    };
}

/// All grants, the oldest first; those of one person when `user` is given.
pub async fn list(db: &mut Connection, user: Option<UserId>) -> Result<Vec<Grant>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(concat!(
        select_grants!(),
        "WHERE $1 IS NULL OR g.user_id = $1 ORDER BY g.id"
    ))
    .bind(user)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(grant).collect()
}

/// The grant of that number.
pub async fn find(db: &mut Connection, id: i64) -> Result<Option<Grant>, StoreError> {
    let row: Option<Row> = sqlx::query_as(concat!(select_grants!(), "WHERE g.id = $1"))
        .bind(id)
        .fetch_optional(db)
        .await?;
    row.map(grant).transpose()
}

/// Adds a grant. One of the same terms that is there already stays; sudo rights are only ever added
/// to it.
pub async fn upsert(
    db: &mut Connection,
    grant: &GrantData<'_>,
    now: i64,
) -> Result<(), StoreError> {
    let known = sqlx::query(
        "UPDATE grants SET sudo = sudo OR $1, \
         reason = CASE WHEN $2 = '' THEN reason ELSE $2 END \
         WHERE user_id = $3 AND target = $4 AND login = $5 AND until IS NOT DISTINCT FROM $6 \
         AND sudo_policy IS NOT DISTINCT FROM $7 AND key_options = $8 AND take_over = $9",
    )
    .bind(grant.sudo)
    .bind(grant.reason)
    .bind(grant.user)
    .bind(grant.on.to_string())
    .bind(grant.login.as_str())
    .bind(grant.terms.until)
    .bind(grant.terms.sudo_policy.as_ref().map(PolicyName::as_str))
    .bind(grant.terms.key_options.as_str())
    .bind(grant.terms.take_over)
    .execute(&mut *db)
    .await?;
    if known.rows_affected() == 0 {
        insert(db, grant, now).await?;
    }
    Ok(())
}

async fn insert(db: &mut Connection, grant: &GrantData<'_>, now: i64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO grants (user_id, target, login, sudo, reason, created, until, sudo_policy, \
         key_options, take_over) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(grant.user)
    .bind(grant.on.to_string())
    .bind(grant.login.as_str())
    .bind(grant.sudo)
    .bind(grant.reason)
    .bind(now)
    .bind(grant.terms.until)
    .bind(grant.terms.sudo_policy.as_ref().map(PolicyName::as_str))
    .bind(grant.terms.key_options.as_str())
    .bind(grant.terms.take_over)
    .execute(db)
    .await?;
    Ok(())
}

/// Gives or takes the sudo rights of every grant of a person, policies included.
pub async fn set_sudo(db: &mut Connection, user: UserId, sudo: bool) -> Result<(), StoreError> {
    sqlx::query("UPDATE grants SET sudo = $1, sudo_policy = NULL WHERE user_id = $2")
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

/// The next time at which a grant or a key of somebody ends.
pub async fn next_end(db: &mut Connection) -> Result<Option<i64>, StoreError> {
    let next = sqlx::query_scalar(
        "SELECT MIN(until) FROM (SELECT MIN(until) AS until FROM grants WHERE until IS NOT NULL \
         UNION ALL SELECT MIN(until) AS until FROM user_keys WHERE until IS NOT NULL) ends",
    )
    .fetch_one(db)
    .await?;
    Ok(next)
}

/// The grants that have ended by `now`.
pub async fn ended(db: &mut Connection, now: i64) -> Result<Vec<Grant>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(concat!(
        select_grants!(),
        "WHERE g.until IS NOT NULL AND g.until <= $1 ORDER BY g.id"
    ))
    .bind(now)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(grant).collect()
}

#[derive(sqlx::FromRow)]
struct RightsRow {
    user_id: UserId,
    name: String,
    spec: String,
    locked: bool,
    target: String,
    login: String,
    sudo: bool,
    until: Option<i64>,
    policy: Option<String>,
    key_options: String,
    take_over: bool,
}

/// The grants of these login names that hold at `now`, with the keys of their people; of all when
/// `None`.
pub async fn entitlements(
    db: &mut Connection,
    logins: Option<&BTreeSet<Username>>,
    now: i64,
) -> Result<Vec<Entitlement>, StoreError> {
    let mut select = QueryBuilder::<sqlx::Sqlite>::new(
        "SELECT g.user_id, u.name, u.spec, u.locked, g.target, g.login, g.sudo, g.until, \
         p.policy, g.key_options, g.take_over FROM grants g JOIN users u ON u.id = g.user_id \
         LEFT JOIN sudo_policies p ON p.name = g.sudo_policy \
         WHERE (g.until IS NULL OR g.until > ",
    );
    select.push_bind(now).push(")");
    push_logins(&mut select, " AND g.login IN (", logins);
    let rows: Vec<RightsRow> = select.build_query_as().fetch_all(&mut *db).await?;
    let keys_of = keys_of(db, logins, now).await?;
    let entitled = rows.into_iter().map(|row| {
        let keys = keys_of.get(&row.user_id).cloned().unwrap_or_default();
        entitlement(row, keys)
    });
    entitled.collect()
}

/// The keys of those who have grants of these login names.
async fn keys_of(
    db: &mut Connection,
    logins: Option<&BTreeSet<Username>>,
    now: i64,
) -> Result<BTreeMap<UserId, Vec<KeyGrant>>, StoreError> {
    let mut select = QueryBuilder::<sqlx::Sqlite>::new(
        "SELECT k.user_id, k.public_key, k.options, k.until FROM user_keys k \
         WHERE (k.until IS NULL OR k.until > ",
    );
    select.push_bind(now);
    select.push(") AND k.user_id IN (SELECT g.user_id FROM grants g");
    push_logins(&mut select, " WHERE g.login IN (", logins);
    select.push(")");
    let rows: Vec<(UserId, String, String, Option<i64>)> =
        select.build_query_as().fetch_all(db).await?;
    let mut keys = BTreeMap::<UserId, Vec<KeyGrant>>::new();
    for (user, line, options, until) in rows {
        let options = parse_options(&options)?;
        let key = KeyGrant { public_key: parse_key(&line)?, options, until };
        keys.entry(user).or_default().push(key);
    }
    Ok(keys)
}

fn entitlement(row: RightsRow, keys: Vec<KeyGrant>) -> Result<Entitlement, StoreError> {
    let policy: Option<SudoPolicy> = row
        .policy
        .map(|text| serde_json::from_str(&text).map_err(corrupt("a sudo policy")))
        .transpose()?;
    let policy = policy.map_or(Sudo::None, |policy| Sudo::Policy(Box::new(policy)));
    // What is said of a person holds for the account that has the person's name.
    let spec = if row.login == row.name { parse_spec(&row.spec)? } else { AccountSpec::default() };
    Ok(Entitlement {
        on: parse_target(&row.target)?,
        login: parse_login(&row.login)?,
        rights: Rights {
            sudo: if row.sudo { Sudo::Plain } else { policy },
            until: row.until,
            key_options: parse_options(&row.key_options)?,
            keys,
            spec,
            locked: row.locked,
            take_over: row.take_over,
        },
    })
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

fn grant(row: Row) -> Result<Grant, StoreError> {
    let policy = row.sudo_policy.map(|name| name.parse().map_err(corrupt("a policy's name")));
    Ok(Grant {
        id: row.id,
        user: parse_login(&row.name)?,
        on: parse_target(&row.target)?,
        login: parse_login(&row.login)?,
        sudo: row.sudo,
        terms: Terms {
            until: row.until,
            sudo_policy: policy.transpose()?,
            key_options: parse_options(&row.key_options)?,
            take_over: row.take_over,
        },
        reason: row.reason,
        created: row.created,
    })
}

pub(super) fn parse_options(text: &str) -> Result<KeyOptions, StoreError> {
    if text.is_empty() {
        return Ok(KeyOptions::default());
    }
    KeyOptions::parse(text).map_err(corrupt("the options of a key"))
}

pub(super) fn parse_spec(text: &str) -> Result<AccountSpec, StoreError> {
    serde_json::from_str(text).map_err(corrupt("the account of a person"))
}

fn parse_target(text: &str) -> Result<Target, StoreError> {
    text.parse().map_err(corrupt("the servers of a grant"))
}
