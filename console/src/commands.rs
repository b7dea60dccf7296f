//! The commands, one file a noun: arguments, local checks, request, answer.
//!
//! Must not know HTTP or how servers are waited for.

pub mod adopt;
pub mod api_key;
pub mod declared;
pub mod drift;
pub mod generate;
pub mod grant;
pub mod group;
pub mod key;
pub mod log;
pub mod login;
pub mod operator;
pub mod plan;
pub mod proposal;
mod request;
pub mod server;
mod status;
pub mod sudo_policy;
pub mod undo;
pub mod unseal;
pub mod user;

use std::time::{SystemTime, UNIX_EPOCH};

use bastio_protocol::Target;
use serde::Serialize;

use crate::cli::{Cli, Command};
use crate::client::Client;
use crate::failure::{Ending, Failure};
use crate::follow::Patience;
use crate::settings::{self, Environment};
use crate::table::{Cell, Table};
use crate::terminal::Terminal;

/// For whom results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// For scripts.
    Json,
}

/// What every command that talks to the backend needs.
#[derive(Debug)]
pub struct Context<'a> {
    /// The backend.
    pub client: Client,
    /// Where to talk.
    pub terminal: &'a mut Terminal,
    /// For whom.
    pub format: Format,
    /// How long to wait after an edit.
    pub patience: Patience,
    /// The time at the start, in seconds since the Unix epoch.
    pub now: i64,
}

/// Carries out a command.
///
/// # Errors
/// [`Failure`].
pub fn run(
    cli: Cli,
    environment: &Environment,
    terminal: &mut Terminal,
) -> Result<Ending, Failure> {
    let flags = cli.global.flags();
    let (format, patience) = (cli.global.format(), cli.global.patience());
    let intent = cli.global.intent();
    let with = |terminal| -> Result<Context<'_>, Failure> {
        let client = Client::new(&settings::resolve(&flags, environment)?, intent)?;
        Ok(Context { client, terminal, format, patience, now: now() })
    };
    match cli.command {
        Command::Login(command) => command.run(&flags, environment, terminal),
        Command::Logout => login::logout(environment, terminal),
        Command::Server(command) => server::run(command, || with(terminal)),
        Command::User(command) => user::run(command, format, terminal, with),
        Command::Key(command) => key::run(command, || with(terminal)),
        Command::Group(command) => group::run(command, &mut with(terminal)?),
        Command::Grant(command) => grant::run(command, &mut with(terminal)?),
        Command::SudoPolicy(command) => sudo_policy::run(command, &mut with(terminal)?),
        Command::Drift(command) => drift::run(command, &mut with(terminal)?),
        Command::ApiKey(command) => api_key::run(command, &mut with(terminal)?),
        Command::Log(command) => command.run(format, terminal, with),
        Command::Apply(command) => command.run(|| with(terminal)),
        Command::Export(command) => command.run(&mut with(terminal)?),
        Command::Adopt(command) => adopt::run(command, &mut with(terminal)?),
        Command::Proposal(command) => proposal::run(command, environment, &mut with(terminal)?),
        Command::Operator(command) => operator::run(command, environment, &mut with(terminal)?),
        Command::Plan(command) => command.run(&mut with(terminal)?),
        Command::Revisions(command) => command.run(&mut with(terminal)?),
        Command::Undo(command) => command.run(&mut with(terminal)?),
        Command::Status => status::run(&mut with(terminal)?),
        Command::Unseal(command) => command.run(&mut with(terminal)?),
        Command::Completions(command) => command.run(terminal),
        Command::Man(command) => command.run(),
    }
}

impl Context<'_> {
    /// Shows a list: as JSON whole, as a table made with the time that it is now, or with a word
    /// to people when there is nothing.
    ///
    /// # Errors
    /// [`Failure::Output`].
    pub fn list<T: Serialize>(
        &mut self,
        items: &[T],
        empty: &str,
        table: impl FnOnce(&[T], i64) -> Table,
    ) -> Result<Ending, Failure> {
        match self.format {
            Format::Json => self.terminal.json(&items)?,
            Format::Table if items.is_empty() => self.terminal.note(empty),
            Format::Table => self.terminal.table(&table(items, self.now))?,
        }
        Ok(Ending::AllDone)
    }

    /// Tells people what to do next; scripts get nothing.
    pub fn hint(&mut self, hint: &str) {
        if self.format == Format::Table && self.patience != Patience::None {
            self.terminal.note(&format!("hint: {hint}"));
        }
    }

    /// Explains why a grant by label changed nothing: a typing error looks the same.
    pub fn tell_nobody_matched(&mut self, on: &Target) {
        if matches!(on, Target::Labels(_)) {
            self.hint(&format!(
                "no server has {on}, or those that have it need no change; see: bastio server ls \
                 '{on}'; servers labelled so later follow by themselves"
            ));
        }
    }

    /// Asks before something is removed, where a person sits and has not said yes already.
    ///
    /// # Errors
    /// [`Failure::Output`] when the answer cannot be read.
    pub fn may_remove(&mut self, yes: bool, what: &str) -> Result<bool, Failure> {
        if yes || !self.terminal.can_ask() {
            return Ok(true);
        }
        let confirmed = self.terminal.confirm(&format!("Remove {what}?"))?;
        if !confirmed {
            self.terminal.note("nothing was removed");
        }
        Ok(confirmed)
    }
}

/// A right that is there or not, in a table.
fn yes_or_no(there: bool) -> Cell {
    Cell::from(if there { "yes" } else { "no" })
}

/// Seconds since the Unix epoch; 0 on a machine whose clock stands before it.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
