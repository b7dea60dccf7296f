//! The keys of this machine's accounts, as reconciling asks for them.
//!
//! This file must not know what is wanted, or why.

use bastio_protocol::{Change, KeyGrant, PublicKey, Username};

use super::{KeysOnDiskError, put_back, read_keys, remove_key, set_first_keys, set_keys};
use crate::accounts::{Account, Accounts, AccountsError, SystemAccounts};
use crate::reconcile::host::{FoundKeys, KeyHost, KeyWork};
use crate::sshd::Shape;

impl KeyHost for SystemAccounts {
    fn keys(&self, account: &Account) -> Result<FoundKeys, AccountsError> {
        let mut keys = FoundKeys::default();
        for found in read_keys(account, &Shape::of_account(&account.name))? {
            match found.grant {
                Some(grant) if found.line.ours && keys.ours.contains(&grant) => {}
                Some(grant) if found.line.ours => keys.ours.push(grant),
                // Also a line of ours that somebody gave other options.
                _ => keys.foreign.push(found.line.key),
            }
        }
        Ok(keys)
    }

    fn set_keys(
        &self,
        name: &Username,
        wanted: &[KeyGrant],
        gone: &[PublicKey],
    ) -> Result<Change, AccountsError> {
        let (account, shape) = (look_up(self, name)?, Shape::of_account(name));
        let change = set_keys(&account, &shape, wanted)?;
        Ok(take_all(&account, &shape, gone, change)?)
    }

    fn put_back(&self, name: &Username, lines: &[String]) -> Result<Change, AccountsError> {
        let (account, shape) = (look_up(self, name)?, Shape::of_account(name));
        Ok(put_back(&account, &shape, lines)?)
    }

    fn first_keys(
        &self,
        account: &Account,
        wanted: &[KeyGrant],
        gone: &[PublicKey],
    ) -> Result<KeyWork, AccountsError> {
        let (account, shape) = (account.clone(), Shape::of_account(&account.name));
        let (wanted, gone) = (wanted.to_vec(), gone.to_vec());
        Ok(Box::new(move || {
            let unflushed = set_first_keys(&account, &shape, &wanted)?;
            take_all(&account, &shape, &gone, Change::Unchanged)?;
            Ok(unflushed)
        }))
    }
}

fn look_up(accounts: &SystemAccounts, name: &Username) -> Result<Account, AccountsError> {
    accounts.find(name)?.ok_or_else(|| AccountsError::LookUp {
        what: format!("{name}, whose keys are to be set"),
        errno: nix::errno::Errno::ENOENT,
    })
}

/// Takes these keys, behind a change of others.
fn take_all(
    account: &Account,
    shape: &Shape,
    gone: &[PublicKey],
    mut change: Change,
) -> Result<Change, KeysOnDiskError> {
    if gone.is_empty() {
        return Ok(change);
    }
    // A line of others may let it in still.
    let left = match read_keys(account, shape) {
        Err(error) if error.is_about_the_place() => Vec::new(),
        left => left?,
    };
    for key in gone.iter().filter(|key| left.iter().any(|found| found.line.key == **key)) {
        if remove_key(account, shape, key)? == Change::Changed {
            change = Change::Changed;
        }
    }
    Ok(change)
}
