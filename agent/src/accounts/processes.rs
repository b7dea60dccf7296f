//! Finds and ends the processes of one account, each by its pidfd, so that a process id that is
//! used again hits nobody else.
//!
//! This file must not know why they have to end.

use std::ops::Range;
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
/// How many processes are waited for at a time: each costs a file descriptor, and an account may
/// have more processes than we may have of those.
const WATCHED: usize = 64;

/// The user ids that processes of one account may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UserIds {
    /// Its own.
    pub(super) uid: Uid,
    /// Those that it may use in user namespaces (subuid(5)).
    pub(super) subordinate: Vec<Range<u32>>,
}

/// Ends every process with an id of the account's: asks first, then kills. What starts new
/// processes meanwhile is killed with them, round after round. How many were asked.
pub(super) fn end_all(ids: &UserIds) -> Result<usize, AccountsError> {
    let deadline = Instant::now() + TERM_LIMIT;
    let asked = signal_all(ids, Some(Signal::TERM))?;
    let count = asked.count;
    wait_for_all(&asked.watched, deadline)?;
    drop(asked);
    let deadline = Instant::now() + KILL_LIMIT;
    loop {
        let killed = signal_all(ids, Some(Signal::KILL))?;
        if killed.count == 0 {
            return Ok(count);
        }
        wait_for_all(&killed.watched, deadline)?;
        if Instant::now() >= deadline {
            let (count, seconds) = (killed.count, (TERM_LIMIT + KILL_LIMIT).as_secs());
            return Err(AccountsError::StillRunning { count, seconds });
        }
    }
}

/// How many processes there are.
pub(super) fn count(ids: &UserIds) -> Result<usize, AccountsError> {
    Ok(signal_all(ids, None)?.count)
}

/// The processes of one round.
#[derive(Default)]
struct Signalled {
    count: usize,
    /// The first of them.
    watched: Vec<OwnedFd>,
}

/// Signals each process as soon as it is found; without a signal it only looks.
fn signal_all(ids: &UserIds, signal: Option<Signal>) -> Result<Signalled, AccountsError> {
    let entries = std::fs::read_dir("/proc").map_err(|error| look_up("/proc", &error))?;
    let mut signalled = Signalled::default();
    for entry in entries {
        let entry = entry.map_err(|error| look_up("/proc", &error))?;
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(pid) = pid.and_then(Pid::from_raw)
            && let Some(process) = open_if_of(pid, ids)?
        {
            if let Some(signal) = signal {
                // The only failure left is that it has ended: the next search tells.
                let _ = pidfd_send_signal(&process, signal);
            }
            signalled.count += 1;
            if signalled.watched.len() < WATCHED {
                signalled.watched.push(process);
            }
        }
    }
    Ok(signalled)
}

/// Opens a process, then looks whose it is: in this order, an id used again in between belongs
/// to a process that our handle does not reach.
fn open_if_of(pid: Pid, ids: &UserIds) -> Result<Option<OwnedFd>, AccountsError> {
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        // Gone already, or a thread and not a process.
        Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
        Err(errno) => return Err(look_up("a process", &errno.into())),
    };
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()));
    Ok(status.is_ok_and(|status| is_running_as(&status, ids)).then_some(process))
}

/// Reads proc(5) `status`: not a zombie, and one of the ids of `Uid:` (real, effective, saved) is
/// the account's. A process of root's that took the account's rights for a moment is not.
fn is_running_as(status: &str, ids: &UserIds) -> bool {
    let fields = |name: &str| {
        let rest = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        rest.split_whitespace()
    };
    if matches!(fields("State:").next(), Some("Z" | "X")) {
        return false;
    }
    let found: Vec<u32> = fields("Uid:").take(3).filter_map(|id| id.parse().ok()).collect();
    let is_roots = found.first() == Some(&0);
    !is_roots && found.iter().any(|id| ids.include(*id))
}

impl UserIds {
    fn include(&self, id: u32) -> bool {
        id == self.uid.as_raw() || self.subordinate.iter().any(|ids| ids.contains(&id))
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
    fn matches_ids_of_the_account_in_living_processes_only() {
        let subordinate = std::iter::once(100_000..165_536).collect();
        let ids = UserIds { uid: Uid::from_raw(1000), subordinate };
        let status = |state, ids| format!("Name:\tx Uid:\nState:\t{state}\nPid:\t7\nUid:\t{ids}\n");
        for (text, expected) in [
            (status("S (sleeping)", "1000\t0\t0\t0"), true),
            (status("S (sleeping)", "1001\t1000\t1000\t1000"), true),
            (status("S (sleeping)", "1001\t1001\t1000\t1001"), true),
            (status("S (sleeping)", "100000\t100000\t100000\t100000"), true),
            (status("S (sleeping)", "165536\t165536\t165536\t165536"), false),
            (status("R (running)", "0\t1000\t1000\t1000"), false),
            (status("Z (zombie)", "1000\t1000\t1000\t1000"), false),
            (status("S (sleeping)", "10000\t1\t1\t1"), false),
            (String::new(), false),
        ] {
            assert_eq!(is_running_as(&text, &ids), expected, "{text:?}");
        }
    }
}
