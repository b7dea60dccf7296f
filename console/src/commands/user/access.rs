//! `bastio user disable`, `enable`, `proof`, `verify`: the end of a person's access, and what proves it.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bastio_protocol::api::{Change, Presence};
use bastio_protocol::{AccessEntry, AccessReport, AccessStatus, Username};
use clap::Args;
use serde_json::json;

use crate::client::ClientError;
use crate::commands::{Context, Format};
use crate::failure::{Ending, Failure};
use crate::follow::{Patience, settle};
use crate::moment::utc;
use crate::table::{Cell, Table, Tone};
use crate::terminal::Terminal;
use crate::text::{ago, count};

/// Longest wait that one request asks for, in seconds.
const MAX_POLL: u64 = 20;

/// A person, and why.
#[derive(Debug, Args)]
#[command(
    after_help = "Accounts, homes, keys and grants stay on record, so that `bastio user enable` \
brings them back. An account that others use, too, loses this person's keys, and its sessions end.

Examples:
  bastio user disable alice --reason 'left on Friday'
  bastio user proof alice
  bastio user enable alice"
)]
pub struct State {
    /// The person
    user: Username,
    /// Why, for the log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

/// Whose access, and into which file.
#[derive(Debug, Args)]
#[command(after_help = "STATUS is one of
  proven    the server has signed that nobody gets in and nothing runs any more
  unproven  the agent says so and nothing proves it: see WHY
  pending   the server has not answered; UNTIL is when it ends access by itself at the latest
  failed    the server could not do it: see WHY
  shared    the account is there for others; this person's keys are not in it
  open      the person may log in

Ends with 1 while anything is pending or failed.

Examples:
  bastio user proof alice
  bastio user proof alice --export alice.json
  bastio user verify alice.json --key SHA256:...")]
pub struct Proof {
    /// The person, also one who was removed
    user: Username,
    /// Write the report with its receipts and keys, to be verified anywhere
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
}

/// Which report.
#[derive(Debug, Args)]
#[command(
    after_help = "Needs no backend. Says that the report is as it was written and that every proof \
in it holds, or names what was altered, and ends with 1.

Examples:
  bastio user verify alice.json
  bastio user verify alice.json --key SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"
)]
pub struct Verify {
    /// The file of `bastio user proof --export`
    file: PathBuf,
    /// Fingerprint of the backend's signing key, as the backend prints it when it starts
    #[arg(long, value_name = "FINGERPRINT")]
    key: Option<String>,
}

pub(super) fn disable(context: &mut Context<'_>, who: &State) -> Result<Ending, Failure> {
    let change = context.client.set_user_state(&who.user, "disable", &who.reason)?;
    let ending = follow(context, change)?;
    let user = &who.user;
    context.hint(&format!("what proves it, server by server: bastio user proof {user}"));
    Ok(ending)
}

pub(super) fn enable(context: &mut Context<'_>, who: &State) -> Result<Ending, Failure> {
    let change = context.client.set_user_state(&who.user, "enable", &who.reason)?;
    follow(context, change)
}

fn follow(context: &mut Context<'_>, change: Change) -> Result<Ending, Failure> {
    settle(context, vec![change])
}

pub(super) fn proof(context: &mut Context<'_>, asked: &Proof) -> Result<Ending, Failure> {
    let report = wait(context, &asked.user)?;
    if let Some(file) = &asked.export {
        let written = fs::write(file, report.to_file());
        written.map_err(|source| Failure::Write { path: file.clone(), source })?;
        context.terminal.note(&format!("written to {}", file.display()));
    }
    if context.format == Format::Json {
        context.terminal.print(&report.to_file())?;
    } else {
        context.terminal.note(&headline(&report));
        context.terminal.table(&table(&report.accounts, context.now))?;
    }
    let is_open =
        |entry: &AccessEntry| matches!(entry.status, AccessStatus::Pending | AccessStatus::Failed);
    let any_open = report.accounts.iter().any(is_open);
    Ok(if any_open { Ending::SomeFailed } else { Ending::AllDone })
}

/// The report as soon as no server that is there owes an answer.
fn wait(context: &mut Context<'_>, user: &Username) -> Result<AccessReport, ClientError> {
    let Patience::Seconds(seconds) = context.patience else {
        return context.client.access_report(user, 0);
    };
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut report = context.client.access_report(user, 0)?;
    loop {
        let owed = report.accounts.iter().filter(|entry| is_owed(entry)).count();
        let left = deadline.saturating_duration_since(Instant::now()).as_secs();
        if owed == 0 || left == 0 {
            return Ok(report);
        }
        let of = count(report.accounts.len(), "account");
        context.terminal.live(&format!("waiting for {owed} of {of}"));
        // Of many that answer one by one, news at least every other second.
        report = context.client.access_report(user, left.min(MAX_POLL).min(2))?;
    }
}

fn is_owed(entry: &AccessEntry) -> bool {
    entry.status == AccessStatus::Pending && entry.presence == Presence::Connected
}

/// `alice (disabled): 3 proven, 1 pending`
fn headline(report: &AccessReport) -> String {
    let state = report.state.map_or("not on record", |state| state.name());
    let all = [
        AccessStatus::Proven,
        AccessStatus::Unproven,
        AccessStatus::Pending,
        AccessStatus::Failed,
        AccessStatus::Shared,
        AccessStatus::Open,
    ];
    let words = all.into_iter().filter_map(|status| {
        let many = report.accounts.iter().filter(|entry| entry.status == status).count();
        (many > 0).then(|| format!("{many} {}", status.name()))
    });
    let words: Vec<String> = words.collect();
    let words = if words.is_empty() { "no account anywhere".to_owned() } else { words.join(", ") };
    format!("{} ({state}): {words}", report.user)
}

fn table(entries: &[AccessEntry], now: i64) -> Table {
    let mut table = Table::new(&["SERVER", "LOGIN", "STATUS", "SIGNED", "UNTIL", "WHY"]);
    for entry in entries {
        let tone = match entry.status {
            AccessStatus::Proven => Tone::Good,
            AccessStatus::Failed => Tone::Bad,
            AccessStatus::Pending | AccessStatus::Unproven => Tone::Warn,
            AccessStatus::Shared | AccessStatus::Open => Tone::Plain,
        };
        let signed = entry.receipt.as_ref().filter(|_| entry.status == AccessStatus::Proven);
        table.row([
            entry.server.as_str().into(),
            entry.login.as_str().into(),
            Cell::new(entry.status.name(), tone),
            signed.map(|receipt| format!("{} UTC", utc(receipt.at()))).unwrap_or_default().into(),
            until(entry).into(),
            why(entry, now).into(),
        ]);
    }
    table
}

/// When access that has not ended for sure ends at the latest.
fn until(entry: &AccessEntry) -> String {
    match (entry.status, entry.lasts_until) {
        (AccessStatus::Pending | AccessStatus::Failed, Some(until)) => {
            format!("{} UTC", utc(until))
        }
        (AccessStatus::Pending | AccessStatus::Failed, None) => "the server is reached".to_owned(),
        _ => String::new(),
    }
}

fn why(entry: &AccessEntry, now: i64) -> String {
    let away = match (entry.status, entry.presence, entry.last_seen) {
        (AccessStatus::Pending, Presence::Offline, Some(seen)) => {
            Some(format!("offline since {}", ago(seen, now)))
        }
        (AccessStatus::Pending, Presence::NeverSeen, _) => Some("never seen".to_owned()),
        _ => None,
    };
    away.or_else(|| entry.why.clone()).unwrap_or_default()
}

impl Verify {
    /// Looks at every byte of the file.
    ///
    /// # Errors
    /// [`Failure::Read`], [`Failure::Output`].
    pub fn run(self, format: Format, terminal: &mut Terminal) -> Result<Ending, Failure> {
        let read = fs::read(&self.file);
        let file = read.map_err(|source| Failure::Read { path: self.file.clone(), source })?;
        let verified = AccessReport::verify(&file, self.key.as_deref());
        match (format, &verified) {
            (Format::Json, Ok(report)) => terminal.json(&json!({
                "verdict": "intact", "user": report.user, "at": report.at,
                "signed_by": report.signed_by.map(|key| key.fingerprint()),
            }))?,
            (Format::Json, Err(faults)) => {
                let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                terminal.json(&json!({ "verdict": "broken", "faults": faults }))?;
            }
            (Format::Table, Ok(report)) => terminal.print(&intact(report))?,
            (Format::Table, Err(faults)) => {
                for fault in faults {
                    terminal.print(&format!("broken: {fault}\n"))?;
                }
            }
        }
        if verified.is_ok() && self.key.is_none() {
            terminal.note("whoever can write the file could have signed it anew: compare the key, or give --key");
        }
        Ok(if verified.is_ok() { Ending::AllDone } else { Ending::SomeFailed })
    }
}

fn intact(report: &AccessReport) -> String {
    let key = report.signed_by.map(|key| key.fingerprint()).unwrap_or_default();
    format!("intact: {}; of {} UTC, signed by {key}\n", headline(report), utc(report.at))
}
