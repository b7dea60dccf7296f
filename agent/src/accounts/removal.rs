//! Removing an account whose access is closed already: the account by userdel(8), its home as the policy says.
//!
//! This file must not know who may be removed, nor which policy holds.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::SystemTime;

use bastio_protocol::Removal;
use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod, fstat};

use super::snapshot::Databases;
use super::{
    Account, AccountsError, HomeFate, Swept, SystemAccounts, Tool, ToolError, ToolFault, home,
    quarantine, sessions, spool,
};
use crate::keys_on_disk::handles::open_without_links;

/// Removes the account, with what would run later in its name.
pub(super) fn carry_out(account: &Account, removal: Removal) -> Result<HomeFate, AccountsError> {
    match removal {
        Removal::Lock => Ok(HomeFate::Locked(account.home.clone())),
        Removal::Keep => remove_account(account, kept(account)?),
        Removal::Quarantine => match home::judge(account)? {
            // The home goes first: without the account nobody would know whose it was when all is done again after a
            // crash in between.
            HomeFate::Removed => remove_account(account, put_away(account)),
            fate => remove_account(account, fate),
        },
        Removal::Delete => remove_account(account, home::judge(account)?),
    }
}

impl SystemAccounts {
    /// Deletes homes that were put away `days` ago or earlier: those beside the homes of this host's accounts, in
    /// useradd's folder of homes, and in `places` (folders in which homes were). It stops soon when it may not go on.
    ///
    /// # Errors
    /// [`AccountsError::LookUp`]; single homes that cannot be deleted are in the answer.
    pub fn sweep_quarantine(
        &self,
        places: impl IntoIterator<Item = PathBuf>,
        now: SystemTime,
        days: u32,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Swept, AccountsError> {
        let all = self.databases()?;
        let mut all_places: BTreeSet<_> = quarantine::default_places(homes_of_people(&all));
        all_places.extend(places);
        Ok(quarantine::sweep(&all_places, now, days, go_on))
    }
}

fn homes_of_people(all: &Databases) -> impl Iterator<Item = PathBuf> {
    all.managed().into_iter().filter_map(|name| Some(all.account(name.as_str())?.home.clone()))
}

/// The home stays, closed to all but its owner: whoever gets the group's number next is a stranger to it.
fn kept(account: &Account) -> Result<HomeFate, AccountsError> {
    match home::judge(account)? {
        HomeFate::Removed => {}
        // It may be open to others, and says why.
        fate => return Ok(fate),
    }
    let home = account.home.clone();
    Ok(match shut(account) {
        Ok(()) => HomeFate::Kept(home),
        Err(errno) => {
            let why = errno.desc();
            HomeFate::Left(format!("{} cannot be closed to others: {why}", home.display()))
        }
    })
}

fn shut(account: &Account) -> Result<(), Errno> {
    let home = open_without_links(&account.home)?;
    let found = fstat(&home)?;
    if found.st_uid != account.owner.uid.as_raw() {
        return Err(Errno::EPERM);
    }
    fchmod(&home, Mode::from_bits_truncate(found.st_mode) & Mode::S_IRWXU)
}

fn put_away(account: &Account) -> HomeFate {
    match quarantine::put_away(account, SystemTime::now()) {
        Ok(path) => HomeFate::Quarantined(path),
        Err(error) => HomeFate::Left(format!("{}: {error}", account.home.display())),
    }
}

fn remove_account(account: &Account, fate: HomeFate) -> Result<HomeFate, AccountsError> {
    spool::remove_all(&account.name, account.owner.uid)?;
    let ended = match run_userdel(account, &fate) {
        Err(error) if error.fault == ToolFault::LoggedIn => {
            sessions::end_all_of(account)?;
            run_userdel(account, &fate)
        }
        ended => ended,
    };
    match ended {
        Ok(()) => Ok(fate),
        // userdel(8) removes the account before the home: with code 12 only the home is left.
        Err(error) if error.fault == ToolFault::Home => Ok(HomeFate::Left(error.to_string())),
        // And what takes it longer than a tool may take is the home.
        Err(error) if error.fault == ToolFault::TimedOut && is_gone(account)? => {
            let home = account.home.display();
            Ok(HomeFate::Left(format!("{home}: a part, because deleting it took too long")))
        }
        Err(error) => Err(error.into()),
    }
}

fn is_gone(account: &Account) -> Result<bool, AccountsError> {
    Ok(Databases::read()?.account(account.name.as_str()).is_none())
}

fn run_userdel(account: &Account, fate: &HomeFate) -> Result<(), ToolError> {
    let name = account.name.as_str();
    match fate {
        HomeFate::Removed => Tool::Userdel.run(&["--remove", "--", name]),
        _ => Tool::Userdel.run(&["--", name]),
    }
}
