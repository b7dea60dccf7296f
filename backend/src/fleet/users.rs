//! People and their keys.

use std::collections::{BTreeMap, BTreeSet};

use bastio_protocol::api::{
    Change, Grant, Holder, Key, Membership, NewKeys, NewUser, RemoveUser, UpdateUser, User,
    UserState, utc,
};
use bastio_protocol::{AccountSpec, GroupName, KeyGrant, Username};

use super::edit::{Edit, check_text, parse_keys};
use super::history::Thing;
use super::{Fleet, FleetError, grants, revocation, uids};
use crate::access::Admin;
use crate::audit::Event;
use crate::dispatch::queue::Scope;
use crate::plan::Groups;
use crate::store::grants::{GrantData, HolderId};
use crate::store::groups::MemberId;
use crate::store::users::UserRow;
use crate::store::{self, Connection, StoreError, UserId};

impl Fleet {
    /// All people, by name.
    ///
    /// # Errors
    /// [`FleetError::Store`].
    pub async fn users(&self, _proof: &Admin) -> Result<Vec<User>, FleetError> {
        let mut db = self.store.read().await?;
        let mut keys = store::users::all_keys(&mut db).await?;
        let mut grants = BTreeMap::<Holder, Vec<Grant>>::new();
        for grant in store::grants::list(&mut db).await? {
            grants.entry(grant.holder.clone()).or_default().push(grant);
        }
        let groups = store::groups::all(&mut db).await?;
        let uids = store::uids::pooled(&mut db, None).await?;
        let rows = store::users::list(&mut db).await?.into_iter();
        let users = rows.map(|row| {
            let keys = keys.remove(&row.id).unwrap_or_default();
            let memberships = memberships(&groups, &row.name);
            let around = memberships.iter().map(|it| Holder::Group(it.group.clone()));
            let holders = around.chain([Holder::User(row.name.clone())]);
            let mut own: Vec<Grant> =
                holders.filter_map(|holder| grants.get(&holder)).flatten().cloned().collect();
            own.sort_by_key(|grant| grant.id);
            let uid = uids.get(&row.name).copied();
            user_view(row, keys, own, memberships, uid)
        });
        Ok(users.collect())
    }

    /// One person.
    ///
    /// # Errors
    /// [`FleetError::NoSuchUser`], [`FleetError::Store`].
    pub async fn user(&self, _proof: &Admin, name: &Username) -> Result<User, FleetError> {
        let mut db = self.store.read().await?;
        let row = store::users::find(&mut db, name).await?;
        let row = row.ok_or_else(|| FleetError::NoSuchUser(name.clone()))?;
        let keys = store::users::keys(&mut db, row.id).await?;
        let grants = store::grants::of_user(&mut db, row.id).await?;
        let memberships = memberships(&store::groups::all(&mut db).await?, name);
        let uids = store::uids::pooled(&mut db, Some(&BTreeSet::from([name.clone()]))).await?;
        Ok(user_view(row, keys, grants, memberships, uids.get(name).copied()))
    }

    /// Adds a person with keys and, if asked for, a grant. To a person who is there already, keys
    /// and grant are added.
    ///
    /// # Errors
    /// [`FleetError::BadKey`], [`FleetError::BadText`], [`FleetError::NoSuchServer`],
    /// [`FleetError::Store`].
    pub async fn add_user(&self, proof: &Admin, new: &NewUser) -> Result<Change, FleetError> {
        self.check_login(&new.name)?;
        check_new(new)?;
        let keys: Vec<KeyGrant> = parse_keys(&new.keys)?.into_iter().map(KeyGrant::plain).collect();
        let mut edit = Edit::begin(self, proof).await?;
        let user = add_or_update(&mut edit, new).await?;
        let added = add_keys(&mut edit, user, &new.name, &keys).await?;
        grants::check_options(&mut edit, user).await?;
        let mut summary = format!("user {}: {}", new.name, keys_in_words(added));
        if let Some(on) = &new.on {
            let (sudo, terms, reason) = (new.sudo, &new.terms, new.reason.as_str());
            let (holder, login) = (HolderId::User(user), Some(&new.name));
            let grant = GrantData { holder, on, login, sudo, terms, reason };
            let (words, _) =
                grants::add(&mut edit, &Holder::User(new.name.clone()), &grant).await?;
            summary = format!("{summary}, {words}");
        }
        let mut logins = logins_of(edit.db(), user, &new.name).await?;
        logins.insert(new.name.clone());
        edit.commit(&summary, &Scope::Logins(logins)).await
    }

    /// Changes how a person is called and reached, what the person's accounts must be, whether the
    /// person may log in, and the sudo rights of every grant.
    ///
    /// # Errors
    /// [`FleetError::NoSuchUser`], [`FleetError::BadText`], [`FleetError::Conflict`],
    /// [`FleetError::Store`].
    pub async fn update_user(
        &self,
        proof: &Admin,
        name: &Username,
        update: &UpdateUser,
    ) -> Result<Change, FleetError> {
        let mut edit = Edit::begin(self, proof).await?;
        let row = edit.user(name).await?;
        if update.state.is_some() && row.disabled {
            return Err(FleetError::Disabled(name.clone()));
        }
        let full_name = update.full_name.as_ref().unwrap_or(&row.full_name);
        let mail = update.mail.as_ref().unwrap_or(&row.mail);
        let mut done = rename(&mut edit, &row, full_name, mail).await?;
        let spec = overlay(&row.spec, &update.spec);
        let rights = update_rights(&mut edit, &row, update.sudo, update.state, &spec).await?;
        let logins = if rights.is_empty() {
            BTreeSet::new()
        } else {
            logins_of(edit.db(), row.id, name).await?
        };
        done.extend(rights);
        let detail = updated(&mut edit, name, done).await?;
        edit.commit(&format!("user {name}: {detail}"), &Scope::Logins(logins)).await
    }

    /// Removes a person with every key and grant.
    ///
    /// # Errors
    /// [`FleetError::NoSuchUser`], [`FleetError::Store`].
    pub async fn remove_user(
        &self,
        proof: &Admin,
        name: &Username,
        how: RemoveUser,
    ) -> Result<Change, FleetError> {
        let mut edit = Edit::begin(self, proof).await?;
        let row = edit.user(name).await?;
        let logins = logins_of(edit.db(), row.id, name).await?;
        let home = remove(&mut edit, &row, how).await?;
        edit.commit(&format!("user {name}: removed{home}"), &Scope::Logins(logins)).await
    }

    /// Adds keys to a person; all or none.
    ///
    /// # Errors
    /// [`FleetError::NoSuchUser`], [`FleetError::NoKeys`], [`FleetError::BadKey`],
    /// [`FleetError::Store`].
    pub async fn add_keys(
        &self,
        proof: &Admin,
        name: &Username,
        new: &NewKeys,
    ) -> Result<Change, FleetError> {
        let grant = |public_key| {
            let options = new.options.clone();
            KeyGrant { public_key, options, until: new.until }
        };
        let keys: Vec<KeyGrant> = parse_keys(&new.keys)?.into_iter().map(grant).collect();
        if keys.is_empty() {
            return Err(FleetError::NoKeys);
        }
        let mut edit = Edit::begin(self, proof).await?;
        if new.until.is_some_and(|until| until <= edit.now()) {
            return Err(FleetError::Past);
        }
        let row = edit.user(name).await?;
        let added = add_keys(&mut edit, row.id, name, &keys).await?;
        grants::check_options(&mut edit, row.id).await?;
        let logins = logins_of(edit.db(), row.id, name).await?;
        let summary = format!("user {name}: {}", keys_in_words(added));
        edit.commit(&summary, &Scope::Logins(logins)).await
    }

    /// Takes a key from a person; `fingerprint` with or without `SHA256:`.
    ///
    /// # Errors
    /// [`FleetError::NoSuchUser`], [`FleetError::NoSuchKey`], [`FleetError::Store`].
    pub async fn remove_key(
        &self,
        proof: &Admin,
        name: &Username,
        fingerprint: &str,
    ) -> Result<Change, FleetError> {
        let bare = fingerprint.strip_prefix("SHA256:").unwrap_or(fingerprint);
        let fingerprint: String = "SHA256:".chars().chain(bare.chars().take(80)).collect();
        let mut edit = Edit::begin(self, proof).await?;
        let row = edit.user(name).await?;
        remove_key(&mut edit, &row, &fingerprint).await?;
        let logins = logins_of(edit.db(), row.id, name).await?;
        let summary = format!("user {name}: key {fingerprint} removed");
        edit.commit(&summary, &Scope::Logins(logins)).await
    }
}

/// The login names of a person's grants, also of those through groups.
pub(super) async fn logins_of(
    db: &mut Connection,
    user: UserId,
    name: &Username,
) -> Result<BTreeSet<Username>, StoreError> {
    let grants = store::grants::of_user(db, user).await?;
    Ok(grants.into_iter().map(|grant| grant.login.unwrap_or_else(|| name.clone())).collect())
}

fn memberships(groups: &Groups, user: &Username) -> Vec<Membership> {
    let of_user = groups.of(user).into_iter();
    of_user.map(|(group, through)| Membership { group, through }).collect()
}

async fn add_or_update(edit: &mut Edit<'_>, new: &NewUser) -> Result<UserId, FleetError> {
    let Some(row) = store::users::find(edit.db(), &new.name).await? else {
        return insert(edit, new).await;
    };
    edit.remember(Thing::User(&new.name)).await?;
    let chosen =
        |new: &str, old: &str| if new.is_empty() { old.to_owned() } else { new.to_owned() };
    let full_name = chosen(&new.full_name, &row.full_name);
    let mail = chosen(&new.mail, &row.mail);
    if full_name != row.full_name || mail != row.mail {
        store::users::update(edit.db(), row.id, &full_name, &mail).await?;
        let (user, reason) = (Some(&new.name), new.reason.as_str());
        edit.record(Event { action: "user.update", user, reason, ..Event::default() }).await?;
    }
    let spec = overlay(&row.spec, &new.spec);
    if spec != row.spec {
        uids::claim(edit, &row.name, &spec).await?;
        store::users::set_spec(edit.db(), row.id, &spec).await?;
    }
    Ok(row.id)
}

fn check_new(new: &NewUser) -> Result<(), FleetError> {
    check_text("the full name", &new.full_name)?;
    check_text("the mail address", &new.mail)?;
    check_text("the reason", &new.reason)
}

/// Adds a person within an edit, without keys and grants.
pub(super) async fn insert(edit: &mut Edit<'_>, new: &NewUser) -> Result<UserId, FleetError> {
    edit.check_login(&new.name)?;
    check_new(new)?;
    edit.remember(Thing::User(&new.name)).await?;
    let now = edit.now();
    let db = edit.db();
    let id = store::users::insert(db, &new.name, &new.full_name, &new.mail, now).await?;
    uids::claim(edit, &new.name, &new.spec).await?;
    store::users::set_spec(edit.db(), id, &new.spec).await?;
    let (user, reason) = (Some(&new.name), new.reason.as_str());
    edit.record(Event { action: "user.add", user, reason, ..Event::default() }).await?;
    Ok(id)
}

/// Removes a person within an edit; what becomes of the home, in words.
pub(super) async fn remove(
    edit: &mut Edit<'_>,
    row: &UserRow,
    how: RemoveUser,
) -> Result<String, FleetError> {
    let who = Holder::User(row.name.clone());
    edit.remember(Thing::User(&row.name)).await?;
    edit.remember(Thing::Grants(&who)).await?;
    for group in store::groups::holding(edit.db(), MemberId::User(row.id)).await? {
        edit.remember(Thing::Group(&group)).await?;
    }
    store::users::remove(edit.db(), row.id).await?;
    if how.home.is_some() {
        // Only of accounts that nobody else has.
        store::policies::set_removal(edit.db(), &row.name, how.home).await?;
    }
    let home = how.home.map(|home| format!(", home: {}", home.name())).unwrap_or_default();
    let detail = format!("with every key and grant{home}");
    edit.note("user.remove", Some(&row.name), None, &detail).await?;
    Ok(home)
}

/// Tells the log what was changed of a person; the same in words.
pub(super) async fn updated(
    edit: &mut Edit<'_>,
    name: &Username,
    mut done: Vec<String>,
) -> Result<String, FleetError> {
    if done.is_empty() {
        done.push("nothing to change".to_owned());
    }
    let detail = done.join(", ");
    edit.note("user.update", Some(name), None, &detail).await?;
    Ok(detail)
}

/// Changes how a person is called and reached; what was changed.
pub(super) async fn rename(
    edit: &mut Edit<'_>,
    row: &UserRow,
    full_name: &str,
    mail: &str,
) -> Result<Vec<String>, FleetError> {
    check_text("the full name", full_name)?;
    check_text("the mail address", mail)?;
    edit.remember(Thing::User(&row.name)).await?;
    store::users::update(edit.db(), row.id, full_name, mail).await?;
    let mut done = Vec::new();
    if full_name != row.full_name {
        done.push(format!("full name {full_name:?}"));
    }
    if mail != row.mail {
        done.push(format!("mail {mail:?}"));
    }
    Ok(done)
}

/// Changes what concerns the person's accounts; what was changed.
pub(super) async fn update_rights(
    edit: &mut Edit<'_>,
    row: &UserRow,
    sudo: Option<bool>,
    state: Option<UserState>,
    spec: &AccountSpec,
) -> Result<Vec<String>, FleetError> {
    let mut done = Vec::new();
    edit.remember(Thing::User(&row.name)).await?;
    if let Some(sudo) = sudo {
        if !sudo {
            check_own_sudo(edit, row).await?;
        }
        edit.remember(Thing::Grants(&Holder::User(row.name.clone()))).await?;
        store::grants::set_sudo(edit.db(), row.id, sudo).await?;
        done.push(if sudo { "sudo given" } else { "sudo taken" }.to_owned());
    }
    if let Some(state) = state {
        set_state(edit, row, state).await?;
        let was_locked = row.state() == UserState::Locked;
        done.push(match state {
            UserState::Locked => "locked".to_owned(),
            UserState::Active if was_locked => "unlocked".to_owned(),
            state => state.name().to_owned(),
        });
    }
    if *spec != row.spec {
        edit.check_left(&row.spec, spec)?;
        uids::claim(edit, &row.name, spec).await?;
        store::users::set_spec(edit.db(), row.id, spec).await?;
        done.extend(spec_in_words(&row.spec, spec));
    }
    Ok(done)
}

/// Says whether a person may log in; of who may not any more, the sessions are ended, too.
pub(super) async fn set_state(
    edit: &mut Edit<'_>,
    row: &UserRow,
    state: UserState,
) -> Result<(), FleetError> {
    edit.remember(Thing::User(&row.name)).await?;
    store::users::set_state(edit.db(), row.id, state).await?;
    if state == UserState::Disabled {
        revocation::end_all_sessions(edit, row).await?;
    }
    Ok(())
}

/// Sudo rights through a group are not the person's own to lose: taking the others would leave them.
async fn check_own_sudo(edit: &mut Edit<'_>, row: &UserRow) -> Result<(), FleetError> {
    let grants = store::grants::of_user(edit.db(), row.id).await?;
    let gives = |grant: &Grant| grant.sudo || grant.terms.sudo_policy.is_some();
    let group = grants.iter().filter(|grant| gives(grant)).find_map(|grant| grant.holder.group());
    match group.cloned() {
        Some(group) => Err(FleetError::SudoByGroup { user: row.name.clone(), group }),
        None => Ok(()),
    }
}

/// The fields that are others than they were.
fn spec_in_words(old: &AccountSpec, new: &AccountSpec) -> Vec<String> {
    fn values(spec: &AccountSpec) -> [(&'static str, Option<String>); 7] {
        let AccountSpec { uid, group, groups, shell, comment, home, skel } = spec;
        let names = |groups: &BTreeSet<GroupName>| {
            groups.iter().map(GroupName::as_str).collect::<Vec<_>>().join(",")
        };
        [
            ("uid", uid.map(|uid| uid.to_string())),
            ("group", group.as_ref().map(ToString::to_string)),
            ("groups", groups.as_ref().map(names)),
            ("shell", shell.as_ref().map(ToString::to_string)),
            ("comment", comment.as_ref().map(ToString::to_string)),
            ("home", home.as_ref().map(ToString::to_string)),
            ("skel", skel.as_ref().map(ToString::to_string)),
        ]
    }
    let both = values(old).into_iter().zip(values(new)).filter(|(old, new)| old != new);
    let said = both.map(|(_, (name, value))| match value {
        Some(value) => format!("{name} {value}"),
        None => format!("{name} left to the host"),
    });
    said.collect()
}

/// The old fields with the new ones laid over them.
fn overlay(old: &AccountSpec, new: &AccountSpec) -> AccountSpec {
    AccountSpec {
        uid: new.uid.or(old.uid),
        group: new.group.clone().or_else(|| old.group.clone()),
        groups: new.groups.clone().or_else(|| old.groups.clone()),
        shell: new.shell.clone().or_else(|| old.shell.clone()),
        comment: new.comment.clone().or_else(|| old.comment.clone()),
        home: new.home.clone().or_else(|| old.home.clone()),
        skel: new.skel.clone().or_else(|| old.skel.clone()),
    }
}

/// Adds keys within an edit; how many the person did not have. Whether they stand beside the options
/// of grants is for the caller to check, once all is as it will be.
pub(super) async fn add_keys(
    edit: &mut Edit<'_>,
    user: UserId,
    name: &Username,
    keys: &[KeyGrant],
) -> Result<usize, FleetError> {
    edit.remember(Thing::User(name)).await?;
    let (now, origin) = (edit.now(), edit.origin());
    let mut added = 0;
    for key in keys {
        if store::users::add_key(edit.db(), user, key, &origin, now).await? {
            added += 1;
            let detail = key_in_words(key);
            edit.note("key.add", Some(name), None, detail.trim_end()).await?;
        }
    }
    Ok(added)
}

/// Takes a key from a person within an edit.
pub(super) async fn remove_key(
    edit: &mut Edit<'_>,
    row: &UserRow,
    fingerprint: &str,
) -> Result<(), FleetError> {
    edit.remember(Thing::User(&row.name)).await?;
    if !store::users::remove_key(edit.db(), row.id, fingerprint).await? {
        let (user, fingerprint) = (row.name.clone(), fingerprint.to_owned());
        return Err(FleetError::NoSuchKey { user, fingerprint });
    }
    edit.note("key.remove", Some(&row.name), None, fingerprint).await
}

fn key_in_words(key: &KeyGrant) -> String {
    let mut words = format!("{} {}", key.public_key.fingerprint(), key.public_key.comment());
    if !key.options.is_empty() {
        words.push_str(&format!(" with {}", key.options));
    }
    if let Some(until) = key.until {
        words.push_str(&format!(" until {} UTC", utc(until)));
    }
    words
}

fn keys_in_words(added: usize) -> String {
    match added {
        0 => "no new key".to_owned(),
        1 => "1 key added".to_owned(),
        more => format!("{more} keys added"),
    }
}

fn user_view(
    row: UserRow,
    keys: Vec<Key>,
    grants: Vec<Grant>,
    groups: Vec<Membership>,
    uid: Option<u32>,
) -> User {
    User {
        state: row.state(),
        uid: row.spec.uid.or(uid),
        name: row.name,
        full_name: row.full_name,
        mail: row.mail,
        spec: row.spec,
        created: row.created,
        keys,
        grants,
        groups,
    }
}
