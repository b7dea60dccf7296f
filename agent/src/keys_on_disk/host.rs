//! The keys of this machine's accounts, as reconciling asks for them.
//!
//! This file must not know what is wanted, or why.

use bastio_protocol::{Change, KeyGrant, Username};

use super::{read_keys, set_keys};
use crate::accounts::{Account, Accounts, AccountsError, SystemAccounts};
use crate::reconcile::host::{FoundKeys, KeyHost};
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

    fn set_keys(&self, name: &Username, wanted: &[KeyGrant]) -> Result<Change, AccountsError> {
        let account = self.find(name)?.ok_or_else(|| AccountsError::LookUp {
            what: format!("{name}, whose keys are to be set"),
            errno: nix::errno::Errno::ENOENT,
        })?;
        Ok(set_keys(&account, &Shape::of_account(name), wanted)?)
    }
}
