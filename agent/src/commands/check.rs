//! `check`: looks at everything that the agent needs, and changes nothing.

use std::path::Path;
use std::process::ExitCode;

use bastio_transport::PrivateKey;
use nix::unistd::Group;

use super::{complain, key_hint, load, say};
use crate::accounts::{MANAGED_GROUP, SUDO_GROUPS};
use crate::cli::Cli;
use crate::config::{BackendSettings, Settings};
use crate::connector::lockdown::Identity;

/// The programs that change accounts.
const TOOLS: [&str; 5] = ["useradd", "usermod", "userdel", "gpasswd", "groupadd"];
/// Where they live: the same on every distribution we know.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// One thing looked at.
struct Finding {
    what: &'static str,
    /// What was found, or what is wrong with it.
    text: Result<String, String>,
}

pub(super) fn check(cli: &Cli) -> ExitCode {
    let settings = match load(cli) {
        Ok(settings) => settings,
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::from(2);
        }
    };
    let findings = findings(&settings);
    for finding in &findings {
        let (mark, text) = match &finding.text {
            Ok(text) => ("ok     ", text),
            Err(text) => ("MISSING", text),
        };
        say(&format!(
            "{mark} {:<11} {}",
            finding.what,
            text.replace('\n', "\n                    ")
        ));
    }
    for note in &settings.notes {
        say(&format!("note    {:<11} {note}", "file"));
    }
    ExitCode::from(u8::from(findings.iter().any(|finding| finding.text.is_err())))
}

fn findings(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![
        Finding { what: "backend", text: backend(settings) },
        Finding { what: "agent key", text: agent_key(&settings.agent_key) },
        Finding { what: "orders", text: Ok(orders(settings)) },
        Finding { what: "user", text: user(&settings.user) },
        Finding { what: "sudo group", text: sudo_group() },
        Finding { what: "group", text: managed_group() },
    ];
    findings.extend(TOOLS.map(|tool| Finding { what: tool, text: find(tool) }));
    findings
}

fn backend(settings: &Settings) -> Result<String, String> {
    let describe = |backend: &BackendSettings| {
        let pins: Vec<String> = backend.host_keys.iter().map(|pin| pin.fingerprint()).collect();
        let login = if backend.api_key.is_some() { ", login by API key (version 1)" } else { "" };
        format!("{}, host key {}{login}", backend.address(), pins.join(" or "))
    };
    settings.backend().map(describe).map_err(|error| error.to_string())
}

fn orders(settings: &Settings) -> String {
    let key = settings.signer.as_ref().map(|signer| signer.key.fingerprint());
    match (key, settings.require_signed) {
        (Some(key), true) => format!("obeyed when signed; pinned key {key}"),
        (Some(key), false) => format!("obeyed when signed by {key}, and when not signed at all"),
        (None, _) => "obeyed without signature (enrol again to pin the backend's key)".to_owned(),
    }
}

fn agent_key(path: &Path) -> Result<String, String> {
    let key = PrivateKey::read(path).map_err(|error| format!("{error}{}", key_hint(&error)))?;
    Ok(format!("{}, {}", path.display(), key.fingerprint()))
}

fn user(name: &str) -> Result<String, String> {
    Identity::find(name).map(|_| name.to_owned()).map_err(|error| error.to_string())
}

fn sudo_group() -> Result<String, String> {
    let there = |name: &&str| matches!(Group::from_name(name), Ok(Some(_)));
    let found = SUDO_GROUPS.into_iter().find(|name| there(name));
    found.map(str::to_owned).ok_or_else(|| {
        "neither sudo nor wheel: users with sudo rights will be refused\nhint: install sudo"
            .to_owned()
    })
}

fn managed_group() -> Result<String, String> {
    match Group::from_name(MANAGED_GROUP) {
        Ok(Some(group)) => Ok(format!("{MANAGED_GROUP}, {} members", group.mem.len())),
        Ok(None) => Ok(format!("{MANAGED_GROUP} is made when it is first needed")),
        Err(error) => Err(format!("{MANAGED_GROUP}: {error}")),
    }
}

fn find(tool: &str) -> Result<String, String> {
    let found =
        FOLDERS.iter().map(|folder| Path::new(folder).join(tool)).find(|path| path.is_file());
    found.map(|path| path.display().to_string()).ok_or_else(|| {
        "not found\nhint: install the package passwd (Debian) or shadow-utils".to_owned()
    })
}
