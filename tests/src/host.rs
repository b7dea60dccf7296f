//! One isolated server: a Debian root of its own, with its own processes, network, host name, accounts and sshd.

use std::io;
use std::net::IpAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

use crate::disk::DiskFolder;
use crate::filesystem::Layout;
use crate::init::{Lifetime, Starting};
use crate::{Finished, LabError, Place, Running, World, filesystem, network};

/// Where the server's sshd logs to.
const SSHD_LOG: &str = "/var/log/sshd.log";
/// Time for sshd to start listening.
const SSHD_LIMIT: Duration = Duration::from_secs(20);
const HOST_KEY: &str = "/etc/ssh/ssh_host_ed25519_key";

/// How a server is to be, before it is started.
#[derive(Debug)]
pub struct HostBuilder<'world> {
    world: &'world World,
    name: String,
    home_size: Option<u64>,
    home_on_disk: bool,
    binaries: Vec<PathBuf>,
    sshd: bool,
    sudo_without_password: bool,
}

/// A running server. Dropping it ends everything on it. Dereferences to its [`Place`].
#[derive(Debug)]
pub struct Host {
    place: Place,
    number: u8,
    world: Place,
    sshd: Option<Running>,
    _disk: Option<DiskFolder>,
}

impl<'world> HostBuilder<'world> {
    pub(crate) fn new(world: &'world World, name: &str) -> Self {
        Self {
            world,
            name: name.into(),
            home_size: None,
            home_on_disk: false,
            binaries: Vec::new(),
            sshd: true,
            sudo_without_password: false,
        }
    }

    /// Makes `/home` a file system of its own in memory with this many bytes; for full-disk tests.
    #[must_use]
    pub fn home_tmpfs_size(mut self, bytes: u64) -> Self {
        self.home_size = Some(bytes);
        self
    }

    /// Puts `/home` on the machine's disk, in a folder that is removed afterwards; for figures with a real fsync.
    /// Not for a world that is to be kept.
    #[must_use]
    pub fn home_on_disk(mut self) -> Self {
        self.home_on_disk = true;
        self
    }

    /// Shows a program of the machine in the server's `/usr/bin`, read-only and without a copy.
    #[must_use]
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binaries.push(path.into());
        self
    }

    /// Starts no sshd; that saves some milliseconds.
    #[must_use]
    pub fn without_sshd(mut self) -> Self {
        self.sshd = false;
        self
    }

    /// Lets members of the group `sudo` run everything without a password: a decision of the server's owner that
    /// accounts without a password need.
    #[must_use]
    pub fn sudo_without_password(mut self) -> Self {
        self.sudo_without_password = true;
        self
    }

    /// Starts the server.
    ///
    /// # Errors
    /// [`LabError`] when that fails.
    pub fn start(self) -> Result<Host, LabError> {
        let number = self.world.next_server();
        let doing = format!("make the namespaces of {}", self.name);
        let kinds = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
        let lab = self.world.rootfs().lab_folder();
        let disk = self.home_on_disk.then(|| DiskFolder::new(lab)).transpose()?;
        let home = disk.as_ref().map(DiskFolder::path);
        let starting = self
            .world
            .enter(kinds, || self.make_namespaces(home))?
            .map_err(LabError::doing(doing))?;
        let init = starting.ready()?;
        let world = Place::clone(self.world);
        let place = Place::new(&self.name, init, Some(world.clone()))?;
        network::connect_server(&world, &place, number)?;
        let mut host = Host { place, number, world, sshd: None, _disk: disk };
        host.sshd = self.settle(&host)?;
        Ok(host)
    }

    /// On a thread inside the world's process and mount namespaces.
    fn make_namespaces(&self, home_folder: Option<&Path>) -> io::Result<Starting> {
        unshare(
            CloneFlags::CLONE_NEWNS
                | CloneFlags::CLONE_NEWNET
                | CloneFlags::CLONE_NEWUTS
                | CloneFlags::CLONE_NEWIPC,
        )?;
        let layout = Layout {
            home_size: self.home_size,
            home_folder,
            binaries: self.binaries.iter().map(PathBuf::as_path).collect(),
        };
        filesystem::make_private()?;
        filesystem::enter_server_root(self.world.rootfs().lab_folder(), &layout)?;
        nix::unistd::sethostname(&self.name)?;
        Starting::spawn(self.world.lifetime())
    }

    fn settle(&self, host: &Host) -> Result<Option<Running>, LabError> {
        host.write_file("/etc/hostname", format!("{}\n", self.name))?;
        let hosts = format!(
            "127.0.0.1 localhost\n{} {}\n{} backend\n",
            host.ip(),
            self.name,
            self.world.ip()
        );
        host.write_file("/etc/hosts", hosts)?;
        if self.sudo_without_password {
            host.write_file("/etc/sudoers.d/lab", "%sudo ALL=(ALL:ALL) NOPASSWD: ALL\n")?;
            host.exec(&["chmod", "0440", "/etc/sudoers.d/lab"])?;
        }
        if self.sshd {
            host.exec(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", HOST_KEY])?;
            return host.start_sshd().map(Some);
        }
        Ok(None)
    }
}

impl Host {
    /// Runs a command inside, as root; an exit code other than 0 is an error.
    ///
    /// # Errors
    /// Those of [`crate::PlacedCommand::check`].
    pub fn exec(&self, words: &[&str]) -> Result<Finished, LabError> {
        self.prepared(words)?.check()
    }

    /// Runs a command inside, as root, whatever its exit code.
    ///
    /// # Errors
    /// Those of [`crate::PlacedCommand::run`].
    pub fn try_exec(&self, words: &[&str]) -> Result<Finished, LabError> {
        self.prepared(words)?.run()
    }

    /// The server's address in the world.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        network::server_address(self.number)
    }

    /// Copies a program of the machine to `/usr/bin` (one that can be replaced while the server runs).
    ///
    /// # Errors
    /// [`LabError::System`] when that fails.
    pub fn put_binary(&self, path: impl AsRef<Path>) -> Result<(), LabError> {
        let path = path.as_ref();
        self.copy_in(path, Path::new("/usr/bin").join(path.file_name().unwrap_or_default()))
    }

    /// Takes the network cable out (`false`) or puts it in again (`true`): packets are lost, connections stay open.
    ///
    /// # Errors
    /// [`LabError`] when that fails.
    pub fn set_cable(&self, plugged: bool) -> Result<(), LabError> {
        network::set_cable(&self.world, self.number, plugged)
    }

    /// What the server's sshd has logged.
    ///
    /// # Errors
    /// [`LabError::System`] when no sshd was started.
    pub fn sshd_log(&self) -> Result<String, LabError> {
        self.read_file(SSHD_LOG).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Returns when sshd listens. PAM is used as Debian sets it up.
    fn start_sshd(&self) -> Result<Running, LabError> {
        self.exec(&["mkdir", "-p", "/run/sshd"])?;
        let host_key = format!("HostKey={HOST_KEY}");
        let sshd = self.command("/usr/sbin/sshd");
        let sshd = sshd.args(["-D", "-e", "-o", &host_key, "-o", "LogLevel=VERBOSE"]);
        sshd.log_to(SSHD_LOG).spawn_ready(SSHD_LIMIT)
    }

    fn prepared(&self, words: &[&str]) -> Result<crate::PlacedCommand<'_>, LabError> {
        let (program, arguments) = words.split_first().ok_or_else(|| LabError::Missing {
            what: "the name of a program to run".into(),
            hint: "give at least one word".into(),
        })?;
        Ok(self.command(program).args(arguments))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.lifetime() == Lifetime::UntilKilled
            && let Some(sshd) = self.sshd.take()
        {
            sshd.leave_running();
        }
    }
}

impl Deref for Host {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}
