//! Rows of sudo policies, and of what becomes of the accounts of people who were removed.

use std::collections::BTreeMap;

use bastio_protocol::api::{NamedPolicy, PolicyName};
use bastio_protocol::{Removal, SudoPolicy, Username};

use super::accounts::parse_login;
use super::{Connection, StoreError, corrupt, sql};

/// All policies, by name.
pub async fn list(db: &mut Connection) -> Result<Vec<NamedPolicy>, StoreError> {
    let rows: Vec<(String, String)> =
        sql::query_as("SELECT name, policy FROM sudo_policies ORDER BY name").fetch_all(db).await?;
    let named = |(name, policy): (String, String)| {
        let policy: SudoPolicy = serde_json::from_str(&policy).map_err(corrupt("a sudo policy"))?;
        Ok(NamedPolicy {
            name: name.parse().map_err(corrupt("a policy's name"))?,
            commands: policy.commands,
            run_as: policy.run_as,
            password: policy.password,
        })
    };
    rows.into_iter().map(named).collect()
}

/// Whether there is a policy of that name.
pub async fn exists(db: &mut Connection, name: &PolicyName) -> Result<bool, StoreError> {
    Ok(sql::query("SELECT 1 FROM sudo_policies WHERE name = $1")
        .bind(name.as_str())
        .exists(db)
        .await?)
}

/// Adds a policy, or makes the one of that name so.
pub async fn set(
    db: &mut Connection,
    name: &PolicyName,
    policy: &SudoPolicy,
    now: i64,
) -> Result<(), StoreError> {
    let policy = serde_json::to_string(policy).expect("texts and lists always serialise");
    sql::query(
        "INSERT INTO sudo_policies (name, policy, created) VALUES ($1, $2, $3) \
         ON CONFLICT (name) DO UPDATE SET policy = excluded.policy",
    )
    .bind(name.as_str())
    .bind(policy)
    .bind(now)
    .execute(db)
    .await?;
    Ok(())
}

/// The numbers of the grants that give a policy.
pub async fn used_by(db: &mut Connection, name: &PolicyName) -> Result<Vec<i64>, StoreError> {
    Ok(sql::query_scalar("SELECT id FROM grants WHERE sudo_policy = $1 ORDER BY id")
        .bind(name.as_str())
        .fetch_all(db)
        .await?)
}

/// Removes a policy.
pub async fn remove(db: &mut Connection, name: &PolicyName) -> Result<(), StoreError> {
    sql::query("DELETE FROM sudo_policies WHERE name = $1").bind(name.as_str()).execute(db).await?;
    Ok(())
}

/// Says what becomes of the accounts of that name; with `None` each server decides.
pub async fn set_removal(
    db: &mut Connection,
    login: &Username,
    removal: Option<Removal>,
) -> Result<(), StoreError> {
    let Some(removal) = removal else {
        sql::query("DELETE FROM removals WHERE login = $1")
            .bind(login.as_str())
            .execute(db)
            .await?;
        return Ok(());
    };
    sql::query(
        "INSERT INTO removals (login, removal) VALUES ($1, $2) \
         ON CONFLICT (login) DO UPDATE SET removal = excluded.removal",
    )
    .bind(login.as_str())
    .bind(removal.name())
    .execute(db)
    .await?;
    Ok(())
}

/// What becomes of the accounts of these names.
pub async fn removals(db: &mut Connection) -> Result<BTreeMap<Username, Removal>, StoreError> {
    let rows: Vec<(String, String)> =
        sql::query_as("SELECT login, removal FROM removals").fetch_all(db).await?;
    let parse = |(login, removal): (String, String)| {
        let all = [Removal::Lock, Removal::Keep, Removal::Quarantine, Removal::Delete];
        let removal = all.into_iter().find(|known| known.name() == removal);
        let removal = removal.ok_or(StoreError::Corrupt { what: "what becomes of an account" })?;
        Ok((parse_login(&login)?, removal))
    };
    rows.into_iter().map(parse).collect()
}
