//! The keys of this machine's accounts, as reconciling asks for them.
//!
//! This file must not know what is wanted, or why.

use bastio_protocol::{Change, KeyGrant, PublicKey, Username};

use super::{KeysOnDiskError, read_keys, remove_key, set_keys};
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
        self.keys_to_set(name, wanted, gone)?()
    }

    fn keys_to_set(
        &self,
        name: &Username,
        wanted: &[KeyGrant],
        gone: &[PublicKey],
    ) -> Result<KeyWork, AccountsError> {
        let account = self.find(name)?.ok_or_else(|| AccountsError::LookUp {
            what: format!("{name}, whose keys are to be set"),
            errno: nix::errno::Errno::ENOENT,
        })?;
        let (shape, wanted, gone) = (Shape::of_account(name), wanted.to_vec(), gone.to_vec());
        Ok(Box::new(move || Ok(set_all(&account, &shape, &wanted, &gone)?)))
    }
}

fn set_all(
    account: &Account,
    shape: &Shape,
    wanted: &[KeyGrant],
    gone: &[PublicKey],
) -> Result<Change, KeysOnDiskError> {
    let mut change = set_keys(account, shape, wanted)?;
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
