//! Runs the system's account tools: fixed folders, argument lists, an empty environment, a time
//! limit, and exit codes by name. Never a shell.
//!
//! This file must not know which tool is run when, nor with what.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use thiserror::Error;

use crate::ask::{self, Begun};

/// How long a tool may take.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// How much of a tool's stderr is kept, in bytes.
const STDERR_LIMIT: usize = 4 * 1024;
/// The tools of the system that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// useradd(8)
    Useradd,
    /// usermod(8)
    Usermod,
    /// userdel(8)
    Userdel,
    /// groupadd(8)
    Groupadd,
    /// gpasswd(1)
    Gpasswd,
    /// loginctl(1)
    Loginctl,
}

/// A tool that did not do its work.
#[derive(Debug, Error)]
#[error("{tool}: {fault}{}", text_behind(.stderr))]
pub struct ToolError {
    /// Which.
    pub tool: Tool,
    /// Why, as far as it is known.
    pub fault: ToolFault,
    /// What it said, trimmed; at most 4 KiB.
    pub stderr: String,
}

/// Why a tool did not do its work. Codes: useradd(8), usermod(8), userdel(8), groupadd(8).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ToolFault {
    /// Not in any of the system's folders.
    #[error("not found on this host; install the package passwd (shadow-utils)")]
    NotInstalled,
    /// It could not be started, watched or ended.
    #[error("cannot be run: {0}")]
    CannotRun(String),
    /// Killed because it took more than 30 s.
    #[error("did not end within 30 s and was killed; is the account database locked?")]
    TimedOut,
    /// Ended by a signal from elsewhere.
    #[error("was ended by signal {0}")]
    Signalled(i32),
    /// 1: cannot update (or lock) the password file.
    #[error("cannot update the account database; is it locked, read-only or full?")]
    CannotUpdate,
    /// 2 or 3: it does not know an option or refuses a value.
    #[error("refused its arguments")]
    Usage,
    /// 4: the id is taken.
    #[error("the id is taken")]
    IdTaken,
    /// 6: the account or group does not exist where the tool looks (`/etc/passwd`).
    #[error("does not find the account or group in the local files")]
    NotFound,
    /// 8: the account is in use.
    #[error("the account is logged in")]
    LoggedIn,
    /// 9: the name is taken.
    #[error("the name is taken")]
    NameTaken,
    /// 10: cannot update the group file.
    #[error("cannot update the group database; is it locked, read-only or full?")]
    CannotUpdateGroup,
    /// 12: the home could not be made or removed.
    #[error("cannot make or remove the home folder")]
    Home,
    /// 14: SELinux.
    #[error("cannot update the SELinux user mapping")]
    Selinux,
    /// Any other exit code.
    #[error("failed with exit code {0}")]
    Other(i32),
}

impl Tool {
    /// Runs the tool to its end.
    ///
    /// # Errors
    /// [`ToolError`] unless it ended with 0. What it says on stderr is no failure by itself.
    pub fn run(self, arguments: &[&str]) -> Result<(), ToolError> {
        self.begin(arguments)?.finish()
    }

    /// Starts the tool; [`RunningTool::finish`] waits for its end.
    ///
    /// # Errors
    /// [`ToolError`] when it cannot be started.
    pub(super) fn begin(self, arguments: &[&str]) -> Result<RunningTool, ToolError> {
        let error = |fault| ToolError { tool: self, fault, stderr: String::new() };
        let path = ask::find(self.name()).ok_or_else(|| error(ToolFault::NotInstalled))?;
        let begun = ask::begin(&path, arguments, TIME_LIMIT);
        let begun = begun.map_err(|cause| error(ToolFault::from_io(&cause)))?;
        Ok(RunningTool { tool: self, begun })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Useradd => "useradd",
            Self::Usermod => "usermod",
            Self::Userdel => "userdel",
            Self::Groupadd => "groupadd",
            Self::Gpasswd => "gpasswd",
            Self::Loginctl => "loginctl",
        }
    }
}

/// A tool at work.
#[derive(Debug)]
pub(super) struct RunningTool {
    tool: Tool,
    begun: Begun,
}

impl RunningTool {
    /// Waits for its end.
    ///
    /// # Errors
    /// As [`Tool::run`].
    pub(super) fn finish(self) -> Result<(), ToolError> {
        let Self { tool, begun } = self;
        let (ended, said) = begun.finish();
        let fault = match ended {
            Ok(status) if status.success() => return Ok(()),
            // Its codes say nothing (loginctl(1)).
            Ok(status) if tool == Tool::Loginctl => {
                ToolFault::Other(status.code().unwrap_or_default())
            }
            Ok(status) => ToolFault::from_status(status),
            Err(error) => ToolFault::from_io(&error),
        };
        Err(ToolError { tool, fault, stderr: for_people(&said.stderr) })
    }
}

impl ToolFault {
    fn from_io(error: &std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::CannotRun(error.to_string()),
        }
    }

    fn from_status(status: ExitStatus) -> Self {
        match status.code() {
            None => {
                Self::Signalled(std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0))
            }
            Some(1) => Self::CannotUpdate,
            Some(2 | 3) => Self::Usage,
            Some(4) => Self::IdTaken,
            Some(6) => Self::NotFound,
            Some(8) => Self::LoggedIn,
            Some(9) => Self::NameTaken,
            Some(10) => Self::CannotUpdateGroup,
            Some(12) => Self::Home,
            Some(14) => Self::Selinux,
            Some(code) => Self::Other(code),
        }
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Runs a program of the system that is no account tool to its end: its exit code, and what it
/// said on stderr (trimmed; at most 4 KiB).
///
/// # Errors
/// [`ToolFault`] when it cannot be run, or was ended by a signal.
pub(crate) fn run_program(name: &str, arguments: &[&str]) -> Result<(i32, String), ToolFault> {
    let path = ask::find(name).ok_or(ToolFault::NotInstalled)?;
    let (ended, stderr) = run_to_end(&path, arguments, TIME_LIMIT);
    let status = ended?;
    match status.code() {
        Some(code) => Ok((code, stderr)),
        None => Err(ToolFault::from_status(status)),
    }
}

fn text_behind(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(" ({stderr})") }
}

/// Runs a program to its end; with what it said on stderr.
fn run_to_end(
    path: &Path,
    arguments: &[&str],
    limit: Duration,
) -> (Result<ExitStatus, ToolFault>, String) {
    let (ended, said) = ask::run(path, arguments, limit);
    (ended.map_err(|error| ToolFault::from_io(&error)), for_people(&said.stderr))
}

/// One line of printable text, of the first 4 KiB.
fn for_people(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr.get(..STDERR_LIMIT).unwrap_or(stderr));
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let text = lines.collect::<Vec<_>>().join("; ");
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn run(program: &str, arguments: &[&str], limit: u64) -> (Result<i32, ToolFault>, String) {
        let (ended, stderr) =
            run_to_end(Path::new(program), arguments, Duration::from_millis(limit));
        (ended.map(|status| status.code().unwrap_or(-1)), stderr)
    }

    #[test]
    fn tells_the_exit_code_and_what_was_said() {
        assert_eq!(run("/bin/sh", &["-c", "exit 0"], 10_000), (Ok(0), String::new()));
        assert_eq!(
            run(
                "/bin/sh",
                &["-c", "echo one >&2; echo >&2; printf 'two\\007' >&2; exit 12"],
                10_000
            ),
            (Ok(12), "one; two ".to_owned())
        );
    }

    #[test]
    fn a_flood_on_stderr_is_cut_and_does_not_block() {
        let script = "i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789 >&2; i=$((i+1)); done";
        let (ended, stderr) = run("/bin/sh", &["-c", script], 30_000);
        assert_eq!(ended, Ok(0));
        assert!(stderr.len() > 3000 && stderr.len() <= STDERR_LIMIT * 2, "{}", stderr.len());
    }

    #[test]
    fn what_never_ends_is_killed_with_its_children() {
        let started = Instant::now();
        let (ended, _) = run("/bin/sh", &["-c", "sleep 1000 & sleep 1000"], 100);
        assert_eq!(ended, Err(ToolFault::TimedOut));
        assert!(started.elapsed() < Duration::from_secs(8));
    }

    #[test]
    fn a_child_that_keeps_stderr_open_is_not_waited_for() {
        let started = Instant::now();
        assert_eq!(run("/bin/sh", &["-c", "sleep 5 & exit 0"], 60_000).0, Ok(0));
        assert!(started.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn the_environment_is_empty_but_for_language_and_path() {
        let script = "[ \"$(env | grep -v '^PWD=\\|^_=\\|^SHLVL=' | sort | tr '\\n' ' ')\" = \
                      \"LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin \" ]";
        assert_eq!(run("/bin/sh", &["-c", script], 10_000).0, Ok(0));
    }

    #[test]
    fn a_missing_program_is_an_error() {
        assert!(matches!(run("/nonexistent/tool", &[], 1000).0, Err(ToolFault::CannotRun(_))));
    }
}
