//! Grants: who may log in where, as which account.

use std::collections::BTreeSet;

use bastio_protocol::api::{Change, Grant, Holder, NewGrant, utc};
use bastio_protocol::{Target, Username};

use super::edit::{Edit, check_text};
use super::history::Thing;
use super::{Fleet, FleetError};
use crate::access::Admin;
use crate::audit::Event;
use crate::dispatch::queue::Scope;
use crate::plan::join;
use crate::store::grants::{GrantData, HolderId};
use crate::store::{self, Connection, StoreError, UserId};

impl Fleet {
    /// All grants, the oldest first; those that one person has, also
    /// through groups, when `user` is given.
    ///
    /// # Errors
    /// [`FleetError::NoSuchUser`], [`FleetError::Store`].
    pub async fn grants(
        &self,
        _proof: &Admin,
        user: Option<&Username>,
    ) -> Result<Vec<Grant>, FleetError> {
        let mut db = self.store.read().await?;
        let Some(name) = user else { return Ok(store::grants::list(&mut db).await?) };
        let row = store::users::find(&mut db, name).await?;
        let row = row.ok_or_else(|| FleetError::NoSuchUser(name.clone()))?;
        Ok(store::grants::of_user(&mut db, row.id).await?)
    }

    /// Adds a grant. The same grant once more only ever adds sudo rights to it.
    ///
    /// # Errors
    /// [`FleetError::NoSuchUser`], [`FleetError::NoSuchGroup`], [`FleetError::NoSuchServer`],
    /// [`FleetError::BadText`], [`FleetError::Store`].
    pub async fn add_grant(&self, proof: &Admin, new: &NewGrant) -> Result<Change, FleetError> {
        let mut edit = Edit::begin(self, proof).await?;
        let grant = data(&mut edit, new).await?;
        let (words, logins) = add(&mut edit, &new.holder, &grant).await?;
        edit.commit(&format!("{}: {words}", new.holder), &Scope::Logins(logins)).await
    }

    /// Removes a grant.
    ///
    /// # Errors
    /// [`FleetError::NoSuchGrant`], [`FleetError::Store`].
    pub async fn remove_grant(&self, proof: &Admin, id: i64) -> Result<Change, FleetError> {
        let mut edit = Edit::begin(self, proof).await?;
        let grant = store::grants::find(edit.db(), id).await?;
        let grant = grant.ok_or(FleetError::NoSuchGrant(id))?;
        let logins = logins_of_grant(edit.db(), &grant).await?;
        remove(&mut edit, &grant).await?;
        let summary = format!("{}: grant {id} on {} removed", grant.holder, grant.on);
        edit.commit(&summary, &Scope::Logins(logins)).await
    }
}

/// A grant as the store has it.
pub(super) async fn data<'g>(
    edit: &mut Edit<'_>,
    new: &'g NewGrant,
) -> Result<GrantData<'g>, FleetError> {
    let (holder, login) = match &new.holder {
        Holder::User(user) => {
            let id = HolderId::User(edit.user(user).await?.id);
            (id, Some(new.login.as_ref().unwrap_or(user)))
        }
        Holder::Group(group) => (HolderId::Group(edit.group(group).await?), new.login.as_ref()),
    };
    let NewGrant { on, terms, sudo, reason, .. } = new;
    Ok(GrantData { holder, on, login, sudo: *sudo, terms, reason })
}

/// Removes a grant within an edit.
pub(super) async fn remove(edit: &mut Edit<'_>, grant: &Grant) -> Result<(), FleetError> {
    edit.remember(Thing::Grants(&grant.holder)).await?;
    store::grants::remove(edit.db(), grant.id).await?;
    edit.note("grant.remove", grant.holder.user(), None, &described(grant)).await
}

/// A grant in words, for the audit log.
pub(super) fn described(grant: &Grant) -> String {
    let group = grant.holder.group().map(|group| format!(" of group {group}"));
    let login = as_whom(grant.login.as_ref());
    format!("grant {}{}: {} as {login}", grant.id, group.unwrap_or_default(), grant.on)
}

fn as_whom(login: Option<&Username>) -> &str {
    login.map_or("each member", Username::as_str)
}

/// The accounts that a grant is about.
pub(super) async fn logins_of_grant(
    db: &mut Connection,
    grant: &Grant,
) -> Result<BTreeSet<Username>, StoreError> {
    if let Some(login) = &grant.login {
        return Ok(BTreeSet::from([login.clone()]));
    }
    people_of(db, &grant.holder).await
}

/// Those who have what that holder has.
async fn people_of(db: &mut Connection, holder: &Holder) -> Result<BTreeSet<Username>, StoreError> {
    match holder {
        Holder::User(user) => Ok(BTreeSet::from([user.clone()])),
        Holder::Group(group) => Ok(store::groups::all(db).await?.people(group)),
    }
}

/// Accounts that somebody has again: nothing said earlier about their end counts.
pub(super) async fn forget_removals(
    edit: &mut Edit<'_>,
    logins: &BTreeSet<Username>,
) -> Result<(), FleetError> {
    for login in logins {
        store::policies::set_removal(edit.db(), login, None).await?;
    }
    Ok(())
}

/// Adds a grant within an edit; the grant in words, and the accounts that it is about.
pub(super) async fn add(
    edit: &mut Edit<'_>,
    holder: &Holder,
    grant: &GrantData<'_>,
) -> Result<(String, BTreeSet<Username>), FleetError> {
    let words = insert(edit, holder, grant, false).await?;
    let people = people_of(edit.db(), holder).await?;
    for user in &people {
        let id = edit.user(user).await?.id;
        check_options(edit, id).await?;
    }
    let logins = match grant.login {
        Some(login) => BTreeSet::from([login.clone()]),
        None => people,
    };
    forget_removals(edit, &logins).await?;
    Ok((words, logins))
}

/// Adds a grant within an edit; in words. Servers named must exist: a name mistyped now would be a
/// right for a server enrolled later. Whether its options stand beside those of keys is for the
/// caller to check, once all is as it will be. Of one that `is_new` it is known that none of the same terms
/// is there: to look for it among all of a holder's costs as much as they are.
pub(super) async fn insert(
    edit: &mut Edit<'_>,
    holder: &Holder,
    grant: &GrantData<'_>,
    is_new: bool,
) -> Result<String, FleetError> {
    check_text("the reason", grant.reason)?;
    if let Some(login) = grant.login {
        edit.check_login(login)?;
    }
    check_terms(edit, grant).await?;
    if let Target::Names(names) = grant.on {
        for name in names {
            if !store::servers::name_is_taken(edit.db(), name).await? {
                return Err(FleetError::NoSuchServer(name.clone()));
            }
        }
    }
    edit.remember(Thing::Grants(holder)).await?;
    let now = edit.now();
    if is_new {
        store::grants::insert(edit.db(), grant, now).await?;
    } else {
        store::grants::upsert(edit.db(), grant, now).await?;
    }
    let words = format!("granted {} as {}{}", grant.on, as_whom(grant.login), in_words(grant));
    let group = holder.group().map(|group| format!("group {group}: ")).unwrap_or_default();
    let (user, detail, reason) = (holder.user(), format!("{group}{words}"), grant.reason);
    edit.record(Event { action: "grant.add", user, detail: &detail, reason, ..Event::default() })
        .await?;
    Ok(words)
}

/// Gives or takes the plain sudo rights of a grant within an edit, and gives it another reason.
pub(super) async fn change(
    edit: &mut Edit<'_>,
    grant: &Grant,
    new: &NewGrant,
) -> Result<(), FleetError> {
    check_text("the reason", &new.reason)?;
    if new.sudo && new.terms.sudo_policy.is_some() {
        return Err(FleetError::TwoSudos);
    }
    edit.remember(Thing::Grants(&grant.holder)).await?;
    store::grants::change(edit.db(), grant.id, new.sudo, &new.reason).await?;
    let sudo = match (grant.sudo, new.sudo) {
        (false, true) => ", sudo given",
        (true, false) => ", sudo taken",
        _ => "",
    };
    let (user, reason) = (grant.holder.user(), new.reason.as_str());
    let detail = format!("{}{sudo}", described(grant));
    edit.record(Event { action: "grant.update", user, detail: &detail, reason, ..Event::default() })
        .await
}

/// Options that mean nothing for a key, or cannot stand beside its own, are refused here and not by
/// each server.
pub(super) async fn check_options(edit: &mut Edit<'_>, user: UserId) -> Result<(), FleetError> {
    let grants = store::grants::of_user(edit.db(), user).await?;
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
    if let (Some(from), Some(until)) = (grant.terms.from, grant.terms.until)
        && from >= until
    {
        return Err(FleetError::Backwards);
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
    if let Some(from) = terms.from {
        words.push_str(&format!(" from {} UTC", utc(from)));
    }
    if let Some(until) = terms.until {
        words.push_str(&format!(" until {} UTC", utc(until)));
    }
    if terms.take_over {
        words.push_str(", taking over an account that is there");
    }
    words
}
