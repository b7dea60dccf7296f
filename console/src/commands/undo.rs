//! `bastio revisions` and `bastio undo`: what was edited, and the model as it was before.

use bastio_protocol::ServerName;
use bastio_protocol::api::{Revision, Undo};
use clap::Args;

use crate::commands::Context;
use crate::failure::{Ending, Failure};
use crate::follow::settle;
use crate::table::Table;
use crate::text::ago;

/// Which revisions.
#[derive(Debug, Args)]
#[command(after_help = "Every edit of the model is a revision; the last come first.

Examples:
  bastio revisions
  bastio revisions --limit 100
  bastio export --revision 57      the whole model as it was then")]
pub struct Revisions {
    /// So many at most
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Only those before this one
    #[arg(long, value_name = "REVISION")]
    before: Option<i64>,
}

/// Where to go back to.
#[derive(Debug, Args)]
#[command(name = "undo")]
#[command(
    after_help = "The whole model becomes what it was right after that revision: people, keys, groups, grants, labels,
sudo policies. That is an edit like any other: see it first with --dry-run; it needs --yes-really where
any edit would; it is a revision of its own, and can be undone.

With --server only what concerns that server alone goes back: its labels, and the grants that reach
it. People, their keys and groups are the same everywhere, and stay as they are.

Examples:
  bastio undo --to 57 --dry-run
  bastio undo --to 57 --reason 'ticket 4711'
  bastio undo --to 57 --server web-1"
)]
pub struct UndoArgs {
    /// The revision; see: bastio revisions
    #[arg(long, value_name = "REVISION")]
    to: i64,
    /// Only what concerns this server
    #[arg(long, value_name = "NAME")]
    server: Option<ServerName>,
    /// Why, for the log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

impl Revisions {
    /// Shows them.
    pub fn run(self, context: &mut Context<'_>) -> Result<Ending, Failure> {
        let revisions = context.client.revisions(self.limit, self.before)?;
        context.list(&revisions, "nothing was edited yet", table)
    }
}

impl UndoArgs {
    /// Goes back.
    pub fn run(self, context: &mut Context<'_>) -> Result<Ending, Failure> {
        let Self { to, server, reason } = self;
        let change = context.client.undo(&Undo { to, server, reason })?;
        settle(context, vec![change])
    }
}

fn table(revisions: &[Revision], now: i64) -> Table {
    let mut table = Table::new(&["REVISION", "WHEN", "WHO", "WHAT", "UNDO TO"]);
    for revision in revisions {
        table.row([
            revision.revision.to_string().into(),
            ago(revision.at, now).into(),
            revision.by.as_deref().unwrap_or_default().into(),
            revision.summary.as_str().into(),
            if revision.known { "yes" } else { "too long ago" }.into(),
        ]);
    }
    table
}
