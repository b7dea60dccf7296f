//! A command that runs in a [`Place`]. It can't be run on the machine by mistake: the plain `Command` stays inside.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sched::CloneFlags;

use crate::ready::ReadySocket;
use crate::{LabError, Place, Running};

/// How long a command may take unless its own limit is set.
const RUN_LIMIT: Duration = Duration::from_secs(60);
/// The search path of a root login on Debian.
pub(crate) const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command with its arguments, to be run inside a place. Made by [`Place::command`].
#[derive(Debug)]
pub struct PlacedCommand<'place> {
    place: &'place Place,
    command: Command,
    limit: Duration,
    input: Option<Vec<u8>>,
    log: Option<PathBuf>,
    kinds: CloneFlags,
}

/// What a finished command left behind. Text that is not UTF-8 is shown with replacement characters.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The command as a person would type it.
    pub command: String,
    /// Exit code or signal.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// Whether the exit code was 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// The exit code; none when a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

impl<'place> PlacedCommand<'place> {
    pub(crate) fn new(place: &'place Place, program: &OsStr) -> Self {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", SEARCH_PATH).env("HOME", "/root").env("LANG", "C.UTF-8");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let kinds = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC;
        Self { place, command, limit: RUN_LIMIT, input: None, log: None, kinds }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// The bytes the command reads from its standard input.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// How long [`PlacedCommand::run`] waits for its end (60 s unless set).
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Appends standard output and standard error to this file inside the place; for [`PlacedCommand::spawn`].
    #[must_use]
    pub fn log_to(mut self, path: impl Into<PathBuf>) -> Self {
        self.log = Some(path.into());
        self
    }

    /// Where standard input comes from; for [`PlacedCommand::spawn`].
    #[must_use]
    pub fn stdin(mut self, source: impl Into<Stdio>) -> Self {
        self.command.stdin(source);
        self
    }

    /// Where standard output goes; for [`PlacedCommand::spawn`].
    #[must_use]
    pub fn stdout(mut self, target: impl Into<Stdio>) -> Self {
        self.command.stdout(target);
        self
    }

    /// Where standard error goes; for [`PlacedCommand::spawn`].
    #[must_use]
    pub fn stderr(mut self, target: impl Into<Stdio>) -> Self {
        self.command.stderr(target);
        self
    }

    /// Enters only the network of the place: the command sees the machine's own files. For the lab's own tools.
    pub(crate) fn network_only(mut self) -> Self {
        self.kinds = CloneFlags::CLONE_NEWNET;
        self
    }

    /// Runs it to its end, whatever its exit code. Programs it leaves in the background don't hold this up.
    ///
    /// # Errors
    /// [`LabError::System`] when it can't be started, [`LabError::TimedOut`] (and it is killed) when it takes too long.
    pub fn run(mut self) -> Result<Finished, LabError> {
        let command = self.line();
        let limit = self.limit;
        let (mut stdout, mut stderr) = (scratch()?, scratch()?);
        self.command.stdout(handle(&stdout)?).stderr(handle(&stderr)?);
        let mut running = self.spawn()?;
        let status = running.wait(limit)?;
        Ok(Finished { command, status, stdout: text(&mut stdout)?, stderr: text(&mut stderr)? })
    }

    /// Runs it to its end; an exit code other than 0 is an error.
    ///
    /// # Errors
    /// Those of [`PlacedCommand::run`], and [`LabError::Failed`].
    pub fn check(self) -> Result<Finished, LabError> {
        let finished = self.run()?;
        if finished.success() {
            return Ok(finished);
        }
        Err(LabError::Failed {
            command: finished.command,
            status: finished.status.to_string(),
            output: format!("{}{}", finished.stdout, finished.stderr).trim().to_owned(),
        })
    }

    /// Starts it in the background. Its output goes nowhere unless told otherwise.
    ///
    /// # Errors
    /// [`LabError::System`] when it can't be started.
    pub fn spawn(mut self) -> Result<Running, LabError> {
        let line = self.line();
        if let Some(bytes) = self.input.take() {
            let mut input = scratch()?;
            input.write_all(&bytes).map_err(LabError::doing("keep the input of a command"))?;
            input.rewind().map_err(LabError::doing("keep the input of a command"))?;
            self.command.stdin(input);
        }
        if let Some(path) = self.log.take() {
            let (stdout, stderr) = self.place.within(|| log_file(&path))??;
            self.command.stdout(stdout).stderr(stderr);
        }
        let child = self
            .place
            .enter(self.kinds, || self.command.spawn())?
            .map_err(LabError::doing(format!("start {line} in {}", self.place.name())))?;
        Ok(Running::new(line, child, self.place.clone()))
    }

    /// Starts it in the background and waits until it says that it is ready, as sd_notify(3) has it.
    ///
    /// # Errors
    /// [`LabError::Failed`] when it ends first, [`LabError::TimedOut`] when it takes longer than `limit`.
    pub fn spawn_ready(self, limit: Duration) -> Result<Running, LabError> {
        let socket = ReadySocket::bind(self.place)?;
        let mut running = self.env("NOTIFY_SOCKET", socket.path()).spawn()?;
        socket.wait(&mut running, limit)?;
        Ok(running)
    }

    /// The command as a person would type it.
    #[must_use]
    pub fn line(&self) -> String {
        let program = Path::new(self.command.get_program());
        let words = program.file_name().into_iter().chain(self.command.get_args());
        words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
    }
}

fn log_file(path: &Path) -> Result<(File, File), LabError> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(LabError::doing(format!("open the log {}", path.display())))?;
    Ok((handle(&file)?, file))
}

fn scratch() -> Result<File, LabError> {
    tempfile::tempfile().map_err(LabError::doing("make a temporary file"))
}

fn handle(file: &File) -> Result<File, LabError> {
    file.try_clone().map_err(LabError::doing("share a file handle"))
}

fn text(file: &mut File) -> Result<String, LabError> {
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut bytes))
        .map_err(LabError::doing("read a command's output"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
