//! The backend's own SSH keys, by which agents know it: made once, never overwritten.
//!
//! This file must not know which port uses which key.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bastio_transport::{KeyError, KeyKind, PrivateKey};
use thiserror::Error;

/// Size of the RSA key for version-1 agents, in bits.
const RSA_BITS: usize = 3072;

/// The host keys.
#[derive(Debug, Clone)]
pub struct HostKeys {
    /// For the port of the agents.
    pub ed25519: PrivateKey,
    /// For the port of version-1 agents, which know nothing newer.
    pub rsa: PrivateKey,
}

/// Why there are no host keys.
#[derive(Debug, Error)]
pub enum HostKeyError {
    /// A key cannot be read, made or written.
    #[error("host key {path}: {source}", path = path.display())]
    Key {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        source: KeyError,
    },
    /// The file system refused.
    #[error("host key {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file holds a key of another type.
    #[error("host key {} is of another type than its name says; put the right one back, agents \
        have pinned it", .0.display())]
    WrongType(PathBuf),
}

impl HostKeys {
    /// Reads the keys in `folder` and makes those that are missing. Making the RSA key takes
    /// seconds of CPU: call it from a blocking thread.
    ///
    /// # Errors
    /// [`HostKeyError`]. A key that is there and cannot be read is never replaced: agents have
    /// pinned it.
    pub fn load_or_make(folder: &Path) -> Result<Self, HostKeyError> {
        let ed25519 = load_or_make(&folder.join("ssh_host_ed25519_key"), KeyKind::Ed25519)?;
        let rsa = load_or_make(&folder.join("ssh_host_rsa_key"), KeyKind::Rsa { bits: RSA_BITS })?;
        Ok(Self { ed25519, rsa })
    }
}

fn load_or_make(path: &Path, kind: KeyKind) -> Result<PrivateKey, HostKeyError> {
    let failed = |source| HostKeyError::Key { path: path.to_owned(), source };
    let key = match PrivateKey::read(path) {
        Err(KeyError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            let key = PrivateKey::generate(kind).map_err(failed)?;
            install(&key, path)?;
            key
        }
        read => read.map_err(failed)?,
    };
    match (kind, key.is_rsa()) {
        (KeyKind::Ed25519, false) | (KeyKind::Rsa { .. }, true) => Ok(key),
        _ => Err(HostKeyError::WrongType(path.to_owned())),
    }
}

/// Puts the key in its place whole or not at all: written and synced under another name, then
/// linked, which never replaces a file.
fn install(key: &PrivateKey, path: &Path) -> Result<(), HostKeyError> {
    let io = |source| HostKeyError::Io { path: path.to_owned(), source };
    let part = path.with_extension("part");
    match std::fs::remove_file(&part) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    key.write_new(&part).map_err(|source| HostKeyError::Key { path: part.clone(), source })?;
    std::fs::hard_link(&part, path).map_err(io)?;
    std::fs::remove_file(&part).map_err(io)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_made_once_and_stay() {
        let folder = tempfile::tempdir().unwrap();
        // What a crash in the middle of the first start leaves behind.
        std::fs::write(folder.path().join("ssh_host_ed25519_key.part"), "torn").unwrap();
        let made = HostKeys::load_or_make(folder.path()).unwrap();
        assert!(!made.ed25519.is_rsa());
        assert!(made.rsa.is_rsa());
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            names.push(entry.file_name().into_string().unwrap());
        }
        names.sort();
        assert_eq!(names, ["ssh_host_ed25519_key", "ssh_host_rsa_key"]);
        let read = HostKeys::load_or_make(folder.path()).unwrap();
        assert_eq!(read.ed25519.fingerprint(), made.ed25519.fingerprint());
        assert_eq!(read.rsa.fingerprint(), made.rsa.fingerprint());
    }

    #[test]
    fn unusable_key_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ssh_host_ed25519_key");
        std::fs::write(&path, "torn").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        HostKeys::load_or_make(folder.path()).unwrap_err();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "torn");

        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let error = HostKeys::load_or_make(folder.path()).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn key_of_another_type_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
        let path = folder.path().join("ssh_host_rsa_key");
        key.write_new(&path).unwrap();
        let error = HostKeys::load_or_make(folder.path()).unwrap_err();
        assert!(matches!(error, HostKeyError::WrongType(wrong) if wrong == path));
    }
}
