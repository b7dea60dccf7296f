//! Public keys from files and stdin, checked before anything is sent.
//!
//! Must not know the API or whose keys they are.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bastio_protocol::{KeyPolicy, PublicKey, PublicKeyError};
use thiserror::Error;

/// Largest key file, in bytes: some hundred keys of the longest kind.
const MAX_LEN: u64 = 1024 * 1024;

/// Why a key file is not usable.
#[derive(Debug, Error)]
pub enum KeyInputError {
    /// It cannot be read.
    #[error("cannot read {name}: {source}")]
    Read {
        /// The file.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// It is larger than 1 MiB.
    #[error("{0} is no key file: larger than {MAX_LEN} bytes")]
    TooLarge(String),
    /// It holds no key.
    #[error("{0} holds no key")]
    Empty(String),
    /// Stdin was named twice.
    #[error("stdin (-) can be read only once")]
    StdinTwice,
    /// A line is no usable key.
    #[error("{name}, line {line}: {source}")]
    Line {
        /// The file.
        name: String,
        /// Its line, counted from 1.
        line: usize,
        /// What is wrong.
        source: PublicKeyError,
    },
    /// A line is no text.
    #[error("{name}, line {line}: not a line of text")]
    NotText {
        /// The file.
        name: String,
        /// Its line, counted from 1.
        line: usize,
    },
}

impl KeyInputError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { .. } => Some(
                "give a file with public keys, like ~/.ssh/id_ed25519.pub, or - for stdin".into(),
            ),
            Self::TooLarge(_) | Self::Empty(_) | Self::NotText { .. } => {
                Some("a key file has one public key a line, as in ~/.ssh/id_ed25519.pub".into())
            }
            // The error of the line says itself what to give.
            Self::StdinTwice | Self::Line { .. } => None,
        }
    }
}

/// Reads the keys of several files, `-` being stdin, each key once.
///
/// # Errors
/// [`KeyInputError`] with the first fault; then no key counts.
pub fn read_files(paths: &[PathBuf], policy: &KeyPolicy) -> Result<Vec<PublicKey>, KeyInputError> {
    if paths.iter().filter(|path| is_stdin(path)).count() > 1 {
        return Err(KeyInputError::StdinTwice);
    }
    let mut keys = Vec::new();
    for path in paths {
        let name = if is_stdin(path) { "stdin".to_owned() } else { path.display().to_string() };
        let bytes = read(path, &name)?;
        for key in parse(&name, &bytes, policy)? {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    Ok(keys)
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn read(path: &Path, name: &str) -> Result<Vec<u8>, KeyInputError> {
    let failed = |source| KeyInputError::Read { name: name.to_owned(), source };
    let source: Box<dyn Read> = if is_stdin(path) {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(failed)?)
    };
    let mut bytes = Vec::new();
    let read = source.take(MAX_LEN + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(read).is_ok_and(|read| read <= MAX_LEN) {
        Ok(bytes)
    } else {
        Err(KeyInputError::TooLarge(name.to_owned()))
    }
}

/// The keys of one file; blank lines and lines that begin with `#` are skipped.
fn parse(name: &str, bytes: &[u8], policy: &KeyPolicy) -> Result<Vec<PublicKey>, KeyInputError> {
    let mut keys = Vec::new();
    for (index, bytes) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let (name, line) = (name.to_owned(), index + 1);
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Err(KeyInputError::NotText { name, line });
        };
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        match PublicKey::parse(text, policy) {
            Ok(key) => keys.push(key),
            Err(source) => return Err(KeyInputError::Line { name, line, source }),
        }
    }
    if keys.is_empty() { Err(KeyInputError::Empty(name.to_owned())) } else { Ok(keys) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEgJ0ePcM0yDbCVGXSpYzMSBsOtRCZXNWBvsGaPRc7lr";

    fn read_text(text: &[u8]) -> Result<Vec<PublicKey>, KeyInputError> {
        parse("k.pub", text, &KeyPolicy::default())
    }

    #[test]
    fn skips_comments_and_blank_lines_and_takes_every_line_ending() {
        let text = format!("# hers\r\n\r\n  {ALICE} alice@laptop\r\n\n{ALICE}");
        let keys = read_text(text.as_bytes()).expect("two keys");
        assert_eq!(keys.len(), 2);
        assert_eq!(keys.first().map(PublicKey::comment), Some("alice@laptop"));
    }

    #[test]
    fn names_file_and_line_of_each_fault() {
        for (text, expected) in [
            ("".as_bytes().to_vec(), "k.pub holds no key"),
            (b"# nothing\n".to_vec(), "k.pub holds no key"),
            (
                format!("{ALICE}\n\nssh-ed25519 AAAA\n").into_bytes(),
                "k.pub, line 3: the key is damaged",
            ),
            (
                b"-----BEGIN OPENSSH PRIVATE KEY-----\n".to_vec(),
                "k.pub, line 1: this is a PRIVATE key",
            ),
            (b"\n\xff\xfe\n".to_vec(), "k.pub, line 2: not a line of text"),
        ] {
            let error = read_text(&text).expect_err(expected).to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn several_files_give_each_key_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let (a, b) = (folder.path().join("a.pub"), folder.path().join("b.pub"));
        std::fs::write(&a, format!("{ALICE} one\n")).expect("written");
        std::fs::write(&b, format!("{ALICE} two\n")).expect("written");
        let keys = read_files(&[a.clone(), b], &KeyPolicy::default()).expect("keys");
        assert_eq!(keys.len(), 1);
        let missing = folder.path().join("missing");
        let fault = read_files(&[a, missing], &KeyPolicy::default());
        assert!(matches!(fault, Err(KeyInputError::Read { .. })));
        let twice = read_files(&["-".into(), "-".into()], &KeyPolicy::default());
        assert!(matches!(twice, Err(KeyInputError::StdinTwice)));
    }
}
