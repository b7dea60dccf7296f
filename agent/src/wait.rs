//! Waiting for file handles until a point in time, by events only.
//!
//! This file must not know what is waited for.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollTimeout, poll};

/// Waits until at least one handle is ready (true) or the deadline is over (false). Without a
/// deadline it waits as long as it takes.
///
/// # Errors
/// The system's answer; never `EINTR`.
pub fn wait_ready(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> Result<bool, Errno> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match poll(fds, timeout(left)) {
            Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno),
        }
    }
}

/// Rounded up to whole milliseconds, so that the last one is not spent spinning.
fn timeout(left: Option<Duration>) -> PollTimeout {
    let Some(left) = left else {
        return PollTimeout::NONE;
    };
    let up = left.as_nanos().div_ceil(1_000_000);
    PollTimeout::from(u16::try_from(up).unwrap_or(u16::MAX))
}
