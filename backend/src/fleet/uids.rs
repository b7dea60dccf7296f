//! Numeric ids of login names: the same on every server, and nobody else's ever after.
//!
//! An id belongs to the login name for good, as the home on each server does: a later person of the
//! same name has it again, and nobody else gets it. Where ids are given out (`[uids]`), a login name
//! gets one with its first grant. Names whose accounts are on servers already keep what those have
//! chosen: no account is ever renumbered.

use std::collections::BTreeSet;

use bastio_protocol::{AccountSpec, Username};

use super::edit::Edit;
use super::{Fleet, FleetError};
use crate::store::uids::UidRange;
use crate::store::{self, Connection, StoreError};

impl Fleet {
    /// The range from which login names get their ids; without, servers choose.
    #[must_use]
    pub fn with_uids(mut self, uids: Option<UidRange>) -> Self {
        self.uids = uids;
        self
    }
}

/// Keeps the id that somebody was given by an operator.
pub(super) async fn claim(
    edit: &mut Edit<'_>,
    login: &Username,
    spec: &AccountSpec,
) -> Result<(), FleetError> {
    let Some(uid) = spec.uid else { return Ok(()) };
    match store::uids::owner(edit.db(), uid).await? {
        Some(owner) if owner != *login => Err(FleetError::UidTaken { uid, owner }),
        _ => {
            let now = edit.now();
            Ok(store::uids::keep(edit.db(), login, uid, false, now).await?)
        }
    }
}

/// Gives ids to those of the `logins` that have a grant now and no account yet. What was given, in
/// words; `Err` inside with a name for which none is left.
pub(super) async fn assign(
    db: &mut Connection,
    range: UidRange,
    logins: &BTreeSet<Username>,
    now: i64,
) -> Result<Result<(), Username>, StoreError> {
    let mut fresh = BTreeSet::new();
    for login in logins {
        if !store::uids::is_settled(db, login).await? {
            fresh.insert(login.clone());
        }
    }
    if fresh.is_empty() {
        return Ok(Ok(()));
    }
    let model = store::grants::entitlements(db, Some(&fresh), now).await?;
    let given: BTreeSet<&Username> = model.iter().map(|right| &right.login).collect();
    let said = model.iter().filter(|right| right.rights.spec.uid.is_some());
    let said: BTreeSet<&Username> = said.map(|right| &right.login).collect();
    for login in fresh.iter().filter(|login| given.contains(login) && !said.contains(login)) {
        let uid = match store::uids::last_of(db, login).await? {
            Some(uid) => Some(uid),
            None => store::uids::free(db, range).await?,
        };
        let Some(uid) = uid else { return Ok(Err(login.clone())) };
        store::uids::keep(db, login, uid, true, now).await?;
    }
    Ok(Ok(()))
}

#[cfg(test)]
mod tests;
