//! Readiness as sd_notify(3) tells it: a program says `READY=1` on a datagram socket that it is given by name.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::place::pidfd;
use crate::{LabError, Place, Running};

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A socket in a place on which one program will say that it is ready. Gone when dropped.
#[derive(Debug)]
pub(crate) struct ReadySocket<'place> {
    place: &'place Place,
    path: PathBuf,
    socket: UnixDatagram,
}

impl<'place> ReadySocket<'place> {
    pub(crate) fn bind(place: &'place Place) -> Result<Self, LabError> {
        let path =
            PathBuf::from(format!("/run/ready-{}.sock", NEXT.fetch_add(1, Ordering::Relaxed)));
        let bind = || {
            let socket = UnixDatagram::bind(&path)?;
            socket.set_nonblocking(true)?;
            io::Result::Ok(socket)
        };
        let socket = place
            .within(bind)?
            .map_err(LabError::doing("listen for the readiness of a program"))?;
        Ok(Self { place, path, socket })
    }

    /// The value of `NOTIFY_SOCKET` for the program.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until the program is ready; its end is an error.
    pub(crate) fn wait(&self, program: &mut Running, limit: Duration) -> Result<(), LabError> {
        let doing = format!("wait until {} is ready", program.name());
        let deadline = Instant::now() + limit;
        let handle = pidfd(program.pid())?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).unwrap_or_default();
            let (socket, process) = (self.socket.as_fd(), handle.as_fd());
            let mut watched = [
                PollFd::from_borrowed_fd(socket, PollFlags::IN),
                PollFd::from_borrowed_fd(process, PollFlags::IN),
            ];
            if poll(&mut watched, Some(&left)).map_err(LabError::doing(doing.as_str()))? == 0 {
                return Err(LabError::TimedOut { doing, limit });
            }
            if self.is_ready().map_err(LabError::doing(doing.as_str()))? {
                return Ok(());
            }
            if let Some(status) = program.ended()? {
                return Err(LabError::Failed {
                    command: program.name().to_owned(),
                    status: status.to_string(),
                    output: "it ended before it was ready; its log says more".into(),
                });
            }
        }
    }

    fn is_ready(&self) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        match self.socket.recv(&mut buffer) {
            Ok(count) => {
                let message = buffer.get(..count).unwrap_or_default();
                Ok(message.split(|byte| *byte == b'\n').any(|line| line == b"READY=1"))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for ReadySocket<'_> {
    fn drop(&mut self) {
        // Fails only when the whole place is gone.
        let _ = self.place.within(|| fs::remove_file(&self.path));
    }
}
