//! Where the log goes: to journald when it is there, to stderr otherwise. This file must not know
//! what is logged; secrets never are.

use std::io::{IsTerminal, stderr};
use std::path::Path;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

const JOURNAL: &str = "/run/systemd/journal/socket";
/// Libraries that log much about little: warnings only.
const QUIET: [&str; 6] = ["russh", "ureq", "ureq_proto", "rustls", "tokio", "mio"];

/// Starts logging. Once in a process; a second call has no effect.
pub fn init(level: LevelFilter) {
    let quiet = level.min(LevelFilter::WARN);
    let filter =
        Targets::new().with_default(level).with_targets(QUIET.map(|library| (library, quiet)));
    let registry = tracing_subscriber::registry().with(filter);
    let journal = if journal_wanted() { tracing_journald::layer().ok() } else { None };
    let started = match journal {
        Some(layer) => {
            registry.with(layer.with_syslog_identifier("bastio-agent".into())).try_init()
        }
        None => {
            let lines = tracing_subscriber::fmt::layer()
                .with_writer(stderr)
                .with_target(false)
                .with_ansi(false);
            registry.with(lines).try_init()
        }
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
}

/// A person at a terminal reads stderr; a service writes to the journal.
fn journal_wanted() -> bool {
    if stderr().is_terminal() {
        return false;
    }
    std::env::var_os("JOURNAL_STREAM").is_some() || Path::new(JOURNAL).exists()
}
