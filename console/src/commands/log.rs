//! `bastio log`: who did what, and what the servers answered. Show it, follow it, export it, and
//! verify an export.

mod approvals;
mod csv;
mod export;
mod follow;
mod syslog;
mod verify;

pub use export::Sink;

use bastio_protocol::audit::{ChainedRow, Head, LogFilter, Pattern};
use bastio_protocol::{ServerName, Username};
use clap::{Args, Subcommand};

use crate::client::{Client, LogPage};
use crate::commands::{Context, Format};
use crate::failure::{Ending, Failure};
use crate::moment::Past;
use crate::table::Table;
use crate::terminal::Terminal;
use crate::text::ago;

/// Which rows, or what else to do with the log.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:
  bastio log --limit 20
  bastio log --user alice --server web-1
  bastio log --action 'grant.*' --since 7d
  bastio log --follow
  bastio log --output json | jq '.[] | select(.action == \"action.failed\")'")]
pub struct Log {
    #[command(subcommand)]
    command: Option<Command>,
    /// At most so many rows, the last ones; `bastio log export` has all
    #[arg(long, value_name = "N", default_value_t = 50)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Go on with new rows as they come, as JSON lines with --output json
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    filter: Filter,
}

/// What else to do with the log.
#[derive(Debug, Subcommand)]
enum Command {
    /// Write all rows, as JSON lines that can be verified, CSV or syslog
    Export(export::Export),
    /// Verify an export: needs no backend and no login
    Verify(verify::Verify),
    /// Print number and hash of the last row, to be kept elsewhere
    #[command(after_help = "Whoever has this can tell later whether rows up to it were changed: \
bastio log verify --head.

Examples:
  bastio log head
  bastio log head --output json")]
    Head,
}

/// Which rows.
#[derive(Debug, Args)]
struct Filter {
    /// Only about this person or account
    #[arg(long)]
    user: Option<Username>,
    /// Only about this server
    #[arg(long)]
    server: Option<ServerName>,
    /// Only of this one: key:NAME, agent:NAME, backend; or its beginning, as agent:*
    #[arg(long)]
    actor: Option<Pattern>,
    /// Only of this kind: grant.add; or its beginning, as grant.*
    #[arg(long)]
    action: Option<Pattern>,
    /// Only since then: 2h (ago), 2026-12-01, 2026-12-01T18:00:00Z
    #[arg(long, value_name = "WHEN")]
    since: Option<Past>,
    /// Only before then
    #[arg(long, value_name = "WHEN")]
    until: Option<Past>,
}

impl Filter {
    fn at(self, now: i64) -> LogFilter {
        let Self { user, server, actor, action, since, until } = self;
        let (since, until) = (since.map(|past| past.at(now)), until.map(|past| past.at(now)));
        LogFilter { user, server, actor, action, since, until }
    }
}

impl Log {
    /// Does it; what needs no backend asks for none.
    pub fn run<'a>(
        self,
        format: Format,
        terminal: &'a mut Terminal,
        with: impl FnOnce(&'a mut Terminal) -> Result<Context<'a>, Failure>,
    ) -> Result<Ending, Failure> {
        match self.command {
            Some(Command::Verify(verify)) => verify.run(format, terminal),
            Some(Command::Export(export)) => export.run(&mut with(terminal)?),
            Some(Command::Head) => print_head(&mut with(terminal)?),
            None => {
                let mut context = with(terminal)?;
                let filter = self.filter.at(context.now);
                if self.follow {
                    return follow::run(&mut context, &filter, self.limit);
                }
                let rows = context.client.log(&filter, LogPage::Last(self.limit))?;
                context.list(&rows, "nothing in the log", table)
            }
        }
    }
}

/// The last row of the log.
fn head(client: &Client) -> Result<Option<Head>, Failure> {
    let last = client.log(&LogFilter::default(), LogPage::Last(1))?;
    let head = last.last().map(ChainedRow::head);
    match head {
        Some(head) if head.hash.is_empty() => Err(Failure::Usage {
            message: "this backend does not tell the hashes of its log".to_owned(),
            hint: "it is older than this console: update the backend",
        }),
        head => Ok(head),
    }
}

fn print_head(context: &mut Context<'_>) -> Result<Ending, Failure> {
    match (head(&context.client)?, context.format) {
        (head, Format::Json) => context.terminal.json(&head)?,
        (Some(head), Format::Table) => context.terminal.print(&format!("{head}\n"))?,
        (None, Format::Table) => context.terminal.note("nothing in the log"),
    }
    Ok(Ending::AllDone)
}

fn table(rows: &[ChainedRow], now: i64) -> Table {
    let mut table = header();
    fill(&mut table, rows, |at| ago(at, now));
    table
}

fn header() -> Table {
    Table::new(&["WHEN", "WHO", "FROM", "WHAT", "USER", "SERVER", "DETAIL"])
}

fn fill(table: &mut Table, rows: &[ChainedRow], when: impl Fn(i64) -> String) {
    for ChainedRow { row, .. } in rows {
        let detail = match row.reason.as_deref() {
            Some(reason) if row.detail.is_empty() => format!("why: {reason}"),
            Some(reason) => format!("{}; why: {reason}", row.detail),
            None => row.detail.clone(),
        };
        table.row([
            when(row.at).into(),
            row.actor.as_str().into(),
            row.from.as_deref().unwrap_or_default().into(),
            row.action.as_str().into(),
            row.user.as_deref().unwrap_or_default().into(),
            row.server.as_deref().unwrap_or_default().into(),
            detail.into(),
        ]);
    }
}
