//! Rows of accounts that were on a server before and became somebody's.

use std::collections::{BTreeMap, BTreeSet};

use bastio_protocol::{Username, WantedAccount};

use super::accounts::parse_login;
use super::{Connection, ServerId, StoreError, corrupt, sql};

/// Such accounts of one server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Adopted {
    /// All of them: none is ever deleted.
    pub logins: BTreeSet<Username>,
    /// What they are to be where no grant says more: locked, or given back.
    pub wanted: BTreeMap<Username, WantedAccount>,
}

/// Such accounts of all servers.
pub type Overlay = BTreeMap<ServerId, Adopted>;

/// Notes whose an account became, and how it was.
pub async fn insert(
    db: &mut Connection,
    server: ServerId,
    login: &Username,
    user: &Username,
    before: &str,
    now: i64,
) -> Result<(), StoreError> {
    sql::query(
        "INSERT INTO adoptions (server_id, login, user_name, before, since) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (server_id, login) DO UPDATE \
         SET user_name = excluded.user_name, before = excluded.before, release = NULL, \
         since = excluded.since",
    )
    .bind(server)
    .bind(login.as_str())
    .bind(user.as_str())
    .bind(before)
    .bind(now)
    .execute(db)
    .await?;
    Ok(())
}

/// How an account was before it became somebody's, if it did.
pub async fn before(
    db: &mut Connection,
    server: ServerId,
    login: &Username,
) -> Result<Option<String>, StoreError> {
    Ok(sql::query_scalar("SELECT before FROM adoptions WHERE server_id = $1 AND login = $2")
        .bind(server)
        .bind(login.as_str())
        .fetch_optional(db)
        .await?)
}

/// Whose the accounts of a server became.
pub async fn of_server(
    db: &mut Connection,
    server: ServerId,
) -> Result<BTreeMap<Username, Username>, StoreError> {
    let rows: Vec<(String, String)> =
        sql::query_as("SELECT login, user_name FROM adoptions WHERE server_id = $1")
            .bind(server)
            .fetch_all(db)
            .await?;
    rows.iter().map(|(login, user)| Ok((parse_login(login)?, parse_login(user)?))).collect()
}

/// All such accounts.
pub async fn all(db: &mut Connection) -> Result<BTreeSet<(ServerId, Username)>, StoreError> {
    let rows: Vec<(ServerId, String)> =
        sql::query_as("SELECT server_id, login FROM adoptions").fetch_all(db).await?;
    rows.iter().map(|(server, login)| Ok((*server, parse_login(login)?))).collect()
}

/// Lets an account be given back, as `release` says.
pub async fn give_back(
    db: &mut Connection,
    server: ServerId,
    login: &Username,
    release: &WantedAccount,
) -> Result<(), StoreError> {
    let release =
        serde_json::to_string(release).expect("texts, numbers and lists always serialise");
    sql::query("UPDATE adoptions SET release = $1 WHERE server_id = $2 AND login = $3")
        .bind(release)
        .bind(server)
        .bind(login.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// An account was given back: neither it nor how it was is of interest any more.
pub async fn forget(
    db: &mut Connection,
    server: ServerId,
    login: &Username,
) -> Result<(), StoreError> {
    for text in [
        "DELETE FROM adoptions WHERE server_id = $1 AND login = $2",
        "DELETE FROM accounts WHERE server_id = $1 AND login = $2",
    ] {
        sql::query(text).bind(server).bind(login.as_str()).execute(&mut *db).await?;
    }
    Ok(())
}

/// Forgets all of a server that is removed.
pub async fn forget_server(db: &mut Connection, server: ServerId) -> Result<(), StoreError> {
    sql::query("DELETE FROM adoptions WHERE server_id = $1").bind(server).execute(db).await?;
    Ok(())
}

/// What such accounts are to be where no grant says more.
pub async fn overlay(db: &mut Connection) -> Result<Overlay, StoreError> {
    let rows: Vec<(ServerId, String, Option<String>, bool)> = sql::query_as(
        "SELECT d.server_id, d.login, d.release, EXISTS (SELECT 1 FROM accounts a \
         WHERE a.server_id = d.server_id AND a.login = d.login) FROM adoptions d",
    )
    .fetch_all(db)
    .await?;
    let mut overlay = Overlay::new();
    for (server, login, release, is_taken) in rows {
        let (login, adopted) = (parse_login(&login)?, overlay.entry(server).or_default());
        adopted.logins.insert(login.clone());
        let wanted = match release {
            Some(text) => serde_json::from_str(&text).map_err(corrupt("an account given back"))?,
            None if is_taken => WantedAccount { locked: true, ..WantedAccount::default() },
            None => continue,
        };
        adopted.wanted.insert(login, wanted);
    }
    Ok(overlay)
}
