//! `bastio operator`: the key with which an operator approves what others propose.

use bastio_protocol::api::OperatorKey;
use clap::{Args, Subcommand};

use crate::commands::{Context, Format};
use crate::failure::{Ending, Failure};
use crate::operator_key::OperatorKeyFile;
use crate::settings::Environment;
use crate::table::Table;
use crate::text::ago;

/// What to do with operators' keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make your key and register its public half for your API key
    Key(Key),
    /// List the registered keys
    #[command(after_help = "Example:\n  bastio operator ls")]
    #[command(alias = "list")]
    Ls,
}

/// A key to make.
#[derive(Debug, Args)]
#[command(
    after_help = "The key is in operator.key beside console.toml, for you alone. It is registered once; \
where approvals are needed, another in its place needs another operator's approval itself: run the same \
command again once that is given.

Examples:
  bastio operator key
  bastio operator key --replace"
)]
pub struct Key {
    /// Make another one in place of that which is there
    #[arg(long)]
    replace: bool,
}

/// Carries out what was asked.
pub fn run(
    command: Command,
    environment: &Environment,
    context: &mut Context<'_>,
) -> Result<Ending, Failure> {
    match command {
        Command::Key(Key { replace }) => key(replace, environment, context),
        Command::Ls => {
            let keys = context.client.operator_keys()?;
            context.list(&keys, "no operator has registered a key", table)
        }
    }
}

/// Your key file.
pub fn key_file(environment: &Environment) -> Result<OperatorKeyFile, Failure> {
    Ok(OperatorKeyFile::beside(environment.login_file()?.path()))
}

fn key(
    replace: bool,
    environment: &Environment,
    context: &mut Context<'_>,
) -> Result<Ending, Failure> {
    let file = key_file(environment)?;
    let next = file.next();
    let is_there = file.load()?.is_some();
    // A new one waits aside until it is registered: until then the old one is good.
    let place = if replace && is_there { &next } else { &file };
    let key = match place.load()? {
        Some(key) => key,
        None => place.make()?,
    };
    let registered = context.client.register(key.verifying_key())?;
    if place == &next {
        next.replace(&file)?;
    }
    match context.format {
        Format::Json => context.terminal.json(&registered)?,
        Format::Table => {
            let (name, print) = (&registered.api_key, registered.public_key.fingerprint());
            context
                .terminal
                .note(&format!("{name} approves with {print}, {}", file.path().display()));
        }
    }
    Ok(Ending::AllDone)
}

fn table(keys: &[OperatorKey], now: i64) -> Table {
    let mut table = Table::new(&["API KEY", "OPERATOR KEY", "SINCE"]);
    for key in keys {
        let print = key.public_key.fingerprint();
        table.row([key.api_key.as_str().into(), print.into(), ago(key.since, now).into()]);
    }
    table
}
