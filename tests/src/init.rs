//! Process 1 of a place: does nothing but hold its namespaces, and ends with the process that made it.
//!
//! It is `cat`, reading a pipe whose other end only the maker holds: when the maker ends, however it ends, the kernel
//! closes that pipe, `cat` ends, and with process 1 the kernel kills everything else in the place. It ignores SIGCHLD,
//! so orphans that it inherits are reaped by the kernel.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::LabError;
use crate::command::SEARCH_PATH;

/// How long a place lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// As long as the process that made it, and the guard there.
    Maker,
    /// Until its process 1 is killed, also when the maker has ended.
    UntilKilled,
}

/// Process 1 of a place, with its parent `unshare` (if we started it), which dies with it and it with which.
#[derive(Debug)]
pub(crate) struct Init {
    unshare: Option<Child>,
    pid: Pid,
    lifetime: Lifetime,
    _hold: Option<io::PipeWriter>,
}

/// A process 1 that was started and may not be ready yet.
pub(crate) struct Starting {
    unshare: Child,
    lifetime: Lifetime,
    hold: Option<io::PipeWriter>,
}

impl Starting {
    /// Starts process 1 from a thread that has entered or made all the other namespaces of the place.
    pub(crate) fn spawn(lifetime: Lifetime) -> io::Result<Self> {
        let (reader, mut writer) = io::pipe()?;
        writer.write_all(b"\n")?;
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
        command.args(["env", "--ignore-signal=CHLD", "cat"]);
        command.env_clear().env("PATH", SEARCH_PATH);
        command.stdin(reader).stdout(Stdio::piped()).process_group(0);
        let hold = match lifetime {
            Lifetime::Maker => {
                command.stderr(Stdio::null());
                Some(writer)
            }
            Lifetime::UntilKilled => {
                // Holding the other end of its own input, it never sees the end of it.
                command.stderr(writer);
                None
            }
        };
        Ok(Self { unshare: command.spawn()?, lifetime, hold })
    }

    /// Waits until process 1 runs: it sends back the line that lies in its input.
    pub(crate) fn ready(mut self) -> Result<Init, LabError> {
        let doing = "start process 1 of an isolated place";
        let mut line = [0];
        let answer = self.unshare.stdout.take().map(|mut stdout| stdout.read_exact(&mut line));
        match answer {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(LabError::doing(doing)(error)),
            None => return Err(LabError::doing(doing)(io::Error::other("it has no output"))),
        }
        let pid = only_child(self.unshare.id()).map_err(LabError::doing(doing))?;
        let unshare = Some(self.unshare);
        Ok(Init { unshare, pid, lifetime: self.lifetime, _hold: self.hold })
    }
}

impl Init {
    /// A process 1 that somebody else has started and will end.
    pub(crate) fn of_others(pid: Pid) -> Self {
        Self { unshare: None, pid, lifetime: Lifetime::UntilKilled, _hold: None }
    }

    /// Process id as this process sees it.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// How long the place lives.
    pub(crate) fn lifetime(&self) -> Lifetime {
        self.lifetime
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::Maker {
            // Fails only when it is gone already. The parent is waited for: then everything in the place has ended.
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = self.unshare.as_mut().map(Child::wait);
        }
    }
}

pub(crate) fn only_child(parent: u32) -> io::Result<Pid> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    let first = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
    first.map(Pid::from_raw).ok_or_else(|| io::Error::other("it ended at once"))
}
