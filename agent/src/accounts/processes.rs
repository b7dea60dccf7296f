//! Finds and ends the processes of one account, each by its pidfd, so that a process id that is
//! used again hits nobody else.
//!
//! This file must not know why they have to end.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use nix::unistd::Uid;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::AccountsError;
use super::databases::look_up;
use crate::wait::wait_ready;

/// How long processes may take to end themselves.
const TERM_LIMIT: Duration = Duration::from_secs(2);
/// How long the kernel may take to end them.
const KILL_LIMIT: Duration = Duration::from_secs(3);

/// Ends every process whose real user id is `uid`: asks first, then kills. What starts new
/// processes meanwhile is killed with them, round after round.
pub(super) fn end_all(uid: Uid) -> Result<(), AccountsError> {
    let deadline = Instant::now() + TERM_LIMIT;
    let asked = find_all(uid)?;
    signal(&asked, Signal::TERM);
    wait_for_all(&asked, deadline)?;
    drop(asked);
    let deadline = Instant::now() + KILL_LIMIT;
    loop {
        let running = find_all(uid)?;
        if running.is_empty() {
            return Ok(());
        }
        signal(&running, Signal::KILL);
        wait_for_all(&running, deadline)?;
        if Instant::now() >= deadline {
            let (count, seconds) = (running.len(), (TERM_LIMIT + KILL_LIMIT).as_secs());
            return Err(AccountsError::StillRunning { count, seconds });
        }
    }
}

fn find_all(uid: Uid) -> Result<Vec<OwnedFd>, AccountsError> {
    let entries = std::fs::read_dir("/proc").map_err(|error| look_up("/proc", &error))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| look_up("/proc", &error))?;
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(pid) = pid.and_then(Pid::from_raw)
            && let Some(process) = open_if_of(pid, uid)?
        {
            found.push(process);
        }
    }
    Ok(found)
}

/// Opens a process, then looks whose it is: in this order, an id used again in between belongs
/// to a process that our handle does not reach.
fn open_if_of(pid: Pid, uid: Uid) -> Result<Option<OwnedFd>, AccountsError> {
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        // Gone already, or a thread and not a process.
        Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
        Err(errno) => return Err(look_up("a process", &errno.into())),
    };
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()));
    Ok(status.is_ok_and(|status| is_running_as(&status, uid)).then_some(process))
}

/// Reads proc(5) `status`: not a zombie, and the first id of `Uid:` (the real one) matches.
fn is_running_as(status: &str, uid: Uid) -> bool {
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.split_whitespace().next())
    };
    let is_dead = matches!(field("State:"), Some("Z" | "X"));
    !is_dead && field("Uid:").and_then(|id| id.parse().ok()) == Some(uid.as_raw())
}

fn signal(processes: &[OwnedFd], signal: Signal) {
    for process in processes {
        // The only failure left is that it has ended: the next search tells.
        let _ = pidfd_send_signal(process, signal);
    }
}

/// Returns when all have ended or the deadline is over.
fn wait_for_all(processes: &[OwnedFd], deadline: Instant) -> Result<(), AccountsError> {
    for process in processes {
        let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        let ended = wait_ready(&mut fds, Some(deadline))
            .map_err(|errno| AccountsError::LookUp { what: "a process".to_owned(), errno })?;
        if !ended {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_real_id_of_living_processes_only() {
        let status = |state, ids| format!("Name:\tx Uid:\nState:\t{state}\nPid:\t7\nUid:\t{ids}\n");
        for (text, expected) in [
            (status("S (sleeping)", "1000\t0\t0\t0"), true),
            (status("R (running)", "0\t1000\t1000\t1000"), false),
            (status("Z (zombie)", "1000\t1000\t1000\t1000"), false),
            (status("S (sleeping)", "10000\t1\t1\t1"), false),
            (String::new(), false),
        ] {
            assert_eq!(is_running_as(&text, Uid::from_raw(1000)), expected, "{text:?}");
        }
    }
}
