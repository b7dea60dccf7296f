//! Labels of new files on hosts with SELinux: what a file takes the place of keeps its label, a new
//! one gets what the host's policy has for its path.
//!
//! Labels are set by handle, so nothing else can get them. A label that cannot be set is a
//! warning: the policy decides then. This file must not know what the files are for.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};

use crate::ask::{self, ask};

/// There where a kernel has SELinux at work.
const AT_WORK: &str = "/sys/fs/selinux/enforce";
/// Where the kernel keeps a label.
const ATTRIBUTE: &str = "security.selinux";
/// How long the tool may take.
const LIMIT: Duration = Duration::from_secs(5);
/// Longest label, in bytes.
const LONGEST: usize = 4096;

/// Labels a new file which takes the place of `old`, or is the first one at `path`. Does nothing on
/// a host without SELinux.
pub fn label_file(new: &File, old: Option<&File>, path: &Path) {
    Labels::of_host().apply(new, old, path, "file");
}

/// Labels a new folder.
pub fn label_folder(new: impl AsFd, path: &Path) {
    Labels::of_host().apply(new, None::<&File>, path, "dir");
}

/// How labels are found out and kept.
struct Labels {
    is_on: bool,
    attribute: &'static str,
    /// matchpathcon(8), which knows the policy.
    tool: Option<PathBuf>,
}

impl Labels {
    fn of_host() -> Self {
        let is_on = Path::new(AT_WORK).exists();
        let tool = is_on.then(|| ask::find("matchpathcon")).flatten();
        Self { is_on, attribute: ATTRIBUTE, tool }
    }

    fn apply(&self, new: impl AsFd, old: Option<impl AsFd>, path: &Path, kind: &str) {
        if !self.is_on {
            return;
        }
        let label = old.and_then(|old| self.read(old)).map_or_else(|| self.look_up(path, kind), Ok);
        let set = label.and_then(|label| {
            fsetxattr(new, self.attribute, &label, XattrFlags::empty())
                .map_err(|errno| errno.to_string())
        });
        if let Err(why) = set {
            let path = path.display();
            tracing::warn!(%path, why, "no SELinux label was set; run: restorecon -RF on its folder");
        }
    }

    fn read(&self, handle: impl AsFd) -> Option<Vec<u8>> {
        let mut label = vec![0; LONGEST];
        let len = fgetxattr(handle, self.attribute, &mut label[..]).ok()?;
        label.truncate(len);
        Some(label)
    }

    fn look_up(&self, path: &Path, kind: &str) -> Result<Vec<u8>, String> {
        let tool = self.tool.as_deref().ok_or("matchpathcon is not installed")?;
        let path = path.to_str().ok_or("its path is no text")?;
        let answer = ask(tool, &["-n", "-m", kind, path], LIMIT).map_err(|e| e.to_string())?;
        let label = answer.stdout.trim();
        if !answer.is_good() || label.is_empty() || label == "<<none>>" {
            return Err(answer.complaint());
        }
        // The kernel's own have a zero byte at the end.
        Ok([label.as_bytes(), b"\0"].concat())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Stands for the kernel's attribute: one that any owner may set.
    const STAND_IN: &str = "user.bastio-test";

    fn labels(folder: &Path, script: Option<&str>) -> Labels {
        let tool = script.map(|script| {
            let path = folder.join("matchpathcon");
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        });
        Labels { is_on: true, attribute: STAND_IN, tool }
    }

    fn file(folder: &Path, name: &str) -> File {
        File::create(folder.join(name)).unwrap()
    }

    #[test]
    fn a_first_file_gets_what_the_policy_has_for_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let labels = labels(folder.path(), Some(r#"echo "x:$1:$2:$3:$4""#));
        let new = file(folder.path(), "new");
        labels.apply(&new, None::<&File>, Path::new("/home/a/.ssh/k"), "file");
        assert_eq!(labels.read(&new).unwrap(), b"x:-n:-m:file:/home/a/.ssh/k\0");
    }

    #[test]
    fn a_file_keeps_the_label_of_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let labels = labels(folder.path(), Some("echo never"));
        let (old, new) = (file(folder.path(), "old"), file(folder.path(), "new"));
        fsetxattr(&old, STAND_IN, b"kept\0", XattrFlags::empty()).unwrap();
        labels.apply(&new, Some(&old), Path::new("/x"), "file");
        assert_eq!(labels.read(&new).unwrap(), b"kept\0");
    }

    #[test]
    fn without_an_answer_nothing_is_set() {
        let folder = tempfile::tempdir().unwrap();
        for script in [None, Some("exit 1"), Some("echo '<<none>>'"), Some("true")] {
            let labels = labels(folder.path(), script);
            let new = file(folder.path(), "new");
            labels.apply(&new, None::<&File>, Path::new("/x"), "file");
            assert_eq!(labels.read(&new), None, "{script:?}");
            assert!(labels.look_up(Path::new("/x"), "file").is_err());
        }
    }

    #[test]
    fn a_host_without_selinux_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let labels = Labels { is_on: false, ..labels(folder.path(), Some("echo label")) };
        let new = file(folder.path(), "new");
        labels.apply(&new, None::<&File>, Path::new("/x"), "file");
        assert_eq!(labels.read(&new), None);
    }
}
