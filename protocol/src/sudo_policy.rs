//! A sudo rule for one account, and its text for sudoers(5).
//!
//! This file must not know where the text is kept, nor who checks it.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Username;

/// What an account may run with sudo.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SudoPolicy {
    /// Absolute commands with their arguments as sudoers(5) has them; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
    /// As whom; empty means everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub run_as: Vec<Username>,
    /// Whether the account's own password is asked for. Accounts of bastio have none, so a rule
    /// with it only works where something else (PAM) answers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub password: bool,
    /// From when it holds, in seconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<i64>,
    /// Until when it holds, in seconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<i64>,
}

/// Why a rule cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("sudo policy: {reason}")]
pub struct SudoPolicyError {
    reason: String,
}

impl SudoPolicy {
    /// The whole text of a sudoers(5) file that gives this to the account, until `until` at most
    /// (seconds since the Unix epoch).
    ///
    /// # Errors
    /// [`SudoPolicyError`] where something in it cannot be said in sudoers(5) safely.
    pub fn to_sudoers(
        &self,
        account: &Username,
        until: Option<i64>,
    ) -> Result<String, SudoPolicyError> {
        let _ = (account, until);
        Err(SudoPolicyError { reason: "not written yet".to_owned() })
    }
}
