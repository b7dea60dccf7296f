//! What this server is, for people at the backend: a few files, uname(2), and what two programs say
//! of their version. Gathered once, before the connector gives up its rights; what is unknown is
//! left out. This file must not know who is told.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bastio_protocol::Facts;

use crate::ask;

/// How long a program may take to say its version.
const LIMIT: Duration = Duration::from_secs(2);
/// Gathers the facts.
#[must_use]
pub fn gather() -> Facts {
    let uname = nix::sys::utsname::uname().ok();
    let uname = uname.as_ref();
    let os = os_release();
    let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    let known = [
        ("hostname", uname.map(|it| text(it.nodename()))),
        ("machine_id", std::fs::read_to_string("/etc/machine-id").ok()),
        ("os", os.as_deref().and_then(|os| field(os, "PRETTY_NAME"))),
        ("os_id", os.as_deref().and_then(|os| field(os, "ID"))),
        ("os_version", os.as_deref().and_then(|os| field(os, "VERSION_ID"))),
        ("arch", uname.map(|it| text(it.machine()))),
        ("kernel", uname.map(|it| format!("{} {}", text(it.sysname()), text(it.release())))),
        ("agent_version", Some(env!("CARGO_PKG_VERSION").to_owned())),
        ("sshd_version", version("sshd").as_deref().and_then(sshd_version)),
        ("sudo_version", version("sudo").as_deref().and_then(sudo_version)),
    ];
    let known = known.into_iter().filter_map(|(name, value)| {
        let value = value?.trim().to_owned();
        (!value.is_empty()).then(|| (name.to_owned(), value))
    });
    Facts::from(known.collect::<BTreeMap<_, _>>())
}

/// os-release(5).
fn os_release() -> Option<String> {
    let files = ["/etc/os-release", "/usr/lib/os-release"];
    files.iter().find_map(|file| std::fs::read_to_string(file).ok())
}

fn field(os_release: &str, name: &str) -> Option<String> {
    let mut lines = os_release.lines().filter_map(|line| line.trim().split_once('='));
    let (_, value) = lines.find(|(found, _)| *found == name)?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

/// The first word that names a version: older ones do not know `-V` and complain around it.
fn sshd_version(said: &str) -> Option<String> {
    let line = said.lines().map(str::trim).find(|line| line.starts_with("OpenSSH_"))?;
    line.split(',').next().map(str::to_owned)
}

fn sudo_version(said: &str) -> Option<String> {
    said.lines().find_map(|line| line.trim().strip_prefix("Sudo version ")).map(str::to_owned)
}

/// What the program says when it is asked for its version, on either output.
fn version(program: &str) -> Option<String> {
    said(&ask::find(program)?)
}

/// Also what was said by one that had to be killed: older ones do not know the question.
fn said(path: &Path) -> Option<String> {
    let (ended, mut said) = ask::run(path, &["-V"], LIMIT);
    said.stdout.append(&mut said.stderr);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    (ended.is_ok() || !text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (said, version) in [
            (
                "OpenSSH_9.2p1 Debian-2+deb12u3, OpenSSL 3.0.15\n",
                Some("OpenSSH_9.2p1 Debian-2+deb12u3"),
            ),
            (
                "unknown option -- V\nOpenSSH_8.4p1, OpenSSL 1.1.1\nusage: sshd\n",
                Some("OpenSSH_8.4p1"),
            ),
            ("usage: sshd\n", None),
            ("", None),
        ] {
            assert_eq!(sshd_version(said).as_deref(), version, "{said}");
        }
        let said = "Sudo version 1.9.13p3\nSudoers policy plugin version 1.9.13p3\n";
        assert_eq!(sudo_version(said).as_deref(), Some("1.9.13p3"));
        assert_eq!(sudo_version("sudo: no\n"), None);
    }

    #[test]
    fn the_systems_name_is_read_from_os_release() {
        let text = "NAME=\"Debian\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n";
        let pretty = field(text, "PRETTY_NAME");
        assert_eq!(pretty.as_deref(), Some("Debian GNU/Linux 12 (bookworm)"));
        assert_eq!(field(text, "ID").as_deref(), Some("debian"));
        assert_eq!(field(text, "VERSION_ID"), None);
    }

    #[test]
    fn facts_are_gathered_here() {
        let facts = gather();
        let facts = facts.as_map();
        assert_eq!(facts["agent_version"], env!("CARGO_PKG_VERSION"));
        assert!(facts["kernel"].starts_with("Linux ") && !facts["hostname"].is_empty());
    }

    #[test]
    fn a_program_that_does_not_end_or_stop_is_cut_short() {
        let begun = Instant::now();
        // Says nothing: `cat -V` is refused; `tail -V`, too; yes(1) repeats it for ever.
        let text = said(Path::new("/usr/bin/yes")).unwrap();
        assert!(
            text.starts_with("/usr/bin/yes: invalid option") || text.len() >= 4 * 1024,
            "{text}"
        );
        assert!(begun.elapsed() < LIMIT * 2);
        assert_eq!(said(Path::new("/no/such/program")), None);
    }
}
