//! Rows of what agents were sent to give and could not confirm: it may be there all the same.
//! [`crate::plan::with_suspects`] says what follows.

use std::collections::BTreeMap;

use bastio_protocol::{Action, PublicKey, Username};

use super::accounts::{parse_key, parse_login};
use super::{Connection, ServerId, StoreError, sql};
use crate::plan::{Accounts, More, Step};

const ACCOUNT: &str = "account";
const SUDO: &str = "sudo";
/// Anything: how it was to be is not how it is, nor how it was.
const WHOLE: &str = "whole";

type Columns = (ServerId, String, String, Option<String>);

/// Suspects what a failed action would have given. One that takes gives nothing.
pub async fn add(db: &mut Connection, server: ServerId, failed: &Step) -> Result<(), StoreError> {
    match &failed.action {
        Action::AddUser { sudo } => {
            insert(db, server, &failed.login, ACCOUNT, None).await?;
            if *sudo {
                insert(db, server, &failed.login, SUDO, None).await?;
            }
            Ok(())
        }
        Action::UpdateUser { sudo: true } => insert(db, server, &failed.login, SUDO, None).await,
        Action::AddKey { public_key } => {
            let gift = public_key.fingerprint();
            insert(db, server, &failed.login, &gift, Some(public_key)).await
        }
        Action::SetUser { wanted } => {
            for gift in [ACCOUNT, WHOLE] {
                insert(db, server, &failed.login, gift, None).await?;
            }
            if !wanted.sudo.is_none() {
                insert(db, server, &failed.login, SUDO, None).await?;
            }
            for key in &wanted.keys {
                let gift = key.public_key.fingerprint();
                insert(db, server, &failed.login, &gift, Some(&key.public_key)).await?;
            }
            Ok(())
        }
        Action::UpdateUser { sudo: false }
        | Action::RemoveUser { .. }
        | Action::RemoveKey { .. }
        | Action::LockUser
        | Action::UnlockUser
        | Action::EndSessions => Ok(()),
    }
}

/// What an agent says it has done is suspected no more: it is known. `sudo_is_known` is false when
/// it has not said whether the account uses sudo as asked.
pub async fn resolve(
    db: &mut Connection,
    server: ServerId,
    done: &Step,
    sudo_is_known: bool,
) -> Result<(), StoreError> {
    let login = &done.login;
    match &done.action {
        Action::AddUser { .. } => {
            delete(db, server, login, ACCOUNT).await?;
            if sudo_is_known { delete(db, server, login, SUDO).await } else { Ok(()) }
        }
        Action::UpdateUser { .. } => delete(db, server, login, SUDO).await,
        Action::AddKey { public_key } | Action::RemoveKey { public_key } => {
            delete(db, server, login, &public_key.fingerprint()).await
        }
        Action::RemoveUser { .. } | Action::SetUser { .. } => {
            sql::query("DELETE FROM suspects WHERE server_id = $1 AND login = $2")
                .bind(server)
                .bind(login.as_str())
                .execute(db)
                .await?;
            Ok(())
        }
        Action::LockUser | Action::UnlockUser | Action::EndSessions => Ok(()),
    }
}

/// Suspects nothing of a server any more.
pub async fn clear(db: &mut Connection, server: ServerId) -> Result<(), StoreError> {
    sql::query("DELETE FROM suspects WHERE server_id = $1").bind(server).execute(db).await?;
    Ok(())
}

/// Suspects nothing of an account any more that no agent has ever confirmed; whether anything was.
pub async fn give_up(
    db: &mut Connection,
    server: ServerId,
    login: &Username,
) -> Result<bool, StoreError> {
    let done = sql::query(
        "DELETE FROM suspects WHERE server_id = $1 AND login = $2 AND NOT EXISTS \
         (SELECT 1 FROM accounts a WHERE a.server_id = $1 AND a.login = $2)",
    )
    .bind(server)
    .bind(login.as_str())
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Whether anything is suspected of an account.
pub async fn any(
    db: &mut Connection,
    server: ServerId,
    login: &Username,
) -> Result<bool, StoreError> {
    Ok(sql::query("SELECT 1 FROM suspects WHERE server_id = $1 AND login = $2 LIMIT 1")
        .bind(server)
        .bind(login.as_str())
        .exists(db)
        .await?)
}

/// What is suspected on one server.
pub async fn of_server(db: &mut Connection, server: ServerId) -> Result<Accounts, StoreError> {
    let rows: Vec<Columns> = sql::query_as(
        "SELECT server_id, login, gift, public_key FROM suspects WHERE server_id = $1",
    )
    .bind(server)
    .fetch_all(db)
    .await?;
    Ok(accounts(rows)?.remove(&server).unwrap_or_default())
}

/// What is suspected of that login name, on all servers.
pub async fn of_login(
    db: &mut Connection,
    login: &Username,
) -> Result<BTreeMap<ServerId, Accounts>, StoreError> {
    let rows: Vec<Columns> =
        sql::query_as("SELECT server_id, login, gift, public_key FROM suspects WHERE login = $1")
            .bind(login.as_str())
            .fetch_all(db)
            .await?;
    accounts(rows)
}

fn accounts(rows: Vec<Columns>) -> Result<BTreeMap<ServerId, Accounts>, StoreError> {
    let mut servers = BTreeMap::<ServerId, Accounts>::new();
    for (server, login, gift, key) in rows {
        let account = servers.entry(server).or_default().entry(parse_login(&login)?).or_default();
        account.sudo |= gift == SUDO;
        if gift == WHOLE {
            account.more = More::Unsure;
        }
        if let Some(key) = key {
            account.keys.insert(parse_key(&key)?);
        }
    }
    Ok(servers)
}

async fn insert(
    db: &mut Connection,
    server: ServerId,
    login: &Username,
    gift: &str,
    key: Option<&PublicKey>,
) -> Result<(), StoreError> {
    sql::query(
        "INSERT INTO suspects (server_id, login, gift, public_key) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (server_id, login, gift) DO NOTHING",
    )
    .bind(server)
    .bind(login.as_str())
    .bind(gift)
    .bind(key.map(ToString::to_string))
    .execute(db)
    .await?;
    Ok(())
}

async fn delete(
    db: &mut Connection,
    server: ServerId,
    login: &Username,
    gift: &str,
) -> Result<(), StoreError> {
    sql::query("DELETE FROM suspects WHERE server_id = $1 AND login = $2 AND gift = $3")
        .bind(server)
        .bind(login.as_str())
        .bind(gift)
        .execute(db)
        .await?;
    Ok(())
}
