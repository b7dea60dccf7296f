//! What the service manager wants to know (sd_notify(3)). Without one, all of this does nothing.
//! This file must not know when anything is true.

use std::time::Duration;

use sd_notify::NotifyState;

/// The watchdog is fed at most this often, so that an idle agent sleeps.
pub const SHORTEST_WATCHDOG: Duration = Duration::from_secs(15);

/// The service works.
pub fn ready() {
    send(NotifyState::Ready);
}

/// The service begins to end.
pub fn stopping() {
    send(NotifyState::Stopping);
}

/// The service is alive.
pub fn alive() {
    send(NotifyState::Watchdog);
}

/// How often the service manager wants to hear [`alive`]; `None` when it does not.
///
/// Half of `WatchdogSec=`, and never less than 15 s, so `WatchdogSec=` is to be 30 s or more.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| (limit / 2).max(SHORTEST_WATCHDOG))
}

fn send(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
