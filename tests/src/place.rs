//! A place to run things in: a set of namespaces, held by the process id of its init.
//!
//! A short-lived thread enters the namespaces and does the work there; a program it starts is a direct child of this
//! process, so its id, signals and exit status are first-hand. Knows nothing of what the namespaces contain.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::Pid;

use crate::init::{Init, Lifetime};
use crate::{LabError, PlacedCommand};

/// Time to wait for a TCP connection inside the lab.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A set of namespaces (files, processes, network, host name) in which commands and closures can run. It lives as long
/// as a guard of it does: the [`crate::World`] or [`crate::Host`], and every [`crate::Running`] program in it.
#[derive(Debug, Clone)]
pub struct Place {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    handle: OwnedFd,
    /// Before `outer`: what is inside ends first.
    init: Init,
    _outer: Option<Place>,
}

impl Place {
    /// The namespaces of the process `init`; they may lie inside those of another place.
    pub(crate) fn new(name: &str, init: Init, outer: Option<Self>) -> Result<Self, LabError> {
        let handle = pidfd(init.pid())?;
        Ok(Self { shared: Arc::new(Shared { name: name.into(), handle, init, _outer: outer }) })
    }

    /// The name of the place, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Process id, as this process sees it, of the place's process 1. `nsenter -t PID -a` looks around there.
    #[must_use]
    pub fn init_pid(&self) -> Pid {
        self.shared.init.pid()
    }

    pub(crate) fn lifetime(&self) -> Lifetime {
        self.shared.init.lifetime()
    }

    /// A command that will run inside, as root, with a clean environment and no standard input.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> PlacedCommand<'_> {
        PlacedCommand::new(self, program.as_ref())
    }

    /// Runs `work` with the files, the network and the host name of this place (but as a thread of this process).
    /// Sockets and files opened by it keep belonging to this place when they are handed back.
    ///
    /// # Errors
    /// [`LabError::System`] when the place is gone.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        let kinds = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS;
        self.enter(kinds, work)
    }

    /// Runs `work` on a thread of its own after it has entered the given kinds of namespaces.
    pub(crate) fn enter<T: Send>(
        &self,
        kinds: CloneFlags,
        work: impl FnOnce() -> T + Send,
    ) -> Result<T, LabError> {
        let enter = || {
            unshare(CloneFlags::CLONE_FS)?;
            setns(&self.shared.handle, kinds)
        };
        on_own_thread(|| enter().map(|()| work()))
            .map_err(LabError::doing(format!("enter the namespaces of {}", self.name())))
    }

    /// Writes a file inside, mode 0644 when new; links are followed as they lead inside.
    ///
    /// # Errors
    /// [`LabError::System`] from the file system.
    pub fn write_file(
        &self,
        path: impl AsRef<Path>,
        bytes: impl AsRef<[u8]>,
    ) -> Result<(), LabError> {
        let (path, bytes) = (path.as_ref(), bytes.as_ref());
        self.within(|| fs::write(path, bytes))?.map_err(self.at("write", path))
    }

    /// Reads a whole file inside.
    ///
    /// # Errors
    /// [`LabError::System`] from the file system.
    pub fn read_file(&self, path: impl AsRef<Path>) -> Result<Vec<u8>, LabError> {
        let path = path.as_ref();
        self.within(|| fs::read(path))?.map_err(self.at("read", path))
    }

    /// Whether a path exists inside (a link that leads nowhere does).
    ///
    /// # Errors
    /// [`LabError::System`] when that can't be found out.
    pub fn exists(&self, path: impl AsRef<Path>) -> Result<bool, LabError> {
        let path = path.as_ref();
        match self.within(|| fs::symlink_metadata(path))? {
            Ok(_) => Ok(true),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(self.at("look for", path)(error)),
        }
    }

    /// Copies a file of the machine to a path inside, mode included.
    ///
    /// # Errors
    /// [`LabError::System`] from either file system.
    pub fn copy_in(
        &self,
        machine_path: impl AsRef<Path>,
        path: impl AsRef<Path>,
    ) -> Result<(), LabError> {
        let (from, to) = (machine_path.as_ref(), path.as_ref());
        let mut source =
            fs::File::open(from).map_err(LabError::doing(format!("open {}", from.display())))?;
        self.within(|| {
            let mut target = fs::File::create(to)?;
            io::copy(&mut source, &mut target)?;
            target.set_permissions(source.metadata()?.permissions())
        })?
        .map_err(self.at("write", to))
    }

    /// A listening TCP socket in this place's network.
    ///
    /// # Errors
    /// [`LabError::System`] when the address can't be bound.
    pub fn listen(&self, address: SocketAddr) -> Result<TcpListener, LabError> {
        self.within(|| TcpListener::bind(address))?
            .map_err(LabError::doing(format!("listen on {address} in {}", self.name())))
    }

    /// A TCP connection made from this place's network.
    ///
    /// # Errors
    /// [`LabError::System`] when nobody answers.
    pub fn connect(&self, address: SocketAddr) -> Result<TcpStream, LabError> {
        self.within(|| TcpStream::connect_timeout(&address, CONNECT_LIMIT))?
            .map_err(LabError::doing(format!("connect to {address} from {}", self.name())))
    }

    fn at(&self, verb: &str, path: &Path) -> impl FnOnce(io::Error) -> LabError + use<> {
        LabError::doing(format!("{verb} {} in {}", path.display(), self.name()))
    }
}

/// A handle on a process that can't mean another one later, readable when the process has ended.
pub(crate) fn pidfd(pid: Pid) -> Result<OwnedFd, LabError> {
    let raw = rustix::process::Pid::from_raw(pid.as_raw()).ok_or_else(|| LabError::Missing {
        what: "a process id above 0".into(),
        hint: "the process has ended".into(),
    })?;
    rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty())
        .map_err(LabError::doing(format!("open a handle on process {pid}")))
}

/// Runs `work` on a thread of its own, whose namespaces and working folder are nobody else's, and waits for it.
pub(crate) fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
