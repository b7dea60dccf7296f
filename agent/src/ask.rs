//! Runs a program of the system to its end: fixed folders, argument lists, an empty environment, a
//! time limit, and both of its outputs. Never a shell.
//!
//! This file must not know which program is asked what.

use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};

use crate::wait::wait_ready;

/// Where programs are looked for, in this order.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// The whole search path that a program itself gets.
const SEARCH_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// How much of each output is kept, in bytes.
const LONGEST: usize = 256 * 1024;
/// How often a program is looked after that the kernel gives no handle of.
const BEAT: Duration = Duration::from_millis(20);
/// How long the kernel may take to end a killed program.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// What a program that ended said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// Its standard output, at most 256 KiB.
    pub stdout: String,
    /// Its standard error, at most 256 KiB.
    pub stderr: String,
}

/// What a program has said, at most 256 KiB each.
#[derive(Debug, Default)]
pub struct Said {
    /// On its standard output.
    pub stdout: Vec<u8>,
    /// On its standard error.
    pub stderr: Vec<u8>,
}

impl Answer {
    /// Whether it ended with 0.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.code == 0
    }

    /// The last line that it complained with, or its exit code: for people.
    #[must_use]
    pub fn complaint(&self) -> String {
        let line = self.stderr.lines().rev().map(str::trim).find(|line| !line.is_empty());
        let printable =
            |line: &str| -> String { line.chars().filter(|c| !c.is_control()).collect() };
        line.map_or_else(|| format!("exit code {}", self.code), printable)
    }
}

/// The path of a program of the system.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(program)).find(|path| path.is_file())
}

/// Runs a program to its end, and takes down what it says.
///
/// # Errors
/// As the system says when it cannot be started; [`ErrorKind::TimedOut`] when it had to be killed.
pub fn ask(program: &Path, arguments: &[&str], limit: Duration) -> io::Result<Answer> {
    let (ended, said) = run(program, arguments, limit);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let code = ended?.code().unwrap_or(-1);
    Ok(Answer { code, stdout: text(said.stdout), stderr: text(said.stderr) })
}

/// The same, with what it said until it had to be killed, too. It is waited for by its pidfd; its
/// outputs are read along the way, so that it cannot block on a full pipe.
pub fn run(program: &Path, arguments: &[&str], limit: Duration) -> (io::Result<ExitStatus>, Said) {
    match begin(program, arguments, limit) {
        Ok(begun) => begun.finish(),
        Err(error) => (Err(error), Said::default()),
    }
}

/// A program that runs.
#[derive(Debug)]
#[must_use = "it runs on, and nobody waits for it"]
pub struct Begun {
    child: Child,
    until: Instant,
}

/// Starts a program; it is waited for by [`Begun::finish`]. Until then it gets no further than a full pipe lets it.
///
/// # Errors
/// As the system says.
pub fn begin(program: &Path, arguments: &[&str], limit: Duration) -> io::Result<Begun> {
    let until = Instant::now() + limit;
    start(program, arguments).map(|child| Begun { child, until })
}

impl Begun {
    /// Waits for its end, as [`run`] does.
    pub fn finish(mut self) -> (io::Result<ExitStatus>, Said) {
        let mut said = Said::default();
        let watched = watch(&mut self.child, &mut said, self.until);
        (watched.inspect_err(|_| end(&mut self.child)), said)
    }
}

fn start(program: &Path, arguments: &[&str]) -> io::Result<Child> {
    Command::new(program)
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", SEARCH_PATH)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Its own process group: a Ctrl-C meant for us must not cut an account in half, and
        // whatever it starts is ended with it.
        .process_group(0)
        .spawn()
}

fn watch(child: &mut Child, said: &mut Said, until: Instant) -> io::Result<ExitStatus> {
    let missing = || io::Error::other("it has no output");
    let mut out = child.stdout.take().ok_or_else(missing)?;
    let mut err = child.stderr.take().ok_or_else(missing)?;
    for pipe in [out.as_fd(), err.as_fd()] {
        fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    let pidfd = pidfd_open(rustix::process::Pid::from_child(child), PidfdFlags::empty());
    // To kill it for want of a handle would cut in half what it is doing.
    let pidfd = pidfd.inspect_err(|errno| tracing::warn!(%errno, "a program is looked after")).ok();
    let (mut out_open, mut err_open) = (true, true);
    loop {
        let mut fds = Vec::with_capacity(3);
        if let Some(pidfd) = &pidfd {
            fds.push(PollFd::new(pidfd.as_fd(), PollFlags::POLLIN));
        }
        if out_open {
            fds.push(PollFd::new(out.as_fd(), PollFlags::POLLIN));
        }
        if err_open {
            fds.push(PollFd::new(err.as_fd(), PollFlags::POLLIN));
        }
        let look_again = if pidfd.is_some() { until } else { until.min(Instant::now() + BEAT) };
        if !wait_ready(&mut fds, Some(look_again))? && Instant::now() >= until {
            return Err(ErrorKind::TimedOut.into());
        }
        // Before what it said is taken: all of it is there then.
        let ended = child.try_wait()?;
        out_open = out_open && drain(&mut out, &mut said.stdout);
        err_open = err_open && drain(&mut err, &mut said.stderr);
        if let Some(ended) = ended {
            return Ok(ended);
        }
    }
}

/// Takes what a pipe holds; false when nothing more will come.
fn drain(pipe: &mut impl Read, kept: &mut Vec<u8>) -> bool {
    let mut piece = [0; 4096];
    loop {
        match pipe.read(&mut piece) {
            Ok(0) => return false,
            Ok(len) => {
                let room = LONGEST.saturating_sub(kept.len());
                kept.extend(piece.iter().take(len.min(room)));
                if room == 0 {
                    return true;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// Kills the program with all it started, and reaps it if the kernel lets go of it in time.
fn end(child: &mut Child) {
    if let Ok(group) = i32::try_from(child.id()) {
        // It may have ended by itself just now: then there is nobody to kill.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let pidfd = pidfd_open(rustix::process::Pid::from_child(child), PidfdFlags::empty());
    let gone = pidfd.is_ok_and(|pidfd| {
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        wait_ready(&mut fds, Some(Instant::now() + KILL_LIMIT)).unwrap_or(false)
    });
    if gone {
        let _ = child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, milliseconds: u64) -> io::Result<Answer> {
        ask(Path::new("/bin/sh"), &["-c", script], Duration::from_millis(milliseconds))
    }

    #[test]
    fn both_outputs_and_the_code_are_told() {
        let answer = sh("echo out; echo one >&2; printf 'two\\007\\n\\n' >&2; exit 3", 10_000);
        let answer = answer.unwrap();
        assert_eq!((answer.code, answer.stdout.as_str()), (3, "out\n"));
        assert_eq!(answer.complaint(), "two");
        assert_eq!(sh("exit 4", 10_000).unwrap().complaint(), "exit code 4");
        assert!(sh("exit 0", 10_000).unwrap().is_good());
    }

    #[test]
    fn what_was_begun_runs_while_others_work() {
        let (sh, limit) = (Path::new("/bin/sh"), Duration::from_secs(10));
        let begun = begin(sh, &["-c", "echo said; exit 5"], limit).unwrap();
        assert_eq!(self::sh("exit 4", 10_000).unwrap().code, 4, "another one meanwhile");
        let (ended, said) = begun.finish();
        assert_eq!((ended.unwrap().code(), said.stdout.as_slice()), (Some(5), &b"said\n"[..]));
        let late = begin(sh, &["-c", "exit 6"], Duration::ZERO).unwrap();
        // What ended in time is no failure, however late somebody asks.
        let pid = rustix::process::Pid::from_child(&late.child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        wait_ready(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], None).unwrap();
        assert_eq!(late.finish().0.unwrap().code(), Some(6));
    }

    #[test]
    fn a_flood_is_cut_and_does_not_block() {
        let answer = sh("yes 0123456789012345678901234567890 | head -c 1000000", 30_000).unwrap();
        assert_eq!((answer.code, answer.stdout.len()), (0, LONGEST));
    }

    #[test]
    fn what_never_ends_is_killed_with_its_children() {
        let begun = Instant::now();
        let error = sh("sleep 1000 & sleep 1000", 100).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(8));
        assert!(ask(Path::new("/nonexistent/tool"), &[], KILL_LIMIT).is_err());
    }
}
