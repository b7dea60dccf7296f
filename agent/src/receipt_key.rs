//! The key that signs receipts: a file of root's in the state folder, made when it is missing.
//!
//! It is not the agent's key, which the connector holds to log in: who takes the connector over must not be able to sign
//! that access has ended. This file must not know what a receipt says.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bastio_protocol::{SigningError, SigningKey};
use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use thiserror::Error;

use crate::files::replace_secret;

/// The file's name in the state folder.
const NAME: &str = "receipt_key";
/// Longest document that is read, in bytes.
const LONGEST: u64 = 4096;

/// Why there is no key to sign receipts with.
#[derive(Debug, Error)]
pub enum ReceiptKeyError {
    /// Not read, or not written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others could have read or written it.
    #[error("{} is no file of this account's alone (mode 0600)", .0.display())]
    Exposed(PathBuf),
    /// Something else is in it.
    #[error("{}: {source}; remove it and enrol again: bastio-agent enroll", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: SigningError,
    },
    /// The system gave no randomness.
    #[error("the system gives no randomness for a key")]
    NoRandomness,
}

/// The key in the state folder; made when there is none.
///
/// # Errors
/// [`ReceiptKeyError`]; a file that is there is never replaced.
pub fn read_or_make(state: &Path) -> Result<SigningKey, ReceiptKeyError> {
    let path = state.join(NAME);
    let document = match read(&path) {
        Ok(Some(document)) => document,
        Ok(None) => return make(&path),
        Err(error) => return Err(error),
    };
    SigningKey::from_pkcs8(&document).map_err(|source| ReceiptKeyError::NoKey { path, source })
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, ReceiptKeyError> {
    let failed = |source| ReceiptKeyError::Io { path: path.to_owned(), source };
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() || found.mode() & 0o077 != 0 || found.uid() != geteuid().as_raw() {
        return Err(ReceiptKeyError::Exposed(path.to_owned()));
    }
    let mut document = Vec::new();
    file.take(LONGEST).read_to_end(&mut document).map_err(failed)?;
    Ok(Some(document))
}

fn make(path: &Path) -> Result<SigningKey, ReceiptKeyError> {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
    let document = document.map_err(|_| ReceiptKeyError::NoRandomness)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.and_then(|()| replace_secret(path, document.as_ref()))
        .map_err(|source| ReceiptKeyError::Io { path: path.to_owned(), source })?;
    let key = SigningKey::from_pkcs8(document.as_ref())
        .map_err(|source| ReceiptKeyError::NoKey { path: path.to_owned(), source })?;
    tracing::info!(key = key.verifying_key().fingerprint(), "made a key that signs receipts");
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_for_one_account_alone() {
        let folder = tempfile::tempdir().unwrap();
        let first = read_or_make(folder.path()).unwrap().verifying_key();
        assert_eq!(read_or_make(folder.path()).unwrap().verifying_key(), first);
        let path = folder.path().join(NAME);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let other = folder.path().join("new/state");
        assert_ne!(read_or_make(&other).unwrap().verifying_key(), first);
        assert_eq!(fs::metadata(&other).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_is_no_secret_key_of_ours_is_never_used_nor_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        read_or_make(folder.path()).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read_or_make(folder.path()), Err(ReceiptKeyError::Exposed(_))));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, b"no key").unwrap();
        assert!(matches!(read_or_make(folder.path()), Err(ReceiptKeyError::NoKey { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"no key");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert!(matches!(read_or_make(folder.path()), Err(ReceiptKeyError::Io { .. })));
    }
}
