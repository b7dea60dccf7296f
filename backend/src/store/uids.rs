//! Rows of numeric ids: which login name has which, for good. Must not know when one is due.

use std::collections::{BTreeMap, BTreeSet};

use bastio_protocol::Username;

use super::accounts::parse_login;
use super::{Connection, StoreError, corrupt, sql};

/// Numeric ids that mean something else: nobody, and "none" of 16 bits.
const NEVER: [u32; 2] = [65_534, 65_535];
/// Ids of people without an account that a server is told at most, the newest first.
const RESERVED_AT_MOST: i64 = 5000;

/// The ids that are given out, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UidRange {
    /// The first.
    pub from: u32,
    /// The last.
    pub to: u32,
}

/// Whose an id is.
pub async fn owner(db: &mut Connection, uid: u32) -> Result<Option<Username>, StoreError> {
    let login: Option<String> = sql::query_scalar("SELECT login FROM uids WHERE uid = $1")
        .bind(i64::from(uid))
        .fetch_optional(db)
        .await?;
    login.as_deref().map(parse_login).transpose()
}

/// Keeps an id for a login name. With `pooled` its accounts have it from now on where nobody says
/// otherwise; without, they have none of ours. The caller has looked whose it is.
pub async fn keep(
    db: &mut Connection,
    login: &Username,
    uid: u32,
    pooled: bool,
    now: i64,
) -> Result<(), StoreError> {
    sql::query("UPDATE uids SET pooled = FALSE WHERE login = $1 AND pooled = TRUE")
        .bind(login.as_str())
        .execute(&mut *db)
        .await?;
    sql::query(
        "INSERT INTO uids (uid, login, pooled, since) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (uid) DO UPDATE SET pooled = excluded.pooled, since = excluded.since",
    )
    .bind(i64::from(uid))
    .bind(login.as_str())
    .bind(pooled)
    .bind(now)
    .execute(db)
    .await?;
    Ok(())
}

/// The id that a login name had last.
pub async fn last_of(db: &mut Connection, login: &Username) -> Result<Option<u32>, StoreError> {
    let uid: Option<i64> = sql::query_scalar(
        "SELECT uid FROM uids WHERE login = $1 ORDER BY since DESC, uid DESC LIMIT 1",
    )
    .bind(login.as_str())
    .fetch_optional(db)
    .await?;
    uid.map(parse).transpose()
}

/// Whether a login name has an id of ours, or accounts that servers have chosen one for.
pub async fn is_settled(db: &mut Connection, login: &Username) -> Result<bool, StoreError> {
    Ok(sql::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM uids WHERE login = $1 AND pooled = TRUE) \
         OR EXISTS (SELECT 1 FROM accounts WHERE login = $1) \
         OR EXISTS (SELECT 1 FROM suspects WHERE login = $1) \
         OR EXISTS (SELECT 1 FROM actions WHERE login = $1 AND state IN ('queued', 'sent'))",
    )
    .bind(login.as_str())
    .fetch_one(db)
    .await?)
}

/// An id that nobody ever had: the one behind the highest, and at the end of the range the lowest.
pub async fn free(db: &mut Connection, range: UidRange) -> Result<Option<u32>, StoreError> {
    let (from, to) = (i64::from(range.from), i64::from(range.to));
    let highest: Option<i64> =
        sql::query_scalar("SELECT MAX(uid) FROM uids WHERE uid >= $1 AND uid <= $2")
            .bind(from)
            .bind(to)
            .fetch_one(&mut *db)
            .await?;
    let next = highest.map_or(Ok(range.from), |uid| parse(uid.saturating_add(1)))?;
    let usable = |uid: &u32| *uid <= range.to && !NEVER.contains(uid);
    if let Some(next) = (next..=range.to).take(NEVER.len() + 1).find(usable) {
        return Ok(Some(next));
    }
    let taken: Vec<i64> = sql::query_scalar("SELECT uid FROM uids WHERE uid >= $1 AND uid <= $2")
        .bind(from)
        .bind(to)
        .fetch_all(db)
        .await?;
    let taken: BTreeSet<u32> = taken.into_iter().map(parse).collect::<Result<_, _>>()?;
    Ok((range.from..=range.to).find(|uid| usable(uid) && !taken.contains(uid)))
}

/// The ids that accounts of these login names have where nobody says otherwise; of all when `None`.
pub async fn pooled(
    db: &mut Connection,
    logins: Option<&BTreeSet<Username>>,
) -> Result<BTreeMap<Username, u32>, StoreError> {
    let mut uids = BTreeMap::new();
    match logins {
        Some(logins) if logins.len() <= 100 => {
            for login in logins {
                let uid: Option<i64> =
                    sql::query_scalar("SELECT uid FROM uids WHERE login = $1 AND pooled = TRUE")
                        .bind(login.as_str())
                        .fetch_optional(&mut *db)
                        .await?;
                if let Some(uid) = uid {
                    uids.insert(login.clone(), parse(uid)?);
                }
            }
        }
        _ => {
            let rows: Vec<(String, i64)> =
                sql::query_as("SELECT login, uid FROM uids WHERE pooled = TRUE")
                    .fetch_all(db)
                    .await?;
            for (login, uid) in rows {
                uids.insert(parse_login(&login)?, parse(uid)?);
            }
        }
    }
    Ok(uids)
}

/// The id of each login name that has ever had one: the last, where there were several.
pub async fn reserved(db: &mut Connection) -> Result<BTreeMap<Username, u32>, StoreError> {
    let rows: Vec<(String, i64)> =
        sql::query_as("SELECT login, uid FROM uids ORDER BY since DESC, uid DESC LIMIT $1")
            .bind(RESERVED_AT_MOST)
            .fetch_all(db)
            .await?;
    let mut uids = BTreeMap::new();
    for (login, uid) in rows {
        uids.entry(parse_login(&login)?).or_insert(parse(uid)?);
    }
    Ok(uids)
}

fn parse(uid: i64) -> Result<u32, StoreError> {
    u32::try_from(uid).map_err(corrupt("a numeric id"))
}
