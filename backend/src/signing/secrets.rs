//! Where a passphrase, or the signing key itself, may be given: a systemd credential
//! (systemd.exec(5), "Credentials"), a file, or stdin. Never an argument nor a variable.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bastio_protocol::SigningKey;
use nix::fcntl::OFlag;
use zeroize::Zeroizing;

use super::SigningKeyError;
use super::files::io;
use crate::sealed::{Passphrase, PassphraseError};

/// Longest secret, in bytes.
const MAX: u64 = 4096;
/// Where systemd puts credentials.
const FOLDER: &str = "CREDENTIALS_DIRECTORY";
const PASSPHRASE: &str = "signing_passphrase";
const KEY: &str = "signing_key";

/// What a credential holds, and where it is.
type Given = (PathBuf, Zeroizing<Vec<u8>>);

/// The folder of credentials, if there is one.
#[derive(Debug, Clone, Default)]
pub struct Credentials(Option<PathBuf>);

impl Credentials {
    /// Those that systemd gave this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self(std::env::var_os(FOLDER).map(PathBuf::from))
    }

    /// Those in a folder.
    #[cfg(test)]
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self(Some(folder.to_owned()))
    }

    /// `signing_passphrase`.
    ///
    /// # Errors
    /// [`SigningKeyError::Io`], [`SigningKeyError::Passphrase`].
    pub fn passphrase(&self) -> Result<Option<Passphrase>, SigningKeyError> {
        let Some((path, bytes)) = self.read(PASSPHRASE)? else { return Ok(None) };
        parse(&bytes, &path.display().to_string()).map(Some)
    }

    /// `signing_key`: a PKCS#8 document, DER, as the state folder has it.
    ///
    /// # Errors
    /// [`SigningKeyError::Io`], [`SigningKeyError::Key`].
    pub fn key(&self) -> Result<Option<SigningKey>, SigningKeyError> {
        let Some((path, bytes)) = self.read(KEY)? else { return Ok(None) };
        let key = SigningKey::from_pkcs8(&bytes);
        key.map(Some).map_err(|source| SigningKeyError::Key { path, source })
    }

    /// Who may read it is systemd's to say: its access list shows as bits of the group.
    fn read(&self, name: &str) -> Result<Option<Given>, SigningKeyError> {
        let Some(folder) = &self.0 else { return Ok(None) };
        let path = folder.join(name);
        match File::open(&path) {
            Ok(file) => Ok(Some((path.clone(), all(file).map_err(io(&path))?))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io(&path)(error)),
        }
    }
}

/// A passphrase from a file that is closed to others, or from stdin (`-`).
///
/// # Errors
/// [`SigningKeyError::TooOpen`], [`SigningKeyError::Io`], [`SigningKeyError::Passphrase`].
pub fn read_passphrase(from: &Path) -> Result<Passphrase, SigningKeyError> {
    if from == Path::new("-") {
        let bytes = all(std::io::stdin().lock()).map_err(io(from))?;
        return parse(&bytes, "stdin");
    }
    let file = open_closed(from, OFlag::empty())?;
    parse(&all(file).map_err(io(from))?, &from.display().to_string())
}

/// Opens a file that nobody else may read.
pub(super) fn open_closed(path: &Path, flags: OFlag) -> Result<File, SigningKeyError> {
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(flags.bits()).open(path).map_err(io(path))?;
    let mode = file.metadata().map_err(io(path))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SigningKeyError::TooOpen { path: path.to_owned(), mode });
    }
    Ok(file)
}

/// Reads a secret; allocated once, so that no copy of it is left behind by growing.
pub(super) fn all(from: impl Read) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX as usize + 1));
    from.take(MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX {
        return Err(std::io::Error::other(format!("longer than {MAX} bytes")));
    }
    Ok(bytes)
}

fn parse(bytes: &[u8], from: &str) -> Result<Passphrase, SigningKeyError> {
    let wrong = |source| SigningKeyError::Passphrase { from: from.to_owned(), source };
    let text = std::str::from_utf8(bytes).map_err(|_| wrong(PassphraseError::Control))?;
    Passphrase::parse(text).map_err(wrong)
}
