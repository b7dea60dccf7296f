//! The status file: what `bastio-agent status` shows, written by the processor when it changes.
//!
//! Holds no secret and may be read by everyone. This file must not know where the facts come
//! from. A file that cannot be written stops nothing: it is said once in the log.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bastio_protocol::Status;
use serde::{Deserialize, Serialize};

use crate::pipe::LinkState;

/// What the file says, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The processor's process id.
    pub pid: u32,
    /// The agent's version.
    pub version: String,
    /// Since when the processor runs, in seconds since 1970.
    pub started: u64,
    /// The link to the backend, once the connector has said something.
    pub link: Option<LinkState>,
    /// Since when the link is so, in seconds since 1970.
    pub link_since: Option<u64>,
    /// How the actions since then ended.
    pub actions: Counts,
    /// When the last action ended, in seconds since 1970.
    pub last_action: Option<u64>,
}

/// How many actions ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// 200
    pub done: u64,
    /// 300
    pub unchanged: u64,
    /// 400 and 500
    pub failed: u64,
}

impl StatusReport {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read, or is none of ours (`InvalidData`).
    pub fn read(path: &Path) -> std::io::Result<Self> {
        Ok(serde_json::from_reader(File::open(path)?)?)
    }
}

/// The file and what it says.
#[derive(Debug)]
pub struct StatusFile {
    path: PathBuf,
    report: StatusReport,
    /// Whether the last attempt to write failed.
    failed: bool,
}

impl StatusFile {
    /// A status file of this process; nothing is written yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        let report = StatusReport {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: now(),
            link: None,
            link_since: None,
            actions: Counts::default(),
            last_action: None,
        };
        Self { path, report, failed: false }
    }

    /// Notes the state of the link.
    pub fn set_link(&mut self, link: LinkState) {
        let link = Some(link);
        if self.report.link != link {
            self.report.link = link;
            self.report.link_since = Some(now());
            self.write();
        }
    }

    /// Counts an action.
    pub fn count(&mut self, status: Status) {
        let counts = &mut self.report.actions;
        match status {
            Status::Done => counts.done += 1,
            Status::Unchanged => counts.unchanged += 1,
            Status::Refused | Status::Failed => counts.failed += 1,
        }
        self.report.last_action = Some(now());
        self.write();
    }

    /// Writes the file, whole or not at all.
    pub fn write(&mut self) {
        let written = replace(&self.path, &self.report);
        match written {
            Err(error) if !self.failed => {
                let path = self.path.display();
                tracing::warn!(%path, %error, "cannot write the status file");
                self.failed = true;
            }
            Err(_) => {}
            Ok(()) => self.failed = false,
        }
    }
}

fn replace(path: &Path, report: &StatusReport) -> std::io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = match make(&aside) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            std::fs::create_dir_all(path.parent().ok_or(ErrorKind::InvalidInput)?)?;
            make(&aside)?
        }
        // Left over.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            std::fs::remove_file(&aside)?;
            make(&aside)?
        }
        made => made?,
    };
    file.set_permissions(Permissions::from_mode(0o644))?;
    let mut text = serde_json::to_vec(report)?;
    text.push(b'\n');
    file.write_all(&text)?;
    std::fs::rename(&aside, path)
}

/// Follows no link, so the folder may even belong to the connector.
fn make(aside: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o644).open(aside)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_happened_and_can_be_read_by_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/status.json");
        let mut status = StatusFile::new(path.clone());
        status.write();
        assert_eq!(StatusReport::read(&path).unwrap(), status.report);
        for ended in [Status::Done, Status::Unchanged, Status::Failed, Status::Done] {
            status.count(ended);
        }
        status.set_link(LinkState::Connected { backend: "b:2357".into(), since: 5 });
        let report = StatusReport::read(&path).unwrap();
        assert_eq!(report.actions, Counts { done: 2, unchanged: 1, failed: 1 });
        assert_eq!(report.link, Some(LinkState::Connected { backend: "b:2357".into(), since: 5 }));
        assert!(report.last_action.is_some() && report.link_since.is_some());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn is_written_on_changes_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status.json");
        let mut status = StatusFile::new(path.clone());
        let link = LinkState::Disconnected { reason: "refused".into(), retry_in: 3 };
        status.set_link(link.clone());
        std::fs::remove_file(&path).unwrap();
        status.set_link(link);
        assert!(!path.exists());
    }

    #[test]
    fn a_link_in_its_place_is_replaced_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, victim) = (folder.path().join("status.json"), folder.path().join("victim"));
        std::fs::write(&victim, "keep").unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        std::os::unix::fs::symlink(&victim, path.with_extension("new")).unwrap();
        StatusFile::new(path.clone()).write();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "keep");
        assert!(path.symlink_metadata().unwrap().is_file());
    }

    #[test]
    fn a_folder_that_cannot_be_written_stops_nothing() {
        let mut status = StatusFile::new(PathBuf::from("/proc/no/such/status.json"));
        status.write();
        assert!(status.failed);
    }
}
