//! Back to the model as it was at a revision, for everything or for one server. An edit like any
//! other: tried, held up, logged, and itself a revision that can be undone.
//!
//! [`crate::plan`] works out how the model was; that model is then applied as a file would be.

use bastio_protocol::ServerName;
use bastio_protocol::api::{Change, Policy, Revision, Undo};

use super::edit::{Edit, check_text};
use super::{Fleet, FleetError, declared, history};
use crate::access::Admin;
use crate::audit::Event;
use crate::plan::{self, ModelEdit};
use crate::store::{self, Connection};

/// So many revisions can be undone, unless configured.
pub const REVISIONS: i64 = 1000;
/// Most revisions in one answer.
const MAX_LIST: u32 = 1000;

impl Fleet {
    /// How many revisions can be undone.
    #[must_use]
    pub fn with_history(mut self, revisions: u32) -> Self {
        self.history = revisions.into();
        self
    }

    /// At most `limit` revisions (never more than 1000) below `before`, the last first.
    ///
    /// # Errors
    /// [`FleetError::Store`].
    pub async fn revisions(
        &self,
        _proof: &Admin,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Revision>, FleetError> {
        let mut db = self.store.read().await?;
        let first = store::history::begin(&mut db).await?;
        let limit = i64::from(limit.min(MAX_LIST));
        let rows = store::history::list(&mut db, before.unwrap_or(i64::MAX), limit).await?;
        let revision = |row: store::history::RevisionRow| Revision {
            revision: row.revision,
            at: row.at,
            by: row.actor,
            summary: row.summary,
            known: row.revision >= first,
        };
        Ok(rows.into_iter().map(revision).collect())
    }

    /// The whole model as it was at a revision.
    ///
    /// # Errors
    /// [`FleetError::NoSuchRevision`], [`FleetError::TooLongAgo`], [`FleetError::Store`].
    pub async fn export_at(&self, _proof: &Admin, revision: i64) -> Result<Policy, FleetError> {
        let mut db = self.store.read().await?;
        model_at(&mut db, revision).await
    }

    /// Makes the model what it was at a revision; with a server, only what concerns that alone:
    /// its labels and the grants that reach it.
    ///
    /// # Errors
    /// [`FleetError::NoSuchRevision`], [`FleetError::TooLongAgo`], [`FleetError::NoSuchServer`],
    /// [`FleetError::NotThereAlone`], and as [`Fleet::apply`].
    pub async fn undo(&self, proof: &Admin, undo: &Undo) -> Result<Change, FleetError> {
        check_text("the reason", &undo.reason)?;
        let mut edit = Edit::begin(self, proof).await?;
        edit.comes_by("an undo");
        let then = model_at(edit.db(), undo.to).await?;
        let (wanted, server) = match &undo.server {
            None => (then, None),
            Some(name) => (for_one(&mut edit, &then, name).await?, Some(name)),
        };
        let where_ = server.map(|name| format!(" on {name}")).unwrap_or_default();
        let detail = format!("back to revision {}{where_}", undo.to);
        let reason = undo.reason.as_str();
        let event =
            Event { action: "model.undo", server, detail: &detail, reason, ..Event::default() };
        edit.record(event).await?;
        let summary = |edits: &[ModelEdit]| format!("{detail}: {}", plan::in_numbers(edits));
        declared::make_so(edit, &wanted, true, summary).await
    }
}

async fn model_at(db: &mut Connection, revision: i64) -> Result<Policy, FleetError> {
    let current = store::revisions::current(db).await?;
    if revision < 0 || revision > current {
        return Err(FleetError::NoSuchRevision(revision));
    }
    let first = store::history::begin(db).await?;
    if revision < first {
        return Err(FleetError::TooLongAgo { to: revision, first });
    }
    let now = declared::read(db).await?;
    Ok(plan::model_at(&now, &history::behind(db, revision).await?))
}

async fn for_one(
    edit: &mut Edit<'_>,
    then: &Policy,
    name: &ServerName,
) -> Result<Policy, FleetError> {
    let now = edit.now();
    let server = edit.server(name).await?;
    let labels = store::servers::labels(edit.db(), server.id).await?;
    let current = plan::without_ended(declared::read(edit.db()).await?, now);
    let then = plan::without_ended(then.clone(), now);
    plan::model_for_one(&current, &then, name, &labels)
        .map_err(|grants| FleetError::NotThereAlone { server: name.clone(), grants })
}

#[cfg(test)]
mod tests;
