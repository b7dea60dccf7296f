//! How servers stand: what one failed at, and all of them in numbers.

use std::collections::{BTreeMap, BTreeSet};

use super::{Connection, ServerId, StoreError, sql};

/// The server is what is on record again, although the backend was restored from a backup.
pub async fn verified(db: &mut Connection, server: ServerId) -> Result<(), StoreError> {
    sql::query("DELETE FROM questions WHERE server_id = $1 AND kind = 'restored'")
        .bind(server)
        .execute(db)
        .await?;
    Ok(())
}

/// What each server has failed at first, of what stands: in words.
pub async fn failures(db: &mut Connection) -> Result<BTreeMap<ServerId, String>, StoreError> {
    let rows: Vec<(ServerId, String, String, Option<String>)> = sql::query_as(
        "SELECT server_id, action, login, feedback FROM actions WHERE standing = TRUE ORDER BY id",
    )
    .fetch_all(db)
    .await?;
    let mut failures = BTreeMap::new();
    for (server, action, login, feedback) in rows {
        let words = || match feedback {
            Some(feedback) => format!("{action} {login}: {feedback}"),
            None => format!("{action} {login}"),
        };
        failures.entry(server).or_insert_with(words);
    }
    Ok(failures)
}

/// Servers by how they stand; one can be in several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Something is on its way.
    pub pending: BTreeSet<ServerId>,
    /// Something failed and stands.
    pub failed: BTreeSet<ServerId>,
    /// Changed by others.
    pub drifted: BTreeSet<ServerId>,
    /// Somebody must decide something about it.
    pub undecided: BTreeSet<ServerId>,
}

/// The servers that are not in sync.
pub async fn numbers(db: &mut Connection) -> Result<Numbers, StoreError> {
    let mut sets = Vec::new();
    for text in [
        "SELECT DISTINCT server_id FROM actions WHERE state IN ('queued', 'sent')",
        "SELECT DISTINCT server_id FROM actions WHERE standing = TRUE",
        "SELECT server_id FROM drifts WHERE healed = FALSE",
        "SELECT DISTINCT server_id FROM questions",
    ] {
        let ids: Vec<(ServerId,)> = sql::query(text).fetch_packed("server_id", &mut *db).await?;
        sets.push(ids.into_iter().map(|(id,)| id).collect());
    }
    let mut sets = sets.into_iter();
    let mut next = || sets.next().unwrap_or_default();
    Ok(Numbers { pending: next(), failed: next(), drifted: next(), undecided: next() })
}
