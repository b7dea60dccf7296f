//! What all tests of hosts share: a backend, a host with the agent's package, and ways to look at it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bastio_tests::fleet::{Backend, EnrollKey};
use bastio_tests::{BootedHost, SshClient, SshKey, World, binary};

/// Time for whatever a host has to do.
pub const LIMIT: Duration = Duration::from_secs(60);
/// The version that `make hosts` builds to upgrade from.
pub const OLD: &str = "0.0.1";
/// The version in the tree.
pub const NEW: &str = env!("CARGO_PKG_VERSION");
pub const UNITS: [&str; 2] = ["bastio-agent.service", "bastio-processor.service"];
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A package that `make hosts` has built; one that is missing is a failure and never a reason to leave a test out.
pub fn package(file: &str) -> PathBuf {
    let built = binary("bastio-lab").unwrap();
    let path = built.parent().and_then(|debug| debug.parent()).unwrap().join("packages").join(file);
    assert!(path.is_file(), "{} is missing: run `make hosts`, not the tests alone", path.display());
    path
}

/// The .deb of the agent.
pub fn agent_deb(version: &str) -> PathBuf {
    package(&format!("bastio-agent_{version}-1_amd64.deb"))
}

/// Waits until `done`; fails after [`LIMIT`] and says what was waited for.
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Copies a package to the host and installs it.
pub fn dpkg_install(host: &BootedHost<'_>, version: &str) {
    host.copy_in(agent_deb(version), "/tmp/agent.deb").unwrap();
    host.exec(&["dpkg", "-i", "/tmp/agent.deb"]).unwrap();
}

/// Makes the host known to the backend; the API key comes through standard input.
pub fn enroll(host: &BootedHost<'_>, key: &EnrollKey) {
    enroll_with(host, key, &[]);
}

/// The same with more words on the command line.
pub fn enroll_with(host: &BootedHost<'_>, key: &EnrollKey, more: &[&str]) {
    let command = host.command("bastio-agent").args(["enroll", "--backend", &key.backend]);
    let command = command.args(["--name", host.name(), "--host-key", &key.host_key]);
    let command = command.args(["--api-key-file", "-"]).args(more);
    command.input(key.secret.as_bytes()).check().unwrap();
}

/// A host with the installed, enrolled and connected agent.
pub fn agent_host<'world>(
    world: &'world World,
    backend: &Backend<'_>,
    version: &str,
) -> BootedHost<'world> {
    agent_host_of(world, backend, version, "bookworm")
}

/// The same of any Debian release.
pub fn agent_host_of<'world>(
    world: &'world World,
    backend: &Backend<'_>,
    version: &str,
    release: &str,
) -> BootedHost<'world> {
    let host = BootedHost::start(world, "web-1", release).unwrap();
    dpkg_install(&host, version);
    enroll(&host, &backend.enroll_key("web-1").unwrap());
    host.exec(&["systemctl", "start", "bastio-agent"]).unwrap();
    backend.wait_connected(1, LIMIT).unwrap();
    host
}

/// A person with a key, who may log in to all servers, with sudo; returns when they can.
pub fn add_person<'world>(
    world: &'world World,
    backend: &Backend<'_>,
    name: &str,
) -> SshClient<'world> {
    order_person(world, backend, name, "--wait")
}

/// The same, perhaps with `--no-wait`.
pub fn order_person<'world>(
    world: &'world World,
    backend: &Backend<'_>,
    name: &str,
    wait: &str,
) -> SshClient<'world> {
    let key = SshKey::generate(world, name, &["ed25519"]).unwrap();
    let file = key.public_file();
    let words = ["user", "add", name, "--key", file.to_str().unwrap(), "--on", "*", "--sudo", wait];
    backend.console(&words).unwrap().check().unwrap();
    SshClient::new(world, &key)
}

/// Whether this person can become root there.
pub fn can_sudo(ssh: &SshClient<'_>, name: &str, host: &BootedHost<'_>) -> bool {
    ssh.run(name, host.ip(), "sudo -n id -u").unwrap().stdout.trim() == "0"
}

/// What systemd says about a unit, e.g. `ActiveState`.
pub fn show(host: &BootedHost<'_>, unit: &str, property: &str) -> String {
    let words = ["systemctl", "show", "--value", "--property", property, unit];
    host.exec(&words).unwrap().stdout.trim().to_owned()
}

/// The main process of a unit, as the host numbers it.
pub fn main_pid(host: &BootedHost<'_>, unit: &str) -> String {
    show(host, unit, "MainPID")
}

pub fn are_active(host: &BootedHost<'_>) -> bool {
    UNITS.iter().all(|unit| show(host, unit, "ActiveState") == "active")
}

/// A console command that must succeed.
#[track_caller]
pub fn done(backend: &Backend<'_>, words: &[&str]) -> String {
    backend.console(words).unwrap().check().unwrap().stdout
}

/// Mode and owners of a file.
#[track_caller]
pub fn stat(host: &BootedHost<'_>, path: &str) -> String {
    host.exec(&["stat", "-c", "%a %U:%G", path]).unwrap().stdout.trim().to_owned()
}

/// What systemd's journal has of the processor's errors, which includes everything that its unit forbids.
pub fn errors(host: &BootedHost<'_>) -> String {
    let words = ["journalctl", "--no-pager", "-o", "cat", "-p", "err", "-u", "bastio-processor"];
    host.exec(&words).unwrap().stdout
}

/// Whether a login succeeds.
pub fn logs_in(ssh: &SshClient<'_>, name: &str, host: &BootedHost<'_>) -> bool {
    ssh.run(name, host.ip(), "true").unwrap().success()
}
