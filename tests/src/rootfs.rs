//! The Debian trees that the servers of the lab share, made once and never changed afterwards: one for all isolated
//! servers, one with systemd for the booted hosts of each release.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{Flock, FlockArg};

use crate::LabError;

const PACKAGES: &str = "openssh-server,sudo,passwd,iproute2,procps,strace";
/// What a host needs besides its kernel to boot.
const BOOTED_PACKAGES: &str =
    "systemd,systemd-sysv,libpam-systemd,dbus,openssh-server,sudo,passwd,iproute2,procps";
const PREPARE: &str = "prepare the folder of the lab";
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
        let tree = rootfs.tree("rootfs", ingredients()?);
        Ok((tree.is_made() && rootfs.lab.join("mount").is_dir()).then_some(rootfs))
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
        let rootfs = Self { lab: lab_folder() };
        fs::create_dir_all(rootfs.lab.join("mount")).map_err(LabError::doing(PREPARE))?;
        rootfs.tree("rootfs", ingredients()?).ensure()?;
        Ok(rootfs)
    }

    /// The tree that hosts of a Debian release boot from; made first when it is missing, which takes about a minute.
    pub(crate) fn booted(&self, release: &str) -> Result<PathBuf, LabError> {
        let name = format!("rootfs-systemd-{release}");
        self.tree(&name, format!("{release} {BOOTED_PACKAGES}\n")).ensure()
    }

    fn tree(&self, name: &str, wanted: String) -> Tree {
        Tree { lab: self.lab.clone(), name: name.into(), wanted }
    }

    /// The folder of the lab, with the tree in `rootfs` and an empty folder `mount`.
    #[must_use]
    pub fn lab_folder(&self) -> &Path {
        &self.lab
    }
}

/// A tree in the folder of the lab.
struct Tree {
    lab: PathBuf,
    name: String,
    /// A release and its packages.
    wanted: String,
}

impl Tree {
    fn folder(&self) -> PathBuf {
        self.lab.join(&self.name)
    }

    fn is_made(&self) -> bool {
        fs::read_to_string(self.folder().join(STAMP)).is_ok_and(|found| found == self.wanted)
    }

    fn ensure(&self) -> Result<PathBuf, LabError> {
        if self.is_made() {
            return Ok(self.folder());
        }
        fs::create_dir_all(&self.lab).map_err(LabError::doing(PREPARE))?;
        let lock = File::create(self.lab.join("lock")).map_err(LabError::doing(PREPARE))?;
        let _lock = Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, errno)| LabError::doing(PREPARE)(errno))?;
        if !self.is_made() {
            self.make()?;
        }
        Ok(self.folder())
    }

    fn make(&self) -> Result<(), LabError> {
        let (unfinished, finished) = (self.folder().with_extension("tmp"), self.folder());
        let doing = "make a root file system of the lab's servers";
        remove(&unfinished).and_then(|()| remove(&finished)).map_err(LabError::doing(doing))?;
        let mut words = self.wanted.split_whitespace();
        bootstrap(&unfinished, words.next().unwrap_or_default(), words.next().unwrap_or_default())?;
        personalise(&unfinished, &self.wanted).map_err(LabError::doing(doing))?;
        fs::rename(&unfinished, &finished).map_err(LabError::doing(doing))
    }
}

/// Runs mmdebstrap in namespaces of its own, so that its mounts go when it is interrupted.
fn bootstrap(target: &Path, release: &str, packages: &str) -> Result<(), LabError> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command.args([
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        &format!("--include={packages}"),
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
