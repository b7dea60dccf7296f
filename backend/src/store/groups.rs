//! Rows of groups of people and of who is in them.

use bastio_protocol::api::UserGroup;

use super::accounts::parse_login;
use super::{Connection, StoreError, UserId, corrupt, sql};
use crate::plan::{Groups, Inside};

/// A group's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
#[sqlx(transparent)]
pub struct GroupId(pub i64);

/// Who can be in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberId {
    /// A person.
    User(UserId),
    /// Another group.
    Group(GroupId),
}

/// All groups with their members.
pub async fn all(db: &mut Connection) -> Result<Groups, StoreError> {
    let names: Vec<String> =
        sql::query_scalar("SELECT name FROM user_groups").fetch_all(&mut *db).await?;
    let users: Vec<(String, String)> = sql::query_as(
        "SELECT g.name, u.name FROM user_group_users m JOIN user_groups g ON g.id = m.group_id \
         JOIN users u ON u.id = m.user_id",
    )
    .fetch_all(&mut *db)
    .await?;
    let inner: Vec<(String, String)> = sql::query_as(
        "SELECT g.name, i.name FROM user_group_groups m JOIN user_groups g ON g.id = m.group_id \
         JOIN user_groups i ON i.id = m.member_id",
    )
    .fetch_all(db)
    .await?;
    let mut groups = Groups::default();
    for name in names {
        groups.0.entry(parse_group(&name)?).or_default();
    }
    for (group, user) in users {
        groups.0.entry(parse_group(&group)?).or_default().users.insert(parse_login(&user)?);
    }
    for (group, inner) in inner {
        groups.0.entry(parse_group(&group)?).or_default().groups.insert(parse_group(&inner)?);
    }
    Ok(groups)
}

/// Who is in one group itself, if there is that group.
pub async fn inside(db: &mut Connection, name: &UserGroup) -> Result<Option<Inside>, StoreError> {
    let Some(group) = find(db, name).await? else { return Ok(None) };
    let users: Vec<String> = sql::query_scalar(
        "SELECT u.name FROM user_group_users m JOIN users u ON u.id = m.user_id \
         WHERE m.group_id = $1",
    )
    .bind(group)
    .fetch_all(&mut *db)
    .await?;
    let groups: Vec<String> = sql::query_scalar(
        "SELECT i.name FROM user_group_groups m JOIN user_groups i ON i.id = m.member_id \
         WHERE m.group_id = $1",
    )
    .bind(group)
    .fetch_all(db)
    .await?;
    Ok(Some(Inside {
        users: users.iter().map(|name| parse_login(name)).collect::<Result<_, _>>()?,
        groups: groups.iter().map(|name| parse_group(name)).collect::<Result<_, _>>()?,
    }))
}

/// The groups that somebody is in itself, by name.
pub async fn holding(db: &mut Connection, member: MemberId) -> Result<Vec<UserGroup>, StoreError> {
    let (sql, member) = match member {
        MemberId::User(UserId(id)) => (
            "SELECT g.name FROM user_group_users m JOIN user_groups g ON g.id = m.group_id \
             WHERE m.user_id = $1 ORDER BY g.name",
            id,
        ),
        MemberId::Group(GroupId(id)) => (
            "SELECT g.name FROM user_group_groups m JOIN user_groups g ON g.id = m.group_id \
             WHERE m.member_id = $1 ORDER BY g.name",
            id,
        ),
    };
    let names: Vec<String> = sql::query_scalar(sql).bind(member).fetch_all(db).await?;
    names.iter().map(|name| parse_group(name)).collect()
}

/// Names of all groups, with when they were added, by name.
pub async fn list(db: &mut Connection) -> Result<Vec<(UserGroup, i64)>, StoreError> {
    let rows: Vec<(String, i64)> =
        sql::query_as("SELECT name, created FROM user_groups ORDER BY name").fetch_all(db).await?;
    rows.into_iter().map(|(name, created)| Ok((parse_group(&name)?, created))).collect()
}

/// The group of that name.
pub async fn find(db: &mut Connection, name: &UserGroup) -> Result<Option<GroupId>, StoreError> {
    Ok(sql::query_scalar("SELECT id FROM user_groups WHERE name = $1")
        .bind(name.as_str())
        .fetch_optional(db)
        .await?)
}

/// Adds a group.
pub async fn insert(
    db: &mut Connection,
    name: &UserGroup,
    now: i64,
) -> Result<GroupId, StoreError> {
    Ok(sql::query_scalar("INSERT INTO user_groups (name, created) VALUES ($1, $2) RETURNING id")
        .bind(name.as_str())
        .bind(now)
        .fetch_one(db)
        .await?)
}

/// Removes a group with its grants, and out of every other group.
pub async fn remove(db: &mut Connection, group: GroupId) -> Result<(), StoreError> {
    sql::query("DELETE FROM user_groups WHERE id = $1").bind(group).execute(db).await?;
    Ok(())
}

/// Puts somebody into a group; whether that changed anything.
pub async fn add_member(
    db: &mut Connection,
    group: GroupId,
    member: MemberId,
) -> Result<bool, StoreError> {
    let (sql, member) = match member {
        MemberId::User(UserId(id)) => (
            "INSERT INTO user_group_users (group_id, user_id) VALUES ($1, $2) \
             ON CONFLICT (group_id, user_id) DO NOTHING",
            id,
        ),
        MemberId::Group(GroupId(id)) => (
            "INSERT INTO user_group_groups (group_id, member_id) VALUES ($1, $2) \
             ON CONFLICT (group_id, member_id) DO NOTHING",
            id,
        ),
    };
    let done = sql::query(sql).bind(group).bind(member).execute(db).await?;
    Ok(done.rows_affected() > 0)
}

/// Takes somebody out of a group; whether that changed anything.
pub async fn remove_member(
    db: &mut Connection,
    group: GroupId,
    member: MemberId,
) -> Result<bool, StoreError> {
    let (sql, member) = match member {
        MemberId::User(UserId(id)) => {
            ("DELETE FROM user_group_users WHERE group_id = $1 AND user_id = $2", id)
        }
        MemberId::Group(GroupId(id)) => {
            ("DELETE FROM user_group_groups WHERE group_id = $1 AND member_id = $2", id)
        }
    };
    let done = sql::query(sql).bind(group).bind(member).execute(db).await?;
    Ok(done.rows_affected() > 0)
}

pub(super) fn parse_group(text: &str) -> Result<UserGroup, StoreError> {
    text.parse().map_err(corrupt("the name of a group"))
}
