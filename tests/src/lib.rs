//! The lab: isolated servers on one machine, for end-to-end tests and for the demo.
//!
//! A [`World`] is a private network with a place for the backend; a [`Host`] in it is a server with its own root file
//! system, processes, network, name, accounts and sshd. Both are made of kernel namespaces that live and die with the
//! process that made them: after a crash, a `kill -9` or Ctrl-C nothing is left, and nothing of the machine's own
//! accounts, sshd or `/etc` is ever touched. Knows nothing of bastio's crates; it only runs what it is given.
//!
//! Needs root, Linux 5.8 or later, and the tools that `tests/install-tools` installs.

mod binaries;
mod booted;
mod cgroup;
mod command;
mod disk;
mod error;
mod filesystem;
pub mod fleet;
mod host;
mod init;
mod network;
mod pipe;
mod place;
mod postgres;
mod proxy;
mod ready;
mod rootfs;
mod running;
mod ssh;
mod world;

pub use binaries::binary;
pub use booted::BootedHost;
pub use command::{Finished, PlacedCommand};
pub use error::LabError;
pub use host::{Host, HostBuilder};
pub use network::BACKEND_ADDRESS;
pub use pipe::Pipe;
pub use place::Place;
pub use postgres::{Durability, Postgres};
pub use proxy::{Direction, Proxy};
pub use rootfs::Rootfs;
pub use running::Running;
pub use ssh::{SshClient, SshKey};
pub use world::World;

/// Whether this process may build a lab (it needs root).
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether this run must not skip anything: the environment says `CI=true` (or `CI=1`).
#[must_use]
pub fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| matches!(value.as_str(), "true" | "1"))
}

/// First line of a test that needs the lab: without root it says loudly that the test did not run and leaves it;
/// in CI that is a failure.
#[macro_export]
macro_rules! require_root {
    () => {
        if !$crate::is_root() {
            assert!(
                !$crate::is_ci(),
                "NOT RUN: this test needs root, and in CI no test may be left out"
            );
            eprintln!("\n*** NOT RUN: this test needs root: {}:{} ***\n", file!(), line!());
            return;
        }
    };
}
