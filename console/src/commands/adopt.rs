//! `bastio adopt`: accounts that are on a server already.

use bastio_protocol::api::{Adopt, Candidate, MatchRule};
use bastio_protocol::{ServerName, Username};
use clap::{Args, Subcommand};

use crate::commands::{Context, request, yes_or_no};
use crate::failure::{Ending, Failure};
use crate::follow::settle;
use crate::table::{Cell, Table, Tone};

/// What to do with accounts that are on a server already.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the accounts on a server with their keys, and whose they may be
    #[command(
        after_help = "The server's agent is asked what there is. An account may be somebody's by a key that logs in to it,
by its name, or by the mail address behind one of its keys. Nothing is taken over by that.

Example:
  bastio adopt ls web-1"
    )]
    #[command(alias = "list")]
    Ls {
        /// The server
        server: ServerName,
    },
    /// Take an account over: from now on it is somebody's
    Take(Take),
    /// Give an account back as it was, and manage it no more
    #[command(
        after_help = "The grant that took it over ends; bastio's keys and rules go, and what the account had of its own is
back: groups, sudo rights, shell, and its key lines, save those of keys that nobody has any more.

Examples:
  bastio adopt release web-1 deploy --dry-run
  bastio adopt release web-1 deploy"
    )]
    Release {
        /// The server
        server: ServerName,
        /// The account
        login: Username,
    },
}

/// An account to take over.
#[derive(Debug, Args)]
#[command(
    after_help = "It keeps its id, home and groups, its sudo rights unless --no-sudo is given, and key lines that others
wrote; the person's keys are added. What the person's grants say elsewhere stays as it is. When nobody
has it any more it is locked, never deleted.

Examples:
  bastio adopt take web-1 deploy --as alice --dry-run
  bastio adopt take web-1 deploy --as alice --yes --reason 'ticket 4711'"
)]
pub struct Take {
    /// The server
    server: ServerName,
    /// The account
    login: Username,
    /// Whose it is from now on
    #[arg(long = "as", value_name = "USER")]
    user: Username,
    /// Take sudo rights that it has
    #[arg(long)]
    no_sudo: bool,
    /// Why, for the log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Carries out what was asked.
pub fn run(command: Command, context: &mut Context<'_>) -> Result<Ending, Failure> {
    match command {
        Command::Ls { server } => {
            let Some((_, found)) = seen(context, &server)? else { return Ok(Ending::SomeFailed) };
            context.list(&found, "there is no account of anybody's", |found, _| table(found))
        }
        Command::Take(take) => run_take(context, take),
        Command::Release { server, login } => {
            let change = context.client.give_back(&server, &login)?;
            settle(context, vec![change])
        }
    }
}

fn run_take(context: &mut Context<'_>, take: Take) -> Result<Ending, Failure> {
    let Take { server, login, user, no_sudo, reason, yes } = take;
    let Some((request, found)) = seen(context, &server)? else { return Ok(Ending::SomeFailed) };
    let account = found.iter().find(|it| it.account.name == login.as_str());
    if let Some(account) = account.filter(|_| !yes && context.terminal.can_ask()) {
        context.terminal.table(&table(std::slice::from_ref(account)))?;
        if !context.terminal.confirm(&format!("Take {login} on {server} over as {user}'s?"))? {
            context.terminal.note("nothing was taken over");
            return Ok(Ending::SomeFailed);
        }
    }
    let adopt = Adopt { login, user, request, no_sudo, reason };
    let change = context.client.adopt(&server, &adopt)?;
    settle(context, vec![change])
}

/// What is on the server now, and the number of the report that says so.
fn seen(
    context: &mut Context<'_>,
    server: &ServerName,
) -> Result<Option<(i64, Vec<Candidate>)>, Failure> {
    let Some(request) = request::fresh_report(context, server)? else { return Ok(None) };
    let found = context.client.candidates(server, request)?;
    Ok(Some((request, found)))
}

fn table(found: &[Candidate]) -> Table {
    let mut table =
        Table::new(&["ACCOUNT", "UID", "SUDO", "STATE", "KEYS", "MAY BE", "BECAUSE OF"]);
    for candidate in found {
        let account = &candidate.account;
        let names: Vec<&str> = candidate.matches.iter().map(|it| it.user.as_str()).collect();
        let first = candidate.matches.first().map(|it| it.by.as_slice()).unwrap_or_default();
        let rules: Vec<&str> = first.iter().map(|rule| word(*rule)).collect();
        let keys: Vec<&str> = account.keys.iter().map(|key| key.fingerprint.as_str()).collect();
        table.row([
            account.name.as_str().into(),
            account.uid.to_string().into(),
            yes_or_no(candidate.sudo),
            state(candidate),
            keys.join(" ").into(),
            names.join(", ").into(),
            rules.join(", ").into(),
        ]);
    }
    table
}

fn state(candidate: &Candidate) -> Cell {
    match &candidate.adopted_by {
        Some(user) => Cell::new(&format!("taken over by {user}"), Tone::Good),
        None if candidate.account.managed => "by bastio".into(),
        None if candidate.account.locked => Cell::new("locked", Tone::Warn),
        None => "others'".into(),
    }
}

fn word(rule: MatchRule) -> &'static str {
    match rule {
        MatchRule::Key => "key",
        MatchRule::Login => "name",
        MatchRule::Mail => "mail",
    }
}
