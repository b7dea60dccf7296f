//! The connector between a real SSH server and a processor that these tests play.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bastio_protocol::{
    Action, ActionMessage, FeedbackMessage, KeyPolicy, Message, MessageId, Netstring,
    NetstringDecoder, Status, Username, V1_LIMIT,
};
use bastio_transport::{
    Algorithms, Authenticate, BoxFuture, HostKeyPin, KeyKind, Listener, PrivateKey, PublicKeyBlob,
    ServerConfig, ServerSession, Unsure, serve,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{BackendConnector, ConnectorError};
use crate::config::{BackendSettings, Host};
use crate::pipe::{IN_FLIGHT, LinkState, PIPE_LIMIT, ToConnector, ToProcessor};

mod version_2;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

struct OneKey(PublicKeyBlob);

impl Authenticate for OneKey {
    type Identity = ();

    fn authenticate<'a>(
        &'a self,
        user: &'a str,
        key: &'a PublicKeyBlob,
        _peer: SocketAddr,
    ) -> BoxFuture<'a, Result<Option<()>, Unsure>> {
        let known = user == "bastio-agent" && *key == self.0;
        Box::pin(async move { Ok(known.then_some(())) })
    }
}

/// A backend whose sessions the test holds in its hands.
struct Backend {
    address: SocketAddr,
    host_key: PrivateKey,
    sessions: mpsc::Receiver<ServerSession<()>>,
    stop: CancellationToken,
}

impl Backend {
    async fn start(agent: &PrivateKey) -> Self {
        let host_key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let config = ServerConfig::new(vec![host_key.clone()], "test", Algorithms::Modern);
        let (sender, sessions) = mpsc::channel(8);
        let stop = CancellationToken::new();
        let known = Arc::new(OneKey(agent.public()));
        tokio::spawn(serve(listener, config, known, sender, stop.clone()));
        Self { address, host_key, sessions, stop }
    }

    async fn session(&mut self) -> BackendSession {
        let session = timeout(LONG, self.sessions.recv()).await.unwrap().unwrap();
        BackendSession { session, decoder: NetstringDecoder::new(V1_LIMIT * 8) }
    }

    fn settings(&self, pin: &PrivateKey) -> BackendSettings {
        BackendSettings {
            host: Host::parse("127.0.0.1").unwrap(),
            port: self.address.port().try_into().unwrap(),
            host_keys: vec![pin.public_line().parse::<HostKeyPin>().unwrap()],
            api_key: None,
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct BackendSession {
    session: ServerSession<()>,
    decoder: NetstringDecoder,
}

impl BackendSession {
    async fn send(&mut self, bytes: impl Into<Vec<u8>>) {
        self.session.writer.send(bytes.into()).await.unwrap();
    }

    async fn send_body(&mut self, body: &str) {
        self.send(Netstring::compose(body.as_bytes())).await;
    }

    async fn feedback(&mut self) -> FeedbackMessage {
        loop {
            if let Some(body) = self.decoder.next_body().unwrap() {
                match Message::parse(&body, &KeyPolicy::ANY).unwrap() {
                    Message::Feedback(feedback) => return feedback,
                    Message::Host(host) => panic!("an agent sent {host:?}"),
                    Message::Action(action) => panic!("an agent sent {action:?}"),
                }
            }
            let bytes = timeout(LONG, self.session.reader.recv()).await.unwrap();
            self.decoder.push(&bytes.expect("the agent closed the connection"));
        }
    }

    /// Waits until the agent has ended the connection.
    async fn ended(mut self) {
        let drained = async { while self.session.reader.recv().await.is_some() {} };
        timeout(LONG, drained).await.unwrap();
    }
}

/// The other end of the pipe.
struct Processor {
    socket: UnixStream,
    decoder: NetstringDecoder,
}

impl Processor {
    async fn next(&mut self) -> Option<ToProcessor> {
        loop {
            if let Some(body) = self.decoder.next_body().unwrap() {
                return Some(ToProcessor::parse(&body).unwrap());
            }
            let mut chunk = Vec::with_capacity(4096);
            match timeout(LONG, self.socket.read_buf(&mut chunk)).await.unwrap() {
                Ok(0) | Err(_) => return None,
                Ok(_) => self.decoder.push(&chunk),
            }
        }
    }

    async fn action(&mut self) -> ActionMessage {
        loop {
            if let ToProcessor::Action(action) = self.next().await.unwrap() {
                return action;
            }
        }
    }

    /// The next state of the link but for the first word.
    async fn link(&mut self) -> LinkState {
        loop {
            match self.next().await.unwrap() {
                ToProcessor::Link(LinkState::Disconnected { reason, .. })
                    if reason == "connecting" => {}
                ToProcessor::Link(link) => return link,
                ToProcessor::Delivered { .. } => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    async fn answer(&mut self, action: &ActionMessage) {
        self.say(&ToConnector::Feedback(action.reply(Status::Done, "done"))).await;
    }

    async fn say(&mut self, message: &ToConnector) {
        self.socket.write_all(&message.to_frame()).await.unwrap();
    }

    /// Waits until so many feedbacks have been delivered, and not one more.
    async fn delivered(&mut self, expected: usize) {
        let mut delivered = 0;
        while delivered < expected {
            if let ToProcessor::Delivered { count } = self.next().await.unwrap() {
                delivered += count;
            }
        }
        assert_eq!(delivered, expected);
    }
}

struct Agent {
    processor: Processor,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ConnectorError>>,
}

impl Agent {
    fn start(settings: &BackendSettings, key: &PrivateKey) -> Self {
        Self::start_after(settings, key, &ToConnector::Ready.to_frame())
    }

    /// The same when the processor's first words are others.
    fn start_after(settings: &BackendSettings, key: &PrivateKey, words: &[u8]) -> Self {
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut ours, words).unwrap();
        ours.set_nonblocking(true).unwrap();
        // Without jitter, every wait is the shortest.
        let connector = BackendConnector::new(settings, key.clone(), theirs, || 0.0).unwrap();
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            stopped.await.unwrap();
        };
        let task = tokio::spawn(connector.run(stopped));
        let socket = UnixStream::from_std(ours).unwrap();
        let processor = Processor { socket, decoder: NetstringDecoder::new(PIPE_LIMIT) };
        Self { processor, stop, task }
    }

    async fn ended(self) {
        timeout(LONG, self.task).await.unwrap().unwrap().unwrap();
    }
}

async fn world() -> (Backend, Agent) {
    let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
    let backend = Backend::start(&key).await;
    let agent = Agent::start(&backend.settings(&backend.host_key), &key);
    (backend, agent)
}

fn action(mid: u64) -> ActionMessage {
    ActionMessage {
        mid: MessageId::from_number(mid),
        username: Username::parse("alice").unwrap(),
        action: Action::RemoveUser { removal: None },
    }
}

fn frame(mid: u64) -> Vec<u8> {
    Netstring::compose(&action(mid).to_json())
}

#[tokio::test]
async fn an_action_goes_through_and_its_feedback_comes_back() {
    let (mut backend, mut agent) = world().await;
    let mut session = backend.session().await;
    let address = backend.address.to_string();
    assert!(
        matches!(agent.processor.link().await, LinkState::Connected { backend, .. } if backend == address)
    );
    session.send(frame(1)).await;
    let taken = agent.processor.action().await;
    assert_eq!(taken, action(1));
    agent.processor.answer(&taken).await;
    assert_eq!(session.feedback().await, action(1).reply(Status::Done, "done"));
}

#[tokio::test]
async fn one_byte_pieces_and_many_in_one_piece_are_the_same() {
    let (mut backend, mut agent) = world().await;
    let mut session = backend.session().await;
    for byte in frame(1) {
        session.send([byte]).await;
    }
    session.send([frame(2), frame(3)].concat()).await;
    for mid in 1..=3 {
        assert_eq!(agent.processor.action().await, action(mid));
    }
}

#[tokio::test]
async fn a_bad_message_is_answered_and_the_connection_stays() {
    let (mut backend, mut agent) = world().await;
    let mut session = backend.session().await;
    session.send_body(r#"{"type":"action","mid":42,"action":"dance","username":"alice"}"#).await;
    session.send_body(r#"{"type":"feedback","mid":"7","status":200,"feedback":"x"}"#).await;
    session.send_body("no json").await;
    session.send(frame(1)).await;
    let first = session.feedback().await;
    assert_eq!((first.mid.as_json(), first.status), ("42", Status::Failed));
    let second = session.feedback().await;
    assert_eq!(second.status, Status::Failed);
    assert!(second.mid.text().parse::<u64>().is_ok(), "{:?}", second.mid);
    assert_eq!(agent.processor.action().await, action(1));
}

#[tokio::test]
async fn feedback_survives_a_lost_connection() {
    let (mut backend, mut agent) = world().await;
    let mut session = backend.session().await;
    for mid in 1..=3 {
        session.send(frame(mid)).await;
    }
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.push(agent.processor.action().await);
    }
    agent.processor.answer(&taken[0]).await;
    assert_eq!(session.feedback().await.mid, taken[0].mid);
    drop(session);
    assert!(matches!(agent.processor.link().await, LinkState::Disconnected { .. }));
    // Answered while there is no connection.
    agent.processor.answer(&taken[1]).await;
    agent.processor.answer(&taken[2]).await;
    let mut session = backend.session().await;
    let mut mids = Vec::new();
    while mids.last() != Some(&taken[2].mid) {
        mids.push(session.feedback().await.mid);
    }
    // The first may come again (its confirmation can be lost), the others must come, in order.
    let expected: Vec<MessageId> = taken.into_iter().map(|action| action.mid).collect();
    assert!(mids == expected || mids == expected[1..], "{mids:?}");
}

#[tokio::test]
async fn the_processor_is_told_what_was_delivered() {
    let (mut backend, mut agent) = world().await;
    let mut session = backend.session().await;
    session.send_body("no json").await;
    for mid in 1..=3 {
        session.send(frame(mid)).await;
    }
    for mid in 1..=3 {
        assert_eq!(agent.processor.action().await, action(mid));
        agent.processor.answer(&action(mid)).await;
    }
    // The connector's own answer is none of the processor's.
    agent.processor.delivered(3).await;
    for _ in 0..4 {
        session.feedback().await;
    }
}

#[tokio::test]
async fn an_action_that_the_processor_knows_gets_no_second_feedback() {
    let (mut backend, mut agent) = world().await;
    let mut session = backend.session().await;
    session.send(frame(1)).await;
    assert_eq!(agent.processor.action().await, action(1));
    drop(session);
    assert!(matches!(agent.processor.link().await, LinkState::Disconnected { .. }));
    agent.processor.answer(&action(1)).await;
    let mut session = backend.session().await;
    session.send([frame(1), frame(2)].concat()).await;
    assert_eq!(agent.processor.action().await, action(1));
    agent.processor.say(&ToConnector::Answered).await;
    assert_eq!(agent.processor.action().await, action(2));
    agent.processor.answer(&action(2)).await;
    for mid in 1..=2 {
        assert_eq!(session.feedback().await.mid, action(mid).mid);
    }
    // Nothing counts as in hand any more: the stop waits for nothing.
    agent.stop.send(()).unwrap();
    timeout(Duration::from_secs(5), agent.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn what_an_earlier_connector_left_goes_out_before_new_actions_come_in() {
    let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
    let mut backend = Backend::start(&key).await;
    let left = ToConnector::Feedback(action(1).reply(Status::Done, "done")).to_frame();
    let mut agent = Agent::start_after(&backend.settings(&backend.host_key), &key, &left);
    let mut session = backend.session().await;
    session.send(frame(2)).await;
    assert_eq!(session.feedback().await.mid, action(1).mid);
    agent.processor.delivered(1).await;
    let early = timeout(Duration::from_millis(300), agent.processor.action()).await;
    assert!(early.is_err(), "taken before the processor was ready");
    agent.processor.say(&ToConnector::Ready).await;
    assert_eq!(agent.processor.action().await, action(2));
}

#[tokio::test]
async fn a_new_line_is_told_before_what_it_delivers_and_brings() {
    let (mut backend, mut agent) = world().await;
    let session = backend.session().await;
    assert!(matches!(agent.processor.link().await, LinkState::Connected { .. }));
    drop(session);
    assert!(matches!(agent.processor.link().await, LinkState::Disconnected { .. }));
    agent.processor.answer(&action(1)).await;
    let mut session = backend.session().await;
    session.send(frame(2)).await;
    assert_eq!(session.feedback().await.mid, action(1).mid);
    let first = agent.processor.next().await.unwrap();
    assert!(matches!(first, ToProcessor::Link(LinkState::Connected { .. })), "{first:?}");
}

#[tokio::test]
async fn what_was_cut_in_the_middle_is_not_half_done() {
    let (mut backend, mut agent) = world().await;
    let mut session = backend.session().await;
    assert!(matches!(agent.processor.link().await, LinkState::Connected { .. }));
    let whole = frame(1);
    session.send(&whole[..whole.len() / 2]).await;
    drop(session);
    assert!(matches!(agent.processor.link().await, LinkState::Disconnected { .. }));
    let mut session = backend.session().await;
    session.send(frame(2)).await;
    assert_eq!(agent.processor.action().await, action(2), "the half message left no trace");
}

#[tokio::test]
async fn a_poison_message_backs_off() {
    let (mut backend, mut agent) = world().await;
    let mut before = None;
    for _ in 0..3 {
        let mut session = backend.session().await;
        let now = std::time::Instant::now();
        if let Some(before) = before.replace(now) {
            assert!(now.duration_since(before) >= Duration::from_millis(900), "no busy loop");
        }
        assert!(matches!(agent.processor.link().await, LinkState::Connected { .. }));
        session.send("x").await;
        session.ended().await;
        let LinkState::Disconnected { reason, retry_in } = agent.processor.link().await else {
            panic!("still connected")
        };
        assert!(reason.contains("cannot be read") && retry_in >= 1, "{reason}");
    }
}

#[tokio::test]
async fn a_wrong_host_key_is_never_accepted() {
    let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
    let other = PrivateKey::generate(KeyKind::Ed25519).unwrap();
    let mut backend = Backend::start(&key).await;
    let mut agent = Agent::start(&backend.settings(&other), &key);
    let LinkState::Disconnected { reason, retry_in } = agent.processor.link().await else {
        panic!("connected to a stranger")
    };
    assert_eq!(retry_in, 30, "tried again slowly");
    for part in [other.fingerprint(), backend.host_key.fingerprint()] {
        assert!(reason.contains(&part), "{part}: {reason}");
    }
    assert!(backend.sessions.try_recv().is_err(), "nothing was sent to the stranger");
}

#[tokio::test]
async fn a_refused_login_is_tried_again_slowly() {
    let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
    let backend = Backend::start(&PrivateKey::generate(KeyKind::Ed25519).unwrap()).await;
    let mut agent = Agent::start(&backend.settings(&backend.host_key), &key);
    let LinkState::Disconnected { reason, retry_in } = agent.processor.link().await else {
        panic!("logged in with an unknown key")
    };
    assert!(retry_in == 30 && reason.contains("refused"), "{retry_in} {reason}");
}

#[tokio::test]
async fn the_backend_sets_the_pace() {
    let (mut backend, mut agent) = world().await;
    let session = backend.session().await;
    assert!(matches!(agent.processor.link().await, LinkState::Connected { .. }));
    session.session.link.disconnect_with_retry_after(Duration::from_secs(77)).await;
    let LinkState::Disconnected { retry_in, .. } = agent.processor.link().await else {
        panic!("still connected")
    };
    assert!((77..=116).contains(&retry_in), "{retry_in}");
}

#[tokio::test]
async fn a_busy_processor_holds_the_backend_back() {
    let (mut backend, mut agent) = world().await;
    let BackendSession { session, .. } = backend.session().await;
    let ServerSession { mut reader, writer, link: _link, .. } = session;
    tokio::spawn(async move { while reader.recv().await.is_some() {} });
    // Large frames, far more than all buffers on the way hold; the processor reads none of them.
    let body = format!(
        r#"{{"type":"action","mid":"1","action":"remove-user","username":"alice","x":"{}"}}"#,
        "x".repeat(30_000)
    );
    let frame = Netstring::compose(body.as_bytes());
    let total = 20_000;
    let (progress, mut sent) = tokio::sync::watch::channel(0_u32);
    let sender = tokio::spawn(async move {
        for _ in 0..total {
            if writer.send(frame.clone()).await.is_err() {
                return;
            }
            progress.send_modify(|count| *count += 1);
        }
    });
    // Until nothing moves for a while.
    while timeout(Duration::from_secs(1), sent.changed()).await.is_ok() {}
    let stuck = *sent.borrow();
    assert!(stuck < total, "all {total} frames were taken: nothing holds the backend back");
    // The processor wakes up, and it goes on.
    while *sent.borrow() == stuck {
        let taken = agent.processor.action().await;
        agent.processor.answer(&taken).await;
    }
    sender.abort();
}

#[tokio::test]
async fn unanswered_actions_are_bounded() {
    let (mut backend, mut agent) = world().await;
    let mut session = backend.session().await;
    let writer = session.session.writer.clone();
    tokio::spawn(async move {
        for mid in 0..(IN_FLIGHT as u64 + 100) {
            if writer.send(frame(mid)).await.is_err() {
                return;
            }
        }
    });
    let mut taken = Vec::new();
    for _ in 0..IN_FLIGHT {
        taken.push(agent.processor.action().await);
    }
    let more = timeout(Duration::from_millis(300), agent.processor.action()).await;
    assert!(more.is_err(), "one action too many was handed over");
    agent.processor.answer(&taken[0]).await;
    assert_eq!(session.feedback().await.mid, taken[0].mid);
    assert_eq!(agent.processor.action().await.mid, MessageId::from_number(IN_FLIGHT as u64));
}

#[tokio::test]
async fn a_stop_when_idle_is_quick() {
    let (mut backend, mut agent) = world().await;
    let session = backend.session().await;
    assert!(matches!(agent.processor.link().await, LinkState::Connected { .. }));
    agent.stop.send(()).unwrap();
    let begun = std::time::Instant::now();
    timeout(LONG, agent.task).await.unwrap().unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2));
    session.ended().await;
}

#[tokio::test]
async fn a_stop_without_a_connection_is_quick() {
    let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
    let backend = Backend::start(&key).await;
    let settings = backend.settings(&backend.host_key);
    drop(backend);
    let agent = Agent::start(&settings, &key);
    agent.stop.send(()).unwrap();
    timeout(Duration::from_secs(2), agent.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_stop_waits_for_the_action_in_hand_and_takes_no_other() {
    let (mut backend, mut agent) = world().await;
    let mut session = backend.session().await;
    session.send(frame(1)).await;
    let taken = agent.processor.action().await;
    agent.stop.send(()).unwrap();
    tokio::task::yield_now().await;
    session.send(frame(2)).await;
    let more = timeout(Duration::from_millis(300), agent.processor.next()).await;
    assert!(more.is_err(), "an action was taken after the stop");
    agent.processor.answer(&taken).await;
    assert_eq!(session.feedback().await.mid, taken.mid);
    timeout(LONG, agent.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn the_end_of_the_processor_delivers_what_it_said_and_ends() {
    let (mut backend, mut agent) = world().await;
    let mut session = backend.session().await;
    session.send(frame(1)).await;
    session.send(frame(2)).await;
    let taken = agent.processor.action().await;
    agent.processor.answer(&taken).await;
    agent.processor.socket.write_all(&ToConnector::Stopping.to_frame()).await.unwrap();
    assert_eq!(session.feedback().await.mid, taken.mid);
    agent.ended().await;
}

#[tokio::test]
async fn a_processor_that_breaks_the_rules_ends_the_connector() {
    let (_backend, mut agent) = world().await;
    agent.processor.socket.write_all(b"5:hello,").await.unwrap();
    let ended = timeout(LONG, agent.task).await.unwrap().unwrap();
    assert!(matches!(ended, Err(ConnectorError::Pipe(_))), "{ended:?}");
}
