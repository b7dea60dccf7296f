//! What an edit would do, worked out before it is made, and when it needs a confirmation.
//!
//! An edit that is only tried is planned within its transaction, which is then dropped: what is
//! shown is what would be done. This room must not know how a request asks for it.

use std::collections::BTreeSet;

use bastio_protocol::api::{BlastRadius, Preview, ServerPreview, StepPreview};
use bastio_protocol::{Action, Username};

use super::{Fleet, FleetError};
use crate::dispatch::queue::{Replanned, Scope, Touched};
use crate::plan::{self, Effect, Step, Stop};
use crate::store::{self, Connection, ServerId};

/// Why this edit needs a confirmation; empty when it needs none.
pub(super) async fn stops(
    fleet: &Fleet,
    db: &mut Connection,
    planned: &Replanned,
    scope: &Scope,
) -> Result<Vec<Stop>, FleetError> {
    let mut stops = Vec::new();
    let effects: Vec<&Effect> = planned.servers.iter().map(|server| &*server.effect).collect();
    if effects.len() >= usize::try_from(fleet.rails.at_least).unwrap_or(usize::MAX) {
        stops.extend(fleet.rails.large(&effects, store::servers::count(db).await?));
    }
    let orphaned = without_admin(db, planned, scope).await?;
    if !orphaned.is_empty() {
        let names = orphaned.into_iter().map(|server| server.name.clone()).collect();
        stops.push(Stop::LastAdmin(names));
    }
    Ok(stops)
}

/// The servers on which nobody would be left who has sudo rights and a key.
async fn without_admin<'a>(
    db: &mut Connection,
    planned: &'a Replanned,
    scope: &Scope,
) -> Result<Vec<&'a Touched>, FleetError> {
    let losing: Vec<&Touched> =
        planned.servers.iter().filter(|server| server.effect.loses_admins).collect();
    if losing.is_empty() {
        return Ok(Vec::new());
    }
    let others: BTreeSet<ServerId> = match scope.logins() {
        Some(logins) => store::accounts::servers_with_admins(db, logins).await?,
        None => BTreeSet::new(),
    };
    Ok(losing.into_iter().filter(|server| !others.contains(&server.id)).collect())
}

/// What the edit would do, for people.
pub(super) async fn preview(
    fleet: &Fleet,
    db: &mut Connection,
    planned: &Replanned,
    scope: &Scope,
) -> Result<Preview, FleetError> {
    let stops = stops(fleet, db, planned, scope).await?;
    let orphaned = without_admin(db, planned, scope).await?;
    let orphaned: BTreeSet<ServerId> = orphaned.into_iter().map(|server| server.id).collect();
    let last_seen = store::servers::last_seen(db).await?;
    let server = |touched: &Touched| ServerPreview {
        server: touched.name.clone(),
        presence: fleet.presence(touched.id, last_seen.get(&touched.id).copied()),
        steps: touched.steps.iter().map(step).collect(),
        last_admin_lost: orphaned.contains(&touched.id),
    };
    let servers = planned.servers.iter().map(server).collect();
    let effects = planned.servers.iter().map(|server| &*server.effect);
    let logins: BTreeSet<&Username> = planned
        .servers
        .iter()
        .flat_map(|server| server.steps.iter())
        .map(|step| &step.login)
        .collect();
    let of = store::servers::count(db).await?;
    let last_admin_lost = u32::try_from(orphaned.len()).unwrap_or(u32::MAX);
    let blast = BlastRadius { last_admin_lost, ..plan::radius(effects, &logins, of) };
    Ok(Preview {
        servers,
        blast,
        edits: Vec::new(),
        stops: stops.iter().map(ToString::to_string).collect(),
        approval: Vec::new(),
    })
}

fn step(step: &Step) -> StepPreview {
    let detail = match &step.action {
        Action::AddUser { sudo: true } | Action::UpdateUser { sudo: true } => "with sudo".into(),
        Action::UpdateUser { sudo: false } => "without sudo".into(),
        Action::AddKey { public_key } | Action::RemoveKey { public_key } => {
            format!("{} {}", public_key.fingerprint(), public_key.comment()).trim_end().to_owned()
        }
        Action::SetUser { wanted } => plan::in_words(wanted),
        Action::AddUser { sudo: false }
        | Action::RemoveUser { .. }
        | Action::LockUser
        | Action::UnlockUser
        | Action::EndSessions => String::new(),
    };
    StepPreview { username: step.login.clone(), action: step.action.name().to_owned(), detail }
}

#[cfg(test)]
mod tests;
