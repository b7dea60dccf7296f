//! `bastio sudo-policy`: rules with a name, which grants give.

use bastio_protocol::api::{NamedPolicy, PolicyName};
use bastio_protocol::{SudoCommand, Username};
use clap::{Args, Subcommand};

use crate::commands::{Context, Format, yes_or_no};
use crate::failure::{Ending, Failure};
use crate::table::Table;

/// What to do with sudo policies.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a policy
    Add(Add),
    /// Remove a policy that no grant gives any more
    #[command(after_help = "Example:\n  bastio sudo-policy rm restart-nginx")]
    #[command(aliases = ["remove", "delete"])]
    Rm {
        /// The policy
        name: PolicyName,
    },
    /// List policies
    #[command(after_help = "Example:\n  bastio sudo-policy ls")]
    #[command(alias = "list")]
    Ls,
}

/// A policy to add.
#[derive(Debug, Args)]
#[command(after_help = "A policy does not change once it is there: make another, and grants of it.

Examples:
  bastio sudo-policy add restart-nginx --command '/usr/bin/systemctl restart nginx'
  bastio sudo-policy add dba --command /usr/bin/psql --run-as postgres
  bastio grant add alice --on role=web --sudo-policy restart-nginx")]
pub struct Add {
    /// Its name
    name: PolicyName,
    /// An absolute command with its arguments, as in sudoers(5); may be given several times
    #[arg(long = "command", value_name = "COMMAND", required = true)]
    commands: Vec<SudoCommand>,
    /// As whom the commands may run; everybody when absent; may be given several times
    #[arg(long, value_name = "USER")]
    run_as: Vec<Username>,
    /// Ask for the account's own password; accounts made by bastio have none
    #[arg(long)]
    password: bool,
}

/// Carries out what was asked.
pub fn run(command: Command, context: &mut Context<'_>) -> Result<Ending, Failure> {
    match command {
        Command::Add(Add { name, commands, run_as, password }) => {
            let policy = NamedPolicy { name, commands, run_as, password };
            let added = context.client.add_sudo_policy(&policy)?;
            tell(context, &added, "added")
        }
        Command::Rm { name } => {
            let removed = context.client.remove_sudo_policy(&name)?;
            tell(context, &removed, "removed")
        }
        Command::Ls => {
            let policies = context.client.sudo_policies()?;
            let empty = "no policies; add one with: bastio sudo-policy add NAME --command COMMAND";
            context.list(&policies, empty, table)
        }
    }
}

fn tell(context: &mut Context<'_>, policy: &NamedPolicy, what: &str) -> Result<Ending, Failure> {
    match context.format {
        Format::Json => context.terminal.json(policy)?,
        Format::Table => context.terminal.note(&format!("sudo policy {} {what}", policy.name)),
    }
    Ok(Ending::AllDone)
}

fn table(policies: &[NamedPolicy], _now: i64) -> Table {
    let mut table = Table::new(&["POLICY", "COMMANDS", "RUN AS", "PASSWORD"]);
    for policy in policies {
        let commands: Vec<String> = policy.commands.iter().map(ToString::to_string).collect();
        let run_as: Vec<&str> = policy.run_as.iter().map(Username::as_str).collect();
        let run_as = if run_as.is_empty() { "everybody".to_owned() } else { run_as.join(", ") };
        table.row([
            policy.name.as_str().into(),
            commands.join("; ").into(),
            run_as.into(),
            yes_or_no(policy.password),
        ]);
    }
    table
}
