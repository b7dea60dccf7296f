//! Waits until the servers have answered an edit, and reports what came of it.
//!
//! Long polls: each step of a server arrives when it happens. Must not know which edit it was.

use std::thread;
use std::time::{Duration, Instant};

use bastio_protocol::api::Change;

use crate::client::{Client, ClientError};
use crate::commands::{Context, Format};
use crate::failure::{Ending, Failure};
use crate::outcome::{self, is_settled};
use crate::preview;
use crate::terminal::Terminal;

/// Longest wait that one request asks for, in seconds.
const MAX_POLL: u64 = 30;
/// Pause after an answer that came at once and told nothing, or did not come at all.
const PAUSE: Duration = Duration::from_secs(1);

/// Edits of the model that are shown one by one.
const EDITS: usize = 50;

/// Whether to wait for servers, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Not at all.
    None,
    /// At most so many seconds.
    Seconds(u64),
}

/// Waits for the edits as [`Patience`] says and prints their result.
///
/// # Errors
/// [`Failure::Lost`] when the backend went away meanwhile, [`Failure::Client`] when it refuses to
/// tell, [`Failure::Output`].
pub fn settle(context: &mut Context<'_>, changes: Vec<Change>) -> Result<Ending, Failure> {
    if changes.iter().any(|change| change.preview.is_some()) {
        return tried(context, &changes);
    }
    let (changes, waited) = match context.patience {
        Patience::None => (changes, None),
        Patience::Seconds(seconds) => {
            let deadline = Instant::now() + Duration::from_secs(seconds);
            let client = &context.client;
            let terminal = &mut *context.terminal;
            let settled: Result<Vec<Change>, Failure> = changes
                .into_iter()
                .map(|change| wait(client, terminal, change, deadline))
                .collect();
            (settled?, Some(seconds))
        }
    };
    let Some(change) = outcome::merge(changes) else { return Ok(Ending::AllDone) };
    print(context, &change, waited)?;
    // Without waiting, that the backend took the edit is all there is to know.
    Ok(waited.map_or(Ending::AllDone, |_| outcome::ending(&change)))
}

/// Prints what edits would do.
fn tried(context: &mut Context<'_>, changes: &[Change]) -> Result<Ending, Failure> {
    let terminal = &mut *context.terminal;
    for change in changes {
        let Some(preview) = &change.preview else { continue };
        if context.format == Format::Json {
            terminal.json(change)?;
            continue;
        }
        terminal.note(&format!("would be done: {}", change.summary));
        for edit in preview.edits.iter().take(EDITS) {
            terminal.note(&format!("  {edit}"));
        }
        if let Some(more) = preview.edits.len().checked_sub(EDITS).filter(|more| *more > 0) {
            terminal.note(&format!("  and {more} more; --output json has all of them"));
        }
        if preview.servers.is_empty() {
            terminal.note("no server is concerned");
        } else {
            terminal.table(&preview::table(preview))?;
            terminal.note(&preview::summary(&preview.blast));
        }
        for gain in preview.approval.iter().take(EDITS) {
            terminal.note(&format!("needs another operator's approval: {gain}"));
        }
        let gains = preview.approval.len();
        if let Some(more) = gains.checked_sub(EDITS).filter(|more| *more > 0) {
            terminal.note(&format!("  and {more} more; --output json has all of them"));
        }
        for stop in &preview.stops {
            terminal.note(&format!("needs --yes-really: {stop}"));
        }
    }
    Ok(Ending::AllDone)
}

/// Follows one edit until every server that is there has answered, or until the deadline.
fn wait(
    client: &Client,
    terminal: &mut Terminal,
    mut change: Change,
    deadline: Instant,
) -> Result<Change, Failure> {
    let mut lost = None;
    while !is_settled(&change) {
        terminal.live(&outcome::progress(&change));
        let asked = Instant::now();
        let left = deadline.saturating_duration_since(asked);
        if left.is_zero() {
            break;
        }
        let seconds = left.as_secs().saturating_add(1).min(MAX_POLL);
        match client.change(change.revision, change.progress, seconds) {
            Ok(newer) => {
                let told_nothing = newer == change && asked.elapsed() < PAUSE;
                (change, lost) = (newer, None);
                if told_nothing {
                    thread::sleep(PAUSE.min(left));
                }
            }
            Err(error) if error.is_unreachable() => {
                terminal.live(&format!("{error}; trying again"));
                lost = Some(error);
                thread::sleep(PAUSE.min(left));
            }
            Err(error) => return Err(error.into()),
        }
    }
    give_back(change, lost)
}

fn give_back(change: Change, lost: Option<ClientError>) -> Result<Change, Failure> {
    match lost {
        None => Ok(change),
        Some(source) => Err(Failure::Lost { revision: change.revision, source }),
    }
}

fn print(context: &mut Context<'_>, change: &Change, waited: Option<u64>) -> Result<(), Failure> {
    let terminal = &mut *context.terminal;
    match (context.format, waited) {
        (Format::Json, _) => terminal.json(change)?,
        (Format::Table, None) => terminal.print(&format!("{}\n", change.revision))?,
        (Format::Table, Some(_)) => {
            terminal.note(&format!("{} (revision {})", change.summary, change.revision));
            if change.servers.is_empty() {
                terminal.note("no server is concerned");
            } else {
                terminal.table(&outcome::table(change))?;
            }
        }
    }
    for note in waited.map(|seconds| outcome::notes(change, seconds)).unwrap_or_default() {
        terminal.note(&note);
    }
    Ok(())
}
