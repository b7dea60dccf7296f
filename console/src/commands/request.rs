//! What is asked of a server as a whole: `bastio server sync`, `check` and `report`.

use std::time::{Duration, Instant};

use bastio_protocol::api::{ActionState, NewRequest, RequestKind, RequestReport};
use bastio_protocol::{Detail, FoundUser, HostReport, ServerName, Username};

use crate::commands::{Context, Format, yes_or_no};
use crate::failure::{Ending, Failure};
use crate::follow::Patience;
use crate::outcome::kind;
use crate::table::{Cell, Table, Tone};

/// Longest wait that one request asks for, in seconds.
const MAX_POLL: u64 = 30;

/// Waits for a sync, and tells what it changed.
pub fn follow_sync(context: &mut Context<'_>, report: RequestReport) -> Result<Ending, Failure> {
    let report = wait(context, report)?;
    if context.format == Format::Json {
        context.terminal.json(&report)?;
        return Ok(ending(&report));
    }
    if !tell_unanswered(context, &report) {
        context.terminal.note(&format!("{}: {}", report.server, words(&report)));
        show_detail(context, report.detail.as_deref())?;
    }
    Ok(ending(&report))
}

/// Asks servers what a sync would change: all done means nothing would.
pub fn check(context: &mut Context<'_>, servers: &[ServerName]) -> Result<Ending, Failure> {
    let mut reports = Vec::new();
    let mut all = Ending::AllDone;
    for server in servers {
        let new = NewRequest { kind: RequestKind::Check, allow_no_admin: false };
        match context.client.request(server, new) {
            Ok(report) => reports.push(report),
            // Of several servers, one that cannot be asked keeps no answer of the others back.
            Err(error) if servers.len() > 1 && !error.is_unreachable() => {
                context.terminal.note(&format!("{server}: not checked: {error}"));
                all = Ending::SomeFailed;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let mut answered = Vec::new();
    for report in reports {
        let report = wait(context, report)?;
        if ending(&report) == Ending::SomeFailed || !changes(&report).is_empty() {
            all = Ending::SomeFailed;
        }
        answered.push(report);
    }
    if context.format == Format::Json {
        context.terminal.json(&answered)?;
        return Ok(all);
    }
    for report in &answered {
        if tell_unanswered(context, report) {
            continue;
        }
        if report.state == ActionState::Done && changes(report).is_empty() {
            context.terminal.print(&format!("{}: as it should be\n", report.server))?;
        } else {
            context.terminal.print(&format!("{}: {}\n", report.server, words(report)))?;
        }
        show_detail(context, report.detail.as_deref())?;
    }
    Ok(all)
}

/// Shows everything that was found on a server.
pub fn report(context: &mut Context<'_>, server: &ServerName) -> Result<Ending, Failure> {
    let new = NewRequest { kind: RequestKind::Report, allow_no_admin: false };
    let asked = context.client.request(server, new)?;
    let report = wait(context, asked)?;
    let found = report.detail.as_ref().and_then(|detail| detail.report.as_deref());
    if context.format == Format::Json {
        match found {
            Some(found) => context.terminal.json(found)?,
            None => context.terminal.json(&report)?,
        }
        return Ok(ending(&report));
    }
    if tell_unanswered(context, &report) {
        return Ok(ending(&report));
    }
    match found {
        Some(found) => show_report(context, found)?,
        None => context.terminal.note(&format!("{server}: {}", words(&report))),
    }
    Ok(ending(&report))
}

/// Asks a server what there is and waits for it, whatever the patience; the number of the report.
pub fn fresh_report(
    context: &mut Context<'_>,
    server: &ServerName,
) -> Result<Option<i64>, Failure> {
    let asked = context.client.ask_report(server)?;
    let patience = context.patience;
    if patience == Patience::None {
        context.patience = Patience::Seconds(MAX_POLL);
    }
    let report = wait(context, asked);
    context.patience = patience;
    let report = report?;
    if report.state == ActionState::Done {
        return Ok(Some(report.id));
    }
    if !tell_unanswered(context, &report) {
        context.terminal.note(&format!("{server}: {}", words(&report)));
    }
    Ok(None)
}

/// Waits as the patience says, as long as the server is there.
fn wait(context: &mut Context<'_>, mut report: RequestReport) -> Result<RequestReport, Failure> {
    let seconds = match context.patience {
        Patience::None => return Ok(report),
        Patience::Seconds(seconds) => seconds,
    };
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while is_open(&report) && report.connected {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        context.terminal.live(&format!("waiting for {}", report.server));
        let seconds = left.as_secs().saturating_add(1).min(MAX_POLL);
        report = context.client.await_request(report.id, seconds)?;
    }
    Ok(report)
}

fn is_open(report: &RequestReport) -> bool {
    matches!(report.state, ActionState::Queued | ActionState::Sent)
}

/// A server that is away is no failure; one that is there and did not answer is.
fn ending(report: &RequestReport) -> Ending {
    match report.state {
        ActionState::Done => Ending::AllDone,
        ActionState::Failed => Ending::SomeFailed,
        ActionState::Queued | ActionState::Sent if report.connected => Ending::SomeFailed,
        ActionState::Queued | ActionState::Sent => Ending::AllDone,
    }
}

/// Says so when there is no answer yet; whether that was so.
fn tell_unanswered(context: &mut Context<'_>, report: &RequestReport) -> bool {
    if !is_open(report) {
        return false;
    }
    let what = match (report.connected, context.patience) {
        (_, Patience::None) => "asked",
        (true, _) => "connected, but no answer yet; the backend goes on by itself",
        (false, _) => "offline, will follow when it is back",
    };
    context.terminal.note(&format!("{}: {what} (request {})", report.server, report.id));
    true
}

fn words(report: &RequestReport) -> &str {
    report.feedback.as_deref().unwrap_or("no word")
}

fn changes(report: &RequestReport) -> &[bastio_protocol::ChangeNote] {
    report.detail.as_deref().map(|detail| detail.changes.as_slice()).unwrap_or_default()
}

/// What was or would be changed, what was not, and what people should know.
fn show_detail(context: &mut Context<'_>, detail: Option<&Detail>) -> Result<(), Failure> {
    let Some(detail) = detail else { return Ok(()) };
    if !detail.changes.is_empty() || !detail.failures.is_empty() {
        context.terminal.table(&detail_table(detail))?;
    }
    for warning in &detail.warnings {
        context.terminal.note(&format!("warning: {}", crate::text::one_line(warning)));
    }
    Ok(())
}

/// Changes and failures with a row each.
pub fn detail_table(detail: &Detail) -> Table {
    let name =
        |user: &Option<Username>| -> Cell { user.as_ref().map_or("", Username::as_str).into() };
    let mut table = Table::new(&["ACCOUNT", "WHAT", "DETAILS"]);
    for change in &detail.changes {
        table.row([name(&change.username), kind(change.kind).into(), change.text.as_str().into()]);
    }
    for failure in &detail.failures {
        let failed = Cell::new("failed", Tone::Bad);
        table.row([name(&failure.username), failed, failure.text.as_str().into()]);
    }
    table
}

fn show_report(context: &mut Context<'_>, found: &HostReport) -> Result<(), Failure> {
    let terminal = &mut *context.terminal;
    terminal.table(&users(&found.users))?;
    let mut groups = Table::new(&["GROUP", "GID", "AS GOOD AS ROOT", "MEMBERS"]);
    for group in &found.groups {
        groups.row([
            group.name.as_str().into(),
            group.gid.to_string().into(),
            yes_or_no(group.root_equivalent),
            group.members.join(" ").into(),
        ]);
    }
    let mut rules = Table::new(&["SUDO RULES"]);
    found.sudo_rules.iter().for_each(|rule| rules.row([rule.as_str().into()]));
    let mut sshd = Table::new(&["SSHD SETTING", "VALUE"]);
    for (name, value) in &found.sshd {
        sshd.row([name.as_str().into(), value.as_str().into()]);
    }
    for (table, empty) in [
        (keys(&found.users), found.users.iter().all(|user| user.keys.is_empty())),
        (groups, found.groups.is_empty()),
        (rules, found.sudo_rules.is_empty()),
        (sshd, found.sshd.is_empty()),
    ] {
        if !empty {
            terminal.print("\n")?;
            terminal.table(&table)?;
        }
    }
    if found.truncated {
        terminal.note("there is more on this server than one message holds");
    }
    Ok(())
}

fn users(users: &[FoundUser]) -> Table {
    let mut table = Table::new(&["USER", "UID", "MANAGED", "STATE", "KEYS", "SHELL", "HOME"]);
    for user in users {
        let keys = match &user.keys_unreadable {
            Some(why) => Cell::new(&format!("unreadable: {why}"), Tone::Bad),
            None => user.keys.len().to_string().into(),
        };
        table.row([
            user.name.as_str().into(),
            user.uid.to_string().into(),
            yes_or_no(user.managed),
            if user.locked { "locked" } else { "open" }.into(),
            keys,
            user.shell.as_str().into(),
            user.home.as_str().into(),
        ]);
    }
    table
}

fn keys(users: &[FoundUser]) -> Table {
    let mut table = Table::new(&["USER", "KEY", "BY BASTIO", "OPTIONS", "FILE"]);
    for user in users {
        for key in &user.keys {
            table.row([
                user.name.as_str().into(),
                key.fingerprint.as_str().into(),
                yes_or_no(key.managed),
                key.options.as_str().into(),
                key.file.as_str().into(),
            ]);
        }
    }
    table
}
