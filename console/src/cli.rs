//! What can be asked on the command line, and the help that teaches it.
//!
//! Parses into strong types; must not know how anything is done. The arguments of each noun stand
//! beside what they do, in `commands`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::client::Intent;
use crate::commands::{
    Format, adopt, api_key, declared, drift, generate, grant, group, key, log, login, operator,
    plan, proposal, server, sudo_policy, undo, unseal, user,
};
use crate::follow::Patience;
use crate::settings::{BackendUrl, Flags};

const EXIT_CODES: &str = "\
Exit codes:
  0  all done (servers that are offline follow by themselves when they are back)
  1  some server failed or did not answer in time, or the backend refused the request
  2  usage: wrong arguments, an unusable key file, not logged in; nothing was sent
  3  the backend cannot be reached
  4  nothing was done yet: the edit waits for another operator (bastio proposal ls)";

const FIRST_STEPS: &str = "\
First steps:
  bastio login http://backend.example.org:2358
  bastio api-key add rack-7 --role enroll       then enrol a server as it prints
  bastio server label web-1 role=web
  bastio user add alice --key alice.pub --on role=web --sudo --dry-run
  bastio user add alice --key alice.pub --on role=web --sudo
  bastio user rm alice

Servers are named by NAMES (web-1,web-2), by LABELS (role=web,env!=test) or all (*).
More about labels: role=web|db (one of), role=* (has it), role!=* (has it not).";

/// Decide who may log in to which server.
#[derive(Debug, Parser)]
#[command(name = "bastio", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = format!("{FIRST_STEPS}\n\n{EXIT_CODES}"))]
pub struct Cli {
    /// How to reach the backend and how to answer.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// The backend's URL [env: BASTIO_URL; else that of `bastio login`]
    #[arg(long, global = true, value_name = "URL")]
    url: Option<BackendUrl>,
    /// A file with the token [env: BASTIO_TOKEN; else that of `bastio login`]
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Tables for people, or one JSON document for scripts
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    output: Format,
    /// After an edit, wait until the servers have answered (the default)
    #[arg(long, global = true, overrides_with = "no_wait")]
    wait: bool,
    /// After an edit, print its revision and end
    #[arg(long, global = true, overrides_with = "wait")]
    no_wait: bool,
    /// Show what an edit would do on which server, and do nothing
    #[arg(long, global = true)]
    dry_run: bool,
    /// Make an edit although it concerns much of the fleet or takes the last admin of a server
    #[arg(long, global = true)]
    yes_really: bool,
    /// Make an edit only if nobody has edited the model since revision N (see `bastio status`)
    #[arg(long, global = true, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(i64).range(0..))]
    if_revision: Option<i64>,
    /// How long to wait for servers that are connected
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 60)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Remember a backend and its token
    Login(login::Login),
    /// Forget the backend and its token
    Logout,
    /// Servers: list, label, rename, remove
    #[command(subcommand)]
    Server(server::Command),
    /// People: add, change, remove, list
    #[command(subcommand)]
    User(user::Command),
    /// Public keys of a person: add, remove, list
    #[command(subcommand)]
    Key(key::Command),
    /// Groups of people: add, change, remove, list
    #[command(subcommand)]
    Group(group::Command),
    /// Grants, who may log in where: add, remove, list
    #[command(subcommand)]
    Grant(grant::Command),
    /// Sudo policies, rules that grants give: add, remove, list
    #[command(subcommand)]
    SudoPolicy(sudo_policy::Command),
    /// Drift, what others change on servers: say what is done about it
    #[command(subcommand)]
    Drift(drift::Command),
    /// API keys for admins and for new servers: add, remove, list
    #[command(subcommand)]
    ApiKey(api_key::Command),
    /// Show who did what, and what the servers answered
    Log(Box<log::Log>),
    /// Make the model as a file says: users, keys, groups, labels, drift, grants
    Apply(declared::Apply),
    /// Write the whole model as a file that apply takes
    Export(declared::Export),
    /// Accounts that are on a server already: list, take over, give back
    #[command(subcommand)]
    Adopt(adopt::Command),
    /// Edits that wait for another operator: list, show, approve, reject
    #[command(subcommand)]
    Proposal(proposal::Command),
    /// Your own key, with which you approve what others propose
    #[command(subcommand)]
    Operator(operator::Command),
    /// Show how far each server is, and what it has still to do
    Plan(plan::Plan),
    /// List what was edited, the last first
    Revisions(undo::Revisions),
    /// Make the model what it was at a revision, for everything or for one server
    Undo(undo::UndoArgs),
    /// Show the fleet in numbers
    #[command(after_help = "Example:\n  bastio status --output json")]
    Status,
    /// Open the backend's sealed signing key; what waited for it is sent at once
    Unseal(unseal::Unseal),
    /// Print a script that completes commands in a shell
    #[command(hide = true)]
    Completions(generate::Completions),
    /// Write the manual pages into a folder
    #[command(hide = true)]
    Man(generate::Man),
}

impl Global {
    /// What it says about the backend.
    pub fn flags(&self) -> Flags {
        Flags { url: self.url.clone(), token_file: self.token_file.clone() }
    }

    /// How serious the edits are.
    pub fn intent(&self) -> Intent {
        Intent { dry_run: self.dry_run, confirmed: self.yes_really, if_revision: self.if_revision }
    }

    /// How to answer.
    pub fn format(&self) -> Format {
        self.output
    }

    /// How long to wait after an edit.
    pub fn patience(&self) -> Patience {
        if self.no_wait { Patience::None } else { Patience::Seconds(self.timeout) }
    }
}

impl ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Table, Self::Json]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(match self {
            Self::Table => clap::builder::PossibleValue::new("table"),
            Self::Json => clap::builder::PossibleValue::new("json"),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_teaches_by_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let mut below = command.get_subcommands().peekable();
            if below.peek().is_none() && !["logout", "help"].contains(&command.get_name()) {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains(path.trim()), "{path}: {help}");
            }
            below.for_each(|command| check(command, &path));
        }
        check(&Cli::command(), "");
    }

    /// Splits a line of an example as a shell does; words for people stand behind three blanks.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quote = None;
        for letter in line.trim().chars() {
            match (letter, quote) {
                (_, Some(open)) if letter == open => quote = None,
                ('\'' | '"', None) => quote = Some(letter),
                (' ', None) => words.push(String::new()),
                _ => words.last_mut().expect("a word").push(letter),
            }
        }
        let comment = words.windows(2).position(|pair| pair.iter().all(String::is_empty));
        words.truncate(comment.unwrap_or(words.len()));
        words
    }

    #[test]
    fn every_example_is_understood() {
        fn check(command: &clap::Command, seen: &mut usize) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter(|line| line.starts_with("  ")) {
                let line = line.rsplit(" | ").next().unwrap_or(line);
                let line = line.split([';', '<', '>']).next().unwrap_or(line);
                if !line.trim_start().starts_with("bastio ") {
                    continue;
                }
                *seen += 1;
                let found = Cli::try_parse_from(words(line));
                // `grant rm ID` is for people.
                let error = found.err().filter(|_| !line.contains(" ID") && !line.contains("NAME"));
                assert!(error.is_none(), "{line}: {}", error.expect("there"));
            }
            command.get_subcommands().for_each(|command| check(command, seen));
        }
        let mut seen = 0;
        check(&Cli::command(), &mut seen);
        assert!(seen > 40, "{seen} examples");
    }

    #[test]
    fn the_last_word_on_waiting_counts() {
        for (arguments, expected) in [
            (&["bastio", "status"][..], Patience::Seconds(60)),
            (&["bastio", "--no-wait", "status"], Patience::None),
            (&["bastio", "status", "--no-wait"], Patience::None),
            (&["bastio", "--no-wait", "--wait", "status"], Patience::Seconds(60)),
            (&["bastio", "--timeout", "5", "status"], Patience::Seconds(5)),
        ] {
            let cli = Cli::try_parse_from(arguments).expect("arguments");
            assert_eq!(cli.global.patience(), expected, "{arguments:?}");
        }
    }
}
