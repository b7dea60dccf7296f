//! What systemd is told: ready, still alive, stopping. Without systemd nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

/// Tells systemd that the backend serves.
pub fn ready() {
    tell(NotifyState::Ready);
}

/// Tells systemd that the backend is about to end.
pub fn stopping() {
    tell(NotifyState::Stopping);
}

/// Tells systemd that the backend is alive.
pub fn alive() {
    tell(NotifyState::Watchdog);
}

/// How often [`alive`] must be called: twice in the time after which systemd would act. `None`
/// when systemd does not watch.
#[must_use]
pub fn alive_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "systemd could not be told");
    }
}
