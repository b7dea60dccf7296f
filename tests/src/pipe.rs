//! The connector's end of the pipe to a processor, held by a test: frames of JSON. Knows no message but the one that
//! confirms an answer.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;

/// How long an answer may take; more than any tool of a processor may.
const LIMIT: Duration = Duration::from_secs(60);
/// More than a frame of the pipe can hold, in bytes.
const LARGEST: usize = 8 << 20;

/// One end of a pipe; the other is a processor's standard input.
#[derive(Debug)]
pub struct Pipe {
    socket: UnixStream,
    /// Bytes that have come and not been looked at.
    waiting: Vec<u8>,
}

impl Pipe {
    /// Both ends.
    ///
    /// # Errors
    /// Those of the system.
    pub fn new() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(LIMIT))?;
        Ok((Self { socket: ours, waiting: Vec::new() }, theirs.into()))
    }

    /// Sends a message.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub fn say(&mut self, body: &str) -> io::Result<()> {
        self.socket.write_all(format!("{}:{body},", body.len()).as_bytes())
    }

    /// Says that there is a connection to a backend: from here on, drift is told.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub fn connected(&mut self) -> io::Result<()> {
        self.say(r#"{"type":"link","link":{"state":"connected","backend":"b:1","since":1}}"#)
    }

    /// Says that the backend has this many more answers.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub fn delivered(&mut self, count: usize) -> io::Result<()> {
        self.say(&format!(r#"{{"type":"delivered","count":{count}}}"#))
    }

    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// When none comes within a minute, or it is no frame of JSON.
    pub fn hear(&mut self) -> io::Result<Option<Value>> {
        loop {
            if let Some(body) = self.next_frame()? {
                return Ok(Some(serde_json::from_slice(&body)?));
            }
            let mut piece = [0; 16 * 1024];
            let len = match self.socket.read(&mut piece) {
                // A socket closed with something unread in it ends with a reset.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
                read => read?,
            };
            if len == 0 {
                return Ok(None);
            }
            self.waiting.extend(piece.get(..len).unwrap_or_default());
        }
    }

    /// The next message that is no drift and no wish for a new connection: those come unasked.
    ///
    /// # Errors
    /// As [`Pipe::hear`].
    pub fn hear_answer(&mut self) -> io::Result<Option<Value>> {
        loop {
            let word = self.hear()?;
            let kind = word.as_ref().and_then(|word| word["type"].as_str());
            if !matches!(kind, Some("drift" | "reconnect")) {
                return Ok(word);
            }
        }
    }

    fn next_frame(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(colon) = self.waiting.iter().position(|byte| *byte == b':') else {
            return Ok(None);
        };
        let digits = String::from_utf8_lossy(self.waiting.get(..colon).unwrap_or_default());
        let len: usize = digits.parse().map_err(io::Error::other)?;
        if len > LARGEST {
            return Err(io::Error::other("too long a frame"));
        }
        let (start, end) = (colon + 1, colon + 1 + len);
        if self.waiting.len() <= end {
            return Ok(None);
        }
        let body = self.waiting.get(start..end).unwrap_or_default().to_vec();
        self.waiting.drain(..=end);
        Ok(Some(body))
    }

    /// Says no more; answers can still be heard.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub fn hang_up(&mut self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }
}
