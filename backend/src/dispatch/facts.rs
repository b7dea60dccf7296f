//! What an agent tells about its server becomes labels of it, and what follows from them is planned
//! in the same transaction.

use std::collections::{BTreeMap, BTreeSet};

use bastio_protocol::api::AuditRow;

use super::meeting::Guest;
use super::queue::{self, Scope};
use crate::audit::{self, Actor, Event};
use crate::plan::{self, Host, Reach};
use crate::store::{self, Connection, StoreError};

/// How the labels of a server change.
struct Relabelled<'a> {
    guest: &'a Guest,
    before: Host,
    after: Host,
    /// For people.
    done: String,
}

impl<'a> Relabelled<'a> {
    /// What follows from `facts`; `None` when it is there already.
    fn new(guest: &'a Guest, before: Host, facts: &BTreeMap<String, String>) -> Option<Self> {
        let mut after = before.clone();
        after.labels.retain(|label, _| !plan::is_host_label(label));
        after.labels.extend(plan::host_labels(facts));
        let gone = before.labels.keys().filter(|label| !after.labels.contains_key(*label));
        let gone = gone.map(|label| format!("label {label} removed"));
        let new =
            after.labels.iter().filter(|(label, value)| before.labels.get(*label) != Some(*value));
        let new = new.map(|(label, value)| format!("label {label}={value}"));
        let done = gone.chain(new).collect::<Vec<_>>().join(", ");
        (!done.is_empty()).then_some(Self { guest, before, after, done })
    }

    fn row(&self, now: i64) -> AuditRow {
        let name = &self.before.name;
        let event = Event {
            action: "server.facts",
            server: Some(name),
            detail: &self.done,
            ..Event::default()
        };
        audit::row(now, &Actor::agent(name, self.guest.address), event)
    }
}

/// Lets the labels under `host/` be those that follow from the facts, of all these servers.
pub(super) async fn label(
    db: &mut Connection,
    guests: &[(&Guest, &BTreeMap<String, String>)],
    now: i64,
) -> Result<(), StoreError> {
    let servers = guests.iter().map(|(guest, _)| guest.server.id).collect();
    // Of one that was removed meanwhile nothing is planned any more.
    let mut there = store::reached::reached(db, &Reach::default(), servers).await?;
    let mut changed = Vec::new();
    for (guest, facts) in guests {
        let Some((name, labels)) = there.remove(&guest.server.id) else { continue };
        changed.extend(Relabelled::new(guest, Host { name, labels }, facts));
    }
    if changed.is_empty() {
        return Ok(());
    }
    let all =
        changed.iter().map(|one| (one.guest.server.id, &one.after.labels)).collect::<Vec<_>>();
    store::arrivals::set_labels(db, &all).await?;
    let head = store::audit::head(db).await?;
    let rows = changed.iter().map(|one| one.row(now)).collect();
    store::batch::append(head, rows).execute(db).await?;
    let model = store::grants::entitlements(db, None, now).await?;
    for Relabelled { guest, before, after, done } in &changed {
        let what = format!("{}: {done}", before.name);
        guest.plan(db, plan::touched(&model, before, after), &what).await?;
    }
    Ok(())
}

impl Guest {
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
        let planned = queue::replan(db, revision, &scope, now).await?;
        for conflict in planned.conflicts {
            tracing::warn!(%conflict, "left out: the grants of this account contradict each other");
        }
        // The session is about to look for what it can send.
        store::actions::enqueue(db, &[revision], &planned.queue, now).await
    }
}

#[cfg(test)]
mod tests;
