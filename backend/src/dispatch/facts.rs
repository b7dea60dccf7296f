//! What an agent tells about its server becomes labels of it, and what follows from them is planned
//! in the same transaction.

use std::collections::{BTreeMap, BTreeSet};

use super::meeting::Guest;
use super::queue::{self, Scope};
use crate::audit::{self, Actor, Event};
use crate::plan::{self, Host};
use crate::store::{self, Connection, StoreError};

impl Guest {
    /// Lets the labels under `host/` be those that follow from `facts`.
    pub(super) async fn label(
        &self,
        db: &mut Connection,
        facts: &BTreeMap<String, String>,
    ) -> Result<(), StoreError> {
        let server = self.server.id;
        // Removed meanwhile: nothing of it is planned any more.
        let Some(name) = store::servers::name(db, server).await? else { return Ok(()) };
        let before = Host { name: name.clone(), labels: store::servers::labels(db, server).await? };
        let mut after = before.clone();
        after.labels.retain(|label, _| !plan::is_host_label(label));
        after.labels.extend(plan::host_labels(facts));
        let mut done = Vec::new();
        for label in before.labels.keys().filter(|label| !after.labels.contains_key(*label)) {
            store::servers::unset_label(db, server, label).await?;
            done.push(format!("label {label} removed"));
        }
        for (label, value) in &after.labels {
            if before.labels.get(label) != Some(value) {
                store::servers::set_label(db, server, label, value).await?;
                done.push(format!("label {label}={value}"));
            }
        }
        if done.is_empty() {
            return Ok(());
        }
        let detail = done.join(", ");
        let (action, server) = ("server.facts", Some(&name));
        let event = Event { action, server, detail: &detail, ..Event::default() };
        let actor = Actor::agent(&name, self.address);
        let now = self.dispatch.store.now();
        audit::append(db, now, &actor, event).await?;
        let model = store::grants::entitlements(db, None, now).await?;
        self.plan(db, plan::touched(&model, &before, &after), &format!("{name}: {detail}")).await
    }

    /// Plans anew what the changed labels give and take. Grants that contradict each other are left
    /// out: nobody is there to hear why not.
    async fn plan(
        &self,
        db: &mut Connection,
        touched: BTreeSet<bastio_protocol::Username>,
        what: &str,
    ) -> Result<(), StoreError> {
        if touched.is_empty() {
            return Ok(());
        }
        let now = self.dispatch.store.now();
        let summary = format!("server {what} (told by its agent)");
        let revision = store::revisions::begin(db, &summary, now).await?;
        let actor = Actor::agent(&self.server.name, self.address);
        store::revisions::by(db, revision, &actor.to_string()).await?;
        let scope = Scope::Server(self.server.id, Some(touched));
        for conflict in queue::replan(db, revision, &scope, now).await?.conflicts {
            tracing::warn!(%conflict, "left out: the grants of this account contradict each other");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
