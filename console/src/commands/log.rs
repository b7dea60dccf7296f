//! `bastio log`: who did what, and what the servers answered.

use bastio_protocol::api::AuditRow;
use bastio_protocol::{ServerName, Username};
use clap::Args;

use crate::client::LogQuery;
use crate::commands::Context;
use crate::failure::{Ending, Failure};
use crate::table::Table;
use crate::text::ago;

/// Which rows.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bastio log --limit 20
  bastio log --user alice --server web-1
  bastio log --output json | jq '.[] | select(.action == \"action.failed\")'")]
pub struct Log {
    /// At most so many rows
    #[arg(long, value_name = "N", default_value_t = 50)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Only about this person or account
    #[arg(long)]
    user: Option<Username>,
    /// Only about this server
    #[arg(long)]
    server: Option<ServerName>,
}

impl Log {
    /// Shows them.
    pub fn run(self, context: &mut Context<'_>) -> Result<Ending, Failure> {
        let query = LogQuery {
            limit: self.limit,
            user: self.user.map(String::from),
            server: self.server.map(String::from),
        };
        let rows = context.client.log(&query)?;
        context.list(&rows, "nothing in the log", table)
    }
}

fn table(rows: &[AuditRow], now: i64) -> Table {
    let mut table = Table::new(&["WHEN", "WHO", "WHAT", "USER", "SERVER", "DETAIL"]);
    for row in rows {
        table.row([
            ago(row.at, now).into(),
            row.actor.as_str().into(),
            row.action.as_str().into(),
            row.user.as_deref().unwrap_or_default().into(),
            row.server.as_deref().unwrap_or_default().into(),
            row.detail.as_str().into(),
        ]);
    }
    table
}
