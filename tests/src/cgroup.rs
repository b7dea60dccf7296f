//! The control group that a booted host lives in: one of its own, or the systemds of two hosts would manage each other's
//! services. Knows nothing of hosts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use crate::{LabError, Place};

/// Where the world sees the groups; the machine may have them elsewhere.
const MOUNT: &str = "/sys/fs/cgroup";
const PREFIX: &str = "bastio-lab-";
/// Time for the last process of a group to be gone.
const EMPTY_LIMIT: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(10);

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A group, removed when dropped.
#[derive(Debug)]
pub(crate) struct Cgroup {
    world: Place,
    path: PathBuf,
}

impl Cgroup {
    /// Makes a group; sweeps those that killed processes left over.
    pub(crate) fn new(world: &Place) -> Result<Self, LabError> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(MOUNT).join(format!("{PREFIX}{}-{number}", process::id()));
        let make = || {
            show_unified()?;
            sweep()?;
            fs::create_dir(&path)
        };
        world.within(make)?.map_err(LabError::doing("make a control group"))?;
        Ok(Self { world: world.clone(), path })
    }

    /// Its folder in the world.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // What stays is swept by the next one.
        let _ = self.world.within(|| {
            let deadline = Instant::now() + EMPTY_LIMIT;
            while remove(&self.path).is_err() && Instant::now() < deadline {
                thread::sleep(LOOK_EVERY);
            }
        });
    }
}

/// Lets the world see the unified hierarchy alone, also on a machine that still has version 1.
fn show_unified() -> io::Result<()> {
    let has_it = Path::new(MOUNT).join("cgroup.procs").exists();
    if has_it {
        return Ok(());
    }
    let none: Option<&str> = None;
    mount(Some("cgroup2"), MOUNT, Some("cgroup2"), MsFlags::empty(), none).map_err(Errno::into)
}

/// Removes the empty groups of processes that have ended.
fn sweep() -> io::Result<()> {
    for entry in fs::read_dir(MOUNT)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|owner| !is_running(owner)) {
            // One with processes in it can't be removed, and is not ours to end.
            let _ = remove(&entry.path());
        }
    }
    Ok(())
}

/// Whether the machine has a process of that id.
fn is_running(pid: &str) -> bool {
    let pid = pid.parse().map(nix::unistd::Pid::from_raw);
    pid.is_ok_and(|pid| !matches!(nix::sys::signal::kill(pid, None), Err(Errno::ESRCH)))
}

/// Removes a group and those below it, which must have no process.
fn remove(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}
