//! Grants: who may log in where, as which account.

use std::collections::BTreeSet;

use bastio_protocol::api::{Change, Grant, NewGrant, utc};
use bastio_protocol::{Target, Username};

use super::edit::{Edit, check_login, check_text};
use super::{Fleet, FleetError};
use crate::access::Admin;
use crate::audit::Event;
use crate::dispatch::queue::Scope;
use crate::plan::join;
use crate::store::grants::GrantData;
use crate::store::{self, UserId};

impl Fleet {
    /// All grants, the oldest first; those of one person when `user` is given.
    ///
    /// # Errors
    /// [`FleetError::NoSuchUser`], [`FleetError::Store`].
    pub async fn grants(
        &self,
        _proof: &Admin,
        user: Option<&Username>,
    ) -> Result<Vec<Grant>, FleetError> {
        let mut db = self.store.read().await?;
        let Some(name) = user else { return Ok(store::grants::list(&mut db, None).await?) };
        let row = store::users::find(&mut db, name).await?;
        let row = row.ok_or_else(|| FleetError::NoSuchUser(name.clone()))?;
        Ok(store::grants::list(&mut db, Some(row.id)).await?)
    }

    /// Adds a grant. The same grant once more only ever adds sudo rights to it.
    ///
    /// # Errors
    /// [`FleetError::NoSuchUser`], [`FleetError::NoSuchServer`], [`FleetError::BadText`],
    /// [`FleetError::Store`].
    pub async fn add_grant(&self, proof: &Admin, new: &NewGrant) -> Result<Change, FleetError> {
        check_text("the reason", &new.reason)?;
        let mut edit = Edit::begin(self, proof.actor()).await?;
        let row = edit.user(&new.user).await?;
        let login = new.login.as_ref().unwrap_or(&new.user);
        let (on, terms) = (&new.on, &new.terms);
        let (sudo, reason) = (new.sudo, new.reason.as_str());
        let grant = GrantData { user: row.id, on, login, sudo, terms, reason };
        let words = add(&mut edit, &new.user, &grant).await?;
        let scope = Scope::Logins(BTreeSet::from([login.clone()]));
        edit.commit(&format!("user {}: {words}", new.user), &scope).await
    }

    /// Removes a grant.
    ///
    /// # Errors
    /// [`FleetError::NoSuchGrant`], [`FleetError::Store`].
    pub async fn remove_grant(&self, proof: &Admin, id: i64) -> Result<Change, FleetError> {
        let mut edit = Edit::begin(self, proof.actor()).await?;
        let grant = store::grants::find(edit.db(), id).await?;
        let grant = grant.ok_or(FleetError::NoSuchGrant(id))?;
        store::grants::remove(edit.db(), id).await?;
        let detail = format!("grant {id}: {} as {}", grant.on, grant.login);
        edit.note("grant.remove", Some(&grant.user), None, &detail).await?;
        let summary = format!("user {}: grant {id} on {} removed", grant.user, grant.on);
        edit.commit(&summary, &Scope::Logins(BTreeSet::from([grant.login]))).await
    }
}

/// Adds a grant within an edit; the grant in words. Servers named must exist: a name mistyped
/// now would be a right for a server enrolled later.
pub(super) async fn add(
    edit: &mut Edit<'_>,
    user: &Username,
    grant: &GrantData<'_>,
) -> Result<String, FleetError> {
    check_login(grant.login)?;
    check_terms(edit, grant).await?;
    if let Target::Names(names) = grant.on {
        for name in names {
            if !store::servers::name_is_taken(edit.db(), name).await? {
                return Err(FleetError::NoSuchServer(name.clone()));
            }
        }
    }
    let now = edit.now();
    store::grants::upsert(edit.db(), grant, now).await?;
    check_options(edit, grant.user).await?;
    store::policies::set_removal(edit.db(), grant.login, None).await?;
    let words = format!("granted {} as {}{}", grant.on, grant.login, in_words(grant));
    let (user, reason) = (Some(user), grant.reason);
    edit.record(Event { action: "grant.add", user, detail: &words, reason, ..Event::default() })
        .await?;
    Ok(words)
}

/// Options that mean nothing for a key, or cannot stand beside its own, are refused here and not by
/// each server.
pub(super) async fn check_options(edit: &mut Edit<'_>, user: UserId) -> Result<(), FleetError> {
    let grants = store::grants::list(edit.db(), Some(user)).await?;
    for key in store::users::keys(edit.db(), user).await? {
        let unfit =
            |fault| FleetError::UnfitOptions { fingerprint: key.fingerprint.clone(), fault };
        key.options.fits(&key.public_key).map_err(unfit)?;
        for grant in &grants {
            grant.terms.key_options.fits(&key.public_key).map_err(unfit)?;
            if join(&key.options, &grant.terms.key_options).is_none() {
                return Err(FleetError::TwoOptions {
                    fingerprint: key.fingerprint,
                    grant: grant.id,
                });
            }
        }
    }
    Ok(())
}

async fn check_terms(edit: &mut Edit<'_>, grant: &GrantData<'_>) -> Result<(), FleetError> {
    if grant.terms.until.is_some_and(|until| until <= edit.now()) {
        return Err(FleetError::Past);
    }
    let Some(policy) = &grant.terms.sudo_policy else { return Ok(()) };
    if grant.sudo {
        return Err(FleetError::TwoSudos);
    }
    if !store::policies::exists(edit.db(), policy).await? {
        return Err(FleetError::NoSuchPolicy(policy.clone()));
    }
    Ok(())
}

/// What a grant gives beyond a login.
fn in_words(grant: &GrantData<'_>) -> String {
    let mut words = String::new();
    let terms = grant.terms;
    if grant.sudo {
        words.push_str(" with sudo");
    }
    if let Some(policy) = &terms.sudo_policy {
        words.push_str(&format!(" with the sudo policy {policy}"));
    }
    if !terms.key_options.is_empty() {
        words.push_str(&format!(" with the key options {}", terms.key_options));
    }
    if let Some(until) = terms.until {
        words.push_str(&format!(" until {} UTC", utc(until)));
    }
    if terms.take_over {
        words.push_str(", taking over an account that is there");
    }
    words
}
