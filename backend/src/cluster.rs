//! The keys that nodes share: each node has them as files in its state folder, and the database has
//! them sealed, so that no secret lives on one node alone and the database alone opens nothing.
//!
//! What the database holds counts; a node that has other files gets those. This file must not know
//! what the keys are for.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::store::{self, Store, StoreError};

/// The files that are shared, and what names of further ones begin with.
const SHARED: [&str; 3] = ["ssh_host_ed25519_key", "ssh_host_rsa_key", "signing_key"];
const SHARED_PREFIX: &str = "signing_key.";
/// What is being written, by whomever.
const PART_SUFFIX: &str = ".part";
/// Longest file, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// The key that seals; the same on all nodes.
#[derive(Clone)]
pub struct ClusterKey(LessSafeKey);

/// Why keys are not shared.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// The text is no key.
    #[error("a cluster key is 32 random bytes in base64; make one: openssl rand -base64 32")]
    NotAKey,
    /// Others can read the file.
    #[error("it is open to others (mode {0:03o}); close it: chmod 600")]
    TooOpen(u32),
    /// The file system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What the database holds was sealed with another key, or changed.
    #[error(
        "the database's {0} was sealed with another cluster key; give this node the key of the \
         others (store.cluster_key_file)"
    )]
    OtherKey(String),
    /// The system gave no random numbers.
    #[error("the system has no random numbers")]
    NoRandomness,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ClusterKey {
    /// Reads a key from a file that is closed to others.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn read(path: &Path) -> Result<Self, ClusterError> {
        let mode = std::fs::metadata(path).map_err(io(path))?.mode() & 0o777;
        if mode & 0o007 != 0 {
            return Err(ClusterError::TooOpen(mode));
        }
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(io(path))?);
        let bytes = STANDARD.decode(text.trim()).map_err(|_| ClusterError::NotAKey)?;
        let bytes = Zeroizing::new(bytes);
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| ClusterError::NotAKey)?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Seals what only nodes may read; the name belongs to it.
    fn seal(&self, name: &str, secret: &[u8]) -> Result<String, ClusterError> {
        let nonce: [u8; NONCE_LEN] = ring::rand::generate(&ring::rand::SystemRandom::new())
            .map_err(|_| ClusterError::NoRandomness)?
            .expose();
        let mut sealed = secret.to_vec();
        let sealing = Nonce::assume_unique_for_key(nonce);
        self.0
            .seal_in_place_append_tag(sealing, Aad::from(name), &mut sealed)
            .map_err(|_| ClusterError::NoRandomness)?;
        Ok(STANDARD.encode([&nonce[..], &sealed].concat()))
    }

    fn open(&self, name: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, ClusterError> {
        let wrong = || ClusterError::OtherKey(name.to_owned());
        let mut bytes = Zeroizing::new(STANDARD.decode(sealed).map_err(|_| wrong())?);
        let (nonce, sealed) = bytes.split_at_mut_checked(NONCE_LEN).ok_or_else(wrong)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| wrong())?;
        let opened = self.0.open_in_place(nonce, Aad::from(name), sealed).map_err(|_| wrong())?;
        Ok(Zeroizing::new(opened.to_vec()))
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey")
    }
}

/// Puts the shared keys into the folder, as files; whether there were any. Where there are, nothing
/// else may be made.
///
/// # Errors
/// [`ClusterError`].
pub async fn fetch(store: &Store, key: &ClusterKey, folder: &Path) -> Result<bool, ClusterError> {
    let sealed = store::secrets::all(&mut *store.read().await?).await?;
    for (name, sealed) in &sealed {
        if is_shared(name) {
            install(folder, name, &key.open(name, sealed)?)?;
        }
    }
    Ok(!sealed.is_empty())
}

/// Shares the keys of the folder, unless another node was first: then its keys are put into the
/// folder. Whether this node's count.
///
/// # Errors
/// [`ClusterError`].
pub async fn share_first(
    store: &Store,
    key: &ClusterKey,
    folder: &Path,
) -> Result<bool, ClusterError> {
    let mut tx = store.write().await?;
    if !store::secrets::all(&mut tx).await?.is_empty() {
        drop(tx);
        fetch(store, key, folder).await?;
        return Ok(false);
    }
    set_all(&mut tx, key, folder).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(true)
}

/// Shares the keys of the folder in place of those that were shared before.
///
/// # Errors
/// [`ClusterError`].
pub async fn share(store: &Store, key: &ClusterKey, folder: &Path) -> Result<(), ClusterError> {
    let mut tx = store.write().await?;
    set_all(&mut tx, key, folder).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(())
}

async fn set_all(
    db: &mut store::Connection,
    key: &ClusterKey,
    folder: &Path,
) -> Result<(), ClusterError> {
    for entry in std::fs::read_dir(folder).map_err(io(folder))? {
        let entry = entry.map_err(io(folder))?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| is_shared(name)) else { continue };
        let path = entry.path();
        if entry.metadata().map_err(io(&path))?.len() > MAX_FILE {
            continue;
        }
        let secret = Zeroizing::new(std::fs::read(&path).map_err(io(&path))?);
        store::secrets::set(db, name, &key.seal(name, &secret)?).await?;
    }
    Ok(())
}

fn is_shared(name: &str) -> bool {
    !name.ends_with(PART_SUFFIX)
        && !name.contains('/')
        && (SHARED.contains(&name) || name.starts_with(SHARED_PREFIX))
}

/// Puts a file in its place whole or not at all.
fn install(folder: &Path, name: &str, secret: &[u8]) -> Result<(), ClusterError> {
    let path = folder.join(name);
    if std::fs::read(&path).map(Zeroizing::new).is_ok_and(|known| *known == secret) {
        return Ok(());
    }
    let part = folder.join(format!("{name}{PART_SUFFIX}"));
    match std::fs::remove_file(&part) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(&part)(error)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(&part);
    let mut file = file.map_err(io(&part))?;
    file.write_all(secret).and_then(|()| file.sync_all()).map_err(io(&part))?;
    std::fs::rename(&part, &path).map_err(io(&path))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io(folder))
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ClusterError {
    let path = path.to_owned();
    move |source| ClusterError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key(folder: &Path, byte: u8) -> ClusterKey {
        let path = folder.join("cluster.key");
        std::fs::write(&path, STANDARD.encode([byte; 32])).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        ClusterKey::read(&path).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_under_its_name_and_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, other) = (key(folder.path(), 1), key(folder.path(), 2));
        let sealed = ours.seal("signing_key", b"secret").unwrap();
        assert_ne!(sealed, ours.seal("signing_key", b"secret").unwrap());
        assert_eq!(&**ours.open("signing_key", &sealed).unwrap(), b"secret");
        for (key, name) in [(&other, "signing_key"), (&ours, "ssh_host_rsa_key")] {
            assert!(matches!(key.open(name, &sealed), Err(ClusterError::OtherKey(_))));
        }
        assert!(matches!(ours.open("x", "AAAA"), Err(ClusterError::OtherKey(_))));
        assert_eq!(format!("{ours:?}"), "ClusterKey");
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cluster.key");
        std::fs::write(&path, STANDARD.encode([1; 32])).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(ClusterKey::read(&path), Err(ClusterError::TooOpen(0o644))));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "c2hvcnQ=").unwrap();
        assert!(matches!(ClusterKey::read(&path), Err(ClusterError::NotAKey)));
    }

    mod on_postgres {
        use super::*;
        use crate::testing::TestBackend;

        #[tokio::test]
        async fn the_first_nodes_keys_are_everybodys() {
            let backend = TestBackend::new().await;
            let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let cluster = key(backend.dir.path(), 1);
            assert!(!fetch(&backend.store, &cluster, one.path()).await.unwrap());
            for (folder, text) in [(&one, "of one"), (&two, "of two")] {
                std::fs::write(folder.path().join("signing_key"), text).unwrap();
                std::fs::write(folder.path().join("signing_key.part"), "torn").unwrap();
                std::fs::write(folder.path().join("lock"), "").unwrap();
            }
            assert!(share_first(&backend.store, &cluster, one.path()).await.unwrap());
            assert!(!share_first(&backend.store, &cluster, two.path()).await.unwrap());
            let read = |folder: &Path| std::fs::read_to_string(folder.join("signing_key")).unwrap();
            assert_eq!(read(two.path()), "of one");
            let mode = std::fs::metadata(two.path().join("signing_key")).unwrap().mode();
            assert_eq!(mode & 0o777, 0o600);
            let other = key(backend.dir.path(), 2);
            let refused = fetch(&backend.store, &other, two.path()).await;
            assert!(matches!(refused, Err(ClusterError::OtherKey(_))), "{refused:?}");
            assert_eq!(read(two.path()), "of one");
            // After a rotation.
            std::fs::write(one.path().join("signing_key"), "new").unwrap();
            share(&backend.store, &cluster, one.path()).await.unwrap();
            assert!(fetch(&backend.store, &cluster, two.path()).await.unwrap());
            assert_eq!(read(two.path()), "new");
        }
    }
}
