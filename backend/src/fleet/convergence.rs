//! How far each server is with what the model wants of it.

use bastio_protocol::ServerName;
use bastio_protocol::api::ServerPlan;

use super::{Fleet, FleetError};
use crate::access::Admin;
use crate::dispatch::healing;
use crate::store::{self, ServerId};

impl Fleet {
    /// What each server has still to be told, to answer or to take; of one server when named.
    ///
    /// # Errors
    /// [`FleetError::NoSuchServer`], [`FleetError::Store`].
    pub async fn convergence(
        &self,
        _proof: &Admin,
        only: Option<&ServerName>,
    ) -> Result<Vec<ServerPlan>, FleetError> {
        let mut db = self.store.read().await?;
        let (rows, id): (Vec<_>, Option<ServerId>) = match only {
            None => (store::servers::list(&mut db).await?, None),
            Some(name) => {
                let row = store::servers::find(&mut db, name).await?;
                let row = row.ok_or_else(|| FleetError::NoSuchServer(name.clone()))?;
                let id = row.id;
                (vec![row], Some(id))
            }
        };
        let current = store::revisions::current(&mut db).await?;
        let mut open = store::outcomes::open_reports(&mut db, id).await?;
        let behind = store::outcomes::first_open_revisions(&mut db).await?;
        let drifting = healing::drifting(&mut db, self.store.now()).await?;
        let mut questions = store::questions::all(&mut db).await?;
        let plan = rows.into_iter().map(|row| ServerPlan {
            presence: self.presence(row.id, row.last_seen),
            server: row.name,
            last_seen: row.last_seen,
            in_sync_at: behind.get(&row.id).map_or(current, |revision| revision - 1),
            open: open.remove(&row.id).unwrap_or_default(),
            drifted: drifting.get(&row.id).is_some_and(|it| it.is_trouble()),
            keeps_drifting: drifting.get(&row.id).is_some_and(|it| it.keeps),
            questions: questions.remove(&row.id).unwrap_or_default(),
        });
        Ok(plan.collect())
    }
}
