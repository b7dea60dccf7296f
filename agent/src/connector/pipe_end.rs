//! The connector's ends of the pipe to the processor. Both calls that wait are cancel safe. This
//! file must not know the backend or what messages mean.

use std::io;

use bastio_protocol::NetstringDecoder;
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::pipe::{LinkState, PIPE_LIMIT, PipeError, ToConnector, ToProcessor};

/// Size of one read, in bytes.
const CHUNK: usize = 8 * 1024;

/// Why the pipe cannot be used any more.
#[derive(Debug, Error)]
pub enum PipeEndError {
    /// The processor sent what it never would.
    #[error("the processor broke the pipe's rules: {0}")]
    Rules(#[from] PipeError),
    /// The system refused.
    #[error("the pipe to the processor: {0}")]
    Io(#[from] io::Error),
}

/// What comes from the processor.
#[derive(Debug)]
pub(super) struct FromProcessor {
    half: OwnedReadHalf,
    decoder: NetstringDecoder,
}

/// What goes to the processor: at most one action, what was delivered meanwhile, and the newest state of
/// the link wait here.
#[derive(Debug)]
pub(super) struct ToProcessorEnd {
    half: OwnedWriteHalf,
    waiting: Vec<u8>,
    link: Option<LinkState>,
    closed: bool,
}

/// Splits the connected socket.
pub(super) fn ends(socket: UnixStream) -> (FromProcessor, ToProcessorEnd) {
    let (read, write) = socket.into_split();
    (
        FromProcessor { half: read, decoder: NetstringDecoder::new(PIPE_LIMIT) },
        ToProcessorEnd { half: write, waiting: Vec::new(), link: None, closed: false },
    )
}

impl FromProcessor {
    /// The next message; `None` when the processor is gone.
    pub(super) async fn recv(&mut self) -> Result<Option<ToConnector>, PipeEndError> {
        loop {
            if let Some(body) = self.decoder.next_body().map_err(PipeError::from)? {
                return Ok(Some(ToConnector::parse(&body)?));
            }
            let mut chunk = Vec::with_capacity(CHUNK);
            match self.half.read_buf(&mut chunk).await {
                Ok(0) => return Ok(None),
                Ok(_) => self.decoder.push(&chunk),
                Err(error) if is_gone(&error) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl ToProcessorEnd {
    /// Whether everything was handed over; only then the next action may be pushed.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.link.is_none()
    }

    /// Whether the processor still takes anything.
    pub(super) fn is_open(&self) -> bool {
        !self.closed
    }

    /// Takes a message, to stand behind everything taken before.
    pub(super) fn push(&mut self, message: &ToProcessor) {
        if self.closed {
            return;
        }
        if let Some(link) = self.link.take() {
            self.waiting.extend(ToProcessor::Link(link).to_frame());
        }
        self.waiting.extend(message.to_frame());
    }

    /// The processor is gone: drops what waits and takes nothing more.
    pub(super) fn close(&mut self) {
        self.waiting.clear();
        self.link = None;
        self.closed = true;
    }

    /// Takes the state of the link; an older one that still waits is dropped.
    pub(super) fn tell(&mut self, link: LinkState) {
        if !self.closed {
            self.link = Some(link);
        }
    }

    /// Writes as much as the pipe takes at once, after waiting for room. Does not return before
    /// something was written, or the pipe failed.
    pub(super) async fn flush(&mut self) -> Result<(), PipeEndError> {
        if self.waiting.is_empty()
            && let Some(link) = self.link.take()
        {
            self.waiting = ToProcessor::Link(link).to_frame();
        }
        loop {
            self.half.writable().await?;
            match self.half.try_write(&self.waiting) {
                Ok(written) => {
                    self.waiting.drain(..written);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}
