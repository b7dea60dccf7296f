//! The processor's end of the pipe: two bounded queues, and the two threads between them and the
//! socket.
//!
//! A full ingress queue stops reading the socket, so the connector feels it, and in the end the
//! backend. This file must not know accounts, nor what an action does.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use bastio_protocol::NetstringDecoder;
use crossbeam_channel::{Receiver, Sender, bounded, select};
use nix::poll::{PollFd, PollFlags};
use thiserror::Error;

use super::Stop;
use crate::pipe::{PIPE_LIMIT, PipeError, ToConnector, ToProcessor};
use crate::wait::wait_ready;

/// Messages that may wait in each queue.
pub const QUEUE_LIMIT: usize = 64;
/// How long the connector may leave an answer unread before it counts as dead.
const WRITE_LIMIT: Duration = Duration::from_secs(60);
/// How long the last answers may take to go out.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Why the reader ended.
#[derive(Debug, Error)]
enum ReadEnd {
    #[error("the connector closed the pipe")]
    Closed,
    #[error("stopping")]
    Stopping,
    #[error("the processor takes no more")]
    NotTaken,
    #[error("the connector sent what may not cross the pipe: {0}")]
    Forbidden(#[from] PipeError),
    #[error("cannot read the pipe: {0}")]
    Io(#[from] std::io::Error),
}

/// One connection to a connector.
#[derive(Debug)]
pub struct EndPoint {
    /// What the connector sent; disconnected when it is gone, sent garbage, or on a stop.
    pub ingress: Receiver<ToProcessor>,
    /// What it gets; disconnected when it is gone.
    pub egress: Sender<ToConnector>,
    socket: UnixStream,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
    /// Disconnected when the writer has ended.
    written: Receiver<()>,
}

impl EndPoint {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the socket cannot be set up or a thread not be started.
    pub fn start(socket: UnixStream, stop: Stop) -> std::io::Result<Self> {
        let (to_processor, ingress) = bounded(QUEUE_LIMIT);
        let (egress, from_processor) = bounded(QUEUE_LIMIT);
        let (writing, written) = bounded(0);
        socket.set_nonblocking(false)?;
        socket.set_write_timeout(Some(WRITE_LIMIT))?;
        let (read_half, write_half) = (socket.try_clone()?, socket.try_clone()?);
        let reader = spawn("ingress", move || {
            let end = read_all(read_half, &stop, &to_processor);
            match end {
                ReadEnd::Forbidden(_) | ReadEnd::Io(_) => {
                    tracing::error!(why = %end, "ending the connector");
                }
                ReadEnd::Closed | ReadEnd::Stopping | ReadEnd::NotTaken => {
                    tracing::debug!(why = %end, "no more actions from this connector");
                }
            }
        })?;
        let writer = spawn("egress", move || {
            if let Err(error) = write_all(write_half, &from_processor) {
                tracing::warn!(%error, "the connector takes no more answers");
            }
            drop(writing);
        })?;
        Ok(Self { ingress, egress, socket, reader, writer, written })
    }

    /// Sends out what is queued, closes the socket, and ends the threads.
    pub fn finish(self) {
        drop(self.egress);
        drop(self.ingress);
        // Nothing is ever sent: it ends by disconnecting, or by the time limit.
        let _ = self.written.recv_timeout(FLUSH_LIMIT);
        // Also wakes the threads that still read or write. Fails only when it is closed already.
        let _ = self.socket.shutdown(Shutdown::Both);
        for thread in [self.reader, self.writer] {
            if thread.join().is_err() {
                tracing::error!("a thread of the pipe panicked");
            }
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(256 * 1024).spawn(run)
}

fn read_all(socket: UnixStream, stop: &Stop, ingress: &Sender<ToProcessor>) -> ReadEnd {
    match read_until_end(socket, stop, ingress) {
        Ok(end) | Err(end) => end,
    }
}

fn read_until_end(
    mut socket: UnixStream,
    stop: &Stop,
    ingress: &Sender<ToProcessor>,
) -> Result<ReadEnd, ReadEnd> {
    let mut decoder = NetstringDecoder::new(PIPE_LIMIT);
    let mut piece = vec![0; 16 * 1024];
    loop {
        let mut fds = [
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(stop.as_fd(), PollFlags::POLLIN),
        ];
        wait_ready(&mut fds, None).map_err(std::io::Error::from)?;
        if stop.is_over() {
            return Ok(ReadEnd::Stopping);
        }
        let len = socket.read(&mut piece)?;
        if len == 0 {
            decoder.finish().map_err(PipeError::from)?;
            return Ok(ReadEnd::Closed);
        }
        decoder.push(piece.get(..len).unwrap_or_default());
        while let Some(body) = decoder.next_body().map_err(PipeError::from)? {
            let message = ToProcessor::parse(&body)?;
            select! {
                send(ingress, message) -> sent => sent.map_err(|_| ReadEnd::NotTaken)?,
                recv(stop.channel()) -> _ => return Ok(ReadEnd::Stopping),
            }
        }
    }
}

fn write_all(mut socket: UnixStream, egress: &Receiver<ToConnector>) -> std::io::Result<()> {
    egress.iter().try_for_each(|message| socket.write_all(&message.to_frame()))
}

#[cfg(test)]
mod tests;
