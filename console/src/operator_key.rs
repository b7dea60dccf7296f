//! The operator's own key, with which proposals are approved: `bastio/operator.key` beside the stored
//! login, for its owner's eyes only.
//!
//! Must not know what is signed with it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use bastio_protocol::SigningKey;
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use tempfile::NamedTempFile;

use crate::failure::Failure;

/// Longest file that is read, in bytes.
const MAX_LEN: u64 = 1024;

/// The file: PKCS#8, DER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorKeyFile {
    path: PathBuf,
}

impl OperatorKeyFile {
    /// The file beside that one.
    pub fn beside(login: &Path) -> Self {
        Self { path: login.with_file_name("operator.key") }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the key; `None` when there is none.
    ///
    /// # Errors
    /// [`Failure::Read`]; a file that others can read, or that holds something else, is refused.
    pub fn load(&self) -> Result<Option<SigningKey>, Failure> {
        let failed = |source| Failure::Read { path: self.path.clone(), source };
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
            return Err(failed(io::Error::other("it is open to others; close it: chmod 600")));
        }
        let mut document = Vec::with_capacity(MAX_LEN as usize);
        file.take(MAX_LEN).read_to_end(&mut document).map_err(failed)?;
        let key =
            SigningKey::from_pkcs8(&document).map_err(|error| failed(io::Error::other(error)));
        key.map(Some)
    }

    /// Makes a new key, in place of one that is there.
    ///
    /// # Errors
    /// [`Failure::Write`].
    pub fn make(&self) -> Result<SigningKey, Failure> {
        let failed = |source| Failure::Write { path: self.path.clone(), source };
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        let document =
            document.map_err(|_| failed(io::Error::other("the system has no random numbers")))?;
        self.write(document.as_ref()).map_err(failed)?;
        SigningKey::from_pkcs8(document.as_ref()).map_err(|error| failed(io::Error::other(error)))
    }

    fn write(&self, document: &[u8]) -> io::Result<()> {
        let folder = self.path.parent().ok_or(ErrorKind::InvalidInput)?;
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        // The temporary file has mode 0600 from its first moment.
        let mut file = NamedTempFile::new_in(folder)?;
        file.write_all(document)?;
        file.as_file().sync_all()?;
        file.persist(&self.path).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()
    }

    /// The file in which a key waits that is to take this one's place, until it is registered.
    pub fn next(&self) -> Self {
        Self { path: self.path.with_extension("key.new") }
    }

    /// Puts this key in the place of another.
    ///
    /// # Errors
    /// [`Failure::Write`].
    pub fn replace(&self, other: &Self) -> Result<(), Failure> {
        let failed = |source| Failure::Write { path: other.path.clone(), source };
        fs::rename(&self.path, &other.path).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_private_and_read_again() {
        let home = tempfile::tempdir().expect("a folder");
        let file = OperatorKeyFile::beside(&home.path().join("bastio").join("console.toml"));
        assert!(file.load().expect("no error").is_none());
        let made = file.make().expect("made").verifying_key();
        assert_eq!(file.load().expect("read").expect("there").verifying_key(), made);
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(file.path()), 0o600);
        let next = file.next();
        let other = next.make().expect("made").verifying_key();
        assert_ne!(made, other);
        next.replace(&file).expect("replaced");
        assert_eq!(file.load().expect("read").expect("there").verifying_key(), other);
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).expect("chmod");
        assert!(matches!(file.load(), Err(Failure::Read { .. })));
    }
}
