//! Rows of the keys that all nodes share. They are sealed: this file sees no secret.

use std::collections::BTreeMap;

use super::{Connection, StoreError, sql};

/// All of them, by name.
pub async fn all(db: &mut Connection) -> Result<BTreeMap<String, String>, StoreError> {
    let rows: Vec<(String, String)> =
        sql::query_as("SELECT name, sealed FROM secrets").fetch_all(db).await?;
    Ok(rows.into_iter().collect())
}

/// Keeps one, in place of another of that name.
pub async fn set(db: &mut Connection, name: &str, sealed: &str) -> Result<(), StoreError> {
    sql::query(
        "INSERT INTO secrets (name, sealed) VALUES ($1, $2) \
         ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed",
    )
    .bind(name)
    .bind(sealed)
    .execute(db)
    .await?;
    Ok(())
}
