//! One emulated agent: a real connection, the real link's state machine and the real protocol of version 2, and
//! nothing behind it: what it is ordered to do is done as soon as it is read. Must not know the others.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
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
/// What agents open.
const SUBSYSTEM: &str = "bastio-agent";
/// Losses in a row that are played.
const MOST_LOSSES: u32 = 5;

/// What an agent reports to the emulator.
#[derive(Debug)]
pub enum Happened {
    /// It is connected.
    Up(usize),
    /// That node has greeted it.
    Served { agent: usize, node: usize },
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
    pub doubled: AtomicU64,
    pub crashes: AtomicU64,
    pub connected: AtomicUsize,
}

/// One agent.
pub struct Agent {
    pub number: usize,
    /// The nodes, each with its number; the first that can be reached serves.
    pub nodes: Vec<(usize, ClientConfig)>,
    pub key: PrivateKey,
    pub shared: Arc<Shared>,
    last_sequence: u64,
    /// What was done already; orders may come twice.
    done: HashSet<MessageId>,
    /// The same by what was asked, whatever its id.
    effects: HashSet<u64>,
}

/// Why a connection is over.
enum Over {
    Down(Trouble),
    Crash,
}

impl Agent {
    pub fn new(
        number: usize,
        nodes: Vec<(usize, ClientConfig)>,
        key: PrivateKey,
        shared: Arc<Shared>,
    ) -> Self {
        let (done, effects) = (HashSet::new(), HashSet::new());
        Self { number, nodes, key, shared, last_sequence: 0, done, effects }
    }

    /// Lives until the process ends.
    pub async fn live(mut self) {
        let mut link = Link::default();
        link.on(Event::Start, Instant::now(), 0.0);
        loop {
            let over = match self.dial().await {
                Ok((node, subsystem)) => {
                    link.on(Event::Connected, Instant::now(), 0.0);
                    self.shared.connected.fetch_add(1, Ordering::Relaxed);
                    let over = self.serve(node, subsystem).await;
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

    /// Connects to the first node that can be reached, as an agent does whose name for them has several addresses.
    async fn dial(&self) -> Result<(usize, Subsystem), ConnectError> {
        let _place = self.shared.dials.acquire().await;
        let mut nodes = self.nodes.iter().peekable();
        loop {
            let (node, config) = nodes.next().expect("the emulator has a target");
            let attempt =
                async { connect(config, &self.key).await?.open_subsystem(SUBSYSTEM).await };
            match Box::pin(attempt).await {
                Err(ConnectError::Unreachable { .. }) if nodes.peek().is_some() => {}
                done => return done.map(|subsystem| (*node, subsystem)),
            }
        }
    }

    async fn serve(&mut self, node: usize, subsystem: Subsystem) -> Over {
        self.tell(Happened::Up(self.number)).await;
        let (mut reader, writer, link) = subsystem.split();
        let mut decoder = NetstringDecoder::new(V2_LIMIT);
        loop {
            match self.step(node, &mut reader, &writer, &mut decoder).await {
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
        node: usize,
        reader: &mut Reader,
        writer: &ClientWriter,
        decoder: &mut NetstringDecoder,
    ) -> Result<(), Option<Over>> {
        let Some(bytes) = reader.recv().await else { return Err(None) };
        decoder.push(&bytes);
        let mut answered = false;
        loop {
            match decoder.next_body() {
                Ok(Some(body)) => answered |= self.obey(node, &body, writer).await?,
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
    async fn obey(
        &mut self,
        node: usize,
        body: &[u8],
        writer: &ClientWriter,
    ) -> Result<bool, Option<Over>> {
        if BackendHello::parse(body).is_some() {
            self.tell(Happened::Served { agent: self.number, node }).await;
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
        let new = self.note(&payload);
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

    /// Counts an order; whether its id is new here.
    fn note(&mut self, payload: &Payload) -> bool {
        let new = self.done.insert(payload.mid().clone());
        let count = if new { &self.shared.obeyed } else { &self.shared.repeated };
        count.fetch_add(1, Ordering::Relaxed);
        if let (true, Payload::Action(message)) = (new, payload) {
            let mut hasher = DefaultHasher::new();
            format!("{} {:?}", message.username, message.action).hash(&mut hasher);
            if !self.effects.insert(hasher.finish()) {
                self.shared.doubled.fetch_add(1, Ordering::Relaxed);
            }
        }
        new
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
            together: true,
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
