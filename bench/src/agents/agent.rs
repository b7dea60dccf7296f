//! One emulated agent: a real connection, the real link's state machine and the real protocol of version 2, and
//! nothing behind it: what it is ordered to do is done as soon as it is read. Must not know the others.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bastio_agent::link::{Effect, Event, Link, Trouble};
use bastio_protocol::{
    AgentHello, BackendHello, Facts, KeyPolicy, Message, MessageId, Netstring, NetstringDecoder,
    Order, Payload, Status, V2, V2_LIMIT,
};
use bastio_transport::{
    ClientConfig, ClientWriter, CloseReason, ConnectError, PrivateKey, Reader, Subsystem, connect,
};
use tokio::sync::{Semaphore, mpsc};

use super::talk::{self, Faults};

/// TCP waits this long for the first repetition of a lost packet (Linux, RFC 6298 with its lower bound of 200 ms).
const RETRANSMISSION: Duration = Duration::from_millis(200);
/// Losses in a row that are played.
const MOST_LOSSES: u32 = 5;

/// What an agent reports to the emulator.
#[derive(Debug)]
pub enum Happened {
    /// It is connected.
    Up(usize),
    /// It is not.
    Down { paced: bool },
    /// It has answered an order.
    Answered { agent: usize, at: u64, body: Option<String> },
}

/// What all agents share.
pub struct Shared {
    pub events: mpsc::Sender<Happened>,
    /// Attempts at a time, while the emulator limits them.
    pub dials: Semaphore,
    pub faults: Faults,
    /// Fingerprint of the signing key that they obey.
    pub signing_key: OnceLock<String>,
    pub obeyed: AtomicU64,
    pub repeated: AtomicU64,
    pub crashes: AtomicU64,
    pub connected: AtomicUsize,
}

/// One agent.
pub struct Agent {
    pub number: usize,
    pub config: ClientConfig,
    pub key: PrivateKey,
    pub shared: Arc<Shared>,
    last_sequence: u64,
    /// What was done already; orders may come twice.
    done: HashSet<MessageId>,
}

/// Why a connection is over.
enum Over {
    Down(Trouble),
    Crash,
}

impl Agent {
    pub fn new(number: usize, config: ClientConfig, key: PrivateKey, shared: Arc<Shared>) -> Self {
        Self { number, config, key, shared, last_sequence: 0, done: HashSet::new() }
    }

    /// Lives until the process ends.
    pub async fn live(mut self) {
        let mut link = Link::default();
        link.on(Event::Start, Instant::now(), 0.0);
        loop {
            let over = match self.dial().await {
                Ok(subsystem) => {
                    link.on(Event::Connected, Instant::now(), 0.0);
                    self.shared.connected.fetch_add(1, Ordering::Relaxed);
                    let over = self.serve(subsystem).await;
                    self.shared.connected.fetch_sub(1, Ordering::Relaxed);
                    over
                }
                Err(error) => Over::Down(trouble(error)),
            };
            let trouble = match over {
                Over::Down(trouble) => trouble,
                Over::Crash => {
                    link = Link::default();
                    link.on(Event::Start, Instant::now(), 0.0);
                    continue;
                }
            };
            let paced = matches!(trouble, Trouble::Paced(_));
            self.tell(Happened::Down { paced }).await;
            let effects = link.on(Event::Down(trouble), Instant::now(), rand::random());
            for effect in effects {
                if let Effect::Wait(pause) = effect {
                    tokio::time::sleep(pause).await;
                }
            }
            link.on(Event::WaitOver, Instant::now(), 0.0);
        }
    }

    async fn dial(&self) -> Result<Subsystem, ConnectError> {
        let _place = self.shared.dials.acquire().await;
        Box::pin(async {
            connect(&self.config, &self.key).await?.open_subsystem("bastio-agent").await
        })
        .await
    }

    async fn serve(&mut self, subsystem: Subsystem) -> Over {
        self.tell(Happened::Up(self.number)).await;
        let (mut reader, writer, link) = subsystem.split();
        let mut decoder = NetstringDecoder::new(V2_LIMIT);
        loop {
            match self.step(&mut reader, &writer, &mut decoder).await {
                Ok(()) => {}
                Err(Some(over)) => return over,
                Err(None) => {
                    let trouble = match link.closed().await {
                        CloseReason::RetryAfter(pause) => Trouble::Paced(pause),
                        other => Trouble::Network(other.to_string()),
                    };
                    return Over::Down(trouble);
                }
            }
        }
    }

    /// Takes one piece of data. `Err(None)` when the connection has ended.
    async fn step(
        &mut self,
        reader: &mut Reader,
        writer: &ClientWriter,
        decoder: &mut NetstringDecoder,
    ) -> Result<(), Option<Over>> {
        let Some(bytes) = reader.recv().await else { return Err(None) };
        decoder.push(&bytes);
        let mut answered = false;
        loop {
            match decoder.next_body() {
                Ok(Some(body)) => answered |= self.obey(&body, writer).await?,
                Ok(None) => break,
                Err(error) => {
                    return Err(Some(Over::Down(Trouble::Malformed(error.to_string()))));
                }
            }
        }
        // The real agent, too, lets the backend confirm what it has answered.
        if answered { writer.confirm().await.map_err(|_| None) } else { Ok(()) }
    }

    /// Takes one frame; whether it was an order.
    async fn obey(&mut self, body: &[u8], writer: &ClientWriter) -> Result<bool, Option<Over>> {
        if BackendHello::parse(body).is_some() {
            self.send(writer, &self.hello().to_json()).await?;
            return Ok(false);
        }
        let malformed = |what: &str| Some(Over::Down(Trouble::Malformed(what.to_owned())));
        let (payload, sequence) = match Order::parse(body) {
            Some(Ok(order)) => {
                let payload = order.payload().map_err(|_| malformed("an order"))?;
                (payload, order.sequence())
            }
            Some(Err(_)) => return Err(malformed("an order")),
            None => match Message::parse(body, &KeyPolicy::ANY) {
                Ok(Message::Action(action)) => (Payload::Action(action), 0),
                _ => return Err(malformed("what is no order")),
            },
        };
        self.last_sequence = self.last_sequence.max(sequence);
        let crash = self.work().await;
        if crash == Some(true) {
            return Err(Some(Over::Crash));
        }
        let new = self.done.insert(payload.mid().clone());
        let count = if new { &self.shared.obeyed } else { &self.shared.repeated };
        count.fetch_add(1, Ordering::Relaxed);
        let (status, text) = match &payload {
            Payload::RotateKey { .. } => (Status::Done, "key rotated"),
            _ if new => (Status::Done, "done, as far as an emulated server can"),
            _ => (Status::Unchanged, "done before"),
        };
        self.send(writer, &payload.reply(status, text).to_json()).await?;
        let (agent, at) = (self.number, talk::micros());
        let body = (agent == 0).then(|| String::from_utf8_lossy(body).into_owned());
        self.tell(Happened::Answered { agent, at, body }).await;
        if crash == Some(false) { Err(Some(Over::Crash)) } else { Ok(true) }
    }

    /// The time that an order takes here; whether the agent crashes before (`true`) or after its answer.
    async fn work(&self) -> Option<bool> {
        let faults = self.shared.faults;
        let happens = |percent: f64| percent > 0.0 && rand::random::<f64>() * 100.0 < percent;
        let mut pause = Duration::from_millis(faults.slow);
        let losses = (0..MOST_LOSSES).take_while(|_| happens(faults.lose)).count();
        for loss in 0..u32::try_from(losses).unwrap_or(0) {
            pause += RETRANSMISSION * 2_u32.pow(loss);
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        happens(faults.crash).then(|| {
            self.shared.crashes.fetch_add(1, Ordering::Relaxed);
            rand::random()
        })
    }

    fn hello(&self) -> AgentHello {
        let facts = [("hostname", format!("srv-{:05}", self.number)), ("os", "emulated".into())];
        let facts = facts.map(|(name, value): (&str, String)| (name.to_owned(), value));
        AgentHello {
            protocol: V2,
            facts: Facts::from(std::collections::BTreeMap::from(facts)),
            last_sequence: self.last_sequence,
            signing_key: self.shared.signing_key.get().cloned(),
            receipt_key: None,
            time: i64::try_from(talk::micros() / 1_000_000).ok(),
        }
    }

    async fn send(&self, writer: &ClientWriter, body: &[u8]) -> Result<(), Option<Over>> {
        writer.send(Netstring::compose(body)).await.map_err(|_| None)
    }

    async fn tell(&self, happened: Happened) {
        // The emulator listens as long as the process lives.
        let _ = self.shared.events.send(happened).await;
    }
}

fn trouble(error: ConnectError) -> Trouble {
    match error {
        ConnectError::Paced { retry_after } => Trouble::Paced(retry_after),
        ConnectError::LoginRefused { .. } => Trouble::Refused(error.to_string()),
        other => Trouble::Network(other.to_string()),
    }
}
