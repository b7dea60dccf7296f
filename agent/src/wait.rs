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

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::PollFlags;
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn says_whether_something_came_or_the_time_is_over() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        assert_eq!(wait_ready(&mut fds, Some(Instant::now())), Ok(false));
        let begun = Instant::now();
        let limit = Duration::from_millis(30);
        assert_eq!(wait_ready(&mut fds, Some(begun + limit)), Ok(false));
        assert!(begun.elapsed() >= limit);
        writer.write_all(b"x").unwrap();
        assert_eq!(wait_ready(&mut fds, None), Ok(true));
        assert_eq!(wait_ready(&mut fds, Some(Instant::now())), Ok(true));
    }

    #[test]
    fn times_are_rounded_up_and_cut_into_what_poll_takes() {
        for (left, expected) in [
            (None, PollTimeout::NONE),
            (Some(Duration::ZERO), PollTimeout::ZERO),
            (Some(Duration::from_nanos(1)), PollTimeout::from(1_u8)),
            (Some(Duration::from_millis(7)), PollTimeout::from(7_u8)),
            (Some(Duration::from_secs(100_000)), PollTimeout::from(u16::MAX)),
        ] {
            assert_eq!(timeout(left), expected, "{left:?}");
        }
    }
}
