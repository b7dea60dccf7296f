//! A whole host: a Debian root with systemd as process 1, in a container of systemd-nspawn inside a world. It can be
//! switched off, cut off from power, and switched on again with the same disk, address and name.
//!
//! All of it lives in the namespaces of its world and ends with them. Knows nothing of what is installed on it.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};

use crate::cgroup::Cgroup;
use crate::init::{Init, only_child};
use crate::{Finished, LabError, Place, PlacedCommand, Running, World, filesystem, network};

/// Time for a host to boot: until its systemd says that everything is started.
const BOOT_LIMIT: Duration = Duration::from_secs(90);
/// Time for a host to go down.
const OFF_LIMIT: Duration = Duration::from_secs(60);

/// A host that may be on or off. Dropping it ends everything on it. While it is on it dereferences to its [`Place`];
/// while it is off that place is the one that was, where nothing can be run.
#[derive(Debug)]
pub struct BootedHost<'world> {
    world: &'world World,
    name: String,
    number: u8,
    /// Where its folders lie in the world.
    folder: PathBuf,
    network: PathBuf,
    machine: Option<Running>,
    place: Option<Place>,
    cgroup: Cgroup,
}

impl<'world> BootedHost<'world> {
    /// A host of a Debian release (`bookworm`) that has not been switched on yet.
    ///
    /// # Errors
    /// [`LabError`] when it can't be made.
    pub fn new(world: &'world World, name: &str, release: &str) -> Result<Self, LabError> {
        let tree = world.rootfs().booted(release)?;
        let number = world.next_server();
        let folder = world.folder().join(name);
        let made = world.within(|| make_disk(&tree, &folder))?;
        made.map_err(LabError::doing(format!("make the disk of {name}")))?;
        let network = network::connect_booted(world, name, number)?;
        let cgroup = Cgroup::new(world)?;
        let (machine, place) = (None, None);
        let name = name.to_owned();
        let host = Self { world, name, number, folder, network, machine, place, cgroup };
        host.personalise()?;
        Ok(host)
    }

    /// A host that has booted.
    ///
    /// # Errors
    /// [`LabError`] when it does not boot in time.
    pub fn start(world: &'world World, name: &str, release: &str) -> Result<Self, LabError> {
        let mut host = Self::new(world, name, release)?;
        host.power_on()?;
        Ok(host)
    }

    /// Boots it; returns when all its services are started.
    ///
    /// # Errors
    /// [`LabError`] when it does not boot in time; its console is in the file `console.log` of its folder.
    pub fn power_on(&mut self) -> Result<(), LabError> {
        let machine = self.boot_command().spawn_ready(BOOT_LIMIT)?;
        let leader = u32::try_from(machine.pid().as_raw()).unwrap_or_default();
        let leader =
            only_child(leader).map_err(LabError::doing("find process 1 of a booted host"))?;
        let outer = Place::clone(self.world);
        self.place = Some(Place::new(&self.name, Init::of_others(leader), Some(outer))?);
        self.machine = Some(machine);
        Ok(())
    }

    /// Shuts it down as an administrator would.
    ///
    /// # Errors
    /// [`LabError`] when it is still on after a minute.
    pub fn power_off(&mut self) -> Result<(), LabError> {
        self.try_exec(&["systemctl", "--no-block", "poweroff"])?;
        if let Some(mut machine) = self.machine.take() {
            machine.wait(OFF_LIMIT)?;
        }
        Ok(())
    }

    /// Ends everything on it at once; nobody it was connected to hears of it. (What it wrote is on its disk, synced or
    /// not: the machine's own memory has it.)
    ///
    /// # Errors
    /// [`LabError`] when that fails.
    pub fn power_cut(&mut self) -> Result<(), LabError> {
        network::set_cable(self.world, self.number, false)?;
        self.end()?;
        network::set_cable(self.world, self.number, true)
    }

    /// Ends its process 1, and with that all others; the container's own program follows.
    fn end(&mut self) -> Result<(), LabError> {
        if let Some(mut machine) = self.machine.take() {
            kill(self.init_pid(), Signal::SIGKILL)
                .map_err(LabError::doing(format!("cut the power of {}", self.name)))?;
            machine.wait(OFF_LIMIT)?;
        }
        Ok(())
    }

    /// Runs a command on it, as root; an exit code other than 0 is an error.
    ///
    /// # Errors
    /// Those of [`PlacedCommand::check`].
    pub fn exec(&self, words: &[&str]) -> Result<Finished, LabError> {
        self.prepared(words)?.check()
    }

    /// Runs a command on it, as root, whatever its exit code.
    ///
    /// # Errors
    /// Those of [`PlacedCommand::run`].
    pub fn try_exec(&self, words: &[&str]) -> Result<Finished, LabError> {
        self.prepared(words)?.run()
    }

    /// Its address in the world.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        network::server_address(self.number)
    }

    /// Its root folder as the world sees it; while it is off, its disk may be changed there.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// The container. It is in a control group of its own before it starts.
    fn boot_command(&self) -> PlacedCommand<'world> {
        let enter = "echo 0 > \"$1/cgroup.procs\" && shift && exec \"$@\"";
        let command = self.world.command("sh").args(["-c", enter, "sh"]).arg(self.cgroup.path());
        let mut network = std::ffi::OsString::from("--network-namespace-path=");
        network.push(&self.network);
        command
            .args(["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit"])
            .args(["--notify-ready=yes", "--link-journal=no", "--resolv-conf=off"])
            .args(["--timezone=off", "--console=pipe", "--machine", &self.name, "--directory"])
            .arg(self.disk())
            .arg(network)
            .log_to(self.folder.join("console.log"))
    }

    /// Gives it what no two hosts may share.
    fn personalise(&self) -> Result<(), LabError> {
        let etc = self.disk().join("etc");
        let id = self.world.read_file("/proc/sys/kernel/random/uuid")?;
        let id: Vec<u8> = id.into_iter().filter(u8::is_ascii_hexdigit).chain([b'\n']).collect();
        let hosts = format!(
            "127.0.0.1 localhost\n{} {}\n{} backend\n",
            self.ip(),
            self.name,
            self.world.ip()
        );
        let sudo = etc.join("sudoers.d/lab");
        self.world.write_file(etc.join("machine-id"), id)?;
        self.world.write_file(etc.join("hostname"), format!("{}\n", self.name))?;
        self.world.write_file(etc.join("hosts"), hosts)?;
        self.world.write_file(&sudo, "%sudo ALL=(ALL:ALL) NOPASSWD: ALL\n")?;
        self.world.command("chmod").arg("0440").arg(sudo).check()?;
        let key = etc.join("ssh/ssh_host_ed25519_key");
        let keygen = self.world.command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]);
        keygen.arg(key).check().map(drop)
    }

    fn prepared(&self, words: &[&str]) -> Result<PlacedCommand<'_>, LabError> {
        let (program, arguments) = words.split_first().ok_or_else(|| LabError::Missing {
            what: "the name of a program to run".into(),
            hint: "give at least one word".into(),
        })?;
        Ok(self.command(program).args(arguments))
    }
}

impl Drop for BootedHost<'_> {
    fn drop(&mut self) {
        // What does not end now ends with the world.
        let _ = self.end();
    }
}

impl Deref for BootedHost<'_> {
    type Target = Place;

    /// Panics on a host that was never switched on: a test that is wrong.
    fn deref(&self) -> &Place {
        self.place.as_ref().expect("a host must be switched on before anything runs on it")
    }
}

/// An overlay on the shared tree: what the host writes is kept in memory as long as its world.
fn make_disk(tree: &Path, folder: &Path) -> io::Result<()> {
    fs::create_dir(folder)?;
    filesystem::mount_tmpfs(folder, "mode=0755")?;
    for name in ["upper", "work", "root"] {
        fs::create_dir(folder.join(name))?;
    }
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        tree.display(),
        folder.join("upper").display(),
        folder.join("work").display()
    );
    let (what, none) = (Some("overlay"), MsFlags::empty());
    Ok(mount(what, &folder.join("root"), what, none, Some(layers.as_str()))?)
}
