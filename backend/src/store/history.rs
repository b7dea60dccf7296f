//! Rows of how the model was before each revision, and of who made it. What the texts mean is for
//! [`crate::fleet`] to know.

use super::{Connection, StoreError, sql};

/// Rows that one statement inserts.
const AT_ONCE: usize = 500;

/// How one thing was before a revision.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct HistoryRow {
    /// The revision that changed it.
    pub revision: i64,
    /// What kind of thing.
    pub kind: String,
    /// Which.
    pub name: String,
    /// What it was; absent when it was not there.
    pub before: Option<String>,
}

/// A revision for people.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct RevisionRow {
    /// Its number.
    pub revision: i64,
    /// What was edited.
    pub summary: String,
    /// When.
    pub at: i64,
    /// Who did it, where that is known.
    pub actor: Option<String>,
}

/// Keeps how things were. What is known of that revision already stays: it is older.
pub async fn insert(db: &mut Connection, rows: &[HistoryRow]) -> Result<(), StoreError> {
    for some in rows.chunks(AT_ONCE) {
        let mut insert =
            sql::QueryBuilder::new("INSERT INTO model_history (revision, kind, name, before) ");
        insert.push_values(some, |mut values, row| {
            values.push_bind(row.revision).push_bind(&row.kind);
            values.push_bind(&row.name).push_bind(&row.before);
        });
        insert.push(" ON CONFLICT (revision, kind, name) DO NOTHING");
        insert.build().execute(&mut *db).await?;
    }
    Ok(())
}

/// What the revisions behind that one have changed, the last first.
pub async fn behind(db: &mut Connection, revision: i64) -> Result<Vec<HistoryRow>, StoreError> {
    Ok(sql::query_as(
        "SELECT revision, kind, name, before FROM model_history \
         WHERE revision > $1 AND kind <> 'begin' ORDER BY revision DESC, kind, name",
    )
    .bind(revision)
    .fetch_all(db)
    .await?)
}

/// From which revision on everything is known.
pub async fn begin(db: &mut Connection) -> Result<i64, StoreError> {
    Ok(sql::query_scalar("SELECT MAX(revision) FROM model_history WHERE kind = 'begin'")
        .fetch_one(db)
        .await?)
}

/// Forgets what leads back behind that revision.
pub async fn forget(db: &mut Connection, revision: i64) -> Result<(), StoreError> {
    sql::query("DELETE FROM model_history WHERE revision <= $1 AND kind <> 'begin'")
        .bind(revision)
        .execute(&mut *db)
        .await?;
    sql::query("UPDATE model_history SET revision = $1 WHERE kind = 'begin' AND revision < $1")
        .bind(revision)
        .execute(db)
        .await?;
    Ok(())
}

/// Notes who made a revision.
pub async fn made_by(db: &mut Connection, revision: i64, actor: &str) -> Result<(), StoreError> {
    sql::query("INSERT INTO revision_actors (revision, actor) VALUES ($1, $2)")
        .bind(revision)
        .bind(actor)
        .execute(db)
        .await?;
    Ok(())
}

/// At most `limit` revisions below `before`, the last first.
pub async fn list(
    db: &mut Connection,
    before: i64,
    limit: i64,
) -> Result<Vec<RevisionRow>, StoreError> {
    Ok(sql::query_as(
        "SELECT r.revision, r.summary, r.at, a.actor FROM revisions r \
         LEFT JOIN revision_actors a ON a.revision = r.revision \
         WHERE r.revision < $1 ORDER BY r.revision DESC LIMIT $2",
    )
    .bind(before)
    .bind(limit)
    .fetch_all(db)
    .await?)
}
