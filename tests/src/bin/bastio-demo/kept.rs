//! A demo that was left running: where it is written down, how to enter it, how to end it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use bastio_tests::Rootfs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::story::Problem;

/// What is written down in the lab's folder, readable by root only.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Kept {
    /// Process 1 of each place, by the place's name; `backend` is the world itself.
    places: BTreeMap<String, Process>,
    /// Variables that make the console work in the world.
    console: BTreeMap<String, String>,
}

/// A process that can't be mistaken for a later one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    pid: i32,
    /// Clock ticks after boot, proc_pid_stat(5).
    started: u64,
}

/// The name under which the world is written down.
pub const WORLD: &str = "backend";

impl Kept {
    /// Writes a place down.
    pub fn add_place(&mut self, name: &str, init: Pid) -> Result<(), Problem> {
        let started =
            started(init.as_raw()).ok_or_else(|| Problem::Here(format!("{name} ended at once")))?;
        self.places.insert(name.to_owned(), Process { pid: init.as_raw(), started });
        self.save()
    }

    /// Writes down how the console reaches the backend.
    pub fn set_console(&mut self, variables: &[(&str, &str)]) -> Result<(), Problem> {
        self.console.extend(
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        self.save()
    }

    /// Whether a kept demo runs now.
    pub fn is_running() -> bool {
        Self::load().is_ok_and(|kept| kept.world().is_some())
    }

    /// Ends a kept demo: with the world's first process the kernel ends everything in it.
    pub fn stop() -> Result<(), Problem> {
        let kept = Self::load()?;
        if let Some(pid) = kept.world() {
            kill(Pid::from_raw(pid), Signal::SIGKILL)
                .map_err(|errno| Problem::Here(format!("end the demo: {errno}")))?;
        }
        fs::remove_file(file()?).map_err(|error| Problem::Here(format!("forget the demo: {error}")))
    }

    /// Becomes a root shell in a place.
    pub fn shell(name: &str) -> Result<(), Problem> {
        let kept = Self::load()?;
        let names = kept.places.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let unknown = || Problem::Here(format!("no place {name:?} is running; there are: {names}"));
        let pid =
            kept.places.get(name).and_then(|process| process.running()).ok_or_else(unknown)?;
        let mut shell = Command::new("nsenter");
        shell.args(["--mount", "--net", "--uts", "--ipc", "--pid", "--root", "--wd", "--target"]);
        shell.args([&pid.to_string(), "--", "bash"]);
        if name == WORLD {
            shell.envs(&kept.console).env("PATH", path_with_programs());
        }
        Err(Problem::Here(format!("start nsenter: {}", shell.exec())))
    }

    fn world(&self) -> Option<i32> {
        self.places.get(WORLD).and_then(|process| process.running())
    }

    fn load() -> Result<Self, Problem> {
        let none =
            |_| Problem::Here("no demo was left running; start one: make demo KEEP=1".into());
        let text = fs::read(file()?).map_err(none)?;
        serde_json::from_slice(&text)
            .map_err(|error| Problem::Here(format!("read what was kept: {error}")))
    }

    fn save(&self) -> Result<(), Problem> {
        let failed = |error| Problem::Here(format!("write down what is kept: {error}"));
        let text = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        let path = file()?;
        let mut options = fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file =
            options.write(true).create(true).truncate(true).open(path).map_err(failed)?;
        std::io::Write::write_all(&mut file, &text).map_err(failed)
    }
}

impl Process {
    fn running(self) -> Option<i32> {
        (started(self.pid) == Some(self.started)).then_some(self.pid)
    }
}

/// When a process started: the 22nd field of its `stat`, counted after the name in parentheses.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

fn file() -> Result<PathBuf, Problem> {
    Ok(Rootfs::ensure()?.lab_folder().join("demo.json"))
}

fn path_with_programs() -> String {
    let program = std::env::current_exe().unwrap_or_default();
    let folder = program.parent().unwrap_or(std::path::Path::new("/usr/bin"));
    format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", folder.display())
}
