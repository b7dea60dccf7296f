//! The accounts of this machine: each verb in terms of the account database, the system's tools,
//! and the key files.
//!
//! This file must not decide who may be touched, and must not know messages.

use std::cell::RefCell;
use std::sync::Arc;

use bastio_protocol::{Change, PublicKey, Removal, Sudo, Username};
use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User};

use super::snapshot::Databases;
use super::{
    Account, Accounts, AccountsError, HomeFate, LeftOver, MANAGED_GROUP, Tool, databases, modify,
    removal, sessions,
};
use crate::keys_on_disk::{self, KeysOnDiskError, Owner};
use crate::reconcile::host::{NewAccount, SudoHost as _};
use crate::sshd::Shape;
use crate::sudoers::{PlainSudo, Sudoers, SudoersError};

/// This machine's accounts.
#[derive(Debug, Default, Clone)]
pub struct SystemAccounts {
    /// What was last read of the local databases.
    pub(super) databases: RefCell<Option<Arc<Databases>>>,
    /// What plain sudo rights are.
    pub(crate) plain_sudo: PlainSudo,
}

impl Accounts for SystemAccounts {
    fn find(&self, name: &Username) -> Result<Option<Account>, AccountsError> {
        let Some(user) = user(name.as_str())? else {
            return Ok(None);
        };
        let all = self.databases()?;
        let is_local = all.account(name.as_str()).is_some_and(|it| it.uid == user.uid.as_raw());
        // A listing that fails makes an account a stranger's, which is refused: the safe side.
        let is_managed = is_local && all.is_managed(name.as_str())
            || users::get_user_groups(name.as_str(), user.gid.as_raw())
                .is_some_and(|groups| groups.iter().any(|group| group.name() == MANAGED_GROUP));
        Ok(Some(Account {
            name: name.clone(),
            owner: Owner { uid: user.uid, gid: user.gid },
            home: user.dir,
            is_system: all.is_system(user.uid.as_raw()),
            is_managed,
        }))
    }

    fn group_exists(&self, name: &Username) -> Result<bool, AccountsError> {
        Ok(group(name.as_str())?.is_some())
    }

    fn left_over_home(&self, name: &Username) -> Result<Option<LeftOver>, AccountsError> {
        let path = databases::home_base()?.join(name.as_str());
        match path.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(databases::look_up(&path.display().to_string(), &error)),
            Ok(metadata) => {
                let uid = Uid::from_raw(std::os::unix::fs::MetadataExt::uid(&metadata));
                let name = User::from_uid(uid).ok().flatten().map(|user| user.name);
                Ok(Some(LeftOver { path, owner: name.unwrap_or_else(|| format!("uid {uid}")) }))
            }
        }
    }

    fn can_give_sudo(&self) -> Result<bool, AccountsError> {
        self.can_give_plain_sudo()
    }

    fn create_plain(
        &self,
        name: &Username,
        sudo: bool,
        new: NewAccount,
    ) -> Result<Account, AccountsError> {
        let sudo_group = sudo && self.plain_sudo_group()?.is_some();
        let new = NewAccount { sudo_group, ..new };
        let account = self.make(name, &new)?;
        let repaired = keys_on_disk::repair(&account, &Shape::of_account(name));
        let given = repaired.map_err(AccountsError::from).and_then(|()| {
            if sudo { self.set_plain_sudo(&account, true) } else { Ok(Change::Unchanged) }
        });
        match given {
            Ok(_) => Ok(account),
            Err(cause) => Err(self.unmake((name, &new), cause)),
        }
    }

    fn set_plain_sudo(&self, account: &Account, sudo: bool) -> Result<Change, AccountsError> {
        self.set_sudo(&account.name, if sudo { &Sudo::Plain } else { &Sudo::None }, None)
    }

    fn close_access(&self, account: &Account) -> Result<Option<String>, AccountsError> {
        let expired = modify::lock(&account.name);
        // Also where the account database is locked or full: without keys nobody comes in.
        let emptied = keys_on_disk::remove_all_keys(account, &Shape::of_account(&account.name));
        let unruled = Sudoers::system().remove(&account.name);
        expired?;
        match unruled {
            // What others wrote is not ours to take.
            Ok(_) | Err(SudoersError::Foreign { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        match emptied {
            Ok(()) | Err(KeysOnDiskError::HomeMissing(_)) => Ok(None),
            Err(error) => Ok(Some(error.to_string())),
        }
    }

    fn reopen_access(&self, account: &Account) -> Result<Change, AccountsError> {
        let all = self.databases()?;
        let name = account.name.as_str();
        if !all.is_locked(name) && !all.is_barred(name) {
            return Ok(Change::Unchanged);
        }
        modify::unlock(&all, &account.name, None)?;
        Ok(Change::Changed)
    }

    fn end_processes(&self, account: &Account) -> Result<(), AccountsError> {
        self.end_all_of(account).map(|_| ())
    }

    fn delete(&self, account: &Account, removal: Removal) -> Result<HomeFate, AccountsError> {
        if removal == Removal::Lock {
            // With the account itself its memberships go by themselves.
            self.leave_all_groups(&account.name)?;
        }
        removal::carry_out(account, removal)
    }

    fn repair_key_files(&self, account: &Account) -> Result<(), AccountsError> {
        Ok(keys_on_disk::repair(account, &Shape::of_account(&account.name))?)
    }

    fn insert_key(&self, account: &Account, key: &PublicKey) -> Result<Change, AccountsError> {
        Ok(keys_on_disk::insert_key(account, &Shape::of_account(&account.name), key)?)
    }

    fn remove_key(&self, account: &Account, key: &PublicKey) -> Result<Change, AccountsError> {
        Ok(keys_on_disk::remove_key(account, &Shape::of_account(&account.name), key)?)
    }
}

impl SystemAccounts {
    /// The same with another meaning of plain sudo rights.
    #[must_use]
    pub fn with_plain_sudo(self, plain_sudo: PlainSudo) -> Self {
        Self { plain_sudo, ..self }
    }

    /// Ends every session and process; how many processes there were.
    pub(super) fn end_all_of(&self, account: &Account) -> Result<usize, AccountsError> {
        sessions::end_all_of(account)
    }
}

pub(super) fn ensure_managed_group() -> Result<(), AccountsError> {
    if group(MANAGED_GROUP)?.is_none() {
        Tool::Groupadd.run(&["--system", "--", MANAGED_GROUP])?;
    }
    Ok(())
}

pub(super) fn user(name: &str) -> Result<Option<User>, AccountsError> {
    User::from_name(name).map_err(|errno| look_up("the account", name, errno))
}

pub(super) fn group_by_id(gid: Gid) -> Result<Option<Group>, AccountsError> {
    Group::from_gid(gid).map_err(|errno| look_up("the group", &gid.to_string(), errno))
}

pub(super) fn group(name: &str) -> Result<Option<Group>, AccountsError> {
    Group::from_name(name).map_err(|errno| look_up("the group", name, errno))
}

fn look_up(kind: &str, name: &str, errno: Errno) -> AccountsError {
    AccountsError::LookUp { what: format!("{kind} {name}"), errno }
}
