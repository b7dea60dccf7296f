//! The sshd that runs on this host: has its configuration checked, makes it read it anew, and says
//! where it listens.
//!
//! This file must not know keys.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::effective::Effective;
use super::{LIMIT, settings};
use crate::ask::{self, ask};

/// Where it notes its process id unless told otherwise.
const PID_FILE: &str = "/run/sshd.pid";

/// An sshd, running or started for each connection.
pub(super) struct Daemon {
    program: PathBuf,
    settings: Effective,
    /// Whether one listened when it was looked for.
    pub(super) was_running: bool,
}

impl Daemon {
    pub(super) fn find() -> Result<Self, String> {
        let program = ask::find("sshd").ok_or("there is no sshd on this host")?;
        let settings = settings(&program, None)?;
        let mut daemon = Self { program, settings, was_running: false };
        daemon.was_running = daemon.pid().is_some();
        Ok(daemon)
    }

    /// Whether its configuration, as it is on disk now, is one.
    pub(super) fn check(&self) -> Result<(), String> {
        let answer = ask(&self.program, &["-t"], LIMIT).map_err(|error| error.to_string())?;
        if answer.is_good() { Ok(()) } else { Err(format!("sshd -t: {}", answer.complaint())) }
    }

    /// Makes it read its configuration. One that is started for each connection reads it anyway.
    pub(super) fn reload(&self) -> Result<(), String> {
        match self.pid() {
            Some(pid) => kill(pid, Signal::SIGHUP)
                .map_err(|errno| format!("cannot make sshd (process {pid}) read it: {errno}")),
            None => Ok(()),
        }
    }

    /// The process that listens.
    pub(super) fn pid(&self) -> Option<Pid> {
        let file = self.settings.get("pidfile").unwrap_or(PID_FILE);
        let pid: i32 = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (pid > 1 && name.trim() == "sshd").then(|| Pid::from_raw(pid))
    }

    /// Where it can be reached from this host.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        let mut addresses: Vec<SocketAddr> =
            self.settings.all("listenaddress").filter_map(|it| it.parse().ok()).collect();
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let mut address = *addresses.first()?;
        match address.ip() {
            IpAddr::V4(it) if it.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(it) if it.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        Some(address)
    }

    /// Its public host keys, as `TYPE BASE64`.
    pub(super) fn host_keys(&self) -> Vec<String> {
        let read = |file: &str| {
            let text = std::fs::read_to_string(Path::new(&format!("{file}.pub"))).ok()?;
            let mut words = text.split_ascii_whitespace();
            Some(format!("{} {}", words.next()?, words.next()?))
        };
        self.settings.all("hostkey").filter_map(read).collect()
    }
}

/// Whether the main file reads the folder of additions.
pub(super) fn includes_additions(config: &str) -> bool {
    let lines = config.lines().map(str::trim);
    lines.filter_map(|line| line.split_once([' ', '\t', '='])).any(|(name, files)| {
        name.eq_ignore_ascii_case("include") && files.contains("sshd_config.d")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<String> {
        let settings = Effective::parse(&format!("authorizedkeysfile x\n{text}")).unwrap();
        let daemon = Daemon { program: PathBuf::new(), settings, was_running: false };
        daemon.address().map(|it| it.to_string())
    }

    #[test]
    fn sshd_is_reached_where_it_listens() {
        for (text, expected) in [
            ("listenaddress [::]:22\nlistenaddress 0.0.0.0:22", Some("127.0.0.1:22")),
            ("listenaddress [::]:2222", Some("[::1]:2222")),
            ("listenaddress 10.0.0.5:22\nlistenaddress [fe80::1]:22", Some("10.0.0.5:22")),
            ("", None),
        ] {
            assert_eq!(address(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn the_line_that_reads_additions_is_found() {
        assert!(includes_additions("#x\n\n include=/etc/ssh/sshd_config.d/*.conf\n"));
        assert!(!includes_additions("# Include /etc/ssh/sshd_config.d/*.conf\nInclude /x\n"));
    }
}
