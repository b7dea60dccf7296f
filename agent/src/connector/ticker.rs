//! A steady tick by the kernel's own timer (timerfd_create(2)). The runtime's timers wake the
//! process two or three times for each long wait, as they sort themselves anew; an idle agent is
//! to wake up once in [`EVERY`], for the keepalive and the watchdog together. This file must not
//! know what a tick is good for.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Time between two ticks.
pub(super) const EVERY: Duration = Duration::from_secs(15);

/// The running timer.
#[derive(Debug)]
pub(super) struct Ticker(AsyncFd<OwnedFd>);

impl Ticker {
    /// Starts the timer; the first tick is one period from now.
    pub(super) fn start(every: Duration) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let period = Timespec::try_from(every).map_err(io::Error::other)?;
        let steady = Itimerspec { it_interval: period, it_value: period };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &steady)?;
        // Deprecated because a type could lie about its descriptor; OwnedFd does not, and the
        // replacement is unsafe.
        #[allow(deprecated)]
        Ok(Self(AsyncFd::new(timer)?))
    }

    /// Waits for the next tick. Ticks that nobody waited for count as one. Cancel safe.
    pub(super) async fn tick(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut count = [0; 8];
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut count)?));
            // `Err` here means: not ready after all.
            if let Ok(read) = read {
                return read.map(|_| ());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Ticker;

    #[tokio::test]
    async fn ticks_steadily() {
        let period = Duration::from_millis(20);
        let begun = Instant::now();
        let mut ticker = Ticker::start(period).unwrap();
        for count in 1..=3 {
            ticker.tick().await.unwrap();
            assert!(begun.elapsed() >= period * count);
        }
    }
}
