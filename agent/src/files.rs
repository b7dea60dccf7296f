//! Small secret files (configuration, keys), replaced at once or not at all. Only for folders
//! that root alone may write: files in homes are entered otherwise. This file must not know what
//! is in them.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Makes the folder of `path` (0755) if it is missing.
///
/// # Errors
/// As the system says.
pub fn make_parent(path: &Path) -> io::Result<()> {
    let folder = folder_of(path);
    if folder.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(0o755))
}

/// Replaces `path` by a file of mode 0600 with these bytes: written aside, synced, renamed, and
/// the folder synced.
///
/// # Errors
/// As the system says; the old file is then intact.
pub fn replace_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    make_parent(path)?;
    let aside = aside(path);
    let written = write_aside(&aside, bytes).and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        // The failure itself is what counts; a left-over is overwritten next time.
        let _ = fs::remove_file(&aside);
    }
    written?;
    File::open(folder_of(path))?.sync_all()
}

fn write_aside(aside: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(aside)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::replace_secret;

    #[test]
    fn replaces_with_mode_0600_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/agent.toml");
        replace_secret(&path, b"one").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(path.with_file_name("agent.toml.new"), b"left over").unwrap();
        replace_secret(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.key");
        fs::write(&path, b"old").unwrap();
        // A folder stands where the new file would be written.
        fs::create_dir(folder.path().join("agent.key.new")).unwrap();
        assert!(replace_secret(&path, b"new").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }
}
