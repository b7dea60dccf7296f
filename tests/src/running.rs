//! A program that runs in the background, owned: when the guard is dropped, the program is ended and reaped.

use std::os::fd::AsFd;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, ExitStatus};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::place::pidfd;
use crate::{LabError, Place};

/// A running program. Dropping it kills it (SIGKILL) and waits for its end.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    left_alone: bool,
    /// Keeps the place: its end waits for this program to be reaped, so it must not come first.
    _place: Place,
}

impl Running {
    pub(crate) fn new(name: String, child: Child, place: Place) -> Self {
        Self { name, child, left_alone: false, _place: place }
    }

    /// The program's process id as this process sees it (inside its place it has another one).
    #[must_use]
    pub fn pid(&self) -> Pid {
        // Process ids are at most 2^22 on Linux, so the conversion can't be out of range.
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// The command as a person would type it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes the pipe to its standard input, if it was asked for.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Takes the pipe from its standard output, if it was asked for.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Takes the pipe from its standard error, if it was asked for.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// [`LabError::System`] when it has been reaped already.
    pub fn signal(&self, signal: Signal) -> Result<(), LabError> {
        kill(self.pid(), signal).map_err(LabError::doing(format!("send {signal} to {}", self.name)))
    }

    /// Its exit status, if it has ended.
    ///
    /// # Errors
    /// [`LabError::System`] when it can't be waited for.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, LabError> {
        self.child.try_wait().map_err(LabError::doing(format!("look after {}", self.name)))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`LabError::TimedOut`] when it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus, LabError> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        wait_for_end(self.pid(), limit, &self.name)?;
        self.child.wait().map_err(LabError::doing(format!("wait for {}", self.name)))
    }

    /// Kills it (SIGKILL), as a crash would, and waits for its end.
    ///
    /// # Errors
    /// [`LabError::System`] when that fails.
    pub fn kill(&mut self) -> Result<ExitStatus, LabError> {
        self.child.kill().map_err(LabError::doing(format!("kill {}", self.name)))?;
        self.child.wait().map_err(LabError::doing(format!("wait for {}", self.name)))
    }

    /// Asks it to stop (SIGTERM) and waits for its end.
    ///
    /// # Errors
    /// [`LabError::TimedOut`] when it still runs after `limit`.
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus, LabError> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        self.wait(limit)
    }

    /// Lets it run on after this guard and this process are gone.
    pub fn leave_running(mut self) {
        self.left_alone = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.left_alone {
            // Both fail only when it has ended and been reaped, which is what is wanted.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Waits until a process (a child or not) has ended, without reaping it.
pub(crate) fn wait_for_end(pid: Pid, limit: Duration, name: &str) -> Result<(), LabError> {
    let handle = pidfd(pid)?;
    let mut watched = [PollFd::from_borrowed_fd(handle.as_fd(), PollFlags::IN)];
    let timeout =
        Timespec::try_from(limit).map_err(|_| LabError::TimedOut { doing: name.into(), limit })?;
    match poll(&mut watched, Some(&timeout)) {
        Ok(0) => Err(LabError::TimedOut { doing: format!("wait for the end of {name}"), limit }),
        Ok(_) => Ok(()),
        Err(errno) => Err(LabError::doing(format!("wait for the end of {name}"))(errno)),
    }
}
