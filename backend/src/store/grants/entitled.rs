//! Grants as the plan sees them: one for each person who has it, by name or through groups.

use std::collections::{BTreeMap, BTreeSet};

use bastio_protocol::{AccountSpec, KeyGrant, Sudo, SudoPolicy, Username};

use super::super::accounts::{parse_key, parse_login};
use super::super::sql::QueryBuilder;
use super::super::{Connection, StoreError, UserId, corrupt};
use super::{parse_options, parse_spec, parse_target};
use crate::plan::{Entitlement, Lasting, Rights};

/// People whose keys are asked for at once.
const AT_ONCE: usize = 500;
/// Login names that a query can name; for more, all are read and the others left out.
const MOST_LOGINS: usize = 5000;

type Select<'q> = QueryBuilder<'q>;

#[derive(sqlx::FromRow)]
struct RightsRow {
    user_id: UserId,
    name: String,
    spec: String,
    locked: bool,
    disabled: bool,
    target: String,
    login: String,
    sudo: bool,
    starts: Option<i64>,
    until: Option<i64>,
    policy: Option<String>,
    key_options: String,
    take_over: bool,
}

/// The grants of these login names that hold at `now` (what has begun goes on, even if the clock is set
/// back), with the keys of their people; of all when
/// `None`. A grant to a group without a login name is one of each person's own name.
pub async fn entitlements(
    db: &mut Connection,
    logins: Option<&BTreeSet<Username>>,
    now: i64,
) -> Result<Vec<Entitlement>, StoreError> {
    let all = of(db, logins, now, false).await?;
    Ok(all.into_iter().map(|one| one.grant).collect())
}

/// As [`entitlements`], with those that begin later.
pub async fn entitlements_to_come(
    db: &mut Connection,
    logins: Option<&BTreeSet<Username>>,
    now: i64,
) -> Result<Vec<Lasting>, StoreError> {
    of(db, logins, now, true).await
}

async fn of(
    db: &mut Connection,
    logins: Option<&BTreeSet<Username>>,
    now: i64,
    to_come: bool,
) -> Result<Vec<Lasting>, StoreError> {
    let few = logins.filter(|logins| logins.len() <= MOST_LOGINS);
    let mut select = holders(few);
    select.push(
        " SELECT h.user_id, u.name, u.spec, u.locked, u.disabled, g.target, h.login, \
         g.sudo, g.starts, g.until, p.policy, g.key_options, g.take_over FROM holders h \
         JOIN grants g ON g.id = h.grant_id \
         JOIN users u ON u.id = h.user_id LEFT JOIN sudo_policies p ON p.name = g.sudo_policy \
         WHERE (g.until IS NULL OR g.until > ",
    );
    select.push_bind(now).push(")");
    if !to_come {
        select.push(" AND (g.starts IS NULL OR g.begun = TRUE OR g.starts <= ");
        select.push_bind(now).push(")");
    }
    select.push(" ORDER BY g.id, h.user_id");
    let mut rows: Vec<RightsRow> = select.build_query_as().fetch_all(&mut *db).await?;
    if let Some(logins) = logins.filter(|_| few.is_none()) {
        let names: BTreeSet<&str> = logins.iter().map(Username::as_str).collect();
        rows.retain(|row| names.contains(row.login.as_str()));
    }
    let people: BTreeSet<UserId> = rows.iter().map(|row| row.user_id).collect();
    let keys_of = keys_of(db, &people, now).await?;
    let entitled = rows.into_iter().map(|row| {
        let keys = keys_of.get(&row.user_id).filter(|_| !row.disabled).cloned();
        let from = row.starts;
        Ok(Lasting { from, grant: entitlement(row, keys.unwrap_or_default())? })
    });
    entitled.collect()
}

/// A table `holders` of grants, people and login names. UNION ends also where groups go round in a
/// circle, which no edit lets them.
fn holders(logins: Option<&BTreeSet<Username>>) -> Select<'static> {
    let mut select = Select::new(
        "WITH RECURSIVE reached(grant_id, login, group_id) AS (\
         SELECT id, login, group_id FROM grants WHERE group_id IS NOT NULL \
         UNION SELECT r.grant_id, r.login, m.member_id FROM reached r \
         JOIN user_group_groups m ON m.group_id = r.group_id), \
         holders(grant_id, user_id, login) AS (\
         SELECT id, user_id, login FROM grants WHERE user_id IS NOT NULL",
    );
    push_logins(&mut select, " AND login IN (", logins);
    select.push(
        " UNION SELECT r.grant_id, m.user_id, r.login FROM reached r \
         JOIN user_group_users m ON m.group_id = r.group_id WHERE r.login IS NOT NULL",
    );
    push_logins(&mut select, " AND r.login IN (", logins);
    select.push(
        " UNION SELECT r.grant_id, u.id, u.name FROM users u \
         JOIN user_group_users m ON m.user_id = u.id \
         JOIN reached r ON r.group_id = m.group_id WHERE r.login IS NULL",
    );
    push_logins(&mut select, " AND u.name IN (", logins);
    select.push(")");
    select
}

/// The keys of these people.
async fn keys_of(
    db: &mut Connection,
    people: &BTreeSet<UserId>,
    now: i64,
) -> Result<BTreeMap<UserId, Vec<KeyGrant>>, StoreError> {
    let people: Vec<UserId> = people.iter().copied().collect();
    let mut keys = BTreeMap::<UserId, Vec<KeyGrant>>::new();
    for some in people.chunks(AT_ONCE) {
        let mut select = Select::new(
            "SELECT user_id, public_key, options, until FROM user_keys \
             WHERE (until IS NULL OR until > ",
        );
        select.push_bind(now).push(") AND user_id IN (");
        let mut list = select.separated(", ");
        for user in some {
            list.push_bind(*user);
        }
        select.push(")");
        let rows: Vec<(UserId, String, String, Option<i64>)> =
            select.build_query_as().fetch_all(&mut *db).await?;
        for (user, line, options, until) in rows {
            let options = parse_options(&options)?;
            let key = KeyGrant { public_key: parse_key(&line)?, options, until };
            keys.entry(user).or_default().push(key);
        }
    }
    Ok(keys)
}

fn entitlement(row: RightsRow, keys: Vec<KeyGrant>) -> Result<Entitlement, StoreError> {
    let policy: Option<SudoPolicy> = row
        .policy
        .map(|text| serde_json::from_str(&text).map_err(corrupt("a sudo policy")))
        .transpose()?;
    let sudo = match policy {
        // Nothing that would be there again where somebody unlocks the account by hand.
        _ if row.disabled => Sudo::None,
        _ if row.sudo => Sudo::Plain,
        Some(policy) => Sudo::Policy(Box::new(policy)),
        None => Sudo::None,
    };
    // What is said of a person holds for the account that has the person's name.
    let spec = if row.login == row.name { parse_spec(&row.spec)? } else { AccountSpec::default() };
    Ok(Entitlement {
        on: parse_target(&row.target)?,
        login: parse_login(&row.login)?,
        rights: Rights {
            sudo,
            until: row.until,
            key_options: parse_options(&row.key_options)?,
            keys,
            spec,
            uid: None,
            locked: row.locked || row.disabled,
            take_over: row.take_over,
        },
    })
}

fn push_logins(
    select: &mut Select<'_>,
    condition: &'static str,
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
