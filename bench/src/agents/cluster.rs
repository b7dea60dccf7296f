//! The database of a run on PostgreSQL: a server of its own with its default settings, and the key that seals what
//! nodes share. Must not know what is stored.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bastio_tests::{Durability, Postgres};
use tempfile::TempDir;

use super::process::cpu_seconds_of_family;
use crate::BenchError;

/// A running database for nodes.
pub struct Cluster {
    postgres: Postgres,
    folder: TempDir,
}

impl Cluster {
    /// Starts one.
    pub fn start() -> Result<Self, BenchError> {
        let postgres = Postgres::start(Durability::Flushed)?;
        let file = |error| BenchError::File("the cluster key", error);
        let folder = TempDir::new().map_err(file)?;
        let cluster = Self { postgres, folder };
        let path = cluster.key_file();
        fs::write(&path, STANDARD.encode(rand::random::<[u8; 32]>())).map_err(file)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(file)?;
        Ok(cluster)
    }

    /// What a backend's configuration says of it.
    pub fn configuration(&self) -> String {
        let (url, key) = (self.postgres.url(), self.key_file());
        format!("[store]\nurl = \"{url}\"\ncluster_key_file = \"{}\"\n", key.display())
    }

    /// Processor time that the database has taken so far, in seconds.
    pub fn cpu_seconds(&self) -> Result<f64, BenchError> {
        cpu_seconds_of_family(i32::try_from(self.postgres.pid()).unwrap_or(0))
    }

    fn key_file(&self) -> PathBuf {
        self.folder.path().join("cluster.key")
    }
}
