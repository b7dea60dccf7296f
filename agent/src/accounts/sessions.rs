//! Ends what runs in the name of one account: its sessions by logind where it knows them, then its processes by
//! signals.
//!
//! This file must not know why they have to end.

use std::path::Path;

use super::processes::{self, UserIds};
use super::{Account, AccountsError, Tool, databases};

/// Where logind keeps a file for each user with a session, named by the uid.
const LOGIND_USERS: &str = "/run/systemd/users";

/// Ends all of it; how many processes there were. Never asked for root or the system's accounts.
pub(super) fn end_all_of(account: &Account) -> Result<usize, AccountsError> {
    let (uid, ids) = (account.owner.uid, ids_of(account)?);
    let found = processes::count(&ids)?;
    if Path::new(LOGIND_USERS).join(uid.to_string()).exists() {
        // Signals do the same where logind does not answer; it only knows the sessions by name.
        if let Err(error) = Tool::Loginctl.run(&["terminate-user", "--", account.name.as_str()]) {
            tracing::warn!(user = %account.name, %error, "logind did not end the sessions");
        }
    }
    Ok(processes::end_all(&ids)?.max(found))
}

/// Whether something runs in its name. Never asked for root or the system's accounts.
pub(super) fn is_any_of(account: &Account) -> Result<bool, AccountsError> {
    Ok(processes::count(&ids_of(account)?)? > 0)
}

fn ids_of(account: &Account) -> Result<UserIds, AccountsError> {
    let uid = account.owner.uid;
    if account.is_system || uid.is_root() {
        return Err(AccountsError::NotOurs(account.name.clone()));
    }
    let subordinate = databases::subordinate_uids(account.name.as_str(), uid)?;
    Ok(UserIds { uid, subordinate })
}
