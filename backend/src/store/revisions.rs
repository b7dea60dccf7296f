//! Rows of the model's revisions: one an edit.

use super::{Connection, StoreError, sql};

/// The revision of the model as it stands; 0 before the first edit.
pub async fn current(db: &mut Connection) -> Result<i64, StoreError> {
    let revision =
        sql::query_scalar("SELECT COALESCE(MAX(revision), 0) FROM revisions").fetch_one(db).await?;
    Ok(revision)
}

/// Begins the next revision.
pub async fn begin(db: &mut Connection, summary: &str, now: i64) -> Result<i64, StoreError> {
    let revision = sql::query_scalar(
        "INSERT INTO revisions (revision, summary, at) \
         SELECT COALESCE(MAX(revision), 0) + 1, $1, $2 FROM revisions RETURNING revision",
    )
    .bind(summary)
    .bind(now)
    .fetch_one(db)
    .await?;
    Ok(revision)
}

/// What a revision was about.
pub async fn summary(db: &mut Connection, revision: i64) -> Result<Option<String>, StoreError> {
    let summary = sql::query_scalar("SELECT summary FROM revisions WHERE revision = $1")
        .bind(revision)
        .fetch_optional(db)
        .await?;
    Ok(summary)
}

/// Who made a revision, when, and what it was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastEdit {
    /// Its number.
    pub revision: i64,
    /// As the audit log names them; `None` for edits of old.
    pub actor: Option<String>,
    /// When, in seconds since the Unix epoch.
    pub at: i64,
    /// What.
    pub summary: String,
}

/// Notes who makes a revision.
pub async fn by(db: &mut Connection, revision: i64, actor: &str) -> Result<(), StoreError> {
    sql::query("UPDATE revisions SET actor = $1 WHERE revision = $2")
        .bind(actor)
        .bind(revision)
        .execute(db)
        .await?;
    Ok(())
}

/// The edits behind that revision, the oldest first, at most so many.
pub async fn behind(
    db: &mut Connection,
    revision: i64,
    limit: u32,
) -> Result<Vec<PastEdit>, StoreError> {
    let rows: Vec<(i64, Option<String>, i64, String)> = sql::query_as(
        "SELECT revision, actor, at, summary FROM revisions WHERE revision > $1 \
         ORDER BY revision LIMIT $2",
    )
    .bind(revision)
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    let edit = |(revision, actor, at, summary)| PastEdit { revision, actor, at, summary };
    Ok(rows.into_iter().map(edit).collect())
}
