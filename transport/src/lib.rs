//! SSH between an agent and the backend: the only crate that knows russh.
//!
//! For callers there are keys ([`PrivateKey`], [`PublicKeyBlob`], [`HostKeyPin`]), a client
//! ([`connect`]), a server ([`serve`]) and, on both sides, one byte stream in each direction
//! ([`Reader`], [`ClientWriter`] or [`ServerWriter`]) with a [`Link`] that owns the connection.
//! What travels in the stream (netstrings, JSON) is not this crate's business, nor are accounts,
//! enrolment or retries.
//!
//! # Limits this crate adds to russh
//!
//! russh has no limit on time before login, on connections before login, on a blocked write, or on
//! the time a peer takes to close. So every socket is wrapped in `wire::Wire`, which can be cut
//! from outside, ends a write that makes no progress, and ends the wait for a peer's close. As
//! every russh task only ever waits for its socket or for a handler here (each with a limit),
//! cutting the wire ends the task.
//!
//! # Back-pressure
//!
//! russh enlarges the SSH window by itself as soon as data arrives, whether or not anybody has read
//! it, and a `Channel` that is kept but not read stops its whole session. So no `Channel` is kept:
//! incoming data goes from the handler into one bounded store ([`InboundBudget`], messages and
//! bytes). When the store is full the handler waits for room. The handler runs inside russh's
//! session loop, so this stops reading the socket, TCP's window closes and the peer's writes stall:
//! back-pressure from end to end, with at most the budget plus one SSH window plus the socket's
//! buffer in memory.
//!
//! While the handler waits, our own sends wait too, since the same loop writes them. That cannot
//! last for ever: after [`InboundBudget::wait`] without room the connection ends as
//! [`CloseReason::Stalled`], and a cut wakes the wait at once. Two peers that both wait for the
//! other to read therefore part after the shorter of the two limits instead of hanging. A program
//! whose reader can wait for its own writer should keep the two in separate tasks.
//!
//! Keepalives do not run while the handler waits, and an answer to one waits behind the data
//! before it. The default wait (30 s) is shorter than the time after which either side takes a
//! silent peer for dead (45 s and 60 s), and every piece that is read lets our own data out, so a
//! reader that answers what it reads is safe. A reader that answers nothing and needs longer than
//! that for the messages of one SSH window (128 KiB) is cut by the peer: take data away quickly
//! and keep it elsewhere.

mod algorithms;
mod channel;
mod client;
mod ending;
mod error;
mod keys;
mod server;
#[cfg(test)]
mod tests;
mod wire;

pub use bytes::Bytes;
pub use channel::{InboundBudget, Reader};
#[cfg(test)]
pub(crate) use client::establish;
pub use client::{ClientConfig, ClientWriter, Connection, Subsystem, connect};
pub use ending::{CloseReason, Link};
pub use error::{ConnectError, KeyError, SendError, ServeError};
pub use keys::{HostKeyPin, KeyKind, PrivateKey, PublicKeyBlob};
#[cfg(test)]
pub(crate) use server::serve_one;
pub use server::{
    Algorithms, Authenticate, BoxFuture, Handshake, Listener, LoginName, ServerConfig,
    ServerSession, ServerWriter, Tally, Unsure, serve,
};
