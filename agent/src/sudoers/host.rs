//! What sudo rights mean on this host: the sudo group, a rule of ours, or neither; given and taken.
//!
//! Group membership cannot end by itself, a rule can: so plain rights with an end are always a rule.
//! This file must not know what an account is meant to have, nor how rules are kept.

use bastio_protocol::{Change, Sudo, SudoPolicy, Username};

use super::{PlainSudo, Sudoers, SudoersError};
use crate::accounts::{Account, AccountsError, SystemAccounts};
use crate::reconcile::host::{SudoHost, SudoState};

/// How rights are given here.
enum Means {
    None,
    Group(&'static str),
    Rule(SudoPolicy),
}

impl SudoHost for SystemAccounts {
    fn sudo(&self, account: &Account) -> Result<SudoState, AccountsError> {
        let all = self.databases()?;
        let groups: Vec<&str> = all.sudo_groups_of(account.name.as_str()).collect();
        let is_member = all.sudo_group().is_some_and(|group| groups.contains(&group));
        let rule = match Sudoers::system().read(&account.name) {
            // A text that nothing equals: with that mode sudo may not read it.
            Ok(rule) => rule.map(|rule| if rule.is_sound { rule.text } else { String::new() }),
            // What others wrote is not ours to tell, whatever its name.
            Err(SudoersError::Foreign { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(match rule {
            None if is_member => SudoState::Group,
            None if groups.is_empty() => SudoState::None,
            None => SudoState::OtherGroup,
            Some(text) if groups.is_empty() => SudoState::Rule(text),
            Some(text) => SudoState::Both(text),
        })
    }

    fn intended_sudo(
        &self,
        name: &Username,
        sudo: &Sudo,
        until: Option<i64>,
    ) -> Result<SudoState, AccountsError> {
        Ok(match self.means(sudo, until)? {
            Means::None => SudoState::None,
            Means::Group(_) => SudoState::Group,
            Means::Rule(policy) => {
                Sudoers::system().check_ready(name)?;
                SudoState::Rule(policy.to_sudoers(name, until).map_err(SudoersError::from)?)
            }
        })
    }

    fn set_sudo(
        &self,
        name: &Username,
        sudo: &Sudo,
        until: Option<i64>,
    ) -> Result<Change, AccountsError> {
        // What gives comes before what takes.
        match self.means(sudo, until)? {
            Means::Group(group) => {
                let joined = self.join_sudo_group(name, group)?;
                Ok(either(joined, Sudoers::system().remove(name)?))
            }
            Means::Rule(policy) => {
                let written = Sudoers::system().write(name, &policy, until)?;
                Ok(either(written, self.leave_sudo_group(name)?))
            }
            Means::None => {
                // Neither failure keeps the other right from being taken.
                let removed = Sudoers::system().remove(name);
                let left = self.leave_sudo_group(name)?;
                Ok(either(removed?, left))
            }
        }
    }
}

impl SystemAccounts {
    /// Whether plain rights can be given at all: the group is there, or sudo is.
    pub(crate) fn can_give_plain_sudo(&self) -> Result<bool, AccountsError> {
        Ok(match self.plain_sudo {
            PlainSudo::Group => self.sudo_group()?.is_some(),
            PlainSudo::NoPassword => super::visudo::is_installed(),
        })
    }

    /// The sudo group where plain rights are its membership.
    pub(crate) fn plain_sudo_group(&self) -> Result<Option<&'static str>, AccountsError> {
        match self.plain_sudo {
            PlainSudo::Group => self.sudo_group(),
            PlainSudo::NoPassword => Ok(None),
        }
    }

    fn means(&self, sudo: &Sudo, until: Option<i64>) -> Result<Means, AccountsError> {
        Ok(match sudo {
            Sudo::None => Means::None,
            Sudo::Policy(policy) => Means::Rule(policy.as_ref().clone()),
            Sudo::Plain if self.plain_sudo == PlainSudo::NoPassword => {
                Means::Rule(SudoPolicy::default())
            }
            Sudo::Plain => {
                let group = self.sudo_group()?.ok_or(SudoersError::NoSudoGroup)?;
                match until {
                    None => Means::Group(group),
                    Some(_) => Means::Rule(as_members_have(group)?),
                }
            }
        })
    }
}

/// A rule that gives what members of the group have: everything, with a password or without.
fn as_members_have(group: &str) -> Result<SudoPolicy, SudoersError> {
    let password = !Sudoers::system().lets_group_in(group)?;
    Ok(SudoPolicy { password, ..SudoPolicy::default() })
}

fn either(one: Change, other: Change) -> Change {
    if one == Change::Changed { one } else { other }
}
