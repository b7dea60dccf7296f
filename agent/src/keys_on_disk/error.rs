//! Why a key file was not read or not changed, for people: what is wrong, and what to do.
//!
//! This file must not know how a file is changed.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::Uid;
use thiserror::Error;

use super::MAX_SIZE;
use crate::sshd::PatternError;

/// Why a key file was not read or not changed. The old content is intact after each of these,
/// save [`Self::Unconfirmed`].
#[derive(Debug, Error)]
pub enum KeysOnDiskError {
    /// The home is not there.
    #[error("the home {0} is missing; make it again (mkhomedir_helper), or remove the account")]
    HomeMissing(PathBuf),
    /// Something else stands where a folder or a plain file belongs.
    #[error("{path} is {found}, not {expected}, and is left alone; remove it and try again")]
    WrongKind {
        /// The thing.
        path: PathBuf,
        /// What it is.
        found: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// It belongs to somebody else.
    #[error(
        "{path} belongs to uid {found}, not to the account (uid {expected}), and is left alone; \
         give it to the account (chown) or remove it, and try again"
    )]
    ForeignOwner {
        /// The thing.
        path: PathBuf,
        /// Its owner.
        found: Uid,
        /// The account.
        expected: Uid,
    },
    /// The home may be written by others, so sshd would ignore the keys.
    #[error("{path} can be written by others, so sshd ignores its keys; run: chmod go-w {path}")]
    WritableByOthers {
        /// The home.
        path: PathBuf,
    },
    /// The file has a second name, perhaps outside the home.
    #[error("{path} has {links} names (hard links) and is left alone; remove it and try again")]
    HardLinked {
        /// The file.
        path: PathBuf,
        /// How many names it has.
        links: u64,
    },
    /// More than 1 MiB.
    #[error("{path} is larger than {MAX_SIZE} bytes and is left alone; clean it up by hand")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The disk or the quota is full.
    #[error("no space left for {path}; the old file is unchanged; free some space and try again")]
    NoSpace {
        /// The file or folder that was to be written.
        path: PathBuf,
    },
    /// The file system takes no changes.
    #[error(
        "cannot change {path}: its file system is read-only; the keys are unchanged; mount it \
         read-write, or let sshd read keys elsewhere (AuthorizedKeysFile)"
    )]
    ReadOnly {
        /// The file or folder that was to be written.
        path: PathBuf,
    },
    /// Root itself has no rights there.
    #[error(
        "cannot {step} {path}: not even root may ({errno}), as on NFS with root_squash or behind \
         chattr +i; the keys are unchanged; set keys = \"managed\" in agent.toml so that keys \
         lie outside of homes"
    )]
    Closed {
        /// What was tried.
        step: &'static str,
        /// With what.
        path: PathBuf,
        /// The system's answer.
        errno: Errno,
    },
    /// sshd reads no file at all for this account.
    #[error(
        "cannot change the keys of {0}: sshd reads none of its files (AuthorizedKeysFile none); set \
         AuthorizedKeysFile in /etc/ssh/sshd_config, or keys = \"managed\" in agent.toml"
    )]
    NoFiles(String),
    /// sshd reads a file whose path is not to be made out.
    #[error("{0}; the keys are unchanged; correct it in sshd's configuration")]
    Pattern(#[from] PatternError),
    /// This sshd would not understand the line, and so not let the key in.
    #[error(
        "the key {key} cannot be used with {what}: this host has {has}, which does not know it; update sshd"
    )]
    NotUnderstood {
        /// Fingerprint of the key.
        key: String,
        /// The option or kind of key.
        what: String,
        /// The version of sshd.
        has: String,
    },
    /// Somebody changed a line of ours to what we would never write.
    #[error(
        "{path} has a line of bastio's with options that bastio does not write; the keys are \
         unchanged; put it right or remove it"
    )]
    Altered {
        /// The file.
        path: PathBuf,
    },
    /// Keys of others wait for an account that is not made yet.
    #[error(
        "{path} has keys of others, which would log in as the new account; it was not made; remove that \
         file and try again (or make the account by hand, and have it taken over with these keys)"
    )]
    Waiting {
        /// The file.
        path: PathBuf,
    },
    /// A folder that is root's by its place is not root's alone.
    #[error(
        "{path} {why}, so sshd ignores the keys below it, and it is left alone; run: \
         chown root:root {path} && chmod go-w {path}"
    )]
    UnsafeFolder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Somebody swapped the file while it was written.
    #[error("{path} was replaced by somebody while it was written; try again")]
    Swapped {
        /// The file.
        path: PathBuf,
    },
    /// The new file is in place, but perhaps not for good.
    #[error("{path} was written, but the system does not confirm it ({errno}); try again")]
    Unconfirmed {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        errno: Errno,
    },
    /// The system refused a step.
    #[error("cannot {step} {path}: {errno}; the keys are unchanged")]
    System {
        /// What was tried.
        step: &'static str,
        /// With what.
        path: PathBuf,
        /// The system's answer.
        errno: Errno,
    },
}

impl KeysOnDiskError {
    pub(super) fn system(step: &'static str, path: &Path, errno: Errno) -> Self {
        let path = path.to_owned();
        match errno {
            Errno::ENOSPC | Errno::EDQUOT => Self::NoSpace { path },
            Errno::EROFS => Self::ReadOnly { path },
            Errno::EACCES | Errno::EPERM => Self::Closed { step, path, errno },
            errno => Self::System { step, path, errno },
        }
    }

    pub(super) fn from_io(step: &'static str, path: &Path, error: &std::io::Error) -> Self {
        Self::system(step, path, error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    }

    /// Whether the place as a whole is of no use, so that the next one may do.
    pub(super) fn is_about_the_place(&self) -> bool {
        matches!(
            self,
            Self::HomeMissing(_) | Self::ReadOnly { .. } | Self::Closed { .. } | Self::Pattern(_)
        )
    }
}
