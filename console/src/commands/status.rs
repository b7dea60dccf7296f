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
    for (number, what) in [
        (status.in_sync, "in sync"),
        (status.pending_servers, "with something on its way"),
        (status.failed_servers, "that failed"),
        (status.drifted.saturating_sub(status.keep_drifting), "changed by others"),
        (status.keep_drifting, "that keep drifting"),
    ] {
        if number > 0 {
            servers.push_str(&format!(", {number} {what}"));
        }
    }
    if status.clocks_off > 0 {
        servers.push_str(&format!(", {} with another time than the backend", status.clocks_off));
    }
    if status.undecided > 0 {
        servers.push_str(&format!(", {} to be decided about", status.undecided));
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
    if let Some(sealed) = &status.sealed {
        context.terminal.note(&format!("warning: {sealed}"));
    }
    if status.clocks_off > 1 && 2 * status.clocks_off > status.servers {
        context.terminal.note(
            "hint: most servers have another time than the backend: its own clock is off, set it (NTP)",
        );
    }
    if status.undecided > 0 {
        context.terminal.note("hint: `bastio server ls` shows about which servers to decide");
    }
    if status.failed > 0 {
        context.terminal.note("hint: `bastio server ls` shows which servers failed");
    }
    Ok(Ending::AllDone)
}
