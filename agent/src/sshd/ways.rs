//! By which files sshd lets each account in, so that a change of its configuration which takes a way from somebody is
//! noticed. This file must not know why it is changed.

use std::collections::BTreeSet;

use bastio_protocol::{PublicKey, Username};

use super::{Pattern, Shape};
use crate::accounts::{Account, AccountsError, SystemAccounts};
use crate::keys_on_disk;
use crate::reconcile::host::AccountHost as _;

/// The ways in as they were at one moment.
pub(super) struct Ways {
    files: Vec<(Username, Vec<Pattern>)>,
    /// The account that is never locked out, and every key that lets it in, whoever wrote it. Of others the files count
    /// alone: what stands in them is in their hands.
    break_glass: Option<(Account, BTreeSet<PublicKey>)>,
}

impl Ways {
    /// Looks at them.
    ///
    /// # Errors
    /// When nobody can tell who comes in as `break_glass`.
    pub(super) fn look(
        accounts: &[Account],
        break_glass: Option<&Username>,
    ) -> Result<Self, AccountsError> {
        let glass = match break_glass {
            Some(name) => SystemAccounts::default().facts(name)?.map(|facts| facts.account),
            None => None,
        };
        let mut names: BTreeSet<&Username> = accounts.iter().map(|it| &it.name).collect();
        names.extend(glass.as_ref().map(|it| &it.name));
        let files = |name: &Username| (name.clone(), Shape::of_account(name).files.clone());
        let files = names.into_iter().map(files).collect();
        let break_glass = match glass {
            Some(account) => {
                let keys = keys_of(&account)?;
                Some((account, keys))
            }
            None => None,
        };
        Ok(Self { files, break_glass })
    }

    /// Whether sshd reads every file that it read then, save those of this name, and lets the account that is never
    /// locked out in by every key.
    ///
    /// # Errors
    /// Which way is gone, for people.
    pub(super) fn lead_in(&self, save: &str) -> Result<(), String> {
        for (name, files) in &self.files {
            let now = Shape::of_account(name);
            let is_gone = |file: &&Pattern| file.to_string() != save && !now.files.contains(file);
            if let Some(file) = files.iter().find(is_gone) {
                return Err(format!("sshd would not read {file} for {name} any more"));
            }
        }
        let Some((account, keys)) = &self.break_glass else { return Ok(()) };
        let now = keys_of(account).map_err(|error| error.to_string())?;
        match keys.iter().find(|key| !now.contains(*key)) {
            Some(key) => {
                let (name, key) = (&account.name, key.fingerprint());
                Err(format!("the key {key} would not let {name}, the break-glass account, in"))
            }
            None => Ok(()),
        }
    }
}

fn keys_of(account: &Account) -> Result<BTreeSet<PublicKey>, AccountsError> {
    let lines = keys_on_disk::read_keys(account, &Shape::of_account(&account.name))?;
    Ok(lines.into_iter().map(|found| found.line.key).collect())
}
