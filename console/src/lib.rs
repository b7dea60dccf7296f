//! The operator's command `bastio`: a client of the backend's HTTP API that talks to people in
//! tables and to scripts in JSON.
//!
//! Must not know SSH, agents or the store. Reading order: `cli` says what can be asked,
//! `commands` does it, `client` carries requests, `follow` waits for the servers.

mod cli;
mod client;
mod commands;
mod failure;
mod follow;
mod key_input;
mod login_file;
mod moment;
mod operator_key;
mod outcome;
mod policy_file;
mod preview;
mod settings;
mod table;
mod terminal;
mod text;
mod token;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::settings::Environment;
use crate::terminal::Terminal;

/// Runs the command that the process was started with, and says how it ended.
///
/// Exit codes: 0 all done, 1 some failed or refused, 2 usage, 3 unreachable backend, 4 waits for
/// another operator.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => return usage(&answer),
    };
    let mut terminal = Terminal::of_process();
    match commands::run(cli, &Environment::of_process(), &mut terminal) {
        Ok(ending) => ExitCode::from(ending.code()),
        Err(failure) => {
            report(&mut terminal, &failure);
            ExitCode::from(failure.code())
        }
    }
}

/// Prints help, version or a complaint about the arguments.
fn usage(answer: &clap::Error) -> ExitCode {
    // Nobody is left to be told when this fails.
    drop(answer.print());
    ExitCode::from(if answer.use_stderr() { failure::USAGE } else { failure::ALL_DONE })
}

/// Says what went wrong, and what to do about it.
fn report(terminal: &mut Terminal, failure: &Failure) {
    terminal.note(&format!("error: {failure}"));
    if let Some(hint) = failure.hint() {
        terminal.note(&format!("hint: {hint}"));
    }
}
