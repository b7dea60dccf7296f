//! A PostgreSQL server of one test's or benchmark's own, in a folder of its own and reached through a socket in it. It
//! ends with whoever started it. Knows nothing of what is stored there.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use tempfile::TempDir;

use crate::LabError;

/// Where Debian puts the programs of each version.
const PROGRAMS: &str = "/usr/lib/postgresql";
/// The server refuses to run as root; the package makes this account.
const ACCOUNT: &str = "postgres";
/// The role and the database that are made.
const NAME: &str = "bastio";
const START_LIMIT: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Whether what it writes must outlive the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// As a fleet would run it: flushed to the disk.
    Flushed,
    /// For tests.
    Fast,
}

/// A running server; ended when dropped, and when the thread that started it ends.
#[derive(Debug)]
pub struct Postgres {
    folder: TempDir,
    programs: PathBuf,
    server: Child,
}

impl Postgres {
    /// Makes a database and starts its server.
    ///
    /// # Errors
    /// [`LabError`] when PostgreSQL is missing or does not start.
    pub fn start(durability: Durability) -> Result<Self, LabError> {
        let programs = programs()?;
        let folder = TempDir::with_prefix("bastio-postgres-");
        let folder = folder.map_err(LabError::doing("make a folder"))?;
        let path = folder.path();
        // Backends of all servers come through the socket.
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755))
            .map_err(LabError::doing("open the database's folder"))?;
        if crate::is_root() {
            let account = User::from_name(ACCOUNT).ok().flatten().ok_or_else(missing)?;
            chown(path, Some(account.uid.as_raw()), Some(account.gid.as_raw()))
                .map_err(LabError::doing("give the database's folder away"))?;
        }
        let mut make = as_account(programs.join("initdb"));
        make.args(["--auth", "trust", "--username", NAME, "--encoding", "UTF8", "--locale", "C"]);
        make.arg("--no-sync").arg("--pgdata").arg(path.join("data")).current_dir(path);
        run(make)?;
        let server = serve(&programs, path, durability)?;
        let postgres = Self { folder, programs, server };
        postgres.await_ready()?;
        postgres.sql_in("postgres", &format!("CREATE DATABASE {NAME}"))?;
        Ok(postgres)
    }

    /// The URL of its database.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://{NAME}@localhost/{NAME}?host={}", self.folder.path().display())
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.id()
    }

    /// What a statement gives, as psql prints it without decoration.
    ///
    /// # Errors
    /// [`LabError::Failed`] with what the server says.
    pub fn sql(&self, statement: &str) -> Result<String, LabError> {
        self.sql_in(NAME, statement)
    }

    /// Ends the server at once, as its machine's end would, and waits until it is gone.
    ///
    /// # Errors
    /// [`LabError::System`].
    pub fn crash(&mut self) -> Result<(), LabError> {
        self.end(Signal::SIGQUIT)
    }

    /// Starts it again with the data that is there, as a standby is: it takes nothing until it is promoted.
    ///
    /// # Errors
    /// [`LabError`] when it does not start.
    pub fn start_again_as_standby(&mut self) -> Result<(), LabError> {
        let folder = self.folder.path();
        File::create(folder.join("data/standby.signal"))
            .map_err(LabError::doing("make it a standby"))?;
        self.server = serve(&self.programs, folder, Durability::Fast)?;
        self.await_ready()
    }

    fn sql_in(&self, database: &str, statement: &str) -> Result<String, LabError> {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.arg("--host").arg(self.folder.path()).args(["--username", NAME, "--dbname", database]);
        psql.args([
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--command",
            statement,
        ]);
        run(psql)
    }

    fn await_ready(&self) -> Result<(), LabError> {
        let start = Instant::now();
        loop {
            match self.sql_in("postgres", "SELECT 1") {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > START_LIMIT => return Err(error),
                Err(_) => std::thread::sleep(LOOK_EVERY),
            }
        }
    }

    fn end(&mut self, how: Signal) -> Result<(), LabError> {
        let pid = i32::try_from(self.server.id()).unwrap_or(0);
        if pid > 0 && matches!(self.server.try_wait(), Ok(None)) {
            kill(Pid::from_raw(pid), how).map_err(LabError::doing("end PostgreSQL"))?;
        }
        self.server.wait().map_err(LabError::doing("wait for PostgreSQL")).map(drop)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // "Fast": whoever is connected is sent away.
        let _ = self.end(Signal::SIGINT);
    }
}

fn serve(programs: &Path, folder: &Path, durability: Durability) -> Result<Child, LabError> {
    let log = File::options().create(true).append(true).open(folder.join("server.log"));
    let log = log.map_err(LabError::doing("make the database's log"))?;
    let errors = log.try_clone().map_err(LabError::doing("make the database's log"))?;
    let mut server = as_account("setpriv");
    server.args(["--pdeathsig", "INT"]).arg(programs.join("postgres"));
    server.arg("-D").arg(folder.join("data")).arg("-k").arg(folder);
    server.args(["-c", "listen_addresses="]);
    if durability == Durability::Fast {
        server.args(["-c", "fsync=off"]);
    }
    server.current_dir(folder).stdin(Stdio::null()).stdout(log).stderr(errors);
    server.spawn().map_err(LabError::doing("start PostgreSQL"))
}

/// The newest version's programs.
fn programs() -> Result<PathBuf, LabError> {
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let versions = std::fs::read_dir(PROGRAMS).into_iter().flatten().flatten();
    let newest = versions.map(|entry| entry.path()).max_by_key(|path| version(path));
    let programs = newest.map(|path| path.join("bin")).filter(|path| path.join("initdb").exists());
    programs.ok_or_else(missing)
}

fn missing() -> LabError {
    LabError::Missing {
        what: "PostgreSQL".into(),
        hint: "install it: apt-get install postgresql".into(),
    }
}

/// A command of the account that owns the database, when this is root.
fn as_account(program: impl AsRef<OsStr>) -> Command {
    if !crate::is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    let account = |kind: &str| format!("--{kind}={ACCOUNT}");
    command.args([account("reuid"), account("regid"), "--init-groups".to_owned()]).arg(program);
    command
}

fn run(mut command: Command) -> Result<String, LabError> {
    let doing = format!("run {}", command.get_program().to_string_lossy());
    let output = command.output().map_err(LabError::doing(doing))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(LabError::Failed {
        command: format!("{command:?}"),
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
