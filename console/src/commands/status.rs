//! `bastio status`: the fleet in numbers.

use crate::commands::{Context, Format};
use crate::failure::{Ending, Failure};
use crate::table::Table;
use crate::text::count;

/// Shows it.
pub fn run(context: &mut Context<'_>) -> Result<Ending, Failure> {
    let status = context.client.status()?;
    if context.format == Format::Json {
        context.terminal.json(&status)?;
        return Ok(Ending::AllDone);
    }
    let mut servers = format!("{} connected of {}", status.connected, status.servers);
    if status.drifted > 0 {
        servers.push_str(&format!(", {} changed by others", status.drifted));
    }
    let actions =
        format!("{} waiting, {} sent, {} failed", status.queued, status.sent, status.failed);
    context.terminal.table(&Table::facts([
        ("backend", format!("{}, version {}", context.client.url(), status.version)),
        ("host key", status.host_key.clone()),
        ("servers", servers),
        ("people", format!("{} with {}", status.users, count(status.grants, "grant"))),
        ("actions", actions),
        ("revision", status.revision.to_string()),
    ]))?;
    if status.failed > 0 {
        context.terminal.note("hint: `bastio server ls` shows which servers failed");
    }
    Ok(Ending::AllDone)
}
