//! How many strangers may be connected at a time, in all and from one source, and how many of them are served at a
//! time; how the others are sent away. russh has no such limit.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::failures::Failures;
use super::pacer::Pacer;
use super::tally::{Counted, Tally};
use crate::ending::retry_after_text;

/// What a client is asked to wait when its source has taken its share.
const SHARE_TAKEN: Duration = Duration::from_secs(5);
/// So many clients are told at a time; beyond that they are just disconnected.
const REFUSALS: usize = 256;
/// How long telling one may take, and how much it may send meanwhile.
const REFUSAL_LIMIT: Duration = Duration::from_secs(2);
const REFUSED_BYTES: u64 = 16 * 1024;

/// How much the gate lets in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Handshakes at a time.
    pub(super) handshakes: usize,
    /// Connections that wait for theirs.
    pub(super) waiting: usize,
    /// Both together of one source.
    pub(super) each: usize,
    /// Connections without a login, a minute and source.
    pub(super) failures: u32,
}

/// Counts connections that are not logged in.
pub(super) struct Gate {
    /// Those who wait as well.
    all: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    each: usize,
    strangers: Arc<Mutex<Strangers>>,
    refusals: Arc<Semaphore>,
    tally: Arc<Tally>,
}

struct Strangers {
    sources: HashMap<IpAddr, usize>,
    failures: Failures,
    pacer: Pacer,
}

/// The right to tell one client that there is no room.
pub(super) struct Turn(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// The place of one such connection; free again when dropped. Counts as a failure of its source
/// unless it has [logged in](Startup::logged_in).
pub(super) struct Startup {
    _place: OwnedSemaphorePermit,
    handshakes: Arc<Semaphore>,
    handshake: Option<OwnedSemaphorePermit>,
    strangers: Arc<Mutex<Strangers>>,
    source: IpAddr,
    /// Whether its end is no sign of a failure.
    blameless: bool,
    _counted: Counted,
}

/// There is no room; how long to stay away.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Crowded(pub(super) Duration);

/// How many there are, as far as the system tells.
fn processors() -> u16 {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(count).unwrap_or(u16::MAX)
}

impl Gate {
    pub(super) fn new(bounds: Bounds, tally: Arc<Tally>) -> Self {
        let semaphore =
            |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        let strangers = Strangers {
            sources: HashMap::new(),
            failures: Failures::new(bounds.failures),
            pacer: Pacer::new(Instant::now(), processors()),
        };
        Self {
            all: semaphore(bounds.handshakes.saturating_add(bounds.waiting)),
            handshakes: semaphore(bounds.handshakes),
            each: bounds.each,
            strangers: Arc::new(Mutex::new(strangers)),
            refusals: semaphore(REFUSALS),
            tally,
        }
    }

    pub(super) fn turn_to_refuse(&self) -> Option<Turn> {
        let refusals = Arc::clone(&self.refusals);
        refusals.try_acquire_owned().ok().map(Turn)
    }

    pub(super) fn enter(&self, address: IpAddr) -> Result<Startup, Crowded> {
        let (source, now) = (source_of(address), Instant::now());
        let mut strangers = lock(&self.strangers);
        if let Some(wait) = strangers.failures.wait(source, now) {
            return Err(Crowded(wait));
        }
        let count = strangers.sources.get(&source).copied().unwrap_or(0);
        if count >= self.each {
            return Err(Crowded(SHARE_TAKEN));
        }
        let Ok(place) = Arc::clone(&self.all).try_acquire_owned() else {
            return Err(Crowded(strangers.pacer.wait(now)));
        };
        strangers.sources.insert(source, count + 1);
        Ok(Startup {
            _place: place,
            handshakes: Arc::clone(&self.handshakes),
            handshake: None,
            strangers: Arc::clone(&self.strangers),
            source,
            blameless: false,
            _counted: self.tally.enter(),
        })
    }
}

impl Startup {
    /// Waits until it is this connection's turn; those who came first go first.
    pub(super) async fn turn(&mut self) {
        // The semaphore is never closed.
        self.handshake = Arc::clone(&self.handshakes).acquire_owned().await.ok();
    }

    /// Its client has logged in.
    pub(super) fn logged_in(mut self) {
        self.blameless = true;
        lock(&self.strangers).pacer.logged_in(Instant::now());
    }

    /// How long its client shall stay away, when its turn did not come; no failure of its own.
    pub(super) fn sent_away(mut self) -> Duration {
        self.blameless = true;
        lock(&self.strangers).pacer.wait(Instant::now())
    }

    /// It ends because we do.
    pub(super) fn excused(mut self) {
        self.blameless = true;
    }
}

impl Drop for Startup {
    fn drop(&mut self) {
        let mut strangers = lock(&self.strangers);
        match strangers.sources.get_mut(&self.source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                strangers.sources.remove(&self.source);
            }
        }
        if !self.blameless {
            strangers.failures.failed(self.source, Instant::now());
        }
    }
}

fn lock(strangers: &Mutex<Strangers>) -> MutexGuard<'_, Strangers> {
    strangers.lock().unwrap_or_else(PoisonError::into_inner)
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
pub(super) async fn refuse(
    mut socket: TcpStream,
    identification: String,
    retry_after: Duration,
    _turn: Option<Turn>,
) {
    let mut message = format!("{identification}\r\n").into_bytes();
    message.extend(disconnect_packet(&retry_after_text(retry_after)));
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

    fn bounds() -> Bounds {
        Bounds { handshakes: 2, waiting: 1, each: 2, failures: 100 }
    }

    #[tokio::test(start_paused = true)]
    async fn limits_hold_and_places_come_back() {
        let gate = Gate::new(bounds(), Arc::default());
        let [a, b]: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        let first = gate.enter(a).unwrap();
        let second = gate.enter(a).unwrap();
        assert_eq!(gate.enter(a).err(), Some(Crowded(SHARE_TAKEN)), "two for each source");
        let third = gate.enter(b).unwrap();
        assert_eq!(gate.enter(b).err(), Some(Crowded(Duration::from_secs(2))), "three in all");
        drop(first);
        let fourth = gate.enter(a).unwrap();
        drop((second, third, fourth));
        assert!(lock(&gate.strangers).sources.is_empty());
        assert_eq!(gate.all.available_permits(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn handshakes_go_one_after_the_other() {
        let gate = Gate::new(bounds(), Arc::default());
        let mut all: Vec<Startup> = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
            .into_iter()
            .map(|address| gate.enter(address.parse().unwrap()).unwrap())
            .collect();
        let mut third = all.pop().unwrap();
        for startup in &mut all {
            startup.turn().await;
        }
        let waits = timeout(Duration::from_secs(9), third.turn()).await;
        assert!(waits.is_err(), "two at a time");
        all.pop().unwrap().logged_in();
        third.turn().await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_logs_in_must_stay_away_for_a_while() {
        let gate = Gate::new(Bounds { failures: 3, ..bounds() }, Arc::default());
        let [a, b]: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        for _ in 0..10 {
            gate.enter(b).unwrap().logged_in();
            gate.enter(b).unwrap().excused();
            assert!(!gate.enter(b).unwrap().sent_away().is_zero());
        }
        for _ in 0..3 {
            drop(gate.enter(a).unwrap());
        }
        let Err(Crowded(wait)) = gate.enter(a) else { panic!("let in") };
        assert!(gate.enter(b).is_ok());
        tokio::time::advance(wait).await;
        assert!(gate.enter(a).is_ok());
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
