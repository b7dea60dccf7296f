//! `[store]`: which database, and the key that seals what its nodes share.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::ConfigError;
use crate::cluster::ClusterKey;
use crate::store::{DatabaseUrl, Location};

/// `[store]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// `store.url`: a PostgreSQL database. Default: the SQLite file `bastio.db` in the state folder.
    pub url: Option<DatabaseUrl>,
    /// `store.url_file`: a file that holds the URL, e.g. a systemd credential.
    pub url_file: Option<PathBuf>,
    /// `store.cluster_key_file`: a file with 32 random bytes in base64, the same on each node. It
    /// seals the host keys and the signing keys that nodes share.
    pub cluster_key_file: Option<PathBuf>,
}

impl Database {
    /// Where the database is; with `file` in the state folder when nothing else is said.
    ///
    /// # Errors
    /// [`ConfigError::Secret`].
    pub fn location(&self, file: PathBuf) -> Result<Location, ConfigError> {
        Ok(match self.shared()? {
            Some(url) => Location::Postgres(Box::new(url)),
            None => Location::File(file),
        })
    }

    /// The database that several nodes may share.
    ///
    /// # Errors
    /// [`ConfigError::Secret`].
    pub fn shared(&self) -> Result<Option<DatabaseUrl>, ConfigError> {
        let Some(path) = &self.url_file else { return Ok(self.url.clone()) };
        let wrong = |reason: &str| secret("store.url_file", path, reason);
        let text = std::fs::read_to_string(path).map_err(|error| wrong(&error.to_string()))?;
        text.parse().map(Some).map_err(wrong)
    }

    /// The key that seals what nodes share.
    ///
    /// # Errors
    /// [`ConfigError::Secret`].
    pub fn cluster_key(&self) -> Result<ClusterKey, ConfigError> {
        let Some(path) = &self.cluster_key_file else {
            return Err(ConfigError::NoClusterKey);
        };
        ClusterKey::read(path)
            .map_err(|error| secret("store.cluster_key_file", path, &error.to_string()))
    }

    /// What can be seen without opening a file.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let (url, file) = (self.url.is_some(), self.url_file.is_some());
        if url && file {
            return Err(ConfigError::TwoUrls);
        }
        if (url || file) && self.cluster_key_file.is_none() {
            return Err(ConfigError::NoClusterKey);
        }
        Ok(())
    }
}

fn secret(key: &'static str, path: &Path, reason: &str) -> ConfigError {
    ConfigError::Secret { key, path: path.to_owned(), reason: reason.to_owned() }
}
