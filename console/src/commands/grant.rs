//! `bastio grant`: who may log in where.

use bastio_protocol::api::{Grant, NewGrant};
use bastio_protocol::{Target, Username};
use clap::{Args, Subcommand};

use crate::commands::{Context, yes_or_no};
use crate::failure::{Ending, Failure};
use crate::follow::settle;
use crate::table::Table;
use crate::text::ago;

/// What to do with grants.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Let a person log in to servers
    Add(Add),
    /// Take a grant back
    #[command(after_help = "Example:\n  bastio grant rm 12")]
    #[command(aliases = ["remove", "delete"])]
    Rm {
        /// The grant's number, as `bastio grant ls` shows it
        #[arg(value_parser = clap::value_parser!(i64).range(0..))]
        id: i64,
    },
    /// List all grants
    #[command(after_help = "Example:\n  bastio grant ls")]
    #[command(alias = "list")]
    Ls,
}

/// A grant to make.
#[derive(Debug, Args)]
#[command(after_help = "Servers that get a fitting label later are included.

Examples:
  bastio grant add alice --on db-1
  bastio grant add alice --on role=web,env!=test --sudo --reason 'on call'
  bastio grant add alice --on '*' --login deploy")]
pub struct Add {
    /// The person
    user: Username,
    /// Servers: names (web-1,web-2), labels (role=web) or *
    #[arg(long, value_name = "SERVERS")]
    on: Target,
    /// With sudo rights
    #[arg(long)]
    sudo: bool,
    /// Login name on the servers, when it is not the person's name
    #[arg(long, value_name = "NAME")]
    login: Option<Username>,
    /// Why, for the log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

/// Carries out what was asked.
pub fn run(command: Command, context: &mut Context<'_>) -> Result<Ending, Failure> {
    match command {
        Command::Add(Add { user, on, sudo, login, reason }) => {
            let grant = NewGrant { user, on, login, sudo, reason };
            let change = context.client.add_grant(&grant)?;
            let reached = !change.servers.is_empty();
            let ending = settle(context, vec![change])?;
            if !reached {
                context.tell_nobody_matched(&grant.on);
            }
            Ok(ending)
        }
        Command::Rm { id } => {
            let change = context.client.remove_grant(id)?;
            settle(context, vec![change])
        }
        Command::Ls => list(context),
    }
}

fn list(context: &mut Context<'_>) -> Result<Ending, Failure> {
    let grants = context.client.grants()?;
    let empty = "no grants yet; make one with: bastio grant add USER --on SERVERS";
    context.list(&grants, empty, table)
}

/// Grants with a row each.
pub fn table(grants: &[Grant], now: i64) -> Table {
    let mut table = Table::new(&["GRANT", "USER", "ON", "LOGIN", "SUDO", "ADDED", "REASON"]);
    for grant in grants {
        table.row([
            grant.id.to_string().into(),
            grant.user.as_str().into(),
            grant.on.to_string().into(),
            grant.login.as_str().into(),
            yes_or_no(grant.sudo),
            ago(grant.created, now).into(),
            grant.reason.as_str().into(),
        ]);
    }
    table
}
