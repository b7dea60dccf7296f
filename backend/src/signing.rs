//! The keys that sign what agents are ordered to do: made once, replaced on purpose, and the old
//! ones kept as long as some agent obeys no other.
//!
//! This file must not know who is ordered what, nor over which connection.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bastio_protocol::{SigningError, SigningKey, VerifyingKey};
use nix::fcntl::OFlag;
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use thiserror::Error;
use zeroize::Zeroizing;

/// The key in use: PKCS#8, DER.
const FILE: &str = "signing_key";
/// Keys that were in use before, each with a number behind.
const OLD_PREFIX: &str = "signing_key.old-";
/// A key that is being written.
const PART: &str = "signing_key.part";

/// All signing keys of this backend.
#[derive(Debug, Clone)]
pub struct SigningKeys {
    folder: PathBuf,
    current: Arc<SigningKey>,
    old: Vec<(PathBuf, Arc<SigningKey>)>,
}

/// How the orders of this backend are signed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Orders {
    /// By whom.
    pub keys: Arc<SigningKeys>,
    /// How long an order may be obeyed after it was signed.
    pub valid_for: Duration,
}

/// Why there are no signing keys.
#[derive(Debug, Error)]
pub enum SigningKeyError {
    /// The file holds something else. It is never replaced: agents obey this key and no other.
    #[error("{path}: {source}; put the right one back, agents obey no other", path = path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SigningError,
    },
    /// Others can read the file.
    #[error("{path} is open to others (mode {mode:03o}); close it: chmod 600 {path}",
        path = path.display())]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system gave no random numbers.
    #[error("the system has no random numbers for a new signing key")]
    NoRandomness,
}

impl SigningKeys {
    /// Reads the keys in `folder`, which must be closed to others, and makes the one in use if
    /// there is none.
    ///
    /// # Errors
    /// [`SigningKeyError`].
    pub fn load_or_make(folder: &Path) -> Result<Self, SigningKeyError> {
        let path = folder.join(FILE);
        let current = match read(&path) {
            Err(SigningKeyError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                write_part(folder)?;
                // Links, so that a file that is there is never replaced.
                let part = folder.join(PART);
                std::fs::hard_link(&part, &path).map_err(io(&path))?;
                std::fs::remove_file(&part).map_err(io(&part))?;
                sync(folder)?;
                read(&path)?
            }
            read => read?,
        };
        let old = old_files(folder)?
            .into_iter()
            .map(|(_, path)| Ok((path.clone(), Arc::new(read(&path)?))))
            .collect::<Result<_, SigningKeyError>>()?;
        Ok(Self { folder: folder.to_owned(), current: Arc::new(current), old })
    }

    /// Puts a new key in place of the one in use, which is kept as an old one: with it, agents
    /// are told of the new one. A crash at any point leaves a key in use, and no key is lost.
    ///
    /// # Errors
    /// [`SigningKeyError`]; the key in use is then the one from before.
    pub fn rotate(folder: &Path) -> Result<Self, SigningKeyError> {
        Self::load_or_make(folder)?;
        let last = old_files(folder)?.last().map_or(0, |(number, _)| *number);
        let kept = folder.join(format!("{OLD_PREFIX}{}", last.saturating_add(1)));
        let path = folder.join(FILE);
        std::fs::hard_link(&path, &kept).map_err(io(&kept))?;
        sync(folder)?;
        write_part(folder)?;
        std::fs::rename(folder.join(PART), &path).map_err(io(&path))?;
        sync(folder)?;
        Self::load_or_make(folder)
    }

    /// The key that signs.
    #[must_use]
    pub fn current(&self) -> &Arc<SigningKey> {
        &self.current
    }

    /// The public half of the key that signs.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        self.current.verifying_key()
    }

    /// The key with that fingerprint, in use or old.
    #[must_use]
    pub fn find(&self, fingerprint: &str) -> Option<&Arc<SigningKey>> {
        let all = std::iter::once(&self.current).chain(self.old.iter().map(|(_, key)| key));
        all.into_iter().find(|key| key.verifying_key().fingerprint() == fingerprint)
    }

    /// How many old keys are kept.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.old.len()
    }

    /// Removes the old keys that no server needs: those whose fingerprint is not among `needed`.
    ///
    /// # Errors
    /// [`SigningKeyError::Io`].
    pub fn forget_old(&mut self, needed: &BTreeSet<String>) -> Result<(), SigningKeyError> {
        let current = self.verifying_key();
        for (path, key) in std::mem::take(&mut self.old) {
            let key_of = key.verifying_key();
            if needed.contains(&key_of.fingerprint()) && key_of != current {
                self.old.push((path, key));
            } else {
                std::fs::remove_file(&path).map_err(io(&path))?;
            }
        }
        sync(&self.folder)
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> SigningKeyError {
    let path = path.to_owned();
    move |source| SigningKeyError::Io { path, source }
}

fn read(path: &Path) -> Result<SigningKey, SigningKeyError> {
    use std::io::Read as _;
    let flags = OFlag::O_NOFOLLOW.bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(io(path))?;
    let mode = file.metadata().map_err(io(path))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SigningKeyError::TooOpen { path: path.to_owned(), mode });
    }
    // Allocated once, so that no copy of the secret is left behind by growing.
    let mut document = Zeroizing::new(Vec::with_capacity(1024));
    file.take(1024).read_to_end(&mut document).map_err(io(path))?;
    SigningKey::from_pkcs8(&document)
        .map_err(|source| SigningKeyError::Key { path: path.to_owned(), source })
}

/// Writes a new key aside, and syncs it.
fn write_part(folder: &Path) -> Result<(), SigningKeyError> {
    let path = folder.join(PART);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(&path)(error)),
        _ => {}
    }
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
    let document = document.map_err(|_| SigningKeyError::NoRandomness)?;
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).mode(0o600).open(&path).map_err(io(&path))?;
    file.write_all(document.as_ref()).and_then(|()| file.sync_all()).map_err(io(&path))
}

/// The files of old keys, by number.
fn old_files(folder: &Path) -> Result<Vec<(u32, PathBuf)>, SigningKeyError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io(folder))? {
        let entry = entry.map_err(io(folder))?;
        let number =
            entry.file_name().to_str().and_then(|name| name.strip_prefix(OLD_PREFIX)?.parse().ok());
        found.extend(number.map(|number| (number, entry.path())));
    }
    found.sort();
    Ok(found)
}

fn sync(folder: &Path) -> Result<(), SigningKeyError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io(folder))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_key_is_made_once_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        // What a crash in the middle of the first start leaves behind.
        std::fs::write(folder.path().join(PART), "torn").unwrap();
        let made = SigningKeys::load_or_make(folder.path()).unwrap();
        assert_eq!(names(folder.path()), [FILE]);
        let mode = std::fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = SigningKeys::load_or_make(folder.path()).unwrap();
        assert_eq!(read.verifying_key(), made.verifying_key());
    }

    #[test]
    fn old_keys_are_kept_until_nobody_needs_them() {
        let folder = tempfile::tempdir().unwrap();
        let first = SigningKeys::load_or_make(folder.path()).unwrap().verifying_key();
        let second = SigningKeys::rotate(folder.path()).unwrap().verifying_key();
        let mut keys = SigningKeys::rotate(folder.path()).unwrap();
        assert_eq!(keys.kept(), 2);
        for old in [first, second] {
            assert_ne!(old, keys.verifying_key());
            assert_eq!(keys.find(&old.fingerprint()).unwrap().verifying_key(), old);
        }
        keys.forget_old(&BTreeSet::from([first.fingerprint()])).unwrap();
        assert!(keys.find(&second.fingerprint()).is_none());
        let read = SigningKeys::load_or_make(folder.path()).unwrap();
        assert_eq!((read.kept(), read.verifying_key()), (1, keys.verifying_key()));
        assert_eq!(names(folder.path()), [FILE, "signing_key.old-1"]);
        keys.forget_old(&BTreeSet::new()).unwrap();
        assert_eq!(names(folder.path()), [FILE]);
        assert!(keys.find(&keys.verifying_key().fingerprint()).is_some());
    }

    #[test]
    fn a_crash_between_keeping_and_replacing_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let first = SigningKeys::load_or_make(folder.path()).unwrap().verifying_key();
        std::fs::hard_link(folder.path().join(FILE), folder.path().join("signing_key.old-1"))
            .unwrap();
        let mut keys = SigningKeys::load_or_make(folder.path()).unwrap();
        keys.forget_old(&BTreeSet::from([first.fingerprint()])).unwrap();
        assert_eq!((keys.verifying_key(), keys.kept()), (first, 0));
    }

    #[test]
    fn an_unusable_key_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        std::fs::write(&path, "torn").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let error = SigningKeys::load_or_make(folder.path()).unwrap_err();
        assert!(matches!(error, SigningKeyError::Key { .. }), "{error}");
        assert!(SigningKeys::rotate(folder.path()).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "torn");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let error = SigningKeys::load_or_make(folder.path()).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }
}
