//! `start`: this process becomes the root processor, a child the connector without rights. The
//! child is started anew when it ends, more and more slowly. This file must not know what the
//! two say to each other.

use std::fs::{File, TryLockError};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use thiserror::Error;
use tracing::{error, warn};

use crate::chance;
use crate::cli::Cli;
use crate::config::Settings;
use crate::files;
use crate::link::{Backoff, PROVEN};
use crate::notify;
use crate::processor::{
    self, Ended, Heartbeat, Obedience, ProcessorError, ProcessorSettings, SocketSource,
};

/// The name that both processes show.
pub const PROGRAM: &str = "bastio-agent";
/// How long a new connector may take to give up its rights and say so.
const COME_UP_LIMIT: Duration = Duration::from_secs(10);
/// How long the connector may take, at a stop, to deliver the last feedbacks.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);
/// The connector's exit code when it cannot work with what it was given.
const UNUSABLE: i32 = 2;
/// What the child must not inherit: it is no service of its own, and needs no secret.
const KEPT_BACK: [&str; 4] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "BASTIO_API_KEY"];

/// Why the agent ended.
#[derive(Debug, Error)]
pub enum StartError {
    /// The child cannot be started or watched.
    #[error("cannot start the connector: {0}")]
    Spawn(#[from] std::io::Error),
    /// Another `start` runs on this server.
    #[error(
        "an agent runs here already\nhint: bastio-agent status, or systemctl restart bastio-agent"
    )]
    RunsAlready,
    /// The child found that it cannot work at all; it has said why.
    #[error("the connector cannot work with this configuration; see its message above")]
    Unusable,
    /// The processor's own failure.
    #[error(transparent)]
    Processor(#[from] ProcessorError),
}

/// Runs both processes until SIGTERM or SIGINT.
///
/// # Errors
/// [`StartError`] when it makes no sense to try again.
pub fn start(cli: &Cli, settings: &Settings) -> Result<(), StartError> {
    let _alone = be_alone(&settings.status_file)?;
    let mut backoff = Backoff::default();
    let mut told_ready = false;
    loop {
        let begun = Instant::now();
        let (ours, mut child) = spawn_connector(cli)?;
        if came_up(&ours)? {
            let ready =
                (!std::mem::replace(&mut told_ready, true)).then_some(notify::ready as fn());
            let given = SocketSource::Given(OwnedFd::from(ours));
            let ended = processor::main(given, processor_settings(settings, ready));
            if !matches!(ended, Ok(Ended::ConnectorGone)) {
                notify::stopping();
                leave(child)?;
                return Ok(ended.map(|_| ())?);
            }
        } else {
            drop(ours);
        }
        let status = leave(&mut child)?;
        if status.code() == Some(UNUSABLE) {
            return Err(StartError::Unusable);
        }
        if begun.elapsed() >= PROVEN {
            backoff.reset();
        }
        let pause = backoff.next(chance::fraction());
        error!(%status, pause = pause.as_secs_f64(), "the connector ended; it will be started again");
        // SIGTERM ends this process here at once: there is nothing to finish.
        std::thread::sleep(pause);
    }
}

/// Holds the lock beside the status file for as long as the value lives. Two agents with one key
/// would push each other off the backend for ever. Where no lock can be had, the agent runs without.
fn be_alone(status_file: &Path) -> Result<Option<File>, StartError> {
    let path = status_file.with_file_name("lock");
    let open = || {
        files::make_parent(&path)?;
        let flags = OFlag::O_NOFOLLOW.bits();
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(&path)
    };
    let file = match open() {
        Ok(file) => file,
        Err(error) => {
            warn!(path = %path.display(), %error, "no lock: a second agent would not be noticed");
            return Ok(None);
        }
    };
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(StartError::RunsAlready),
        Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(file)),
    }
}

/// What the processor is told, for `start` and for `processor`.
pub fn processor_settings(settings: &Settings, ready: Option<fn()>) -> ProcessorSettings {
    ProcessorSettings {
        connector_user: Some(settings.user.clone()),
        status_file: settings.status_file.clone(),
        state: settings.state.clone(),
        obedience: Obedience {
            signer: settings.signer.clone(),
            require_signed: settings.require_signed,
        },
        key_policy: settings.key_policy.clone(),
        keys: settings.keys,
        removal: settings.removal,
        quarantine_days: settings.quarantine_days,
        break_glass: settings.break_glass.clone(),
        confirm_within: settings.confirm_within,
        drift: settings.drift,
        plain_sudo: settings.plain_sudo,
        ready: ready.map(|ready| Box::new(ready) as _),
        heartbeat: notify::watchdog_interval()
            .map(|every| Heartbeat { every, beat: Box::new(notify::alive) }),
    }
}

/// Starts this program once more, with one end of a new socket pair as its standard input.
fn spawn_connector(cli: &Cli) -> std::io::Result<(UnixStream, Child)> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0(PROGRAM);
    command.arg("--config").arg(&cli.config);
    if let Some(key) = &cli.agent_key {
        command.arg("--agent-key").arg(key);
    }
    if let Some(log) = &cli.log {
        command.arg("--log").arg(log);
    }
    for variable in KEPT_BACK {
        command.env_remove(variable);
    }
    let child = command.arg("connector").stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
    Ok((ours, child))
}

/// Waits for the connector's first word, which it says when it is locked down.
fn came_up(ours: &UnixStream) -> std::io::Result<bool> {
    let limit = PollTimeout::try_from(COME_UP_LIMIT).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(ours.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, limit)?;
    let seen = fds.first().and_then(PollFd::revents).unwrap_or(PollFlags::empty());
    Ok(seen.contains(PollFlags::POLLIN) && !seen.contains(PollFlags::POLLHUP))
}

/// Waits for the connector, whose pipe is closed by now; kills it when it does not leave.
fn leave(mut child: impl std::borrow::BorrowMut<Child>) -> std::io::Result<ExitStatus> {
    let child = child.borrow_mut();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    let (done, waiting) = crossbeam_channel::bounded::<()>(1);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if waiting.recv_timeout(LEAVE_LIMIT).is_err_and(|error| error.is_timeout()) {
                warn!("the connector does not leave: killed");
                // It may have left in this moment; then there is nobody to kill.
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        let status = child.wait();
        drop(done);
        status
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_while_the_first_one_lives() {
        let folder = tempfile::tempdir().unwrap();
        let status_file = folder.path().join("run/status.json");
        let first = be_alone(&status_file).unwrap();
        assert!(first.is_some());
        assert!(matches!(be_alone(&status_file), Err(StartError::RunsAlready)));
        drop(first);
        assert!(be_alone(&status_file).unwrap().is_some());
    }
}
