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
