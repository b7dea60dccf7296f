//! The Debian tree that all servers of the lab share, made once and never changed afterwards.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{Flock, FlockArg};

use crate::LabError;

const PACKAGES: &str = "openssh-server,sudo,passwd,iproute2,procps,strace";
/// A file in the finished tree that says what it was made of.
const STAMP: &str = "etc/bastio-lab";

/// The finished tree.
#[derive(Debug, Clone)]
pub struct Rootfs {
    lab: PathBuf,
}

impl Rootfs {
    /// Finds the tree, if it has been made.
    ///
    /// # Errors
    /// [`LabError`] when the machine is no Debian.
    pub fn find() -> Result<Option<Self>, LabError> {
        let rootfs = Self { lab: lab_folder() };
        Ok(rootfs.is_made_of(&ingredients()?).then_some(rootfs))
    }

    /// Finds the tree, or makes it first: that takes about a minute, and others who ask at the same time wait for it.
    /// It is of the machine's own Debian release, so that programs built here run there.
    ///
    /// # Errors
    /// [`LabError`] when it can't be made.
    pub fn ensure() -> Result<Self, LabError> {
        if let Some(rootfs) = Self::find()? {
            return Ok(rootfs);
        }
        let (rootfs, wanted) = (Self { lab: lab_folder() }, ingredients()?);
        let doing = "prepare the folder of the lab";
        fs::create_dir_all(rootfs.lab.join("mount")).map_err(LabError::doing(doing))?;
        let lock = File::create(rootfs.lab.join("lock")).map_err(LabError::doing(doing))?;
        let _lock = Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, errno)| LabError::doing(doing)(errno))?;
        if !rootfs.is_made_of(&wanted) {
            rootfs.make(&wanted)?;
        }
        Ok(rootfs)
    }

    /// The folder of the lab, with the tree in `rootfs` and an empty folder `mount`.
    #[must_use]
    pub fn lab_folder(&self) -> &Path {
        &self.lab
    }

    fn is_made_of(&self, wanted: &str) -> bool {
        let stamp = fs::read_to_string(self.lab.join("rootfs").join(STAMP));
        stamp.is_ok_and(|found| found == wanted) && self.lab.join("mount").is_dir()
    }

    fn make(&self, wanted: &str) -> Result<(), LabError> {
        let (unfinished, finished) = (self.lab.join("rootfs.tmp"), self.lab.join("rootfs"));
        let doing = "make the root file system of the lab's servers";
        remove(&unfinished).and_then(|()| remove(&finished)).map_err(LabError::doing(doing))?;
        bootstrap(&unfinished, wanted.split_whitespace().next().unwrap_or_default())?;
        personalise(&unfinished, wanted).map_err(LabError::doing(doing))?;
        fs::rename(&unfinished, &finished).map_err(LabError::doing(doing))
    }
}

/// Runs mmdebstrap in namespaces of its own, so that its mounts go when it is interrupted.
fn bootstrap(target: &Path, release: &str) -> Result<(), LabError> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command.args([
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        &format!("--include={PACKAGES}"),
        release,
    ]);
    let output = command
        .arg(target)
        .stdin(Stdio::null())
        .output()
        .map_err(LabError::doing("start mmdebstrap in namespaces of its own"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(LabError::Failed {
        command: format!("mmdebstrap {release}"),
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Takes out what every server has to have for itself.
fn personalise(root: &Path, wanted: &str) -> io::Result<()> {
    for entry in fs::read_dir(root.join("etc/ssh"))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("ssh_host_") {
            fs::remove_file(entry.path())?;
        }
    }
    fs::write(root.join("etc/machine-id"), [])?;
    fs::write(root.join(STAMP), wanted)
}

fn remove(tree: &Path) -> io::Result<()> {
    match fs::remove_dir_all(tree) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn lab_folder() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"));
    workspace.join("target/lab")
}

/// What the tree is to be made of: a release and its packages.
fn ingredients() -> Result<String, LabError> {
    Ok(format!("{} {PACKAGES}\n", release()?))
}

/// The code name of the machine's Debian release.
fn release() -> Result<String, LabError> {
    let text =
        fs::read_to_string("/etc/os-release").map_err(LabError::doing("read /etc/os-release"))?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.map(|name| name.trim_matches('"').to_owned()).ok_or_else(|| LabError::Missing {
        what: "VERSION_CODENAME in /etc/os-release".into(),
        hint: "the lab needs Debian 12 or later".into(),
    })
}
