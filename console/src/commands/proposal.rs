//! `bastio proposal`: what waits for another operator.

use bastio_protocol::ApprovalStatement;
use bastio_protocol::api::{Approve, Change, Proposal, ProposalState, utc};
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::commands::{Context, Format, now, operator};
use crate::failure::{Ending, Failure};
use crate::follow::settle;
use crate::settings::Environment;
use crate::table::Table;
use crate::text::{ago, count, one_line};

/// What to do with proposals.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List them, the newest first
    #[command(after_help = "Example:\n  bastio proposal ls")]
    #[command(alias = "list")]
    Ls,
    /// Show one: who asks for what, and what it would give
    #[command(after_help = "Example:\n  bastio proposal show 7")]
    Show {
        /// Its number
        id: i64,
    },
    /// Sign it with your operator key; the backend carries it out at once
    Approve(ApproveArgs),
    /// Refuse it, or take your own back
    #[command(after_help = "Example:\n  bastio proposal reject 7 --reason 'not on production'")]
    Reject {
        /// Its number
        id: i64,
        /// Why, for the log
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
    },
}

/// Which one.
#[derive(Debug, Args)]
#[command(
    after_help = "Shows all that it gives and asks; --yes does not ask, and has to be said where nobody can be asked. \
What is signed is the exact request and what it gives by now: if that is more than was shown, nothing is done.

Examples:
  bastio proposal approve 7
  bastio proposal approve 7 --yes"
)]
pub struct ApproveArgs {
    /// Its number
    id: i64,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Carries out what was asked.
pub fn run(
    command: Command,
    environment: &Environment,
    context: &mut Context<'_>,
) -> Result<Ending, Failure> {
    match command {
        Command::Ls => {
            let proposals = context.client.proposals()?;
            context.list(&proposals, "nothing was proposed yet", table)
        }
        Command::Show { id } => {
            let proposal = context.client.proposal(id)?;
            match context.format {
                Format::Json => context.terminal.json(&proposal)?,
                Format::Table => show(context, &proposal)?,
            }
            Ok(Ending::AllDone)
        }
        Command::Approve(args) => approve(&args, environment, context),
        Command::Reject { id, reason } => {
            let proposal = context.client.reject(id, &reason)?;
            match context.format {
                Format::Json => context.terminal.json(&proposal)?,
                Format::Table => context.terminal.note(&format!("proposal {id} is rejected")),
            }
            Ok(Ending::AllDone)
        }
    }
}

fn approve(
    args: &ApproveArgs,
    environment: &Environment,
    context: &mut Context<'_>,
) -> Result<Ending, Failure> {
    let can_ask = context.terminal.can_ask() && context.format == Format::Table;
    if !args.yes && !can_ask {
        return Err(Failure::Usage {
            message: "nobody can be asked here whether that is meant".to_owned(),
            hint: "look at it with `bastio proposal show`, and then say --yes",
        });
    }
    let no_key = Failure::Usage {
        message: "you have no operator key".to_owned(),
        hint: "make one and register it with: bastio operator key",
    };
    let key = operator::key_file(environment)?.load()?.ok_or(no_key)?;
    let registered = context.client.operator_keys()?;
    let own = registered.into_iter().find(|own| own.public_key == key.verifying_key());
    let Some(own) = own else {
        return Err(Failure::Usage {
            message: "your operator key is not registered at this backend".to_owned(),
            hint: "register it with: bastio operator key",
        });
    };
    let proposal = context.client.proposal(args.id)?;
    if context.format == Format::Table {
        show(context, &proposal)?;
    }
    let asks = !args.yes && proposal.state == ProposalState::Open;
    if asks && !context.terminal.confirm(&format!("Approve proposal {}?", args.id))? {
        context.terminal.note("nothing was done");
        return Ok(Ending::SomeFailed);
    }
    let statement = ApprovalStatement { approver: own.api_key, at: now(), ..proposal.statement };
    let signed = statement.sign(&key);
    let word = Approve { statement: signed.statement, signature: signed.signature };
    let done = context.client.approve(args.id, &word)?;
    // An edit is followed like any other; what else there is, is done.
    match serde_json::from_value::<Change>(done.clone()) {
        Ok(change) => settle(context, vec![change]),
        Err(_) => {
            tell(context, args.id, &done)?;
            Ok(Ending::AllDone)
        }
    }
}

fn tell(context: &mut Context<'_>, id: i64, done: &Value) -> Result<(), Failure> {
    match context.format {
        Format::Json => context.terminal.json(done)?,
        Format::Table => context.terminal.note(&format!("proposal {id} is carried out")),
    }
    Ok(())
}

fn show(context: &mut Context<'_>, proposal: &Proposal) -> Result<(), Failure> {
    let from = proposal.from.as_deref().map(|from| format!(" from {from}")).unwrap_or_default();
    let mut state = proposal.state.name().to_owned();
    if let (Some(at), Some(by)) = (proposal.ended, &proposal.ended_by) {
        state.push_str(&format!(" by {by}, {} UTC", utc(at)));
    }
    let size = if proposal.confirmed {
        "whatever it is: the proposer said --yes-really, and [rails] do not stop it"
    } else {
        "within [rails]"
    };
    context.terminal.table(&Table::facts([
        ("proposal", proposal.id.to_string()),
        ("state", state),
        ("proposed by", format!("{}{from}, {} UTC", proposal.proposer, utc(proposal.created))),
        ("until", format!("{} UTC", utc(proposal.expires))),
        ("reason", proposal.reason.clone()),
        ("at revision", proposal.revision.to_string()),
        ("request", proposal.request.clone()),
        ("body", one_line(&proposal.body)),
        ("sha256", proposal.statement.request.clone()),
        ("size", size.to_owned()),
    ]))?;
    context.terminal.note(&format!("it gives, {}:", count(proposal.gained, "thing")));
    for gain in &proposal.gains {
        context.terminal.note(&format!("  {gain}"));
    }
    Ok(())
}

fn table(proposals: &[Proposal], now: i64) -> Table {
    let mut table = Table::new(&["NUMBER", "STATE", "BY", "WHEN", "REQUEST", "GIVES"]);
    for proposal in proposals {
        let first = proposal.gains.first().map_or_else(String::new, Clone::clone);
        let more = match proposal.gained {
            0 | 1 => String::new(),
            more => format!(" and {} more", more.saturating_sub(1)),
        };
        table.row([
            proposal.id.to_string().into(),
            proposal.state.name().into(),
            proposal.proposer.as_str().into(),
            ago(proposal.created, now).into(),
            proposal.request.as_str().into(),
            format!("{first}{more}").into(),
        ]);
    }
    table
}
