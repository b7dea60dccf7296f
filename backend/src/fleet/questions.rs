//! What operators decide about servers: that all is well as it is, or that one takes the place of
//! another. Until then its agent is kept waiting, so that nobody gets rights unasked.

use bastio_protocol::ServerName;
use bastio_protocol::api::{Change, QuestionKind};

use super::edit::Edit;
use super::{Fleet, FleetError};
use crate::access::{Admin, Enroller};
use crate::dispatch::EndReason;
use crate::dispatch::queue::Scope;
use crate::plan::is_host_label;
use crate::store::questions::{self, Open};
use crate::store::servers::ServerRow;
use crate::store::{self, ServerId};

impl Fleet {
    /// All is well with this server: its agent is let in, and is told again all that it should have.
    ///
    /// # Errors
    /// [`FleetError::NoSuchServer`], [`FleetError::NothingAsked`], [`FleetError::Store`].
    pub async fn accept_server(
        &self,
        proof: &Admin,
        name: &ServerName,
    ) -> Result<Change, FleetError> {
        let mut edit = Edit::begin(self, proof).await?;
        let server = edit.server(name).await?;
        let open = asked(&mut edit, &server).await?;
        let mut machine = false;
        for Open { question, subject } in &open {
            if question.kind == QuestionKind::Machine {
                // Empty where its agent told none.
                let machine_now = Some(subject.as_str()).filter(|told| !told.is_empty());
                questions::set_machine(edit.db(), server.id, machine_now).await?;
                machine = true;
            }
            edit.note("server.accept", None, Some(name), &question.text).await?;
        }
        questions::close(edit.db(), server.id).await?;
        // What another machine has, nobody knows.
        let scope = if machine { Scope::Server(server.id, None) } else { nothing(server.id) };
        edit.commit(&format!("server {name}: accepted as it is"), &scope).await
    }

    /// `with`, which was enrolled anew, takes the place of `name`: its name, its labels, and with them
    /// its grants. The agent that was there before is refused from now on.
    ///
    /// # Errors
    /// [`FleetError::NoSuchServer`], [`FleetError::NothingAsked`], [`FleetError::Store`].
    pub async fn replace_server(
        &self,
        proof: &Admin,
        name: &ServerName,
        with: &ServerName,
    ) -> Result<Change, FleetError> {
        let mut edit = Edit::begin(self, proof).await?;
        let (old, new) = (edit.server(name).await?, edit.server(with).await?);
        let open = asked(&mut edit, &new).await?;
        let replaces = |open: &Open| {
            open.question.kind == QuestionKind::SameName && open.subject == name.as_str()
        };
        if old.id == new.id || !open.iter().any(replaces) {
            return Err(FleetError::NotAsked { name: name.clone(), with: with.clone() });
        }
        let now = edit.now();
        for (label, value) in store::servers::labels(edit.db(), old.id).await? {
            if !is_host_label(&label) {
                store::servers::set_label(edit.db(), new.id, &label, &value).await?;
            }
        }
        let reason = "not sent: another server took its place";
        store::actions::abandon(edit.db(), old.id, reason, now).await?;
        store::requests::abandon(edit.db(), old.id, reason, now).await?;
        // Grants name servers by their name: they follow it.
        store::servers::remove(edit.db(), old.id, now).await?;
        store::servers::rename(edit.db(), new.id, name).await?;
        questions::close(edit.db(), new.id).await?;
        edit.end_session(old.id, EndReason::Removed);
        let detail = format!(
            "by {with}, key {} in place of {}: name, labels and grants stay",
            new.fingerprint, old.fingerprint
        );
        edit.note("server.replace", None, Some(name), &detail).await?;
        let summary = format!("server {name}: replaced by {with}");
        edit.commit(&summary, &Scope::Server(new.id, None)).await
    }

    /// What somebody must decide before a server that was just enrolled is let in.
    ///
    /// # Errors
    /// [`FleetError::Store`].
    pub async fn waits_for(
        &self,
        _proof: &Enroller,
        server: ServerId,
    ) -> Result<Option<String>, FleetError> {
        let mut db = self.store.read().await?;
        let open = questions::of_server(&mut db, server).await?;
        let holding = open.into_iter().find(|open| open.question.holds);
        Ok(holding.map(|open| open.question.text))
    }
}

async fn asked(edit: &mut Edit<'_>, server: &ServerRow) -> Result<Vec<Open>, FleetError> {
    let open = questions::of_server(edit.db(), server.id).await?;
    if open.is_empty() { Err(FleetError::NothingAsked(server.name.clone())) } else { Ok(open) }
}

/// No account is concerned.
fn nothing(server: ServerId) -> Scope {
    Scope::Server(server, Some(Default::default()))
}

#[cfg(test)]
mod tests;
