//! Servers: what is known about them, their names and labels, and forgetting them.

use std::collections::BTreeSet;

use bastio_protocol::api::{
    Account, CLOCK_LIMIT, Change, DriftAnswer, Labels, Presence, Server, ServerDetail, UpdateServer,
};
use bastio_protocol::{ServerName, Target, Username, parse_label};

use super::edit::Edit;
use super::history::Thing;
use super::{Fleet, FleetError, drift};
use crate::access::Admin;
use crate::dispatch::EndReason;
use crate::dispatch::healing::{self, Drifting};
use crate::dispatch::queue::Scope;
use crate::plan::{self, Host, More};
use crate::store::servers::ServerRow;
use crate::store::speech::Speech;
use crate::store::{self, ServerId};

impl Fleet {
    /// All servers, by name.
    ///
    /// # Errors
    /// [`FleetError::Store`].
    pub async fn servers(&self, _proof: &Admin) -> Result<Vec<Server>, FleetError> {
        let mut db = self.store.read().await?;
        let mut known = store::servers::names_and_labels(&mut db).await?;
        let rows = store::servers::list(&mut db).await?;
        let drifting = healing::drifting(&mut db, self.store.now()).await?;
        let rules = store::drift::rules(&mut db).await?;
        let clocks = store::clocks::off(&mut db, CLOCK_LIMIT).await?;
        let mut questions = store::questions::all(&mut db).await?;
        let current = store::revisions::current(&mut db).await?;
        let behind = store::outcomes::first_open_revisions(&mut db).await?;
        let mut failures = store::standing::failures(&mut db).await?;
        let with_labels = |row: ServerRow| {
            let labels = known.remove(&row.id).map(|(_, labels)| labels).unwrap_or_default();
            let clock_offset = clocks.get(&row.id).copied();
            let drift_answer = plan::drift_answer(&rules, &row.name, &labels);
            let drifting = drifting.get(&row.id).copied();
            let questions = questions.remove(&row.id).unwrap_or_default();
            let in_sync_at = behind.get(&row.id).map_or(current, |revision| revision - 1);
            let failure = failures.remove(&row.id);
            let view = with_drift(self.server_view(row, labels), drift_answer, drifting);
            Server { clock_offset, questions, in_sync_at, failure, ..view }
        };
        Ok(rows.into_iter().map(with_labels).collect())
    }

    /// One server with what is on it.
    ///
    /// # Errors
    /// [`FleetError::NoSuchServer`], [`FleetError::Store`].
    pub async fn server(
        &self,
        _proof: &Admin,
        name: &ServerName,
    ) -> Result<ServerDetail, FleetError> {
        let mut db = self.store.read().await?;
        let row = store::servers::find(&mut db, name).await?;
        let row = row.ok_or_else(|| FleetError::NoSuchServer(name.clone()))?;
        let labels = store::servers::labels(&mut db, row.id).await?;
        let confirmed = store::accounts::of_server(&mut db, row.id).await?;
        let failures = store::outcomes::standing_reports(&mut db, row.id).await?;
        let facts = store::servers::facts(&mut db, row.id).await?;
        let accounts = confirmed.into_iter().map(|(username, account)| Account {
            username,
            sudo: account.sudo,
            keys: account.keys.iter().map(bastio_protocol::PublicKey::fingerprint).collect(),
            wanted: match account.more {
                More::Whole(whole) => Some(whole),
                More::Nothing | More::Unsure => None,
            },
        });
        let accounts = accounts.collect();
        let drift = store::requests::drift(&mut db, row.id).await?.map(Box::new);
        let drifting = healing::drifting(&mut db, self.store.now()).await?.remove(&row.id);
        let rules = store::drift::rules(&mut db).await?;
        let drift_answer = plan::drift_answer(&rules, &row.name, &labels);
        let clock_offset = store::clocks::off(&mut db, CLOCK_LIMIT).await?.remove(&row.id);
        let open = store::questions::of_server(&mut db, row.id).await?;
        let questions = open.into_iter().map(|open| open.question).collect();
        let current = store::revisions::current(&mut db).await?;
        let behind = store::outcomes::first_open_revisions(&mut db).await?;
        let in_sync_at = behind.get(&row.id).map_or(current, |revision| revision - 1);
        let view = with_drift(self.server_view(row, labels), drift_answer, drifting);
        let server = Server { clock_offset, questions, in_sync_at, ..view };
        Ok(ServerDetail { server, facts, drift, accounts, failures })
    }

    /// Renames a server, sets and unsets labels. Grants by name follow the server; grants by
    /// label begin and end with the labels.
    ///
    /// # Errors
    /// [`FleetError::NoSuchServer`], [`FleetError::NameTaken`], [`FleetError::BadLabel`],
    /// [`FleetError::HostLabel`], [`FleetError::Store`].
    pub async fn update_server(
        &self,
        proof: &Admin,
        name: &ServerName,
        update: &UpdateServer,
    ) -> Result<Change, FleetError> {
        check_labels(update)?;
        let mut edit = Edit::begin(self, proof).await?;
        let server = edit.server(name).await?;
        edit.remember(Thing::Labels(&server)).await?;
        let mut done = Vec::new();
        if let Some(new) = update.name.as_ref().filter(|new| *new != name) {
            rename(&mut edit, &server, new).await?;
            done.push(format!("renamed to {new}"));
        }
        let name = update.name.as_ref().unwrap_or(name);
        let touched = label(&mut edit, server.id, name, update, &mut done).await?;
        let detail = updated(&mut edit, name, done).await?;
        let summary = format!("server {}: {detail}", server.name);
        edit.commit(&summary, &Scope::Server(server.id, Some(touched))).await
    }

    /// Tells the server again everything that it should have, failures and what it has confirmed
    /// included: a server that was set up anew is whole again. Agents of version 2 are told in one
    /// request, the others action by action.
    ///
    /// # Errors
    /// [`FleetError::NoSuchServer`], [`FleetError::Store`].
    pub async fn sync_server(
        &self,
        proof: &Admin,
        name: &ServerName,
    ) -> Result<Change, FleetError> {
        let mut edit = Edit::begin(self, proof).await?;
        let server = edit.server(name).await?;
        if store::speech::spoken_by(edit.db(), server.id).await? == Speech::Version2 {
            drop(edit);
            return self.sync_at_once(proof, name).await;
        }
        edit.note("server.sync", None, Some(name), "").await?;
        edit.commit(&format!("server {name}: sync"), &Scope::Server(server.id, None)).await
    }

    /// Forgets a server: its agent is refused from now on, grants by its name end. The accounts
    /// on it stay, and the summary says so.
    ///
    /// # Errors
    /// [`FleetError::NoSuchServer`], [`FleetError::Store`].
    pub async fn remove_server(
        &self,
        proof: &Admin,
        name: &ServerName,
    ) -> Result<Change, FleetError> {
        let mut edit = Edit::begin(self, proof).await?;
        let server = edit.server(name).await?;
        let now = edit.now();
        let mut accounts = store::accounts::of_server(edit.db(), server.id).await?;
        accounts.extend(store::suspects::of_server(edit.db(), server.id).await?);
        let stay = match accounts.len() {
            0 => "it had no accounts of ours".to_owned(),
            _ => {
                let logins: Vec<&str> = accounts.keys().map(Username::as_str).collect();
                format!(
                    "its agent is refused, and accounts and keys stay on the host until they are \
                     removed there (userdel): {}",
                    logins.join(", ")
                )
            }
        };
        forget_name(&mut edit, name).await?;
        let reason = "not sent: the server was removed";
        store::actions::abandon(edit.db(), server.id, reason, now).await?;
        store::requests::abandon(edit.db(), server.id, reason, now).await?;
        store::adoptions::forget_server(edit.db(), server.id).await?;
        store::servers::remove(edit.db(), server.id, now).await?;
        edit.note("server.remove", None, Some(name), &stay).await?;
        edit.end_session(server.id, EndReason::Removed);
        let summary = format!("server {name} removed; {stay}");
        edit.commit(&summary, &Scope::Logins(BTreeSet::new())).await
    }

    fn server_view(&self, row: ServerRow, labels: Labels) -> Server {
        let presence = self.presence(row.id, row.last_seen);
        let now = Some(self.store.now());
        Server {
            name: row.name,
            labels,
            presence,
            last_seen: if presence == Presence::Connected { now } else { row.last_seen },
            address: row.address,
            agent: row.agent,
            fingerprint: row.fingerprint,
            created: row.created,
            pending: row.pending,
            failed: row.failed,
            drifted: false,
            drift_answer: DriftAnswer::default(),
            keeps_drifting: false,
            clock_offset: None,
            questions: Vec::new(),
            in_sync_at: 0,
            failure: None,
        }
    }
}

/// With what its agent says of drift, and what is done about it.
fn with_drift(server: Server, drift_answer: DriftAnswer, drifting: Option<Drifting>) -> Server {
    let drifted = drifting.is_some_and(Drifting::is_trouble);
    let keeps_drifting = drifting.is_some_and(|drifting| drifting.keeps);
    Server { drifted, drift_answer, keeps_drifting, ..server }
}

/// Tells the log what was changed of a server; the same in words.
pub(super) async fn updated(
    edit: &mut Edit<'_>,
    name: &ServerName,
    mut done: Vec<String>,
) -> Result<String, FleetError> {
    if done.is_empty() {
        done.push("nothing to change".to_owned());
    }
    let detail = done.join(", ");
    edit.note("server.update", None, Some(name), &detail).await?;
    Ok(detail)
}

pub(super) fn check_labels(update: &UpdateServer) -> Result<(), FleetError> {
    let mut named = update.set_labels.keys().chain(&update.unset_labels);
    if let Some(name) = named.find(|name| plan::is_host_label(name)) {
        return Err(FleetError::HostLabel(name.chars().take(80).collect()));
    }
    for (name, value) in &update.set_labels {
        let text = format!("{name}={value}");
        let parsed = parse_label(&text).map_err(FleetError::BadLabel)?;
        if parsed != (name.clone(), value.clone()) {
            return Err(FleetError::BadLabel(bastio_protocol::TargetError::Label(text)));
        }
    }
    Ok(())
}

async fn rename(
    edit: &mut Edit<'_>,
    server: &ServerRow,
    new: &ServerName,
) -> Result<(), FleetError> {
    if store::servers::name_is_taken(edit.db(), new).await? {
        return Err(FleetError::NameTaken(new.clone()));
    }
    edit.remember(Thing::Renamed(&server.name, new)).await?;
    store::servers::rename(edit.db(), server.id, new).await?;
    edit.rename_session(server.id, new);
    drift::follow(edit, &server.name, Some(new)).await?;
    for grant in store::grants::list(edit.db()).await? {
        if let Target::Names(mut names) = grant.on
            && names.remove(&server.name)
        {
            names.insert(new.clone());
            store::grants::set_target(edit.db(), grant.id, &Target::Names(names)).await?;
        }
    }
    Ok(())
}

/// Sets and unsets labels; the accounts whose grants thereby begin or end here, also those to come.
async fn label(
    edit: &mut Edit<'_>,
    server: ServerId,
    name: &ServerName,
    update: &UpdateServer,
    done: &mut Vec<String>,
) -> Result<BTreeSet<Username>, FleetError> {
    let now = edit.now();
    let before = store::servers::labels(edit.db(), server).await?;
    done.extend(set_labels(edit, server, &before, update).await?);
    let after = store::servers::labels(edit.db(), server).await?;
    let before = Host { name: name.clone(), labels: before };
    let after = Host { name: name.clone(), labels: after };
    let model = store::grants::entitlements_to_come(edit.db(), None, now).await?;
    let model: Vec<_> = model.into_iter().map(|one| one.grant).collect();
    Ok(plan::touched(&model, &before, &after))
}

/// Sets and unsets labels of a server that has those of `before`; what was done.
pub(super) async fn set_labels(
    edit: &mut Edit<'_>,
    server: ServerId,
    before: &Labels,
    update: &UpdateServer,
) -> Result<Vec<String>, FleetError> {
    let mut done = Vec::new();
    for (label, value) in &update.set_labels {
        store::servers::set_label(edit.db(), server, label, value).await?;
        done.push(format!("label {label}={value}"));
    }
    for label in &update.unset_labels {
        if before.contains_key(label) {
            store::servers::unset_label(edit.db(), server, label).await?;
            done.push(format!("label {label} removed"));
        }
    }
    Ok(done)
}

/// Takes a server's name out of every grant, so that a later server of that name inherits none.
async fn forget_name(edit: &mut Edit<'_>, gone: &ServerName) -> Result<(), FleetError> {
    edit.remember(Thing::Removed(gone)).await?;
    drift::follow(edit, gone, None).await?;
    for grant in store::grants::list(edit.db()).await? {
        let Target::Names(mut names) = grant.on else { continue };
        if !names.remove(gone) {
            continue;
        }
        edit.remember(Thing::Grants(&grant.holder)).await?;
        if names.is_empty() {
            store::grants::remove(edit.db(), grant.id).await?;
            let (id, holder) = (grant.id, &grant.holder);
            let detail = format!("grant {id} of {holder} on {gone} ended with the server");
            edit.note("grant.remove", holder.user(), Some(gone), &detail).await?;
        } else {
            store::grants::set_target(edit.db(), grant.id, &Target::Names(names)).await?;
        }
    }
    Ok(())
}
