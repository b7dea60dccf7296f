//! Rows of grants.

use bastio_protocol::api::{Grant, Holder, PolicyName, Terms, UserGroup};
use bastio_protocol::{AccountSpec, KeyOptions, Target, Username};

use super::accounts::parse_login;
use super::groups::{GroupId, parse_group};
use super::{Connection, StoreError, UserId, corrupt, sql};

mod entitled;

pub use entitled::{entitlements, entitlements_to_come};

/// Who has a grant to store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HolderId {
    /// A person.
    User(UserId),
    /// A group.
    Group(GroupId),
}

/// A grant to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantData<'a> {
    /// Who has it.
    pub holder: HolderId,
    /// The servers.
    pub on: &'a Target,
    /// The account there; a group's people have each their own when absent.
    pub login: Option<&'a Username>,
    /// Whether with sudo rights.
    pub sudo: bool,
    /// More about it.
    pub terms: &'a Terms,
    /// Why.
    pub reason: &'a str,
}

impl GrantData<'_> {
    fn user(&self) -> Option<UserId> {
        match self.holder {
            HolderId::User(user) => Some(user),
            HolderId::Group(_) => None,
        }
    }

    fn group(&self) -> Option<GroupId> {
        match self.holder {
            HolderId::User(_) => None,
            HolderId::Group(group) => Some(group),
        }
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    user_name: Option<String>,
    group_name: Option<String>,
    target: String,
    login: Option<String>,
    sudo: bool,
    reason: String,
    created: i64,
    starts: Option<i64>,
    until: Option<i64>,
    sudo_policy: Option<String>,
    key_options: String,
    take_over: bool,
}

macro_rules! select_grants {
    () => {
        "SELECT g.id, u.name AS user_name, o.name AS group_name, g.target, g.login, g.sudo, \
         g.reason, g.created, g.starts, g.until, g.sudo_policy, g.key_options, g.take_over \
         FROM grants g LEFT JOIN users u ON u.id = g.user_id \
         LEFT JOIN user_groups o ON o.id = g.group_id "
    };
}

/// All grants, the oldest first.
pub async fn list(db: &mut Connection) -> Result<Vec<Grant>, StoreError> {
    let rows: Vec<Row> =
        sql::query_as(concat!(select_grants!(), "ORDER BY g.id")).fetch_all(db).await?;
    rows.into_iter().map(grant).collect()
}

/// The grants that a person has, also through groups, the oldest first.
pub async fn of_user(db: &mut Connection, user: UserId) -> Result<Vec<Grant>, StoreError> {
    let rows: Vec<Row> = sql::query_as(concat!(
        "WITH RECURSIVE around(group_id) AS (\
         SELECT group_id FROM user_group_users WHERE user_id = $1 \
         UNION SELECT m.group_id FROM user_group_groups m \
         JOIN around a ON a.group_id = m.member_id) ",
        select_grants!(),
        "WHERE g.user_id = $1 OR g.group_id IN (SELECT group_id FROM around) ORDER BY g.id"
    ))
    .bind(user)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(grant).collect()
}

/// The grants of a group itself, the oldest first.
pub async fn of_group(db: &mut Connection, group: &UserGroup) -> Result<Vec<Grant>, StoreError> {
    let rows: Vec<Row> =
        sql::query_as(concat!(select_grants!(), "WHERE o.name = $1 ORDER BY g.id"))
            .bind(group.as_str())
            .fetch_all(db)
            .await?;
    rows.into_iter().map(grant).collect()
}

/// The grant of that number.
pub async fn find(db: &mut Connection, id: i64) -> Result<Option<Grant>, StoreError> {
    let row: Option<Row> = sql::query_as(concat!(select_grants!(), "WHERE g.id = $1"))
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
    let Some(known) = find_same(db, grant).await? else { return insert(db, grant, now).await };
    sql::query(
        "UPDATE grants SET sudo = sudo OR $1, \
         reason = CASE WHEN $2 = '' THEN reason ELSE $2 END WHERE id = $3",
    )
    .bind(grant.sudo)
    .bind(grant.reason)
    .bind(known)
    .execute(db)
    .await?;
    Ok(())
}

/// The number of the grant with the same terms. Targets are compared by what they mean: texts that
/// were stored by earlier versions are not sorted.
async fn find_same(db: &mut Connection, grant: &GrantData<'_>) -> Result<Option<i64>, StoreError> {
    let rows: Vec<(i64, String)> = sql::query_as(
        "SELECT id, target FROM grants WHERE (user_id = $1 OR group_id = $2) AND login IS NOT DISTINCT FROM $3 \
         AND until IS NOT DISTINCT FROM $4 AND sudo_policy IS NOT DISTINCT FROM $5 \
         AND key_options = $6 AND take_over = $7 AND starts IS NOT DISTINCT FROM $8 ORDER BY id",
    )
    .bind(grant.user())
    .bind(grant.group())
    .bind(grant.login.map(Username::as_str))
    .bind(grant.terms.until)
    .bind(grant.terms.sudo_policy.as_ref().map(PolicyName::as_str))
    .bind(grant.terms.key_options.as_str())
    .bind(grant.terms.take_over)
    .bind(grant.terms.from)
    .fetch_all(db)
    .await?;
    for (id, target) in rows {
        if parse_target(&target)? == *grant.on {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// Adds a grant of which none of the same terms is there.
pub async fn insert(
    db: &mut Connection,
    grant: &GrantData<'_>,
    now: i64,
) -> Result<(), StoreError> {
    sql::query(
        "INSERT INTO grants (user_id, group_id, target, login, sudo, reason, created, until, \
         sudo_policy, key_options, take_over, starts, begun) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(grant.user())
    .bind(grant.group())
    .bind(grant.on.to_string())
    .bind(grant.login.map(Username::as_str))
    .bind(grant.sudo)
    .bind(grant.reason)
    .bind(now)
    .bind(grant.terms.until)
    .bind(grant.terms.sudo_policy.as_ref().map(PolicyName::as_str))
    .bind(grant.terms.key_options.as_str())
    .bind(grant.terms.take_over)
    .bind(grant.terms.from)
    .bind(grant.terms.from.is_none_or(|from| from <= now))
    .execute(db)
    .await?;
    Ok(())
}

/// Gives or takes the sudo rights of every grant of a person's own, policies included.
pub async fn set_sudo(db: &mut Connection, user: UserId, sudo: bool) -> Result<(), StoreError> {
    sql::query("UPDATE grants SET sudo = $1, sudo_policy = NULL WHERE user_id = $2")
        .bind(sudo)
        .bind(user)
        .execute(db)
        .await?;
    Ok(())
}

/// Gives or takes the plain sudo rights of one grant, and says why it is there.
pub async fn change(
    db: &mut Connection,
    id: i64,
    sudo: bool,
    reason: &str,
) -> Result<(), StoreError> {
    sql::query("UPDATE grants SET sudo = $1, reason = $2 WHERE id = $3")
        .bind(sudo)
        .bind(reason)
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// Lets a grant be about other servers.
pub async fn set_target(db: &mut Connection, id: i64, on: &Target) -> Result<(), StoreError> {
    sql::query("UPDATE grants SET target = $1 WHERE id = $2")
        .bind(on.to_string())
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// Removes a grant.
pub async fn remove(db: &mut Connection, id: i64) -> Result<(), StoreError> {
    sql::query("DELETE FROM grants WHERE id = $1").bind(id).execute(db).await?;
    Ok(())
}

/// How many grants there are.
pub async fn count(db: &mut Connection) -> Result<u32, StoreError> {
    let count: i64 = sql::query_scalar("SELECT COUNT(*) FROM grants").fetch_one(db).await?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// The begins to come, the nearest first, at most so many.
pub async fn begins_after(
    db: &mut Connection,
    now: i64,
    limit: u32,
) -> Result<Vec<i64>, StoreError> {
    let begins = sql::query_scalar(
        "SELECT DISTINCT starts FROM grants WHERE starts > $1 ORDER BY starts LIMIT $2",
    )
    .bind(now)
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    Ok(begins)
}

/// The next time at which a grant begins, or a grant or a key of somebody ends.
pub async fn next_turn(db: &mut Connection) -> Result<Option<i64>, StoreError> {
    let next = sql::query_scalar(
        "SELECT MIN(turn) FROM (SELECT MIN(until) AS turn FROM grants WHERE until IS NOT NULL \
         UNION ALL SELECT MIN(starts) AS turn FROM grants WHERE begun = FALSE \
         UNION ALL SELECT MIN(until) AS turn FROM user_keys WHERE until IS NOT NULL) turns",
    )
    .fetch_one(db)
    .await?;
    Ok(next)
}

/// Takes note that the grants which begin by `now` have begun; these grants.
pub async fn begin(db: &mut Connection, now: i64) -> Result<Vec<Grant>, StoreError> {
    let rows: Vec<Row> = sql::query_as(concat!(
        select_grants!(),
        "WHERE g.begun = FALSE AND g.starts <= $1 ORDER BY g.id"
    ))
    .bind(now)
    .fetch_all(&mut *db)
    .await?;
    sql::query("UPDATE grants SET begun = TRUE WHERE begun = FALSE AND starts <= $1")
        .bind(now)
        .execute(db)
        .await?;
    rows.into_iter().map(grant).collect()
}

/// The grants that have ended by `now`.
pub async fn ended(db: &mut Connection, now: i64) -> Result<Vec<Grant>, StoreError> {
    let rows: Vec<Row> = sql::query_as(concat!(
        select_grants!(),
        "WHERE g.until IS NOT NULL AND g.until <= $1 ORDER BY g.id"
    ))
    .bind(now)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(grant).collect()
}

fn grant(row: Row) -> Result<Grant, StoreError> {
    let policy = row.sudo_policy.map(|name| name.parse().map_err(corrupt("a policy's name")));
    Ok(Grant {
        id: row.id,
        holder: holder(row.user_name.as_deref(), row.group_name.as_deref())?,
        on: parse_target(&row.target)?,
        login: row.login.as_deref().map(parse_login).transpose()?,
        sudo: row.sudo,
        terms: Terms {
            from: row.starts,
            until: row.until,
            sudo_policy: policy.transpose()?,
            key_options: parse_options(&row.key_options)?,
            take_over: row.take_over,
        },
        reason: row.reason,
        created: row.created,
    })
}

fn holder(user: Option<&str>, group: Option<&str>) -> Result<Holder, StoreError> {
    match (user, group) {
        (Some(user), None) => Ok(Holder::User(parse_login(user)?)),
        (None, Some(group)) => Ok(Holder::Group(parse_group(group)?)),
        _ => Err(StoreError::Corrupt { what: "who has a grant" }),
    }
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

pub(super) fn parse_target(text: &str) -> Result<Target, StoreError> {
    text.parse().map_err(corrupt("the servers of a grant"))
}
