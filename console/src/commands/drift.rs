//! `bastio drift`: what is done about servers that others have changed.

use bastio_protocol::Target;
use bastio_protocol::api::{DriftAnswer, DriftRule, DriftRuleInForce};
use clap::{Args, Subcommand};

use crate::commands::Context;
use crate::failure::{Ending, Failure};
use crate::follow::settle;
use crate::table::{Cell, Table, Tone};

/// What to do with the rules.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say what is done about drift on servers
    Set(Set),
    /// Take a rule away
    #[command(after_help = "Example:\n  bastio drift rm env=prod")]
    #[command(aliases = ["remove", "delete"])]
    Rm {
        /// The servers that the rule names
        #[arg(value_name = "SERVERS")]
        on: Target,
    },
    /// List the rules, and how many servers each means
    #[command(after_help = "Example:\n  bastio drift ls")]
    #[command(alias = "list")]
    Ls,
}

/// A rule.
#[derive(Debug, Args)]
#[command(after_help = "\
Drift is what others change on a server of what bastio manages; its agent reports it.
  heal   the backend has the server brought back, at most 3 times an hour
  show   it is shown as trouble until somebody has put it right (done without any rule)
  leave  it is kept in the log, and is no trouble

Of several rules about a server the most cautious one counts, whatever their order:
show before leave before heal. So one rule stops all healing at once: bastio drift set '*' show

Examples:
  bastio drift set 'env=prod' heal
  bastio drift set 'env=lab' leave
  bastio drift set web-1 show")]
pub struct Set {
    /// Servers: names (web-1,web-2), labels (env=prod), or * for all
    #[arg(value_name = "SERVERS")]
    on: Target,
    /// heal, show or leave
    answer: DriftAnswer,
}

/// Carries out what was asked.
pub fn run(command: Command, context: &mut Context<'_>) -> Result<Ending, Failure> {
    let change = match command {
        Command::Set(Set { on, answer }) => {
            context.client.set_drift_rule(&DriftRule { on, answer })?
        }
        Command::Rm { on } => context.client.remove_drift_rule(&on)?,
        Command::Ls => {
            let rules = context.client.drift_rules()?;
            let empty = "no rules: drift is shown until somebody puts it right; see: bastio drift set --help";
            return context.list(&rules, empty, table);
        }
    };
    settle(context, vec![change])
}

fn table(rules: &[DriftRuleInForce], _now: i64) -> Table {
    let mut table = Table::new(&["SERVERS", "DRIFT IS", "MEANS", "OVERRULED ON"]);
    for rule in rules {
        let tone = if rule.overruled > 0 { Tone::Warn } else { Tone::Plain };
        table.row([
            rule.on.to_string().into(),
            words(rule.answer).into(),
            rule.servers.to_string().into(),
            Cell::new(&rule.overruled.to_string(), tone),
        ]);
    }
    table
}

fn words(answer: DriftAnswer) -> &'static str {
    match answer {
        DriftAnswer::Heal => "healed",
        DriftAnswer::Show => "shown",
        DriftAnswer::Leave => "left",
    }
}
