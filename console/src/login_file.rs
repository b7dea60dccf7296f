//! The stored login: `bastio/console.toml` in the configuration folder, for its owner's eyes only.
//!
//! Must not know flags or the environment.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use thiserror::Error;

use crate::settings::BackendUrl;
use crate::token::Token;

/// Largest file that is read, in bytes.
const MAX_LEN: u64 = 64 * 1024;

/// A backend that someone logged in to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The backend.
    pub url: BackendUrl,
    /// The token it gave.
    pub token: Token,
}

/// The file that holds a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginFile {
    path: PathBuf,
}

/// Why the file is not usable. Never holds any of its text, which may be the token.
#[derive(Debug, Error)]
pub enum LoginFileError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be written or removed.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can read the token in it.
    #[error("{} can be read by others (mode {mode:o})", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is no stored login.
    #[error("{} holds no login: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl LoginFileError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Exposed { path, .. } => {
                Some(format!("make it private with: chmod 600 {}", path.display()))
            }
            Self::Malformed { .. } => Some("log in again with: bastio login URL".to_owned()),
            Self::Read { .. } | Self::Write { .. } => None,
        }
    }
}

/// The file's text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    url: String,
    token: String,
}

impl LoginFile {
    /// The file below that configuration folder.
    pub fn below(config_home: &Path) -> Self {
        Self { path: config_home.join("bastio").join("console.toml") }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it; `None` when there is none.
    ///
    /// # Errors
    /// [`LoginFileError`]; a file that others can read is refused.
    pub fn load(&self) -> Result<Option<Login>, LoginFileError> {
        let failed = |source| LoginFileError::Read { path: self.path.clone(), source };
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(LoginFileError::Exposed { path: self.path.clone(), mode });
        }
        let mut text = String::new();
        file.take(MAX_LEN).read_to_string(&mut text).map_err(failed)?;
        self.parse(&text).map(Some)
    }

    fn parse(&self, text: &str) -> Result<Login, LoginFileError> {
        let malformed =
            |reason: String| LoginFileError::Malformed { path: self.path.clone(), reason };
        // Only the message: the error's full text shows the line, and the line may be the token.
        let content: Content =
            toml::from_str(text).map_err(|error| malformed(error.message().to_owned()))?;
        let url = content.url.parse().map_err(|error| malformed(format!("url: {error}")))?;
        let token = Token::parse(&content.token).map_err(|error| malformed(error.to_string()))?;
        Ok(Login { url, token })
    }

    /// Writes it: mode 0600 in a folder of mode 0700, the old one intact until the new one is
    /// whole on the disk.
    ///
    /// # Errors
    /// [`LoginFileError::Write`].
    pub fn save(&self, login: &Login) -> Result<(), LoginFileError> {
        self.try_save(login)
            .map_err(|source| LoginFileError::Write { path: self.path.clone(), source })
    }

    fn try_save(&self, login: &Login) -> io::Result<()> {
        let folder = self.path.parent().ok_or(ErrorKind::InvalidInput)?;
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        let content =
            Content { url: login.url.as_str().to_owned(), token: login.token.expose().to_owned() };
        let text = toml::to_string(&content).map_err(io::Error::other)?;
        // The temporary file has mode 0600 from its first moment.
        let mut file = NamedTempFile::new_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&self.path).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()
    }

    /// Removes it; whether there was one.
    ///
    /// # Errors
    /// [`LoginFileError::Write`].
    pub fn remove(&self) -> Result<bool, LoginFileError> {
        match fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(source) => Err(LoginFileError::Write { path: self.path.clone(), source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Login {
        Login {
            url: "http://b:2358".parse().expect("an URL"),
            token: Token::parse("bst_secret").expect("a token"),
        }
    }

    #[test]
    fn what_was_saved_is_loaded_and_private() {
        let home = tempfile::tempdir().expect("a folder");
        let file = LoginFile::below(home.path());
        assert_eq!(file.load().expect("no error"), None);
        fs::create_dir(home.path().join("bastio")).expect("a folder of the usual mode");
        file.save(&login()).expect("saved");
        file.save(&login()).expect("saved again");
        assert_eq!(file.load().expect("no error"), Some(login()));
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(file.path()), 0o600);
        assert_eq!(mode(file.path().parent().expect("a folder")), 0o700);
        let entries = fs::read_dir(home.path().join("bastio")).expect("a folder").count();
        assert_eq!(entries, 1, "no temporary file is left");
        assert!(file.remove().expect("removed"));
        assert!(!file.remove().expect("gone already"));
    }

    #[test]
    fn refuses_a_file_that_others_can_read() {
        let home = tempfile::tempdir().expect("a folder");
        let file = LoginFile::below(home.path());
        file.save(&login()).expect("saved");
        fs::set_permissions(file.path(), Permissions::from_mode(0o640)).expect("chmod");
        assert!(matches!(file.load(), Err(LoginFileError::Exposed { mode: 0o640, .. })));
    }

    #[test]
    fn errors_never_show_the_token() {
        let file = LoginFile { path: "/x".into() };
        for text in [
            "url = 'http://b'\ntoken = bst_secret",
            "url = 'http://b'\ntoken = 'bst_secret x'",
            "url = 'b'\ntoken = 'bst_secret'",
            "token = 'bst_secret'",
            "url = 'http://b'\ntoken = 'bst_secret'\nother = 1",
            "bst_secret",
        ] {
            let error = file.parse(text).expect_err(text);
            let shown = format!("{error} {error:?} {:?}", error.hint());
            assert!(!shown.contains("bst_secret"), "{shown}");
        }
    }
}
