//! Asks visudo(8) whether a file is good sudoers(5).
//!
//! This file must not know whose file it is, nor what follows from the answer.

use std::path::Path;

use super::SudoersError;
use crate::accounts::{ToolFault, run_program};
use crate::ask;

const VISUDO: &str = "visudo";

/// What visudo says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// sudo can read it, and everything that it includes.
    Good,
    /// It cannot; what visudo said.
    Bad(String),
}

/// Whether there is a visudo on this host.
pub(super) fn is_installed() -> bool {
    ask::find(VISUDO).is_some()
}

/// Checks a file and what it includes: their text, not their modes (`visudo -c` alone also wants
/// mode 0440 of files that sudo takes with any mode that keeps others from writing).
pub(super) fn check(file: &Path) -> Result<Verdict, SudoersError> {
    let path = file.display().to_string();
    match run_program(VISUDO, &["-c", "-f", &path]) {
        Ok((0, _)) => Ok(Verdict::Good),
        Ok((1, said)) => Ok(Verdict::Bad(said)),
        Ok((code, _)) => Err(SudoersError::Visudo(ToolFault::Other(code))),
        Err(ToolFault::NotInstalled) => Err(SudoersError::NoVisudo),
        Err(fault) => Err(SudoersError::Visudo(fault)),
    }
}
