//! A sudo rule for one account, and its text for sudoers(5).
//!
//! This file must not know where the text is kept, nor who checks it.

mod command;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::command::SudoCommand;
use crate::{Username, stamp};

/// Most commands of one rule.
const MAX_COMMANDS: usize = 64;
/// Most accounts as which they may be run.
const MAX_RUN_AS: usize = 16;
/// The first line of every text.
const MARK: &str = "# bastio: managed, do not edit";

/// What an account may run with sudo.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct SudoPolicy {
    /// Commands with their arguments; empty means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<SudoCommand>,
    /// As whom; empty means everybody.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub run_as: Vec<Username>,
    /// Whether the account's own password is asked for. Accounts of bastio have none, so a rule
    /// with it only works where something else (PAM) answers.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub password: bool,
    /// From when it holds, in seconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<i64>,
    /// Until when it holds, in seconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<i64>,
}

/// The members of a policy before they are looked at together.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    #[serde(default)]
    commands: Vec<SudoCommand>,
    #[serde(default)]
    run_as: Vec<Username>,
    #[serde(default)]
    password: bool,
    #[serde(default)]
    not_before: Option<i64>,
    #[serde(default)]
    not_after: Option<i64>,
}

/// Why a rule cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("sudo policy: {reason}")]
pub struct SudoPolicyError {
    reason: String,
}

impl SudoPolicy {
    /// Whether its members fit together; what is read from JSON always does.
    ///
    /// # Errors
    /// [`SudoPolicyError`]: too many members, or a time that ends before it begins.
    pub fn check(&self) -> Result<(), SudoPolicyError> {
        if self.commands.len() > MAX_COMMANDS {
            return Err(fault(format!("at most {MAX_COMMANDS} commands; give a script of root's")));
        }
        if self.run_as.len() > MAX_RUN_AS {
            return Err(fault(format!("at most {MAX_RUN_AS} accounts to run as")));
        }
        match (self.not_before, self.not_after) {
            (Some(from), Some(until)) if from >= until => {
                Err(fault("not_after must be later than not_before".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// The whole text of a sudoers(5) file that gives this to the account, until `until` at most
    /// (seconds since the Unix epoch): a comment line and one line with the rule.
    ///
    /// # Errors
    /// [`SudoPolicyError`] as [`SudoPolicy::check`] has it.
    pub fn to_sudoers(
        &self,
        account: &Username,
        until: Option<i64>,
    ) -> Result<String, SudoPolicyError> {
        self.check()?;
        // Some names are words of the language (`sudoedit`, `sha224`); in quotes they are names.
        let head = self.head(until);
        let commands = if self.commands.is_empty() {
            format!("{head}ALL")
        } else {
            // sudo hands tags and times on to the next command; said each time, nothing hangs on that.
            let each = self.commands.iter().map(|command| format!("{head}{}", command.escaped()));
            each.collect::<Vec<_>>().join(", ")
        };
        Ok(format!("{MARK}\n\"{account}\" ALL={commands}\n"))
    }

    /// What stands in front of a command: as whom, when, and whether a password is asked for.
    fn head(&self, until: Option<i64>) -> String {
        let mut head = if self.run_as.is_empty() {
            "(ALL:ALL) ".to_owned()
        } else {
            let names: Vec<_> = self.run_as.iter().map(|name| format!("\"{name}\"")).collect();
            format!("({}) ", names.join(", "))
        };
        if let Some(from) = self.not_before {
            head += &format!("NOTBEFORE={}Z ", stamp::digits(from, 0));
        }
        if let Some(until) = self.not_after.into_iter().chain(until).min() {
            head += &format!("NOTAFTER={}Z ", stamp::digits(until, 0));
        }
        head + if self.password { "PASSWD: " } else { "NOPASSWD: " }
    }

    /// What gives more than it looks, and what will not work; for people, each once.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings: BTreeSet<String> =
            self.commands.iter().flat_map(SudoCommand::warnings).collect();
        if self.password {
            warnings.insert("a password is asked for, and accounts of bastio have none".to_owned());
        }
        warnings.into_iter().collect()
    }
}

fn fault(reason: String) -> SudoPolicyError {
    SudoPolicyError { reason }
}

impl TryFrom<Unchecked> for SudoPolicy {
    type Error = SudoPolicyError;

    fn try_from(unchecked: Unchecked) -> Result<Self, SudoPolicyError> {
        let Unchecked { commands, run_as, password, not_before, not_after } = unchecked;
        let policy = Self { commands, run_as, password, not_before, not_after };
        policy.check().map(|()| policy)
    }
}

#[cfg(test)]
mod tests;
