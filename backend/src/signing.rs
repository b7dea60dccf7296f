//! The keys that sign what agents are ordered to do, and whether they can sign now: a key that is
//! sealed under a passphrase signs nothing before somebody has opened it.
//!
//! This file must not know who is ordered what, nor over which connection.

mod files;
mod guesses;
mod secrets;
mod signer;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bastio_protocol::{SigningError, SigningKey, VerifyingKey};
use thiserror::Error;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::sealed::{Passphrase, PassphraseError, SealError};
pub use files::{KeyFile, KeyFiles};
use guesses::Guesses;
pub use secrets::{Credentials, read_passphrase};
pub use signer::Signer;

/// All signing keys of this backend, opened.
#[derive(Debug, Clone)]
pub struct SigningKeys {
    current: Arc<SigningKey>,
    old: Vec<Arc<SigningKey>>,
}

/// The signing keys, locked or open. Cheap to clone; what is opened once is open everywhere.
#[derive(Debug, Clone)]
pub struct Signing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    public: VerifyingKey,
    /// Empty while locked.
    keys: OnceLock<Arc<SigningKeys>>,
    /// What there is to open.
    files: KeyFiles,
    guesses: Arc<Mutex<Guesses>>,
}

/// How the orders of this backend are signed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Orders {
    /// By whom.
    pub signing: Signing,
    /// How long an order may be obeyed after it was signed.
    pub valid_for: Duration,
}

/// One guess at the passphrase. There is only one at a time.
#[derive(Debug)]
pub struct Attempt {
    signing: Signing,
    guesses: OwnedMutexGuard<Guesses>,
}

/// Why the passphrase may not be guessed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotNow {
    /// Somebody else is trying one.
    #[error("another passphrase is being tried")]
    Busy,
    /// After wrong ones.
    #[error("too many wrong passphrases; the next one may come in {} s", .0.as_secs().max(1))]
    TooMany(Duration),
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
    /// A sealed key does not open, or cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Sealed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SealError,
    },
    /// There is no passphrase where there is a sealed key.
    #[error("the signing key is sealed, and nobody gave its passphrase")]
    Locked,
    /// What was given as a passphrase is none.
    #[error("{from}: {source}")]
    Passphrase {
        /// Where it came from.
        from: String,
        /// What is wrong.
        source: PassphraseError,
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
    /// The credential is another key than the state folder's.
    #[error("the credential signing_key and {path} are two keys, and agents obey one; move the wrong \
        one away", path = path.display())]
    TwoKeys {
        /// The file.
        path: PathBuf,
    },
    /// The key was a credential when the backend last ran, and is not there.
    #[error("the signing key {fingerprint} was given as a credential, and now there is none; give it \
        again (LoadCredentialEncrypted=signing_key:...), or put it into {path}, mode 600, and remove \
        {mark}", path = path.display(), mark = mark.display())]
    CredentialGone {
        /// The key.
        fingerprint: String,
        /// Where it would be.
        path: PathBuf,
        /// What remembers it.
        mark: PathBuf,
    },
    /// Nodes have their keys from the database.
    #[error(
        "with a database that nodes share, the signing key comes from there and is no \
        credential; seal it (bastio-backend key seal), and give signing_passphrase as one"
    )]
    Shared,
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

impl Orders {
    /// Who signs orders with that key.
    #[must_use]
    pub fn signer(&self, key: Arc<SigningKey>) -> Signer {
        Signer::new(key, self.valid_for)
    }
}

impl SigningKeys {
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
        let mut all = std::iter::once(&self.current).chain(&self.old);
        all.find(|key| key.verifying_key().fingerprint() == fingerprint)
    }
}

impl Signing {
    /// The keys in these files: open when `passphrase` opens those that are sealed, or none is.
    /// Also why they are locked, when they are.
    #[must_use]
    pub fn new(
        files: KeyFiles,
        passphrase: Option<&Passphrase>,
    ) -> (Self, Option<SigningKeyError>) {
        let opened = files.open(passphrase);
        let (public, keys) = (files.verifying_key(), OnceLock::new());
        let signing = Self(Arc::new(Inner { public, keys, files, guesses: Arc::default() }));
        match opened {
            Ok(keys) => {
                signing.install(keys);
                (signing, None)
            }
            Err(why) => (signing, Some(why)),
        }
    }

    /// The keys, unless they are locked.
    #[must_use]
    pub fn keys(&self) -> Option<&Arc<SigningKeys>> {
        self.0.keys.get()
    }

    /// The public half of the key that signs, also while it is locked.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        self.0.public
    }

    /// Begins to try a passphrase.
    ///
    /// # Errors
    /// [`NotNow`].
    pub fn attempt(&self, now: Instant) -> Result<Attempt, NotNow> {
        let guesses = Arc::clone(&self.0.guesses).try_lock_owned();
        let guesses = guesses.map_err(|_| NotNow::Busy)?;
        match guesses.wait(now) {
            Some(wait) => Err(NotNow::TooMany(wait)),
            None => Ok(Attempt { signing: self.clone(), guesses }),
        }
    }

    /// From now on these sign. The first ones stay.
    pub fn install(&self, keys: SigningKeys) {
        let _ = self.0.keys.set(Arc::new(keys));
    }
}

impl Attempt {
    /// Tries it, on a thread of its own; a wrong one makes the next wait. It counts, and nobody tries
    /// another meanwhile, also when nobody waits for the result any more.
    ///
    /// # Errors
    /// [`SigningKeyError::Sealed`].
    pub async fn open(self, with: Passphrase) -> Result<SigningKeys, SigningKeyError> {
        let Self { signing, mut guesses } = self;
        let opening = tokio::task::spawn_blocking(move || {
            let opened = signing.0.files.open(Some(&with));
            match opened {
                Ok(_) => guesses.right(),
                Err(_) => guesses.wrong(Instant::now()),
            }
            opened
        });
        match opening.await {
            Ok(opened) => opened,
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        }
    }
}
