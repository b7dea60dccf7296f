//! What reconciling asks of the account database, sessions and homes, in terms of this machine.
//!
//! Only local accounts of people that bastio manages are ever changed here, whatever is asked. This file must not know
//! what is wanted, nor why.

use std::path::PathBuf;
use std::sync::Arc;

use bastio_protocol::{AbsolutePath, Change, Removal, Username};
use nix::unistd::{Gid, Uid};

use super::create::{self, holder_of};
use super::snapshot::Databases;
use super::system::{ensure_managed_group, group, group_by_id, user};
use super::{
    Account, Accounts, AccountsError, HomeFate, MANAGED_GROUP, SystemAccounts, Tool, databases,
    is_own_group, modify,
};
use crate::keys_on_disk::Owner;
use crate::reconcile::host::{
    AccountChange, AccountFacts, AccountHost, Asked, FoundHome, NewAccount, Told,
};

impl AccountHost for SystemAccounts {
    fn managed(&self) -> Result<Vec<Username>, AccountsError> {
        let all = self.databases()?;
        let mut names = all.managed();
        // Marked by mistake: the system's own accounts are nobody's to manage.
        names.retain(|name| all.account(name.as_str()).is_some_and(|it| !all.is_system(it.uid)));
        Ok(names)
    }

    fn facts(&self, name: &Username) -> Result<Option<AccountFacts>, AccountsError> {
        let all = self.databases()?;
        match local_facts(&all, name)? {
            Some(facts) => Ok(Some(facts)),
            None => self.facts_elsewhere(&all, name),
        }
    }

    fn has_group(&self, name: &str) -> Result<bool, AccountsError> {
        Ok(self.databases()?.has_group(name) || group(name)?.is_some())
    }

    fn has_program(&self, path: &AbsolutePath) -> Result<bool, AccountsError> {
        create::is_program(path)
    }

    fn holder_of_uid(&self, uid: u32) -> Result<Option<String>, AccountsError> {
        holder_of(&*self.databases()?, uid)
    }

    fn found_home(
        &self,
        name: &Username,
        home: Option<&AbsolutePath>,
    ) -> Result<Option<FoundHome>, AccountsError> {
        let path = match home {
            Some(home) => PathBuf::from(home.as_str()),
            None => databases::home_base()?.join(name.as_str()),
        };
        match path.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(databases::look_up(&path.display().to_string(), &error)),
            Ok(found) => {
                let uid = std::os::unix::fs::MetadataExt::uid(&found);
                Ok(Some(FoundHome { path, uid, is_folder: found.is_dir() }))
            }
        }
    }

    fn create(&self, name: &Username, new: &NewAccount) -> Result<Account, AccountsError> {
        self.make(name, new)
    }

    fn create_row(&self, row: &[Asked<'_>], told: &mut Told<'_>) {
        self.make_row(row, told);
    }

    fn take_over(&self, name: &Username) -> Result<(), AccountsError> {
        ensure_managed_group()?;
        let account = self.local(name)?;
        if account.is_system {
            return Err(AccountsError::NotOurs(name.clone()));
        }
        if account.is_managed {
            return Ok(());
        }
        Ok(Tool::Usermod.run(&["--append", "--groups", MANAGED_GROUP, "--", name.as_str()])?)
    }

    fn give_back(&self, name: &Username, sudo_group: bool) -> Result<(), AccountsError> {
        self.own(name)?;
        if sudo_group {
            let group = self.sudo_group()?;
            let group = group.ok_or_else(|| AccountsError::GroupMissing("sudo".into()))?;
            self.join_sudo_group(name, group)?;
        }
        Ok(Tool::Gpasswd.run(&["--delete", name.as_str(), MANAGED_GROUP])?)
    }

    fn modify(&self, name: &Username, change: &AccountChange) -> Result<(), AccountsError> {
        self.own(name)?;
        modify::modify(&*self.databases()?, name, change)
    }

    fn lock(&self, name: &Username) -> Result<(), AccountsError> {
        self.own(name)?;
        modify::lock(name)
    }

    fn unlock(&self, name: &Username, expires: Option<i64>) -> Result<(), AccountsError> {
        self.own(name)?;
        modify::unlock(&*self.databases()?, name, expires)
    }

    fn is_running(&self, name: &Username) -> Result<bool, AccountsError> {
        super::sessions::is_any_of(&self.own(name)?)
    }

    fn end_sessions(&self, name: &Username) -> Result<usize, AccountsError> {
        self.end_all_of(&self.own(name)?)
    }

    fn remove(&self, name: &Username, removal: Removal) -> Result<HomeFate, AccountsError> {
        let account = self.own(name)?;
        let note = self.close_access(&account)?;
        self.leave_sudo_group(name)?;
        self.end_all_of(&account)?;
        let fate = self.delete(&account, removal)?;
        Ok(match note {
            // Keys that could not be taken out of a home that stays are the reader's to deal with.
            Some(note) if fate.is_there() => HomeFate::Left(format!("{fate}; {note}")),
            _ => fate,
        })
    }
}

impl SystemAccounts {
    /// The local databases, read again only when they have changed.
    pub(crate) fn databases(&self) -> Result<Arc<Databases>, AccountsError> {
        let mut kept = self.databases.borrow_mut();
        if let Some(all) = kept.as_ref().filter(|all| all.is_current()) {
            return Ok(Arc::clone(all));
        }
        let all = Arc::new(Databases::read()?);
        *kept = Some(Arc::clone(&all));
        Ok(all)
    }

    /// The account, if the tools can change it.
    fn local(&self, name: &Username) -> Result<Account, AccountsError> {
        if let Some(facts) = local_facts(&*self.databases()?, name)? {
            return Ok(facts.account);
        }
        Err(match user(name.as_str())? {
            Some(_) => AccountsError::NotLocal(name.clone()),
            None => AccountsError::Absent(name.clone()),
        })
    }

    /// The account, if it may be changed.
    fn own(&self, name: &Username) -> Result<Account, AccountsError> {
        let account = self.local(name)?;
        if account.is_system || !account.is_managed {
            return Err(AccountsError::NotOurs(name.clone()));
        }
        Ok(account)
    }

    /// The group whose members may use sudo here, if there is one.
    pub(crate) fn sudo_group(&self) -> Result<Option<&'static str>, AccountsError> {
        Ok(self.databases()?.sudo_group())
    }

    /// Adds the account to the sudo group.
    pub(crate) fn join_sudo_group(
        &self,
        name: &Username,
        group: &str,
    ) -> Result<Change, AccountsError> {
        if self.databases()?.is_member(name.as_str(), group) {
            return Ok(Change::Unchanged);
        }
        Tool::Usermod.run(&["--append", "--groups", group, "--", name.as_str()])?;
        Ok(Change::Changed)
    }

    /// Takes the account out of every group for sudo.
    pub(crate) fn leave_sudo_group(&self, name: &Username) -> Result<Change, AccountsError> {
        leave(name, self.databases()?.sudo_groups_of(name.as_str()))
    }

    /// Takes the account out of every group that may be a right: all but its primary one and bastio's mark.
    pub(super) fn leave_all_groups(&self, name: &Username) -> Result<Change, AccountsError> {
        let all = self.databases()?;
        let sudo = all.sudo_groups_of(name.as_str()).map(ToOwned::to_owned);
        leave(name, all.supplementary(name.as_str()).into_iter().chain(sudo))
    }

    /// For accounts that a directory service knows.
    fn facts_elsewhere(
        &self,
        all: &Databases,
        name: &Username,
    ) -> Result<Option<AccountFacts>, AccountsError> {
        let Some(found) = user(name.as_str())? else { return Ok(None) };
        let Some(account) = self.find(name)? else { return Ok(None) };
        let groups = users::get_user_groups(name.as_str(), found.gid.as_raw()).unwrap_or_default();
        let groups = groups.iter().filter(|group| group.gid() != found.gid.as_raw());
        let names = groups.map(|group| group.name().to_string_lossy().into_owned());
        Ok(Some(AccountFacts {
            account,
            group: group_name(all, found.gid)?,
            groups: names.filter(|group| !is_own_group(group)).collect(),
            shell: found.shell.display().to_string(),
            comment: found.gecos.to_string_lossy().into_owned(),
            expires: None,
            locked: false,
            barred: false,
        }))
    }
}

fn leave(
    name: &Username,
    groups: impl Iterator<Item = impl AsRef<str>>,
) -> Result<Change, AccountsError> {
    let mut change = Ok(Change::Unchanged);
    for group in groups {
        // One that fails does not keep the others from being left.
        let left = Tool::Gpasswd.run(&["--delete", name.as_str(), group.as_ref()]);
        change = change.and(left.map(|()| Change::Changed));
    }
    Ok(change?)
}

/// The account as the local databases have it.
pub(super) fn local_account(all: &Databases, name: &Username) -> Option<Account> {
    let found = all.account(name.as_str())?;
    Some(Account {
        name: name.clone(),
        owner: Owner { uid: Uid::from_raw(found.uid), gid: Gid::from_raw(found.gid) },
        home: found.home.clone(),
        is_system: all.is_system(found.uid),
        is_managed: all.is_managed(name.as_str()),
    })
}

fn local_facts(all: &Databases, name: &Username) -> Result<Option<AccountFacts>, AccountsError> {
    let Some(found) = all.account(name.as_str()) else { return Ok(None) };
    let Some(account) = local_account(all, name) else { return Ok(None) };
    Ok(Some(AccountFacts {
        group: group_name(all, account.owner.gid)?,
        account,
        groups: all.supplementary(name.as_str()),
        shell: found.shell.clone(),
        comment: found.comment.clone(),
        expires: all.expires(name.as_str()),
        locked: all.is_locked(name.as_str()),
        barred: all.is_barred(name.as_str()),
    }))
}

fn group_name(all: &Databases, gid: Gid) -> Result<String, AccountsError> {
    if let Some(name) = all.group_name(gid.as_raw()) {
        return Ok(name.to_owned());
    }
    Ok(group_by_id(gid)?.map_or_else(|| gid.to_string(), |group| group.name))
}
