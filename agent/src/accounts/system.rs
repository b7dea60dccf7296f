//! The accounts of this machine: each verb in terms of the account database, the system's tools,
//! and the key files.
//!
//! This file must not decide who may be touched, and must not know messages.

use std::path::Path;

use bastio_protocol::{Change, PublicKey, Username};
use nix::errno::Errno;
use nix::unistd::{Group, Uid, User};

use super::processes::UserIds;
use super::{
    Account, Accounts, AccountsError, HomeFate, LeftOver, MANAGED_GROUP, SudoGroup, Tool,
    ToolFault, databases, home, processes, spool,
};
use crate::keys_on_disk::{self, KeysOnDiskError, Owner};

/// The shell of new accounts where the host has it; else useradd's own default.
const SHELL: &str = "/bin/bash";
/// A password field that no password matches (shadow(5)); unlike `!` it does not make sshd call
/// the account locked.
const NO_PASSWORD: &str = "*";
/// The groups that give sudo, in the order in which they are looked for.
const SUDO_GROUPS: [&str; 2] = ["sudo", "wheel"];

/// This machine's accounts.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemAccounts;

impl Accounts for SystemAccounts {
    fn find(&self, name: &Username) -> Result<Option<Account>, AccountsError> {
        let Some(user) = user(name.as_str())? else {
            return Ok(None);
        };
        // A listing that fails makes an account a stranger's, which is refused: the safe side.
        let is_managed = users::get_user_groups(name.as_str(), user.gid.as_raw())
            .is_some_and(|groups| groups.iter().any(|group| group.name() == MANAGED_GROUP));
        Ok(Some(Account {
            name: name.clone(),
            owner: Owner { uid: user.uid, gid: user.gid },
            home: user.dir,
            is_system: user.uid.as_raw() < databases::uid_min()?,
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

    fn sudo_group(&self) -> Result<Option<SudoGroup>, AccountsError> {
        for name in SUDO_GROUPS {
            if group(name)?.is_some() {
                return Ok(Some(SudoGroup(name.to_owned())));
            }
        }
        Ok(None)
    }

    fn is_member(&self, account: &Account, sudo: &SudoGroup) -> Result<bool, AccountsError> {
        let group = group(&sudo.0)?;
        Ok(group.is_some_and(|group| {
            group.gid == account.owner.gid
                || group.mem.iter().any(|member| member == account.name.as_str())
        }))
    }

    fn create(&self, name: &Username, sudo: Option<&SudoGroup>) -> Result<Account, AccountsError> {
        ensure_managed_group()?;
        let made = self.make(name, sudo).and_then(|account| {
            keys_on_disk::repair(&account.home, account.owner)?;
            Ok(account)
        });
        match made {
            // The name was free a moment ago: somebody else took it, and theirs is left alone.
            Err(AccountsError::Tool(error)) if error.fault == ToolFault::NameTaken => {
                Err(error.into())
            }
            Err(cause) => Err(self.unmake(name, cause)),
            Ok(account) => Ok(account),
        }
    }

    fn join(&self, account: &Account, group: &SudoGroup) -> Result<(), AccountsError> {
        let name = account.name.as_str();
        Ok(Tool::Usermod.run(&["--append", "--groups", &group.0, "--", name])?)
    }

    fn leave(&self, account: &Account, group: &SudoGroup) -> Result<(), AccountsError> {
        Ok(Tool::Gpasswd.run(&["--delete", account.name.as_str(), &group.0])?)
    }

    fn close_access(&self, account: &Account) -> Result<Option<String>, AccountsError> {
        let expired = expire(account, databases::CLOSED_DAY);
        // Also where the account database is locked or full: without keys nobody comes in.
        let emptied = keys_on_disk::remove_all_keys(&account.home, account.owner);
        expired?;
        match emptied {
            Ok(()) | Err(KeysOnDiskError::HomeMissing(_)) => Ok(None),
            Err(error) => Ok(Some(error.to_string())),
        }
    }

    fn reopen_access(&self, account: &Account) -> Result<Change, AccountsError> {
        if !databases::is_closed(account.name.as_str())? {
            return Ok(Change::Unchanged);
        }
        expire(account, "")?;
        Ok(Change::Changed)
    }

    fn end_processes(&self, account: &Account) -> Result<(), AccountsError> {
        let subordinate = databases::subordinate_uids(account.name.as_str(), account.owner.uid)?;
        processes::end_all(&UserIds { uid: account.owner.uid, subordinate })
    }

    fn delete(&self, account: &Account) -> Result<HomeFate, AccountsError> {
        let fate = home::judge(account)?;
        spool::remove_all(&account.name, account.owner.uid)?;
        match run_userdel(account, &fate) {
            Err(error) if error.fault == ToolFault::LoggedIn => {
                self.end_processes(account)?;
                delete_outcome(run_userdel(account, &fate), fate)
            }
            result => delete_outcome(result, fate),
        }
    }

    fn repair_key_files(&self, account: &Account) -> Result<(), AccountsError> {
        Ok(keys_on_disk::repair(&account.home, account.owner)?)
    }

    fn insert_key(&self, account: &Account, key: &PublicKey) -> Result<Change, AccountsError> {
        Ok(keys_on_disk::insert_key(&account.home, account.owner, key)?)
    }

    fn remove_key(&self, account: &Account, key: &PublicKey) -> Result<Change, AccountsError> {
        Ok(keys_on_disk::remove_key(&account.home, account.owner, key)?)
    }
}

impl SystemAccounts {
    fn make(&self, name: &Username, sudo: Option<&SudoGroup>) -> Result<Account, AccountsError> {
        let groups = match sudo {
            Some(sudo) => format!("{MANAGED_GROUP},{}", sudo.0),
            None => MANAGED_GROUP.to_owned(),
        };
        let home = databases::home_base()?.join(name.as_str()).display().to_string();
        let mut arguments = vec!["--create-home", "--home-dir", &home, "--user-group"];
        arguments.extend(["--password", NO_PASSWORD, "--groups", &groups]);
        if Path::new(SHELL).exists() {
            arguments.extend(["--shell", SHELL]);
        }
        arguments.extend(["--", name.as_str()]);
        Tool::Useradd.run(&arguments)?;
        let errno = Errno::ENOENT;
        let what = format!("{name}, though useradd has just made it");
        self.find(name)?.ok_or(AccountsError::LookUp { what, errno })
    }

    /// Takes back what a failed [`Accounts::create`] made, and passes its failure on. Only an
    /// account with the mark is certainly ours: somebody may have made the name meanwhile.
    fn unmake(&self, name: &Username, cause: AccountsError) -> AccountsError {
        let undone = match self.find(name) {
            Ok(Some(account)) if !account.is_managed => {
                return AccountsError::Unmarked { name: name.clone(), cause: Box::new(cause) };
            }
            Ok(Some(account)) => self.delete(&account).map(|_| ()),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        match undone {
            Ok(()) => cause,
            Err(undo) => AccountsError::HalfMade { cause: Box::new(cause), undo: Box::new(undo) },
        }
    }
}

fn ensure_managed_group() -> Result<(), AccountsError> {
    if group(MANAGED_GROUP)?.is_none() {
        Tool::Groupadd.run(&["--system", "--", MANAGED_GROUP])?;
    }
    Ok(())
}

fn expire(account: &Account, day: &str) -> Result<(), AccountsError> {
    Ok(Tool::Usermod.run(&["--expiredate", day, "--", account.name.as_str()])?)
}

fn run_userdel(account: &Account, fate: &HomeFate) -> Result<(), super::ToolError> {
    let name = account.name.as_str();
    match fate {
        HomeFate::Removed => Tool::Userdel.run(&["--remove", "--", name]),
        HomeFate::Missing | HomeFate::Left(_) => Tool::Userdel.run(&["--", name]),
    }
}

/// userdel(8) removes the account before the home: with code 12 only the home is left.
fn delete_outcome(
    result: Result<(), super::ToolError>,
    fate: HomeFate,
) -> Result<HomeFate, AccountsError> {
    match result {
        Ok(()) => Ok(fate),
        Err(error) if error.fault == ToolFault::Home => Ok(HomeFate::Left(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

fn user(name: &str) -> Result<Option<User>, AccountsError> {
    User::from_name(name).map_err(|errno| look_up("the account", name, errno))
}

fn group(name: &str) -> Result<Option<Group>, AccountsError> {
    Group::from_name(name).map_err(|errno| look_up("the group", name, errno))
}

fn look_up(kind: &str, name: &str, errno: Errno) -> AccountsError {
    AccountsError::LookUp { what: format!("{kind} {name}"), errno }
}
