//! Groups of people: who is in them, and what changes with that.

use std::collections::BTreeSet;

use bastio_protocol::Username;
use bastio_protocol::api::{
    Change, Grant, Group, Holder, Members, NewGroup, RemoveGroup, UpdateGroup, UserGroup,
};

use super::edit::Edit;
use super::history::Thing;
use super::{Fleet, FleetError, grants};
use crate::access::Admin;
use crate::dispatch::queue::Scope;
use crate::plan::{Groups, Inside};
use crate::store::groups::{GroupId, MemberId};
use crate::store::{self, Connection, StoreError};

impl Fleet {
    /// All groups, by name.
    ///
    /// # Errors
    /// [`FleetError::Store`].
    pub async fn groups(&self, _proof: &Admin) -> Result<Vec<Group>, FleetError> {
        let mut db = self.store.read().await?;
        let groups = store::groups::all(&mut db).await?;
        let grants = store::grants::list(&mut db).await?;
        let rows = store::groups::list(&mut db).await?.into_iter();
        Ok(rows.map(|(name, created)| view(name, created, &groups, &grants)).collect())
    }

    /// One group.
    ///
    /// # Errors
    /// [`FleetError::NoSuchGroup`], [`FleetError::Store`].
    pub async fn group(&self, _proof: &Admin, name: &UserGroup) -> Result<Group, FleetError> {
        let mut db = self.store.read().await?;
        let mut rows = store::groups::list(&mut db).await?.into_iter();
        let row = rows.find(|(found, _)| found == name);
        let (_, created) = row.ok_or_else(|| FleetError::NoSuchGroup(name.clone()))?;
        let groups = store::groups::all(&mut db).await?;
        let grants = store::grants::of_group(&mut db, name).await?;
        Ok(view(name.clone(), created, &groups, &grants))
    }

    /// Adds a group with its first members.
    ///
    /// # Errors
    /// [`FleetError::GroupTaken`], [`FleetError::NoSuchUser`], [`FleetError::NoSuchGroup`],
    /// [`FleetError::Circle`], [`FleetError::Store`].
    pub async fn add_group(&self, proof: &Admin, new: &NewGroup) -> Result<Change, FleetError> {
        let mut edit = Edit::begin(self, proof).await?;
        if store::groups::find(edit.db(), &new.name).await?.is_some() {
            return Err(FleetError::GroupTaken(new.name.clone()));
        }
        let id = insert(&mut edit, &new.name).await?;
        let mut members = MemberEdit::begin(&mut edit, id, &new.name).await?;
        members.add(&new.members).await?;
        // Nobody has granted it anything yet, and it is in no other group.
        let mut done = vec!["added".to_owned()];
        done.extend(members.done);
        let summary = format!("group {}: {}", new.name, done.join(", "));
        edit.commit(&summary, &Scope::Logins(BTreeSet::new())).await
    }

    /// Puts members into a group and takes others out. What the group and those around it were
    /// granted begins and ends for them.
    ///
    /// # Errors
    /// [`FleetError::NoSuchGroup`], [`FleetError::NoSuchUser`], [`FleetError::Circle`],
    /// [`FleetError::Conflict`], [`FleetError::Store`].
    pub async fn update_group(
        &self,
        proof: &Admin,
        name: &UserGroup,
        update: &UpdateGroup,
    ) -> Result<Change, FleetError> {
        let mut edit = Edit::begin(self, proof).await?;
        let id = edit.group(name).await?;
        let mut members = MemberEdit::begin(&mut edit, id, name).await?;
        members.remove(&update.remove).await?;
        members.add(&update.add).await?;
        let MemberEdit { groups, come, gone, done, .. } = members;
        for user in &come {
            let id = edit.user(user).await?.id;
            grants::check_options(&mut edit, id).await?;
        }
        let around = groups.around(name);
        let mut logins = logins_through(edit.db(), &around, &come).await?;
        grants::forget_removals(&mut edit, &logins).await?;
        logins.extend(logins_through(edit.db(), &around, &gone).await?);
        let done = if done.is_empty() { "nothing to change".to_owned() } else { done.join(", ") };
        edit.commit(&format!("group {name}: {done}"), &Scope::Logins(logins)).await
    }

    /// Removes a group, also out of the groups that it is in. One that has grants stays, unless
    /// they may end with it.
    ///
    /// # Errors
    /// [`FleetError::NoSuchGroup`], [`FleetError::GroupInUse`], [`FleetError::Store`].
    pub async fn remove_group(
        &self,
        proof: &Admin,
        name: &UserGroup,
        how: RemoveGroup,
    ) -> Result<Change, FleetError> {
        let mut edit = Edit::begin(self, proof).await?;
        let id = edit.group(name).await?;
        let own = store::grants::of_group(edit.db(), name).await?;
        if !own.is_empty() && !how.with_grants {
            let grants = own.iter().map(|grant| grant.id).collect();
            return Err(FleetError::GroupInUse { name: name.clone(), grants });
        }
        let groups = store::groups::all(edit.db()).await?;
        let logins = logins_through(edit.db(), &groups.around(name), &groups.people(name)).await?;
        let with = remove(&mut edit, id, name, &own).await?;
        edit.commit(&format!("group {name}: removed{with}"), &Scope::Logins(logins)).await
    }
}

/// Adds an empty group within an edit.
pub(super) async fn insert(edit: &mut Edit<'_>, name: &UserGroup) -> Result<GroupId, FleetError> {
    edit.remember(Thing::Group(name)).await?;
    let now = edit.now();
    let id = store::groups::insert(edit.db(), name, now).await?;
    edit.note("group.add", None, None, &format!("group {name}")).await?;
    Ok(id)
}

/// Removes a group within an edit, with these grants, which are its own; in words, with what.
pub(super) async fn remove(
    edit: &mut Edit<'_>,
    id: GroupId,
    name: &UserGroup,
    own: &[Grant],
) -> Result<String, FleetError> {
    for grant in own {
        let detail = format!("grant {} of group {name} on {}", grant.id, grant.on);
        edit.note("grant.remove", None, None, &detail).await?;
    }
    let who = Holder::Group(name.clone());
    edit.remember(Thing::Group(name)).await?;
    edit.remember(Thing::Grants(&who)).await?;
    for group in store::groups::holding(edit.db(), MemberId::Group(id)).await? {
        edit.remember(Thing::Group(&group)).await?;
    }
    store::groups::remove(edit.db(), id).await?;
    let with = match own.len() {
        0 => String::new(),
        1 => " with its grant".to_owned(),
        more => format!(" with its {more} grants"),
    };
    edit.note("group.remove", None, None, &format!("group {name}{with}")).await?;
    Ok(with)
}

/// Puts somebody into a group within an edit, or takes somebody out of it; in words, if that changed
/// anything. Circles are for the caller to find.
pub(super) async fn set_member(
    edit: &mut Edit<'_>,
    (id, name): (GroupId, &UserGroup),
    who: &Holder,
    inside: bool,
) -> Result<Option<String>, FleetError> {
    edit.remember(Thing::Group(name)).await?;
    let (member, who_in_words) = match who {
        Holder::User(user) => (MemberId::User(edit.user(user).await?.id), user.to_string()),
        Holder::Group(group) => (MemberId::Group(edit.group(group).await?), who.to_string()),
    };
    let (changed, action, done) = if inside {
        (store::groups::add_member(edit.db(), id, member).await?, "group.member-add", "added")
    } else {
        let changed = store::groups::remove_member(edit.db(), id, member).await?;
        (changed, "group.member-remove", "removed")
    };
    if !changed {
        return Ok(None);
    }
    let what = format!("{who_in_words} {done}");
    edit.note(action, who.user(), None, &format!("group {name}: {what}")).await?;
    Ok(Some(what))
}

/// The accounts that these people have by the grants of these groups.
async fn logins_through(
    db: &mut Connection,
    groups: &BTreeSet<UserGroup>,
    people: &BTreeSet<Username>,
) -> Result<BTreeSet<Username>, StoreError> {
    let mut logins = BTreeSet::new();
    if people.is_empty() {
        return Ok(logins);
    }
    for group in groups {
        for grant in store::grants::of_group(db, group).await? {
            match grant.login {
                Some(login) => drop(logins.insert(login)),
                None => logins.extend(people.iter().cloned()),
            }
        }
    }
    Ok(logins)
}

/// Members of one group that come and go.
struct MemberEdit<'e, 'a> {
    edit: &'e mut Edit<'a>,
    id: GroupId,
    name: &'e UserGroup,
    /// As they are by now.
    groups: Groups,
    /// People who came, in groups or by themselves.
    come: BTreeSet<Username>,
    /// People who went; they may be in it still, through another group inside it.
    gone: BTreeSet<Username>,
    /// What was done, for people.
    done: Vec<String>,
}

impl<'e, 'a> MemberEdit<'e, 'a> {
    async fn begin(
        edit: &'e mut Edit<'a>,
        id: GroupId,
        name: &'e UserGroup,
    ) -> Result<Self, FleetError> {
        let groups = store::groups::all(edit.db()).await?;
        let (come, gone, done) = Default::default();
        Ok(Self { edit, id, name, groups, come, gone, done })
    }

    async fn add(&mut self, members: &Members) -> Result<(), FleetError> {
        for user in &members.users {
            if self.set(&Holder::User(user.clone()), true).await? {
                self.inside().users.insert(user.clone());
                self.come.insert(user.clone());
            }
        }
        for group in &members.groups {
            if let Some(circle) = self.groups.circle(self.name, group) {
                return Err(FleetError::Circle(circle));
            }
            if self.set(&Holder::Group(group.clone()), true).await? {
                self.inside().groups.insert(group.clone());
                self.come.extend(self.groups.people(group));
            }
        }
        Ok(())
    }

    async fn remove(&mut self, members: &Members) -> Result<(), FleetError> {
        for user in &members.users {
            if self.set(&Holder::User(user.clone()), false).await? {
                self.inside().users.remove(user);
                self.gone.insert(user.clone());
            }
        }
        for group in &members.groups {
            if self.set(&Holder::Group(group.clone()), false).await? {
                self.inside().groups.remove(group);
                self.gone.extend(self.groups.people(group));
            }
        }
        Ok(())
    }

    async fn set(&mut self, who: &Holder, inside: bool) -> Result<bool, FleetError> {
        let what = set_member(self.edit, (self.id, self.name), who, inside).await?;
        let changed = what.is_some();
        self.done.extend(what);
        Ok(changed)
    }

    fn inside(&mut self) -> &mut Inside {
        self.groups.0.entry(self.name.clone()).or_default()
    }
}

/// A group with those of `grants` that are its own.
fn view(name: UserGroup, created: i64, groups: &Groups, grants: &[Grant]) -> Group {
    let inside = groups.0.get(&name).cloned().unwrap_or_default();
    let own = grants.iter().filter(|grant| grant.holder.group() == Some(&name));
    Group {
        members: Members {
            users: inside.users.into_iter().collect(),
            groups: inside.groups.into_iter().collect(),
        },
        people: groups.people(&name).into_iter().collect(),
        grants: own.cloned().collect(),
        name,
        created,
    }
}

#[cfg(test)]
mod tests;
