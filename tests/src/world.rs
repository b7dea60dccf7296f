//! The world of one test or demo: a private network, where the backend and clients run, and its servers around it.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use nix::sched::{CloneFlags, unshare};

use crate::init::{Lifetime, Starting};
use crate::place::on_own_thread;
use crate::{BACKEND_ADDRESS, Host, HostBuilder, LabError, Place, Rootfs, filesystem, network};

/// Where files of a world go: a folder in memory that only this world sees.
const FOLDER: &str = "/run/lab";

/// A private network with room for the backend (the machine's files, but an own empty `/run`) and for servers.
/// Dereferences to its [`Place`]: `world.command(...)`, `world.read_file(...)`.
#[derive(Debug)]
pub struct World {
    place: Place,
    rootfs: Rootfs,
    servers: AtomicU8,
}

impl World {
    /// A world that ends with this guard or with this process, however that ends.
    ///
    /// # Errors
    /// [`LabError`] when the lab can't be built here.
    pub fn new() -> Result<Self, LabError> {
        Self::with_lifetime(Lifetime::Maker)
    }

    /// A world that stays until its process 1 ([`Place::init_pid`]) is killed; its servers end with it.
    ///
    /// # Errors
    /// [`LabError`] when the lab can't be built here.
    pub fn kept() -> Result<Self, LabError> {
        Self::with_lifetime(Lifetime::UntilKilled)
    }

    fn with_lifetime(lifetime: Lifetime) -> Result<Self, LabError> {
        let rootfs = Rootfs::ensure()?;
        let starting = on_own_thread(|| {
            unshare(
                CloneFlags::CLONE_FS
                    | CloneFlags::CLONE_NEWNS
                    | CloneFlags::CLONE_NEWNET
                    | CloneFlags::CLONE_NEWUTS,
            )?;
            filesystem::make_private()?;
            filesystem::mount_tmpfs(Path::new("/run"), "mode=0755")?;
            fs::create_dir(FOLDER)?;
            nix::unistd::sethostname("lab")?;
            Starting::spawn(lifetime)
        });
        let init = starting.map_err(LabError::doing("make the namespaces of a world"))?.ready()?;
        let place = Place::new("the world", init, None)?;
        network::set_up_world(&place)?;
        Ok(Self { place, rootfs, servers: AtomicU8::new(0) })
    }

    /// A new server, to be configured and started.
    #[must_use]
    pub fn host<'world>(&'world self, name: &str) -> HostBuilder<'world> {
        HostBuilder::new(self, name)
    }

    /// A new server with sshd running and nothing special.
    ///
    /// # Errors
    /// [`LabError`] when it can't be started.
    pub fn start_host(&self, name: &str) -> Result<Host, LabError> {
        self.host(name).start()
    }

    /// The folder for files of this world (in memory, seen in the world only).
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        PathBuf::from(FOLDER)
    }

    /// The address under which servers reach programs of the world.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        BACKEND_ADDRESS
    }

    /// The address under which servers reach a program of the world that listens on `port`.
    #[must_use]
    pub fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(), port)
    }

    pub(crate) fn next_server(&self) -> u8 {
        self.servers.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    pub(crate) fn rootfs(&self) -> &Rootfs {
        &self.rootfs
    }
}

impl Deref for World {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}
