//! How many strangers may be connected at a time, in all and from one source; and how the others
//! are sent away. russh has no such limit.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::tally::{Counted, Tally};
use crate::ending::retry_after_text;

/// What a client is asked to wait when there is no room for it.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// So many clients are told at a time; beyond that they are just disconnected.
const REFUSALS: usize = 32;
/// How long telling one may take, and how much it may send meanwhile.
const REFUSAL_LIMIT: Duration = Duration::from_secs(2);
const REFUSED_BYTES: u64 = 16 * 1024;

type Sources = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// Counts connections that are not logged in.
pub(super) struct Gate {
    all: Arc<Semaphore>,
    each: usize,
    sources: Sources,
    refusals: Arc<Semaphore>,
    tally: Arc<Tally>,
}

/// The right to tell one client that there is no room.
pub(super) struct Turn(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// The place of one such connection; free again when dropped.
pub(super) struct Startup {
    _place: OwnedSemaphorePermit,
    sources: Sources,
    source: IpAddr,
    _counted: Counted,
}

impl Gate {
    pub(super) fn new(all: usize, each: usize, tally: Arc<Tally>) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all.min(Semaphore::MAX_PERMITS))),
            each,
            sources: Arc::default(),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            tally,
        }
    }

    pub(super) fn turn_to_refuse(&self) -> Option<Turn> {
        let refusals = Arc::clone(&self.refusals);
        refusals.try_acquire_owned().ok().map(Turn)
    }

    pub(super) fn enter(&self, address: IpAddr) -> Option<Startup> {
        let source = source_of(address);
        let place = Arc::clone(&self.all).try_acquire_owned().ok()?;
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sources.get(&source).copied().unwrap_or(0);
        if count >= self.each {
            return None;
        }
        sources.insert(source, count + 1);
        let (sources, counted) = (Arc::clone(&self.sources), self.tally.enter());
        Some(Startup { _place: place, sources, source, _counted: counted })
    }
}

impl Drop for Startup {
    fn drop(&mut self) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        match sources.get_mut(&self.source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                sources.remove(&self.source);
            }
        }
    }
}

/// One IPv4 address, or the /64 a single IPv6 host usually has to itself.
fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        v4 => v4,
    }
}

/// Sends a client away with a disconnect message in clear (RFC 4253 section 11.1) that asks it to
/// come back, then waits a moment for it to close: data that arrives at a closed socket makes the
/// kernel reset the connection, and the message could be lost with it.
pub(super) async fn refuse(mut socket: TcpStream, identification: String, _turn: Turn) {
    let mut message = format!("{identification}\r\n").into_bytes();
    message.extend(disconnect_packet(&retry_after_text(RETRY_AFTER)));
    let said = async {
        socket.write_all(&message).await?;
        socket.shutdown().await?;
        let mut rest = socket.take(REFUSED_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // The peer may be gone already, or not listen.
    let _ = timeout(REFUSAL_LIMIT, said).await;
}

/// An unencrypted SSH_MSG_DISCONNECT packet (RFC 4253 section 6) with a text below 200 bytes.
fn disconnect_packet(text: &str) -> Vec<u8> {
    const DISCONNECT: u8 = 1;
    const TOO_MANY_CONNECTIONS: u32 = 12;
    let length = |n: usize| u32::try_from(n).unwrap_or(0).to_be_bytes();
    let mut payload = vec![DISCONNECT];
    payload.extend(TOO_MANY_CONNECTIONS.to_be_bytes());
    payload.extend(length(text.len()));
    payload.extend(text.as_bytes());
    payload.extend(length(0));
    // Length field, padding's length, payload and padding (4 bytes at least) are a multiple of 8.
    let padding = 4 + (8 - (payload.len() + 9) % 8) % 8;
    let mut packet = length(1 + payload.len() + padding).to_vec();
    packet.extend(u8::try_from(padding));
    packet.extend(payload);
    packet.resize(packet.len() + padding, 0);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_and_places_come_back() {
        let gate = Gate::new(3, 2, Arc::default());
        let [a, b]: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        let first = gate.enter(a).unwrap();
        let _second = gate.enter(a).unwrap();
        assert!(gate.enter(a).is_none(), "two for each source");
        let third = gate.enter(b).unwrap();
        assert!(gate.enter(b).is_none(), "three in all");
        drop(first);
        let fourth = gate.enter(a).unwrap();
        drop((third, fourth, _second));
        assert!(gate.sources.lock().unwrap().is_empty());
        assert_eq!(gate.all.available_permits(), 3);
    }

    #[test]
    fn sources_are_hosts() {
        let source = |text: &str| source_of(text.parse().unwrap());
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
    }

    #[test]
    fn packet_is_well_formed() {
        for text in ["", "a", "abcdefg", "bastio-retry-after=5"] {
            let packet = disconnect_packet(text);
            let length = u32::from_be_bytes(packet[..4].try_into().unwrap()) as usize;
            let padding = usize::from(packet[4]);
            assert_eq!(packet.len(), 4 + length);
            assert_eq!(packet.len() % 8, 0);
            assert!((4..12).contains(&padding));
            assert_eq!(length, 1 + 1 + 4 + 4 + text.len() + 4 + padding);
        }
    }
}
