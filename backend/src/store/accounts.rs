//! Rows of what each server's agent has confirmed.

use std::collections::{BTreeMap, BTreeSet};

use bastio_protocol::{Action, KeyPolicy, PublicKey, Username, WantedAccount};

use super::sql::Flag;
use super::{Connection, ServerId, StoreError, corrupt, sql};
use crate::plan::{self, Account, Accounts, Step};

/// The confirmed accounts of one server.
pub async fn of_server(db: &mut Connection, server: ServerId) -> Result<Accounts, StoreError> {
    let rows: Vec<(String, bool, Option<String>)> =
        sql::query_as("SELECT login, sudo, wanted FROM accounts WHERE server_id = $1")
            .bind(server)
            .fetch_all(&mut *db)
            .await?;
    let mut accounts = Accounts::new();
    for (login, sudo, whole) in rows {
        accounts.insert(parse_login(&login)?, account(sudo, whole.as_deref())?);
    }
    let keys: Vec<(String, String)> =
        sql::query_as("SELECT login, public_key FROM account_keys WHERE server_id = $1")
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
    let rows: Vec<(ServerId, Flag, Option<String>)> =
        sql::query("SELECT server_id, sudo, wanted FROM accounts WHERE login = $1")
            .bind(login.as_str())
            .fetch_packed("server_id, sudo, wanted", &mut *db)
            .await?;
    let mut servers = BTreeMap::<ServerId, Accounts>::new();
    for (server, Flag(sudo), whole) in rows {
        let account = account(sudo, whole.as_deref())?;
        servers.entry(server).or_default().insert(login.clone(), account);
    }
    let keys: Vec<(ServerId, String)> = sql::query(
        "SELECT k.server_id, k.public_key FROM accounts a JOIN account_keys k \
         ON k.server_id = a.server_id AND k.login = a.login WHERE a.login = $1",
    )
    .bind(login.as_str())
    .fetch_packed("server_id, public_key", db)
    .await?;
    for (server, key) in keys {
        let account = servers.entry(server).or_default().entry(login.clone()).or_default();
        account.keys.insert(parse_key(&key)?);
    }
    Ok(servers)
}

/// The servers on which somebody has confirmed sudo rights and a key, not counting these logins,
/// and nothing is under way that would change it.
pub async fn servers_with_admins(
    db: &mut Connection,
    but: &BTreeSet<Username>,
) -> Result<BTreeSet<ServerId>, StoreError> {
    let rows: Vec<(ServerId, String, Option<String>)> = sql::query_as(
        "SELECT a.server_id, a.login, a.wanted FROM accounts a WHERE a.sudo = TRUE \
         AND EXISTS (SELECT 1 FROM account_keys k \
                     WHERE k.server_id = a.server_id AND k.login = a.login) \
         AND NOT EXISTS (SELECT 1 FROM actions p WHERE p.server_id = a.server_id \
                         AND p.login = a.login AND p.state IN ('queued', 'sent') \
                         AND p.action IN ('remove-user', 'set-user', 'lock-user', 'remove-key', \
                                          'update-user'))",
    )
    .fetch_all(db)
    .await?;
    let mut servers = BTreeSet::new();
    for (server, login, whole) in rows {
        let login = parse_login(&login)?;
        // Keys are there, as the query says.
        let is_admin = match whole {
            Some(whole) => Account::from(parse_whole(&whole)?).is_admin(),
            None => true,
        };
        if is_admin && !but.contains(&login) {
            servers.insert(server);
        }
    }
    Ok(servers)
}

/// Takes over what an agent says it has done, as [`crate::plan::confirm`] does in memory. An
/// account that becomes known by anything but add-user is doubtful: no plan counted on it.
pub async fn confirm(db: &mut Connection, server: ServerId, step: &Step) -> Result<(), StoreError> {
    match &step.action {
        Action::RemoveUser { .. } => return remove(db, server, &step.login).await,
        Action::SetUser { wanted } => return set(db, server, &step.login, wanted).await,
        Action::LockUser | Action::UnlockUser | Action::EndSessions => return Ok(()),
        Action::AddUser { sudo } => set_sudo(db, server, &step.login, *sudo, false).await,
        Action::UpdateUser { sudo } => set_sudo(db, server, &step.login, *sudo, true).await,
        Action::AddKey { public_key } => add_key(db, server, &step.login, public_key).await,
        Action::RemoveKey { public_key } => remove_key(db, server, &step.login, public_key).await,
    }?;
    edit_whole(db, server, step).await
}

/// Makes the confirmed accounts of a server exactly these, each of them trusted.
pub async fn replace<'a>(
    db: &mut Connection,
    server: ServerId,
    accounts: impl IntoIterator<Item = (&'a Username, &'a WantedAccount)>,
) -> Result<(), StoreError> {
    sql::query("DELETE FROM accounts WHERE server_id = $1").bind(server).execute(&mut *db).await?;
    for (login, wanted) in accounts {
        set(db, server, login, wanted).await?;
    }
    Ok(())
}

/// Makes a confirmed account exactly this.
async fn set(
    db: &mut Connection,
    server: ServerId,
    login: &Username,
    wanted: &WantedAccount,
) -> Result<(), StoreError> {
    remove(db, server, login).await?;
    set_sudo(db, server, login, !wanted.sudo.is_none(), false).await?;
    for key in &wanted.keys {
        add_key(db, server, login, &key.public_key).await?;
    }
    if wanted.is_plain() { Ok(()) } else { set_whole(db, server, login, Some(wanted)).await }
}

/// Where more is known of an account than sudo and keys: lets it follow a plain step.
async fn edit_whole(db: &mut Connection, server: ServerId, step: &Step) -> Result<(), StoreError> {
    let whole: Option<Option<String>> =
        sql::query_scalar("SELECT wanted FROM accounts WHERE server_id = $1 AND login = $2")
            .bind(server)
            .bind(step.login.as_str())
            .fetch_optional(&mut *db)
            .await?;
    let Some(Some(whole)) = whole else { return Ok(()) };
    let login = &step.login;
    let mut accounts = Accounts::from([(login.clone(), parse_whole(&whole)?.into())]);
    plan::confirm(&mut accounts, step);
    let Some(account) = accounts.remove(login) else { return Ok(()) };
    let whole = account.whole();
    set_whole(db, server, login, Some(&whole).filter(|_| !account.is_plain())).await
}

async fn set_whole(
    db: &mut Connection,
    server: ServerId,
    login: &Username,
    whole: Option<&WantedAccount>,
) -> Result<(), StoreError> {
    let text = whole.map(|whole| {
        serde_json::to_string(whole).expect("texts, numbers and lists always serialise")
    });
    sql::query("UPDATE accounts SET wanted = $1 WHERE server_id = $2 AND login = $3")
        .bind(text)
        .bind(server)
        .bind(login.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// An account whose keys are still to come, unless they are in `whole`.
fn account(sudo: bool, whole: Option<&str>) -> Result<Account, StoreError> {
    let Some(whole) = whole else { return Ok(Account { sudo, ..Account::default() }) };
    Ok(parse_whole(whole)?.into())
}

pub(super) fn parse_whole(text: &str) -> Result<WantedAccount, StoreError> {
    serde_json::from_str(text).map_err(corrupt("a whole account"))
}

/// Whether an account is doubtful.
pub async fn is_doubtful(
    db: &mut Connection,
    server: ServerId,
    login: &Username,
) -> Result<bool, StoreError> {
    let doubtful: Option<bool> =
        sql::query_scalar("SELECT doubtful FROM accounts WHERE server_id = $1 AND login = $2")
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
    sql::query("UPDATE accounts SET doubtful = $1 WHERE server_id = $2 AND login = $3")
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
    sql::query(
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
    sql::query("DELETE FROM accounts WHERE server_id = $1 AND login = $2")
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
    sql::query(
        "INSERT INTO accounts (server_id, login, sudo, doubtful) VALUES ($1, $2, FALSE, TRUE) \
         ON CONFLICT (server_id, login) DO NOTHING",
    )
    .bind(server)
    .bind(login.as_str())
    .execute(&mut *db)
    .await?;
    sql::query(
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
    sql::query("DELETE FROM account_keys WHERE server_id = $1 AND login = $2 AND fingerprint = $3")
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
