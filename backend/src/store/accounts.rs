//! Rows of what each server's agent has confirmed.

use std::collections::BTreeMap;

use bastio_protocol::{Action, KeyPolicy, PublicKey, Username};

use super::{Connection, ServerId, StoreError, corrupt};
use crate::plan::{Accounts, Step};

/// The confirmed accounts of one server.
pub async fn of_server(db: &mut Connection, server: ServerId) -> Result<Accounts, StoreError> {
    let rows: Vec<(String, bool)> =
        sqlx::query_as("SELECT login, sudo FROM accounts WHERE server_id = $1")
            .bind(server)
            .fetch_all(&mut *db)
            .await?;
    let mut accounts = Accounts::new();
    for (login, sudo) in rows {
        accounts.entry(parse_login(&login)?).or_default().sudo = sudo;
    }
    let keys: Vec<(String, String)> =
        sqlx::query_as("SELECT login, public_key FROM account_keys WHERE server_id = $1")
            .bind(server)
            .fetch_all(db)
            .await?;
    for (login, key) in keys {
        accounts.entry(parse_login(&login)?).or_default().keys.insert(parse_key(&key)?);
    }
    Ok(accounts)
}

/// The confirmed accounts of that login name on all servers.
pub async fn of_login(
    db: &mut Connection,
    login: &Username,
) -> Result<BTreeMap<ServerId, Accounts>, StoreError> {
    let rows: Vec<(ServerId, bool)> =
        sqlx::query_as("SELECT server_id, sudo FROM accounts WHERE login = $1")
            .bind(login.as_str())
            .fetch_all(&mut *db)
            .await?;
    let mut servers = BTreeMap::<ServerId, Accounts>::new();
    for (server, sudo) in rows {
        servers.entry(server).or_default().entry(login.clone()).or_default().sudo = sudo;
    }
    let keys: Vec<(ServerId, String)> = sqlx::query_as(
        "SELECT k.server_id, k.public_key FROM accounts a JOIN account_keys k \
         ON k.server_id = a.server_id AND k.login = a.login WHERE a.login = $1",
    )
    .bind(login.as_str())
    .fetch_all(db)
    .await?;
    for (server, key) in keys {
        let account = servers.entry(server).or_default().entry(login.clone()).or_default();
        account.keys.insert(parse_key(&key)?);
    }
    Ok(servers)
}

/// Takes over what an agent says it has done, as [`crate::plan::confirm`] does in memory. An
/// account that becomes known by anything but add-user is doubtful: no plan counted on it.
pub async fn confirm(db: &mut Connection, server: ServerId, step: &Step) -> Result<(), StoreError> {
    match &step.action {
        Action::AddUser { sudo } => set_sudo(db, server, &step.login, *sudo, false).await,
        Action::UpdateUser { sudo } => set_sudo(db, server, &step.login, *sudo, true).await,
        Action::RemoveUser { .. } => remove(db, server, &step.login).await,
        Action::AddKey { public_key } => add_key(db, server, &step.login, public_key).await,
        Action::RemoveKey { public_key } => remove_key(db, server, &step.login, public_key).await,
        Action::SetUser { .. } | Action::LockUser | Action::UnlockUser | Action::EndSessions => {
            Ok(())
        }
    }
}

/// Whether an account is doubtful.
pub async fn is_doubtful(
    db: &mut Connection,
    server: ServerId,
    login: &Username,
) -> Result<bool, StoreError> {
    let doubtful: Option<bool> =
        sqlx::query_scalar("SELECT doubtful FROM accounts WHERE server_id = $1 AND login = $2")
            .bind(server)
            .bind(login.as_str())
            .fetch_optional(db)
            .await?;
    Ok(doubtful.unwrap_or(false))
}

/// Lets an account be doubtful, or trusted again.
pub async fn set_doubtful(
    db: &mut Connection,
    server: ServerId,
    login: &Username,
    doubtful: bool,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE accounts SET doubtful = $1 WHERE server_id = $2 AND login = $3")
        .bind(doubtful)
        .bind(server)
        .bind(login.as_str())
        .execute(db)
        .await?;
    Ok(())
}

async fn set_sudo(
    db: &mut Connection,
    server: ServerId,
    login: &Username,
    sudo: bool,
    doubtful: bool,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO accounts (server_id, login, sudo, doubtful) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (server_id, login) DO UPDATE SET sudo = excluded.sudo",
    )
    .bind(server)
    .bind(login.as_str())
    .bind(sudo)
    .bind(doubtful)
    .execute(db)
    .await?;
    Ok(())
}

async fn remove(db: &mut Connection, server: ServerId, login: &Username) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM accounts WHERE server_id = $1 AND login = $2")
        .bind(server)
        .bind(login.as_str())
        .execute(db)
        .await?;
    Ok(())
}

async fn add_key(
    db: &mut Connection,
    server: ServerId,
    login: &Username,
    key: &PublicKey,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO accounts (server_id, login, sudo, doubtful) VALUES ($1, $2, FALSE, TRUE) \
         ON CONFLICT (server_id, login) DO NOTHING",
    )
    .bind(server)
    .bind(login.as_str())
    .execute(&mut *db)
    .await?;
    sqlx::query(
        "INSERT INTO account_keys (server_id, login, fingerprint, public_key) \
         VALUES ($1, $2, $3, $4) ON CONFLICT (server_id, login, fingerprint) DO NOTHING",
    )
    .bind(server)
    .bind(login.as_str())
    .bind(key.fingerprint())
    .bind(key.to_string())
    .execute(db)
    .await?;
    Ok(())
}

async fn remove_key(
    db: &mut Connection,
    server: ServerId,
    login: &Username,
    key: &PublicKey,
) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM account_keys WHERE server_id = $1 AND login = $2 AND fingerprint = $3",
    )
    .bind(server)
    .bind(login.as_str())
    .bind(key.fingerprint())
    .execute(db)
    .await?;
    Ok(())
}

pub(super) fn parse_login(text: &str) -> Result<Username, StoreError> {
    Username::parse(text).map_err(corrupt("a login name"))
}

pub(super) fn parse_key(text: &str) -> Result<PublicKey, StoreError> {
    PublicKey::parse(text, &KeyPolicy::ANY).map_err(corrupt("a public key"))
}
