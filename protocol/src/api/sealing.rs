//! Opening a sealed signing key while the backend runs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What opens it. Shows nothing of itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unseal {
    /// The passphrase, without a line break at its end.
    pub passphrase: String,
}

impl fmt::Debug for Unseal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unseal(not shown)")
    }
}

/// The signing key can sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsealed {
    /// Its fingerprint.
    pub signing_key: String,
    /// Whether it could already, so that the passphrase was not even tried.
    pub already: bool,
    /// Actions that waited, of all servers.
    pub waiting: u32,
}
