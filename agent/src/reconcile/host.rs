//! What reconciling needs of a host: three narrow traits of verbs, and the values that pass.
//!
//! Three traits, because three rooms fill them for `SystemAccounts`, each in files of its own:
//! [`AccountHost`] in `accounts/` (the account database, sessions, homes), [`KeyHost`] next to
//! `keys_on_disk` (the key files), [`SudoHost`] next to `sudoers` (rules and the sudo group). Who
//! has all three is a [`Host`] by itself; nobody writes that impl. Configuration that a verb needs
//! (retention of homes, what plain sudo is) is a field of `SystemAccounts` with a default.
//!
//! This file must not know what is wanted, in which order it is done, or why.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;

use bastio_protocol::{
    AbsolutePath, AccountSpec, Change, Comment, GroupName, KeyGrant, PublicKey, Removal, Sudo,
    Username,
};

use crate::accounts::{Account, AccountsError, HomeFate};
use crate::keys_on_disk::Unflushed;

/// Seconds of a day; shadow(5) counts expiry in days since the Unix epoch.
pub const DAY: i64 = 24 * 60 * 60;

/// An account to be made: its name, and how it is to be.
pub type Asked<'a> = (&'a Username, &'a NewAccount);

/// What hears of accounts that are made, and whether to go on.
pub type Told<'a> = dyn FnMut(Result<Account, AccountsError>) -> ControlFlow<()> + 'a;

/// The account database, sessions and homes. Look-ups that fail are errors, never "there is none".
pub trait AccountHost {
    /// The members of bastio's group, sorted, each once.
    ///
    /// # Errors
    /// [`AccountsError::LookUp`].
    fn managed(&self) -> Result<Vec<Username>, AccountsError>;

    /// What the account database says of that name.
    ///
    /// # Errors
    /// [`AccountsError::LookUp`].
    fn facts(&self, name: &Username) -> Result<Option<AccountFacts>, AccountsError>;

    /// Whether there is a group of that name.
    ///
    /// # Errors
    /// [`AccountsError::LookUp`].
    fn has_group(&self, name: &str) -> Result<bool, AccountsError>;

    /// Whether that is a program, which can be a login shell.
    ///
    /// # Errors
    /// [`AccountsError::LookUp`].
    fn has_program(&self, path: &AbsolutePath) -> Result<bool, AccountsError>;

    /// The login name that has this numeric id.
    ///
    /// # Errors
    /// [`AccountsError::LookUp`].
    fn holder_of_uid(&self, uid: u32) -> Result<Option<String>, AccountsError>;

    /// What stands where the home of a new account would be: at `home`, or where this host makes
    /// homes.
    ///
    /// # Errors
    /// [`AccountsError::LookUp`].
    fn found_home(
        &self,
        name: &Username,
        home: Option<&AbsolutePath>,
    ) -> Result<Option<FoundHome>, AccountsError>;

    /// Makes a marked account by one useradd: all fields, groups and the expiry in it. No keys yet.
    /// After an error there is no account, unless the error says so.
    ///
    /// # Errors
    /// As [`crate::accounts::Accounts::create_plain`].
    fn create(&self, name: &Username, new: &NewAccount) -> Result<Account, AccountsError>;

    /// Does the same for each, in order; `told` hears what became of each, in order, when that is certain. When it ends
    /// it there, nothing more is begun, and what was begun is told, too.
    fn create_row(&self, row: &[Asked<'_>], told: &mut Told<'_>) {
        let _ = row.iter().try_for_each(|(name, new)| told(self.create(name, new)));
    }

    /// Marks an account that is there as bastio's, and changes nothing else.
    ///
    /// # Errors
    /// [`AccountsError`]; nothing was changed.
    fn take_over(&self, name: &Username) -> Result<(), AccountsError>;

    /// Lets an account be nobody's business again: it leaves bastio's group, and is a member of the group for
    /// sudo if it is to be. All else stays.
    ///
    /// # Errors
    /// [`AccountsError`]; then it is managed still.
    fn give_back(&self, name: &Username, sudo_group: bool) -> Result<(), AccountsError>;

    /// Changes fields of the account database, by one usermod where the tool can.
    ///
    /// # Errors
    /// [`AccountsError`].
    fn modify(&self, name: &Username, change: &AccountChange) -> Result<(), AccountsError>;

    /// Lets nobody in: the account expires long ago. Keys and sudo rights stay as they are.
    ///
    /// # Errors
    /// [`AccountsError`].
    fn lock(&self, name: &Username) -> Result<(), AccountsError>;

    /// Undoes a lock, also one of the password; the account expires at `expires` ([`AccountFacts::expires`]) or never.
    ///
    /// # Errors
    /// [`AccountsError`].
    fn unlock(&self, name: &Username, expires: Option<i64>) -> Result<(), AccountsError>;

    /// Whether a process of it is alive.
    ///
    /// # Errors
    /// [`AccountsError`].
    fn is_running(&self, name: &Username) -> Result<bool, AccountsError>;

    /// Ends its sessions and processes; how many processes there were.
    ///
    /// # Errors
    /// [`AccountsError::StillRunning`] and others.
    fn end_sessions(&self, name: &Username) -> Result<usize, AccountsError>;

    /// Removes the account as the policy says. Access (expiry, keys, sudo, sessions) is closed
    /// first in every case, and stays closed where the rest fails.
    ///
    /// # Errors
    /// [`AccountsError`].
    fn remove(&self, name: &Username, removal: Removal) -> Result<HomeFate, AccountsError>;
}

/// The key files.
pub trait KeyHost {
    /// The keys that log in as this account.
    ///
    /// # Errors
    /// [`AccountsError::Keys`] when they cannot be read.
    fn keys(&self, account: &Account) -> Result<FoundKeys, AccountsError>;

    /// Makes the lines of bastio exactly these, by one write of the file at most; makes the file
    /// when missing. `until` in each is final already (the account's end is in it). Lines of
    /// others stay byte for byte, save those of keys that are wanted or were bastio's: of such a
    /// key only bastio's line remains, or none. Of a key in `gone` no line remains at all.
    ///
    /// # Errors
    /// [`AccountsError::Keys`].
    fn set_keys(
        &self,
        name: &Username,
        wanted: &[KeyGrant],
        gone: &[PublicKey],
    ) -> Result<Change, AccountsError>;

    /// Puts lines of others back into the key file, save those of keys that a line is there for.
    ///
    /// # Errors
    /// [`AccountsError::Keys`].
    fn put_back(&self, name: &Username, lines: &[String]) -> Result<Change, AccountsError>;

    /// The same for an account that was just made, with everything looked up now, and to be done by any thread while
    /// the host goes on with other accounts. Its keys are on the disk only once what comes of it is flushed.
    ///
    /// # Errors
    /// [`AccountsError::LookUp`], and what [`KeyHost::set_keys`] says when it is done.
    fn first_keys(
        &self,
        account: &Account,
        wanted: &[KeyGrant],
        gone: &[PublicKey],
    ) -> Result<KeyWork, AccountsError> {
        self.set_keys(&account.name, wanted, gone)?;
        Ok(Box::new(|| Ok(None)))
    }
}

/// The writing of a key file, as [`KeyHost::first_keys`].
pub type KeyWork = Box<dyn FnOnce() -> Result<Option<Unflushed>, AccountsError> + Send>;

/// Sudo rights.
pub trait SudoHost {
    /// The rights that the account has through bastio's file or the sudo group.
    ///
    /// # Errors
    /// [`AccountsError`].
    fn sudo(&self, account: &Account) -> Result<SudoState, AccountsError>;

    /// What [`Self::set_sudo`] with the same words would leave; changes nothing. `until` is final
    /// already (the rule's own end is in it).
    ///
    /// # Errors
    /// [`AccountsError`] where it cannot be done on this host, with the reason.
    fn intended_sudo(
        &self,
        name: &Username,
        sudo: &Sudo,
        until: Option<i64>,
    ) -> Result<SudoState, AccountsError>;

    /// Gives these rights and no others.
    ///
    /// # Errors
    /// [`AccountsError`]; what was before holds on.
    fn set_sudo(
        &self,
        name: &Username,
        sudo: &Sudo,
        until: Option<i64>,
    ) -> Result<Change, AccountsError>;
}

/// All that reconciling needs.
pub trait Host: AccountHost + KeyHost + SudoHost {
    /// Everything about one name.
    ///
    /// # Errors
    /// [`AccountsError`]; keys that cannot be read are no error, but part of the state.
    fn state(&self, name: &Username) -> Result<Option<AccountState>, AccountsError> {
        let Some(facts) = self.facts(name)? else { return Ok(None) };
        let keys = self.keys(&facts.account).map_err(|error| error.to_string());
        let sudo = self.sudo(&facts.account)?;
        Ok(Some(AccountState { facts, keys, sudo }))
    }
}

impl<T: AccountHost + KeyHost + SudoHost> Host for T {}

/// One account as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountState {
    /// What the account database says.
    pub facts: AccountFacts,
    /// Its keys, or why they cannot be read.
    pub keys: Result<FoundKeys, String>,
    /// Its sudo rights.
    pub sudo: SudoState,
}

/// What the account database says of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountFacts {
    /// Name, ids, home, and whose it is.
    pub account: Account,
    /// Primary group; its number as text when it has no name.
    pub group: String,
    /// Supplementary groups, without bastio's own and those for sudo.
    pub groups: BTreeSet<String>,
    /// Login shell.
    pub shell: String,
    /// GECOS field.
    pub comment: String,
    /// From when it lets nobody in: midnight (UTC) of a day, in seconds since the Unix epoch. None
    /// when never, and when locked.
    pub expires: Option<i64>,
    /// Whether it is locked as [`AccountHost::lock`] does it.
    pub locked: bool,
    /// Whether its password was locked, which bastio never does (`usermod -L`): sshd may let nobody in then.
    pub barred: bool,
}

/// The keys that log in as an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundKeys {
    /// Of bastio's lines, as they stand; ends as they are on disk.
    pub ours: Vec<KeyGrant>,
    /// Of lines that others wrote.
    pub foreign: Vec<PublicKey>,
}

/// Sudo rights as they are on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SudoState {
    /// None.
    #[default]
    None,
    /// A member of the sudo group.
    Group,
    /// Not of the sudo group, but of another that gives rights on other hosts, and maybe here: `wheel` beside `sudo`.
    OtherGroup,
    /// The text of bastio's file for the account.
    Rule(String),
    /// The file, and one of the groups.
    Both(String),
}

/// An account to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewAccount {
    /// Its fields; `uid` in it is decided below.
    pub spec: AccountSpec,
    /// Whether it joins the sudo group.
    pub sudo_group: bool,
    /// As [`AccountFacts::expires`].
    pub expires: Option<i64>,
    /// Whether it is locked from the first moment; `expires` counts for nothing then.
    pub locked: bool,
    /// The numeric id: asked for, or reserved for the name. None: one that is free and not in
    /// `avoid`.
    pub uid: Option<u32>,
    /// Numeric ids that are reserved for other names.
    pub avoid: BTreeSet<u32>,
    /// Whether a home of that uid is there and taken as it is: no skel, no chown.
    pub keep_home: bool,
}

/// Changes of an account that is there; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountChange {
    /// Another primary group.
    pub group: Option<GroupName>,
    /// Supplementary groups to join.
    pub add_groups: BTreeSet<GroupName>,
    /// Supplementary groups to leave.
    pub drop_groups: BTreeSet<String>,
    /// Another shell.
    pub shell: Option<AbsolutePath>,
    /// Another GECOS field.
    pub comment: Option<Comment>,
    /// Another end ([`AccountFacts::expires`]), or none.
    pub expires: Option<Option<i64>>,
}

/// What stands where a new home would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundHome {
    /// Where.
    pub path: PathBuf,
    /// Whose it is.
    pub uid: u32,
    /// Whether it is a folder (no link is followed).
    pub is_folder: bool,
}

impl SudoState {
    /// Whether there are no rights.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// Whether they are enough to administer the host: the group's, or a rule of ours for every command as everybody.
    #[must_use]
    pub fn is_admins(&self) -> bool {
        match self {
            // Nobody knows what the other group gives here.
            Self::None | Self::OtherGroup => false,
            Self::Group | Self::Both(_) => true,
            // A `:` in a command of its own stands behind a backslash there, and so does a `=`.
            Self::Rule(text) => text.contains(" ALL=(ALL:ALL) ") && text.ends_with("PASSWD: ALL\n"),
        }
    }

    /// Whether one of the groups is part of it.
    #[must_use]
    pub fn has_group(&self) -> bool {
        matches!(self, Self::Group | Self::OtherGroup | Self::Both(_))
    }
}

impl AccountChange {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The first midnight (UTC) that is not before `until`: where the account database has an account
/// end that ends at `until`, because it knows whole days only. Both in seconds since the Unix epoch.
#[must_use]
pub fn expiry_of(until: i64) -> i64 {
    let days = until.div_euclid(DAY) + i64::from(until.rem_euclid(DAY) != 0);
    days.saturating_mul(DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_ends_at_the_next_midnight() {
        for (until, expires) in [(0, 0), (1, DAY), (DAY, DAY), (DAY + 1, 2 * DAY), (-1, 0)] {
            assert_eq!(expiry_of(until), expires, "{until}");
        }
        assert!(expiry_of(i64::MAX) > 0);
    }
}
