//! Where the log goes: to journald when systemd started us, else to stderr.
//!
//! This file must not know what is logged. What is never logged anywhere: API keys, tokens,
//! private keys.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Level {
    /// What failed for good.
    Error,
    /// What somebody should look at.
    Warn,
    /// Starts, stops, sessions, every action with its answer.
    #[default]
    Info,
    /// Single steps.
    Debug,
    /// Everything.
    Trace,
}

/// Starts logging for this process. Later calls change nothing.
pub fn start(level: Level) {
    let registry = tracing_subscriber::registry().with(filter(level));
    let started = match journal() {
        Some(journal) => registry.with(journal).try_init(),
        None => {
            let ansi = std::io::stderr().is_terminal();
            let stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
            registry.with(stderr.with_ansi(ansi).with_target(false)).try_init()
        }
    };
    // Only tests start twice; the first start stays.
    drop(started);
}

/// Our own crates at the level asked for, the libraries below them at `warn`: their details show
/// packets.
fn filter(level: Level) -> Targets {
    let ours = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    Targets::new()
        .with_default(ours.min(LevelFilter::WARN))
        .with_target("bastio_backend", ours)
        .with_target("bastio_transport", ours)
        .with_target("bastio_protocol", ours)
}

/// journald, when our stderr is connected to it (systemd says so) and it answers.
fn journal() -> Option<tracing_journald::Layer> {
    std::env::var_os("JOURNAL_STREAM")?;
    tracing_journald::layer().ok().map(|layer| layer.with_field_prefix(None))
}

#[cfg(test)]
mod tests {
    use tracing::Level as Of;

    use super::*;

    #[test]
    fn libraries_never_log_more_than_warnings() {
        for (level, ours, theirs) in [
            (Level::Error, Of::ERROR, Of::ERROR),
            (Level::Info, Of::INFO, Of::WARN),
            (Level::Trace, Of::TRACE, Of::WARN),
        ] {
            let filter = filter(level);
            assert!(filter.would_enable("bastio_backend::ssh", &ours));
            assert!(filter.would_enable("russh", &theirs));
            assert!(!filter.would_enable("russh", &Of::INFO));
        }
        assert!(!filter(Level::Info).would_enable("bastio_backend::ssh", &Of::DEBUG));
    }
}
