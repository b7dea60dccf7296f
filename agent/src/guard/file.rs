//! A file as it was: taken before a change, put back byte for byte with its owner and mode.
//!
//! The folder is entered by handle, no link is followed; the new file is written aside, flushed, renamed, and the folder
//! flushed. This file must not know what is in the files.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::keys_on_disk::handles::open_without_links;

/// Largest file that is kept, in bytes.
const LIMIT: u64 = 1024 * 1024;

/// A file, or that there was none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it was; none when there was nothing.
    pub was: Option<Content>,
}

/// A file's bytes, owner and mode.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// Its bytes.
    #[serde(serialize_with = "write_base64", deserialize_with = "read_base64")]
    pub bytes: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bytes, mode, uid, gid } = self;
        write!(f, "Content({} bytes, {mode:o}, {uid}:{gid})", bytes.len())
    }
}

impl SavedFile {
    /// Takes a file as it is. Links and folders in its place are an error: nothing of them could be brought back.
    ///
    /// # Errors
    /// As the system says.
    pub fn take(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), was: read(path)? })
    }

    /// Puts it back, or takes away what is there now; false when it is as it was.
    ///
    /// # Errors
    /// As the system says; what is there now is then intact.
    pub fn put_back(&self) -> io::Result<bool> {
        if read(&self.path).is_ok_and(|now| now == self.was) {
            return Ok(false);
        }
        let name = self.path.file_name().ok_or(Errno::EINVAL)?;
        let folder = match open_folder(&self.path) {
            Err(Errno::ENOENT) if self.was.is_none() => return Ok(false),
            opened => opened?,
        };
        match &self.was {
            None => match unlinkat(&folder, name, UnlinkatFlags::NoRemoveDir) {
                Err(Errno::ENOENT) => {}
                removed => removed?,
            },
            Some(content) => {
                let aside = ".bastio-rollback";
                let written = content
                    .write(&folder, aside)
                    .and_then(|()| Ok(renameat(&folder, aside, &folder, name)?));
                if written.is_err() {
                    // The failure itself is what counts; a left-over is replaced next time.
                    let _ = unlinkat(&folder, aside, UnlinkatFlags::NoRemoveDir);
                }
                written?;
            }
        }
        File::from(folder).sync_all()?;
        Ok(true)
    }
}

impl Content {
    fn write(&self, folder: impl AsFd, name: &str) -> io::Result<()> {
        // One that a crash left over. If it stays, the next step fails.
        let _ = unlinkat(&folder, name, UnlinkatFlags::NoRemoveDir);
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&folder, name, flags, Mode::from_bits_truncate(0o600))?);
        file.write_all(&self.bytes)?;
        fchown(&file, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
        file.set_permissions(Permissions::from_mode(self.mode & 0o777))?;
        file.sync_all()
    }
}

fn read(path: &Path) -> io::Result<Option<Content>> {
    let name = path.file_name().ok_or(Errno::EINVAL)?;
    let folder = match open_folder(path) {
        Err(Errno::ENOENT) => return Ok(None),
        opened => opened?,
    };
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = match openat(&folder, name, flags, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(None),
        opened => File::from(opened?),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > LIMIT {
        return Err(Errno::EFBIG.into());
    }
    let mut bytes = Vec::new();
    file.take(LIMIT).read_to_end(&mut bytes)?;
    let (uid, gid) = (metadata.uid(), metadata.gid());
    Ok(Some(Content { bytes, mode: metadata.permissions().mode() & 0o777, uid, gid }))
}

fn open_folder(path: &Path) -> Result<OwnedFd, Errno> {
    open_without_links(path.parent().unwrap_or(Path::new("/")))
}

fn write_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn read_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn look(path: &Path) -> Option<(Vec<u8>, u32)> {
        let bytes = fs::read(path).ok()?;
        Some((bytes, fs::metadata(path).unwrap().permissions().mode() & 0o7777))
    }

    #[test]
    fn what_was_there_comes_back_byte_for_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let changes: &[&dyn Fn()] = &[
            &|| fs::write(&path, "new").unwrap(),
            &|| fs::remove_file(&path).unwrap(),
            &|| fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap(),
            &|| {
                fs::remove_file(&path).unwrap();
                std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
            },
        ];
        for change in changes {
            let _ = fs::remove_file(&path);
            fs::write(&path, b"old \xff\r\n, no newline").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o440)).unwrap();
            let before = look(&path);
            let saved = SavedFile::take(&path).unwrap();
            assert!(!saved.put_back().unwrap(), "nothing to do");
            let text = serde_json::to_string(&saved).unwrap();
            change();
            assert!(serde_json::from_str::<SavedFile>(&text).unwrap().put_back().unwrap());
            assert_eq!(look(&path), before);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn what_was_not_there_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/file");
        let saved = SavedFile::take(&path).unwrap();
        assert!(!saved.put_back().unwrap());
        fs::create_dir(folder.path().join("a")).unwrap();
        assert!(!saved.put_back().unwrap());
        fs::write(&path, "new").unwrap();
        assert!(saved.put_back().unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn links_and_folders_are_not_taken_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(SavedFile::take(&real).is_err());
        assert!(SavedFile::take(&link).is_err());
        let was = Some(Content { bytes: b"x".to_vec(), mode: 0o600, uid: 0, gid: 0 });
        let beneath = SavedFile { path: link.join("file"), was };
        assert!(beneath.put_back().is_err());
        assert_eq!(fs::read_dir(&real).unwrap().count(), 0);
    }
}
