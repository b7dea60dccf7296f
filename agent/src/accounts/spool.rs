//! What runs later in the name of an account: crontabs, at jobs, and the order to run its services
//! without a login. No account tool removes these, and they would come to life again with the next
//! account of that name or user id.
//!
//! This file must not know why an account goes.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bastio_protocol::Username;
use nix::unistd::Uid;

use super::AccountsError;

/// Folders of root's with a file named after the account: crontabs on Debian, Red Hat and SUSE, and
/// loginctl(1) `enable-linger`.
const BY_NAME: [&str; 4] =
    ["var/spool/cron/crontabs", "var/spool/cron", "var/spool/cron/tabs", "var/lib/systemd/linger"];
/// Folders of the at daemon's (at(1)) with files that belong to the account.
const BY_OWNER: [&str; 3] = ["var/spool/cron/atjobs", "var/spool/at", "var/spool/atjobs"];

/// Removes all of it.
pub(super) fn remove_all(name: &Username, uid: Uid) -> Result<(), AccountsError> {
    remove_below(Path::new("/"), name, uid)
}

fn remove_below(root: &Path, name: &Username, uid: Uid) -> Result<(), AccountsError> {
    for folder in BY_NAME {
        remove_file(&root.join(folder).join(name.as_str()))?;
    }
    for folder in BY_OWNER {
        for job in files_of(&root.join(folder), uid)? {
            remove_file(&job)?;
        }
    }
    Ok(())
}

/// The plain files of that owner; none in a folder that is not there.
fn files_of(folder: &Path, uid: Uid) -> Result<Vec<PathBuf>, AccountsError> {
    let failed = |error| not_removed(folder, &error);
    let entries = match std::fs::read_dir(folder) {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        // What went away meanwhile need not be removed.
        if entry.metadata().is_ok_and(|found| found.is_file() && found.uid() == uid.as_raw()) {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// Removes a file, or a link and not what it leads to. A folder is none of the account's: the names
/// of accounts and of folders meet in `/var/spool/cron`.
fn remove_file(path: &Path) -> Result<(), AccountsError> {
    match std::fs::remove_file(path) {
        Err(error) if is_absent(&error) || error.kind() == ErrorKind::IsADirectory => Ok(()),
        removed => removed.map_err(|error| not_removed(path, &error)),
    }
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn not_removed(path: &Path, error: &std::io::Error) -> AccountsError {
    AccountsError::Spool { path: path.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_accounts_own_jobs_go() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for folder in BY_NAME.into_iter().chain(BY_OWNER) {
            std::fs::create_dir_all(path(folder)).unwrap();
        }
        let (crontab, linger) = ("var/spool/cron/crontabs/alice", "var/lib/systemd/linger/alice");
        let (job, other) = ("var/spool/cron/atjobs/a00001", "var/spool/cron/crontabs/bob");
        for file in [crontab, linger, job, other] {
            std::fs::write(path(file), "x").unwrap();
        }
        std::os::unix::fs::symlink(path(other), path("var/spool/cron/alice")).unwrap();
        let (alice, uid) = (Username::parse("alice").unwrap(), nix::unistd::geteuid());
        for _ in 0..2 {
            remove_below(root.path(), &alice, uid).unwrap();
            for gone in [crontab, linger, job, "var/spool/cron/alice"] {
                assert!(!path(gone).exists(), "{gone}");
            }
            assert!(path(other).exists());
        }
        std::fs::write(path(job), "x").unwrap();
        let tabs = Username::parse("tabs").unwrap();
        remove_below(root.path(), &tabs, Uid::from_raw(4_000_000)).unwrap();
        assert!(path("var/spool/cron/tabs").is_dir(), "a folder is no crontab");
        assert!(path(job).exists(), "another's job");
    }

    #[test]
    fn a_host_without_such_folders_is_fine() {
        let root = tempfile::tempdir().unwrap();
        let alice = Username::parse("alice").unwrap();
        remove_below(root.path(), &alice, Uid::from_raw(1)).unwrap();
    }
}
