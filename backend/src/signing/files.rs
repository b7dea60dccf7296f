//! The files of the signing keys: made once, replaced and sealed on purpose, and the old ones kept as
//! long as some agent obeys no other.
//!
//! A key is in one file, `signing_key` or `signing_key.old-N`, which holds it plain or sealed; what
//! changes a file replaces it by one rename. This file must not know who opens a sealed key.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bastio_protocol::{SigningKey, VerifyingKey};
use nix::fcntl::OFlag;
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use zeroize::Zeroizing;

use super::secrets::{all, open_closed};
use super::{SigningKeyError, SigningKeys};
use crate::sealed::{Cost, MAX_SEALED, Passphrase, SealError, SealedKey};

/// The key in use: PKCS#8, DER, or sealed.
const FILE: &str = "signing_key";
/// Keys that were in use before, each with a number behind.
const OLD_PREFIX: &str = "signing_key.old-";
/// A key that is being written.
const PART: &str = "signing_key.part";
/// The public half of a key in use that is no file but a credential.
const MARK: &str = "signing_key.public";

/// One key, as its file holds it.
#[derive(Debug, Clone)]
pub struct KeyFile {
    path: PathBuf,
    held: Held,
}

#[derive(Debug, Clone)]
enum Held {
    Plain(Arc<SigningKey>),
    Sealed(SealedKey),
}

/// All keys of a folder, opened or not.
#[derive(Debug, Clone)]
pub struct KeyFiles {
    folder: PathBuf,
    current: KeyFile,
    old: Vec<KeyFile>,
}

/// How files are replaced.
struct Work<'a> {
    cost: Cost,
    /// Called before each step that the disk keeps; an error there is as a crash at that point.
    step: &'a mut dyn FnMut() -> Result<(), SigningKeyError>,
}

impl KeyFile {
    /// The public half.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        match &self.held {
            Held::Plain(key) => key.verifying_key(),
            Held::Sealed(sealed) => sealed.verifying_key(),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How it is sealed, if it is.
    #[must_use]
    pub fn sealed(&self) -> Option<&SealedKey> {
        match &self.held {
            Held::Plain(_) => None,
            Held::Sealed(sealed) => Some(sealed),
        }
    }

    fn open(&self, with: Option<&Passphrase>) -> Result<Arc<SigningKey>, SigningKeyError> {
        match (&self.held, with) {
            (Held::Plain(key), _) => Ok(Arc::clone(key)),
            (Held::Sealed(_), None) => Err(SigningKeyError::Locked),
            (Held::Sealed(sealed), Some(with)) => {
                sealed.open(with).map(|(_, key)| Arc::new(key)).map_err(seal(&self.path))
            }
        }
    }
}

impl KeyFiles {
    /// Reads the keys in `folder`, which must be closed to others; makes and repairs nothing. `None`
    /// when there is none in use.
    ///
    /// # Errors
    /// [`SigningKeyError`].
    pub fn read(folder: &Path) -> Result<Option<Self>, SigningKeyError> {
        let path = folder.join(FILE);
        match read(&path) {
            Ok(current) => Ok(Some(Self::around(folder, current)?)),
            Err(SigningKeyError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                match marked(folder)? {
                    None => Ok(None),
                    Some(key) => Err(SigningKeyError::CredentialGone {
                        fingerprint: key.fingerprint(),
                        path,
                        mark: folder.join(MARK),
                    }),
                }
            }
            Err(error) => Err(error),
        }
    }

    fn around(folder: &Path, current: KeyFile) -> Result<Self, SigningKeyError> {
        let old = old_files(folder)?.into_iter().map(|(_, path)| read(&path));
        let old = old.collect::<Result<_, _>>()?;
        Ok(Self { folder: folder.to_owned(), current, old })
    }

    /// Reads the keys in `folder` and makes the one in use if there is none. Nobody else may be
    /// using the folder.
    ///
    /// # Errors
    /// [`SigningKeyError`].
    pub fn load_or_make(folder: &Path) -> Result<Self, SigningKeyError> {
        // What a crash has left: a key that may be plain where the others are sealed by now.
        remove_part(folder)?;
        if let Some(files) = Self::read(folder)? {
            return Ok(files);
        }
        let path = folder.join(FILE);
        write_part(folder, &new_document()?)?;
        // Links, so that a file that is there is never replaced.
        let part = folder.join(PART);
        std::fs::hard_link(&part, &path).map_err(io(&path))?;
        std::fs::remove_file(&part).map_err(io(&part))?;
        sync(folder)?;
        Self::around(folder, read(&path)?)
    }

    /// With a key in use that no file holds, as a credential: the folder remembers which, and holds
    /// old ones alone.
    ///
    /// # Errors
    /// [`SigningKeyError::TwoKeys`], and as [`KeyFiles::load_or_make`].
    pub fn with_credential(folder: &Path, key: SigningKey) -> Result<Self, SigningKeyError> {
        remove_part(folder)?;
        let (path, public) = (folder.join(FILE), key.verifying_key());
        match read(&path) {
            Ok(kept) if kept.verifying_key() != public => {
                return Err(SigningKeyError::TwoKeys { path });
            }
            Ok(_) => tracing::warn!(
                path = %path.display(),
                "the signing key is a credential and in the state folder, too; remove the file"
            ),
            Err(SigningKeyError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if marked(folder)? != Some(public) {
            write_part(folder, public.to_string().as_bytes())?;
            let mark = folder.join(MARK);
            std::fs::rename(folder.join(PART), &mark).map_err(io(&mark))?;
            sync(folder)?;
        }
        Self::around(folder, KeyFile { path, held: Held::Plain(Arc::new(key)) })
    }

    /// Puts a new key in place of the one in use, which is kept as an old one: with it, agents
    /// are told of the new one. Sealed like the old one, whose passphrase must be given. A crash
    /// at any point leaves a key in use, and no key is lost.
    ///
    /// # Errors
    /// [`SigningKeyError`]; the key in use is then the one from before.
    pub fn rotate(folder: &Path, with: Option<&Passphrase>) -> Result<Self, SigningKeyError> {
        let files = Self::load_or_make(folder)?;
        files.open(with)?;
        let last = old_files(folder)?.last().map_or(0, |(number, _)| *number);
        let kept = folder.join(format!("{OLD_PREFIX}{}", last.saturating_add(1)));
        let path = folder.join(FILE);
        let document = new_document()?;
        let content = match (files.current.sealed(), with) {
            (Some(sealed), Some(with)) => sealed_text(&path, &document, with, sealed.cost())?,
            _ => document,
        };
        std::fs::hard_link(&path, &kept).map_err(io(&kept))?;
        sync(folder)?;
        write_part(folder, &content)?;
        std::fs::rename(folder.join(PART), &path).map_err(io(&path))?;
        sync(folder)?;
        Self::load_or_make(folder)
    }

    /// Seals every key that is not sealed; the others must open with the same passphrase. A crash
    /// at any point leaves each key either plain or sealed, and sealing again ends it.
    ///
    /// # Errors
    /// [`SigningKeyError`].
    pub fn seal(folder: &Path, with: &Passphrase) -> Result<Self, SigningKeyError> {
        seal_all(folder, with, &mut Work { cost: Cost::DEFAULT, step: &mut || Ok(()) })
    }

    /// Makes every key plain again; as [`KeyFiles::seal`].
    ///
    /// # Errors
    /// [`SigningKeyError`].
    pub fn unseal(folder: &Path, with: &Passphrase) -> Result<Self, SigningKeyError> {
        unseal_all(folder, with, &mut Work { cost: Cost::DEFAULT, step: &mut || Ok(()) })
    }

    /// As [`KeyFiles::seal`], at next to no cost.
    #[cfg(test)]
    pub(crate) fn seal_cheaply(folder: &Path, with: &Passphrase) -> Result<Self, SigningKeyError> {
        seal_all(folder, with, &mut Work { cost: Cost::TEST, step: &mut || Ok(()) })
    }

    /// The public half of the key in use.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        self.current.verifying_key()
    }

    /// The keys, the one in use first.
    pub fn all(&self) -> impl Iterator<Item = &KeyFile> {
        std::iter::once(&self.current).chain(&self.old)
    }

    /// Whether opening them takes a passphrase.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.all().any(|file| file.sealed().is_some())
    }

    /// How many old keys are kept.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.old.len()
    }

    /// The keys themselves; takes as long as their cost says.
    ///
    /// # Errors
    /// [`SigningKeyError::Locked`], [`SigningKeyError::Sealed`].
    pub fn open(&self, with: Option<&Passphrase>) -> Result<SigningKeys, SigningKeyError> {
        let current = self.current.open(with)?;
        let old = self.old.iter().map(|file| file.open(with)).collect::<Result<_, _>>()?;
        Ok(SigningKeys { current, old })
    }

    /// Removes the old keys that no server needs: those whose fingerprint is not among `needed`.
    ///
    /// # Errors
    /// [`SigningKeyError::Io`].
    pub fn forget_old(&mut self, needed: &BTreeSet<String>) -> Result<(), SigningKeyError> {
        let current = self.verifying_key();
        for file in std::mem::take(&mut self.old) {
            let key = file.verifying_key();
            if needed.contains(&key.fingerprint()) && key != current {
                self.old.push(file);
            } else {
                std::fs::remove_file(&file.path).map_err(io(&file.path))?;
            }
        }
        sync(&self.folder)
    }
}

fn seal_all(
    folder: &Path,
    with: &Passphrase,
    work: &mut Work<'_>,
) -> Result<KeyFiles, SigningKeyError> {
    let files = KeyFiles::load_or_make(folder)?;
    // Two passphrases for the keys of one backend could not both be given at its start.
    files.open(Some(with))?;
    for file in files.all().filter(|file| file.sealed().is_none()) {
        let document = document(&file.path)?;
        let text = sealed_text(&file.path, &document, with, work.cost)?;
        replace(folder, &file.path, &text, work)?;
    }
    KeyFiles::load_or_make(folder)
}

fn unseal_all(
    folder: &Path,
    with: &Passphrase,
    work: &mut Work<'_>,
) -> Result<KeyFiles, SigningKeyError> {
    let files = KeyFiles::load_or_make(folder)?;
    files.open(Some(with))?;
    for file in files.all() {
        if let Some(sealed) = file.sealed() {
            let (document, _) = sealed.open(with).map_err(seal(&file.path))?;
            replace(folder, &file.path, &document, work)?;
        }
    }
    KeyFiles::load_or_make(folder)
}

fn sealed_text(
    path: &Path,
    document: &[u8],
    with: &Passphrase,
    cost: Cost,
) -> Result<Zeroizing<Vec<u8>>, SigningKeyError> {
    let sealed = SealedKey::seal(document, with, cost).map_err(seal(path))?;
    Ok(Zeroizing::new(sealed.to_text().into_bytes()))
}

/// Puts the content in the file's place, whole or not at all.
fn replace(
    folder: &Path,
    path: &Path,
    content: &[u8],
    work: &mut Work<'_>,
) -> Result<(), SigningKeyError> {
    (work.step)()?;
    write_part(folder, content)?;
    (work.step)()?;
    std::fs::rename(folder.join(PART), path).map_err(io(path))?;
    (work.step)()?;
    sync(folder)
}

pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> SigningKeyError {
    let path = path.to_owned();
    move |source| SigningKeyError::Io { path, source }
}

fn seal(path: &Path) -> impl FnOnce(SealError) -> SigningKeyError {
    let path = path.to_owned();
    move |source| SigningKeyError::Sealed { path, source }
}

/// What the file holds.
fn document(path: &Path) -> Result<Zeroizing<Vec<u8>>, SigningKeyError> {
    all(open_closed(path, OFlag::O_NOFOLLOW)?).map_err(io(path))
}

fn read(path: &Path) -> Result<KeyFile, SigningKeyError> {
    let bytes = document(path)?;
    let held = if SealedKey::is_meant(&bytes) {
        let sealed = bytes.get(..MAX_SEALED).unwrap_or(&bytes);
        Held::Sealed(SealedKey::parse(sealed).map_err(seal(path))?)
    } else {
        let key = SigningKey::from_pkcs8(&bytes);
        let wrong = |source| SigningKeyError::Key { path: path.to_owned(), source };
        Held::Plain(Arc::new(key.map_err(wrong)?))
    };
    Ok(KeyFile { path: path.to_owned(), held })
}

/// Which key was a credential.
fn marked(folder: &Path) -> Result<Option<VerifyingKey>, SigningKeyError> {
    let path = folder.join(MARK);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let key = text.trim().parse();
            key.map(Some).map_err(|source| SigningKeyError::Key { path, source })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io(&path)(error)),
    }
}

fn new_document() -> Result<Zeroizing<Vec<u8>>, SigningKeyError> {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
    let document = document.map_err(|_| SigningKeyError::NoRandomness)?;
    Ok(Zeroizing::new(document.as_ref().to_vec()))
}

fn remove_part(folder: &Path) -> Result<(), SigningKeyError> {
    let path = folder.join(PART);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io(&path)(error)),
        _ => Ok(()),
    }
}

/// Writes a key aside, and syncs it.
fn write_part(folder: &Path, content: &[u8]) -> Result<(), SigningKeyError> {
    remove_part(folder)?;
    let path = folder.join(PART);
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).mode(0o600).open(&path).map_err(io(&path))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(io(&path))
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
mod tests;
