//! `status`: what the status file says, for people or programs.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde::Serialize;

use super::{complain, say};
use crate::cli::{Output, StatusArgs};
use crate::config::Settings;
use crate::pipe::LinkState;
use crate::status::StatusReport;

/// What is printed for programs.
#[derive(Serialize)]
struct Shown<'a> {
    running: bool,
    connected: bool,
    #[serde(flatten)]
    report: Option<&'a StatusReport>,
}

pub(super) fn status(args: &StatusArgs, settings: &Settings) -> ExitCode {
    let read = StatusReport::read(&settings.status_file);
    let report = read.as_ref().ok().filter(|report| lives(report.pid));
    let connected =
        report.is_some_and(|report| matches!(report.link, Some(LinkState::Connected { .. })));
    match (args.output, report) {
        (Output::Json, report) => {
            let shown = Shown { running: report.is_some(), connected, report };
            say(&serde_json::to_string(&shown).unwrap_or_default());
        }
        (Output::Table, Some(report)) => say(&table(report, now())),
        (Output::Table, None) => {
            let path = settings.status_file.display();
            let why = match read {
                Ok(_) => "its process is gone".to_owned(),
                Err(error) => format!("{path}: {error}"),
            };
            complain(&format!(
                "the agent is not running ({why})\nhint: bastio-agent start, or systemctl start bastio-agent"
            ));
        }
    }
    ExitCode::from(u8::from(!connected))
}

fn table(report: &StatusReport, now: u64) -> String {
    let ago = |then: u64| format!("{} ago", duration(now.saturating_sub(then)));
    let link = match &report.link {
        Some(LinkState::Connected { backend, since }) => {
            let backend = plain(backend);
            format!("connected to {backend} for {}", duration(now.saturating_sub(*since)))
        }
        Some(LinkState::Disconnected { reason, .. }) => {
            let since =
                report.link_since.map_or_else(String::new, |since| format!(" ({})", ago(since)));
            format!("not connected: {}{since}", plain(reason))
        }
        None => "not connected yet".to_owned(),
    };
    let counts = report.actions;
    let last = report.last_action.map_or_else(String::new, |then| format!(", last {}", ago(then)));
    let rows = [
        ("backend", link),
        (
            "actions",
            format!(
                "{} done, {} unchanged, {} failed{last}",
                counts.done, counts.unchanged, counts.failed
            ),
        ),
        (
            "agent",
            format!("{}, process {}, started {}", report.version, report.pid, ago(report.started)),
        ),
    ];
    let lines: Vec<String> = rows.iter().map(|(name, text)| format!("{name:<9}{text}")).collect();
    lines.join("\n")
}

/// Foreign text, fit for a terminal: what a connector says may come from the network.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A duration in the two largest units that matter.
fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Whether a process with this id is there (it may be another's).
fn lives(pid: u32) -> bool {
    let Ok(pid) = i32::try_from(pid) else { return false };
    !matches!(kill(Pid::from_raw(pid), None), Err(nix::Error::ESRCH))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::{duration, table};
    use crate::pipe::LinkState;
    use crate::status::{Counts, StatusReport};

    fn report(link: Option<LinkState>) -> StatusReport {
        StatusReport {
            pid: 7,
            version: "1.2.3".to_owned(),
            started: 1000,
            link,
            link_since: Some(1090),
            actions: Counts { done: 3, unchanged: 2, failed: 1 },
            last_action: Some(1095),
        }
    }

    #[test]
    fn tables_say_how_it_is() {
        let connected = LinkState::Connected { backend: "b:2357".to_owned(), since: 1090 };
        assert_eq!(
            table(&report(Some(connected)), 1100),
            "backend  connected to b:2357 for 10 s\n\
             actions  3 done, 2 unchanged, 1 failed, last 5 s ago\n\
             agent    1.2.3, process 7, started 1 min 40 s ago"
        );
        let reason = "b:2357 cannot be reached".to_owned();
        let text = table(&report(Some(LinkState::Disconnected { reason, retry_in: 5 })), 1100);
        assert!(text.contains("not connected: b:2357 cannot be reached (10 s ago)"), "{text}");
        let reason = "\u{1b}[2Jgone\nagent    fine".to_owned();
        let text = table(&report(Some(LinkState::Disconnected { reason, retry_in: 5 })), 1100);
        assert!(text.contains("not connected:  [2Jgone agent    fine (10 s ago)"), "{text}");
        assert!(table(&report(None), 1100).contains("not connected yet"));
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in
            [(0, "0 s"), (59, "59 s"), (60, "1 min 0 s"), (3661, "1 h 1 min"), (90_000, "1 d 1 h")]
        {
            assert_eq!(duration(seconds), text);
        }
    }
}
