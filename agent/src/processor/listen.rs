//! Where the connector comes from: inherited as standard input, given by the caller, or accepted
//! on a path; and whether the one at the other end may be the connector.
//!
//! This file must not know what is said over the socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::sockopt::{PeerCredentials, SockType};
use nix::sys::socket::{SockType as Kind, getsockopt};
use nix::unistd::{Uid, User, dup2_stdin};
use thiserror::Error;

use super::Stop;
use crate::wait::wait_ready;

/// Why there is no socket to serve.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Standard input is no Unix stream socket.
    #[error(
        "standard input is no Unix stream socket ({0}); use `start`, or `processor --listen PATH`"
    )]
    NotASocket(Errno),
    /// The account that may connect cannot be looked up or is missing.
    #[error("cannot find the account {0} that may connect; make it: useradd --system {0}")]
    NoConnectorUser(String),
    /// The path cannot be listened on.
    #[error("cannot {step} {path}: {error}")]
    Path {
        /// What was tried.
        step: &'static str,
        /// With what.
        path: PathBuf,
        /// The system's answer.
        error: std::io::Error,
    },
    /// Something that is no socket stands at the path.
    #[error("{0} is no socket, and is left alone; remove it or listen elsewhere")]
    InTheWay(PathBuf),
    /// Another processor listens there.
    #[error("another processor listens at {0}; stop it first")]
    InUse(PathBuf),
    /// The other end is neither root nor the connector's account.
    #[error("uid {found} may not connect; only root and the connector's account may")]
    ForeignPeer {
        /// Who it is.
        found: Uid,
    },
    /// The system refused.
    #[error("cannot accept a connector: {0}")]
    System(#[from] std::io::Error),
}

impl From<Errno> for ListenError {
    fn from(errno: Errno) -> Self {
        Self::System(errno.into())
    }
}

/// Takes standard input as the socket, and leaves `/dev/null` in its place.
pub(super) fn take_stdin() -> Result<UnixStream, ListenError> {
    let stdin = std::io::stdin();
    let socket = stdin.as_fd().try_clone_to_owned()?;
    let kind = getsockopt(&socket, SockType).map_err(ListenError::NotASocket)?;
    if kind != Kind::Stream {
        return Err(ListenError::NotASocket(Errno::EPROTOTYPE));
    }
    let null = std::fs::File::open("/dev/null")?;
    dup2_stdin(&null)?;
    Ok(UnixStream::from(socket))
}

/// Takes a socket from whoever made it.
pub(super) fn take_given(socket: OwnedFd) -> UnixStream {
    UnixStream::from(socket)
}

/// Who may be at the other end besides root.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peers {
    connector: Option<Uid>,
}

impl Peers {
    /// Root, and the account of that name.
    pub(super) fn with(user: Option<&str>) -> Result<Self, ListenError> {
        let connector = match user {
            None => None,
            Some(name) => match User::from_name(name) {
                Ok(Some(user)) => Some(user.uid),
                Ok(None) | Err(_) => return Err(ListenError::NoConnectorUser(name.to_owned())),
            },
        };
        Ok(Self { connector })
    }

    /// Asks the kernel who is at the other end (unix(7), `SO_PEERCRED`).
    pub(super) fn check(self, socket: &UnixStream) -> Result<(), ListenError> {
        let found = Uid::from_raw(getsockopt(socket, PeerCredentials)?.uid());
        if found.is_root() || found == Uid::effective() || Some(found) == self.connector {
            return Ok(());
        }
        Err(ListenError::ForeignPeer { found })
    }
}

/// A socket at a path, which is removed with it.
#[derive(Debug)]
pub(super) struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

/// What [`Listener::accept`] came back with.
pub(super) enum Accepted {
    Connector(UnixStream),
    Stopped,
    TimeOver,
}

impl Listener {
    /// Listens at `path`, 0600 and owned by the connector's account. A socket that a crash left
    /// over is replaced.
    pub(super) fn bind(path: &Path, peers: Peers) -> Result<Self, ListenError> {
        let at = |step| move |error| ListenError::Path { step, path: path.to_owned(), error };
        if let Ok(metadata) = path.symlink_metadata() {
            if !metadata.file_type().is_socket() {
                return Err(ListenError::InTheWay(path.to_owned()));
            }
            if UnixStream::connect(path).is_ok() {
                return Err(ListenError::InUse(path.to_owned()));
            }
            std::fs::remove_file(path).map_err(at("remove the old socket at"))?;
        }
        let listener = UnixListener::bind(path).map_err(at("listen at"))?;
        listener.set_nonblocking(true)?;
        let listener = Self { listener, path: path.to_owned() };
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, mode).map_err(at("set the mode of"))?;
        if let Some(uid) = peers.connector {
            std::os::unix::fs::lchown(path, Some(uid.as_raw()), None).map_err(at("give away"))?;
        }
        Ok(listener)
    }

    /// Waits for a connector, until the deadline or until the bell is readable. Others are turned away, and waiting
    /// goes on.
    pub(super) fn accept(
        &self,
        peers: Peers,
        stop: &Stop,
        bell: Option<BorrowedFd<'_>>,
        deadline: Option<Instant>,
    ) -> Result<Accepted, ListenError> {
        loop {
            // Without a bell, the stop twice: one list for both cases.
            let bell = bell.unwrap_or_else(|| stop.as_fd());
            let mut fds = [self.listener.as_fd(), stop.as_fd(), bell]
                .map(|handle| PollFd::new(handle, PollFlags::POLLIN));
            if !wait_ready(&mut fds, deadline)? {
                return Ok(Accepted::TimeOver);
            }
            if stop.is_over() {
                return Ok(Accepted::Stopped);
            }
            let [_, _, rung] = fds;
            if rung.any().unwrap_or(false) {
                return Ok(Accepted::TimeOver);
            }
            match self.listener.accept() {
                Ok((socket, _)) => match peers.check(&socket) {
                    Ok(()) => return Ok(Accepted::Connector(socket)),
                    Err(error) => tracing::warn!(%error, "turned away"),
                },
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // What stays is replaced by the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}
