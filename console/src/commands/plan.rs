//! `bastio plan`: what each server has still to be told, to answer or to take.

use bastio_protocol::ServerName;
use bastio_protocol::api::{ActionReport, ActionState, Presence, ServerPlan};
use clap::Args;

use crate::commands::{Context, Format};
use crate::failure::{Ending, Failure};
use crate::table::{Cell, Table, Tone};
use crate::text::{ago, count};

/// Which servers.
#[derive(Debug, Args)]
#[command(
    after_help = "A server is in sync at a revision when it has confirmed everything up to it.
What an edit would change is shown by the edit itself, with --dry-run.

Examples:
  bastio plan
  bastio plan --server web-1
  bastio plan --behind --output json
  bastio user rm alice --dry-run"
)]
pub struct Plan {
    /// Only this server
    #[arg(long, value_name = "NAME")]
    server: Option<ServerName>,
    /// Only servers that are not in sync
    #[arg(long)]
    behind: bool,
}

impl Plan {
    /// Shows it.
    pub fn run(self, context: &mut Context<'_>) -> Result<Ending, Failure> {
        let mut plan = context.client.plan(self.server.as_ref())?;
        let all = plan.len();
        if self.behind {
            plan.retain(|server| {
                !server.open.is_empty() || server.drifted || !server.questions.is_empty()
            });
        }
        let empty = if all > 0 { "every server is in sync" } else { "no servers yet" };
        let ending = context.list(&plan, empty, table)?;
        if context.format == Format::Table && all > 0 {
            let behind =
                |server: &&ServerPlan| !server.open.is_empty() || !server.questions.is_empty();
            let behind = plan.iter().filter(behind).count();
            let in_sync = all - behind;
            context.terminal.note(&format!("{in_sync} of {} in sync", count(all, "server")));
        }
        Ok(ending)
    }
}

fn table(plan: &[ServerPlan], now: i64) -> Table {
    let mut table = Table::new(&["SERVER", "STATE", "REVISION", "OPEN", "DETAIL"]);
    for server in plan {
        table.row([
            server.server.as_str().into(),
            state(server),
            server.in_sync_at.to_string().into(),
            open(&server.open).into(),
            detail(server, now).into(),
        ]);
    }
    table
}

fn failed(server: &ServerPlan) -> Option<&ActionReport> {
    server.open.iter().find(|action| action.state == ActionState::Failed)
}

fn state(server: &ServerPlan) -> Cell {
    if let Some(question) = server.questions.first() {
        Cell::new(question.kind.name(), Tone::Bad)
    } else if failed(server).is_some() {
        Cell::new("failed", Tone::Bad)
    } else if server.keeps_drifting {
        Cell::new("keeps drifting", Tone::Bad)
    } else if server.drifted {
        Cell::new("drifted", Tone::Bad)
    } else if server.open.is_empty() {
        Cell::new("in sync", Tone::Good)
    } else {
        Cell::new("pending", Tone::Warn)
    }
}

/// What is open, each kind once: `add-user alice, 3 more`.
fn open(actions: &[ActionReport]) -> String {
    let Some(first) = actions.first() else { return String::new() };
    let first = format!("{} {}", first.action, first.username);
    match actions.len() - 1 {
        0 => first,
        more => format!("{first}, {more} more"),
    }
}

fn detail(server: &ServerPlan, now: i64) -> String {
    if let Some(words) = failed(server).and_then(|action| action.feedback.clone()) {
        return words;
    }
    match (server.presence, server.last_seen) {
        (Presence::Connected, _) if server.drifted => "changed by others on the server".to_owned(),
        (Presence::Connected, _) => String::new(),
        (Presence::Offline, Some(seen)) => format!("offline since {}", ago(seen, now)),
        (Presence::Offline, None) => "offline".to_owned(),
        (Presence::NeverSeen, _) => "its agent was never there".to_owned(),
    }
}
