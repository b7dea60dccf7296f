//! The errors of this crate, named for what the caller does next. No russh type appears in them.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use crate::ending::CloseReason;

/// Why a key could not be made, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The text is no key this crate reads.
    #[error("not a usable SSH key: {0} (expected an unencrypted OpenSSH, PKCS#1 or PKCS#8 key)")]
    Unreadable(String),
    /// The private key has a passphrase.
    #[error("the private key is encrypted: remove the passphrase with `ssh-keygen -p`")]
    Encrypted,
    /// An RSA key below 2048 bits, or above 16384.
    #[error("an RSA key of {bits} bits is refused: use 2048 to 16384 bits, or Ed25519")]
    BadSize {
        /// Size of the refused modulus in bits.
        bits: usize,
    },
    /// A kind of key other than Ed25519 and RSA.
    #[error("a key of type {0} is not supported: use Ed25519 or RSA")]
    Unsupported(String),
    /// Others than the owner may read the file.
    #[error("{path} can be read by others (mode {mode:03o}): run `chmod 600 {path}`", path = path.display())]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file to be written is there already; it was left as it is.
    #[error("{} exists already and was not overwritten", .0.display())]
    Exists(PathBuf),
    /// The key could not sign.
    #[error("the key cannot sign: {0}")]
    CannotSign(String),
    /// No signature of this key over these bytes and for this purpose.
    #[error("the signature is not one of this key over this text")]
    BadSignature,
    /// The file system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Why no connection was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No host answers at the address, or it closed the connection: try again later.
    #[error("{address} cannot be reached: {detail}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the system said.
        detail: String,
    },
    /// The host has another key than the pinned ones. Nothing was sent to it. Do not go on: a
    /// person has to look whether the key was changed on purpose.
    #[error(
        "the host key is {seen}, expected {}: if it was changed on purpose, enrol again",
        expected.join(" or ")
    )]
    HostKeyMismatch {
        /// Fingerprints of the pinned keys.
        expected: Vec<String>,
        /// Fingerprint of the key the host has.
        seen: String,
    },
    /// The host does not know the key, or not for this user name.
    #[error("{address} refused the login: is this server's key enrolled?")]
    LoginRefused {
        /// Host and port.
        address: String,
    },
    /// The login worked but the host does not offer the subsystem.
    #[error("{address} does not offer the subsystem {name}: is it a bastio backend?")]
    SubsystemRefused {
        /// Host and port.
        address: String,
        /// The subsystem asked for.
        name: String,
    },
    /// The host does not talk SSH as expected, e.g. no algorithm in common.
    #[error("{address} does not talk SSH as expected: {detail}")]
    ProtocolError {
        /// Host and port.
        address: String,
        /// What went wrong.
        detail: String,
    },
    /// Not done within the time limit: try again later.
    #[error("{address} did not answer within {after:?}")]
    TimedOut {
        /// Host and port.
        address: String,
        /// The limit.
        after: Duration,
    },
    /// The host asks to come back later.
    #[error("the host is busy and asks to come back in {retry_after:?}")]
    Paced {
        /// Time to wait before the next attempt.
        retry_after: Duration,
    },
}

/// Why data could not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The connection has ended; [`Link::closed`](crate::Link::closed) says why.
    #[error("the connection has ended")]
    Closed,
    /// The peer took nothing for the whole time limit; the connection is being cut.
    #[error("the peer takes no data")]
    Stalled,
}

/// Why the server cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The host keys do not fit the algorithms.
    #[error("{0}")]
    HostKeys(&'static str),
}

/// What an error of russh means for the connection it ended.
pub(crate) fn reason_of(error: &russh::Error) -> CloseReason {
    match error {
        russh::Error::KeepaliveTimeout => CloseReason::DeadPeer,
        // TCP_USER_TIMEOUT, or a route that is gone.
        russh::Error::IO(error)
            if matches!(
                error.kind(),
                ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
            ) =>
        {
            CloseReason::DeadPeer
        }
        russh::Error::IO(_) | russh::Error::HUP | russh::Error::Disconnect => {
            CloseReason::EndedByPeer
        }
        other => CloseReason::Failed(other.to_string()),
    }
}
