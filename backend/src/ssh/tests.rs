//! Sessions over the real transport on loopback, with a scripted agent at the other end.

use std::time::Duration;

use bastio_protocol::audit::LogFilter;
use bastio_protocol::{
    Action, ActionMessage, FeedbackMessage, KeyPolicy, Message, MessageId, Netstring, PublicKey,
    Status, Username, V1_LIMIT,
};
use bastio_transport::{
    ClientConfig, ClientWriter, CloseReason, ConnectError, HostKeyPin, KeyKind, Link, PrivateKey,
    Reader, connect,
};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::session::{FEEDBACK_LIMIT, UNASKED_LIMIT};
use super::{Port, PortError, PortKind};
use crate::config::{Limits, RivalPolicy, Seconds};
use crate::dispatch::{Dispatch, EndReason};
use crate::signing::{KeyFiles, Orders, Signing};
use crate::store::audit::Page;
use crate::store::{self, ServerId, Store};

mod orders;
mod vectors;

/// Far more than anything here takes.
const SOON: Duration = Duration::from_secs(20);
/// Enough to see that nothing comes.
const A_WHILE: Duration = Duration::from_millis(300);

struct Backend {
    folder: tempfile::TempDir,
    store: Store,
    dispatch: Dispatch,
    signing: Signing,
    host_key: PrivateKey,
    port: u16,
    stop: CancellationToken,
    serving: JoinHandle<Result<(), PortError>>,
}

impl Backend {
    async fn start(kind: PortKind) -> Self {
        Self::start_with(kind, Limits::default()).await
    }

    async fn start_with(kind: PortKind, limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::start_in(folder, kind, limits).await
    }

    /// A backend with the state that is in the folder.
    async fn start_in(folder: tempfile::TempDir, kind: PortKind, limits: Limits) -> Self {
        let store = Store::open(&folder.path().join("bastio.db")).await.unwrap();
        let key = match kind {
            PortKind::Main => KeyKind::Ed25519,
            PortKind::Legacy | PortKind::LegacySha1 => KeyKind::Rsa { bits: 2048 },
        };
        let host_key = PrivateKey::generate(key).unwrap();
        let dispatch = Dispatch::new(store.clone());
        let (signing, _) = Signing::new(KeyFiles::load_or_make(folder.path()).unwrap(), None);
        let orders = Orders { signing: signing.clone(), valid_for: Duration::from_secs(600) };
        let parts = (dispatch.clone(), store.clone(), orders);
        let port = Port::bind(kind, ([127, 0, 0, 1], 0).into(), host_key.clone(), &limits, parts);
        let port = port.await.unwrap();
        let number = port.address().unwrap().port();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(port.serve(stop.clone()));
        Self { folder, store, dispatch, signing, host_key, port: number, stop, serving }
    }

    async fn enrol(&self, name: &str) -> (ServerId, PrivateKey) {
        let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
        let public = PublicKey::parse(&key.public_line(), &KeyPolicy::ANY).unwrap();
        let mut tx = self.store.write().await.unwrap();
        let name = name.parse().unwrap();
        let id = store::servers::insert(&mut tx, &name, &public, 0).await.unwrap();
        tx.commit().await.unwrap();
        (id, key)
    }

    /// Queues the removal of accounts that are not there, so that no answer makes new work.
    async fn queue(&self, server: ServerId, mids: impl Iterator<Item = u64>) {
        let actions: Vec<_> = mids
            .map(|mid| {
                let username = Username::parse(&format!("user{mid}")).unwrap();
                let mid = MessageId::from_number(mid);
                (
                    server,
                    ActionMessage { mid, username, action: Action::RemoveUser { removal: None } },
                )
            })
            .collect();
        let mut tx = self.store.write().await.unwrap();
        store::actions::enqueue(&mut tx, &[], &actions, 0).await.unwrap();
        tx.commit().await.unwrap();
        self.dispatch.wake(server);
    }

    /// Ids of what is not answered, in order.
    async fn pending(&self, server: ServerId) -> Vec<String> {
        let mut tx = self.store.read().await.unwrap();
        let pending = store::actions::pending_of_server(&mut tx, server).await.unwrap();
        pending.into_iter().map(|action| action.message.mid.text()).collect()
    }

    async fn wait_until_pending(&self, server: ServerId, mids: &[&str]) {
        let mut steps = self.dispatch.steps();
        let seen = async {
            while self.pending(server).await != mids {
                steps.changed().await.unwrap();
            }
        };
        timeout(SOON, seen).await.expect("the answers were not stored in time");
    }

    async fn try_agent(&self, key: &PrivateKey) -> Result<Agent, ConnectError> {
        self.try_agent_of(None, key).await
    }

    async fn try_agent_of(
        &self,
        protocol: Option<u32>,
        key: &PrivateKey,
    ) -> Result<Agent, ConnectError> {
        let pin = HostKeyPin::new(self.host_key.public());
        let mut config = ClientConfig::new("127.0.0.1", self.port, "agent", "test", vec![pin]);
        config.protocol = protocol;
        let connection = connect(&config, key).await?;
        let (reader, writer, link) = connection.open_subsystem("bastio-agent").await?.split();
        Ok(Agent { reader, writer, link })
    }

    async fn agent(&self, key: &PrivateKey) -> Agent {
        self.try_agent(key).await.unwrap()
    }
}

struct Agent {
    reader: Reader,
    writer: ClientWriter,
    link: Link,
}

impl Agent {
    /// The next SSH packet; it must be one whole netstring with one action.
    async fn next(&mut self) -> ActionMessage {
        let packet = timeout(SOON, self.reader.recv()).await.expect("no action came").unwrap();
        let body = Netstring::parse(&packet, V1_LIMIT).expect("not one netstring in one packet");
        match Message::parse(&body, &KeyPolicy::default()).unwrap() {
            Message::Action(action) => action,
            Message::Host(_) => panic!("nobody asked for that"),
            Message::Feedback(_) => panic!("a backend sends no feedback"),
        }
    }

    async fn mids(&mut self, count: usize) -> Vec<String> {
        let mut mids = Vec::new();
        for _ in 0..count {
            mids.push(self.next().await.mid.text());
        }
        mids
    }

    async fn gets_nothing(&mut self) -> bool {
        timeout(A_WHILE, self.reader.recv()).await.is_err()
    }

    async fn answer(&self, mid: u64) {
        self.writer.send(feedback(mid)).await.unwrap();
    }

    /// Waits for the backend's goodbye.
    async fn dismissed(&mut self) -> CloseReason {
        let end = async { while self.reader.recv().await.is_some() {} };
        timeout(SOON, end).await.expect("the session stays open");
        timeout(SOON, self.link.closed()).await.expect("the connection stays open")
    }
}

fn feedback(mid: u64) -> Vec<u8> {
    let mid = MessageId::from_number(mid);
    let feedback = "there is no such account".to_owned();
    Netstring::compose(&FeedbackMessage::new(mid, Status::Unchanged, feedback).to_json())
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_key_is_refused() {
    let backend = Backend::start(PortKind::Main).await;
    let (_, key) = backend.enrol("web-1").await;
    let stranger = PrivateKey::generate(KeyKind::Ed25519).unwrap();
    let refused = backend.try_agent(&stranger).await.err().unwrap();
    assert!(matches!(refused, ConnectError::LoginRefused { .. }), "{refused}");
    backend.agent(&key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_come_in_order_and_answers_are_stored() {
    let backend = Backend::start(PortKind::Main).await;
    let (server, key) = backend.enrol("web-1").await;
    backend.queue(server, 1..=2).await;
    let mut agent = backend.agent(&key).await;
    assert_eq!(agent.mids(2).await, ["1", "2"], "queued before the agent came");
    backend.queue(server, 3..=3).await;
    assert_eq!(agent.mids(1).await, ["3"], "queued while it is connected");
    // An answer that nobody asked for is no harm.
    for mid in [99, 2, 1, 1, 3] {
        agent.answer(mid).await;
    }
    backend.wait_until_pending(server, &[]).await;
    assert!(agent.gets_nothing().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_sixteen_are_unanswered() {
    let backend = Backend::start(PortKind::Main).await;
    let (server, key) = backend.enrol("web-1").await;
    backend.queue(server, 1..=40).await;
    let mut agent = backend.agent(&key).await;
    assert_eq!(agent.mids(16).await.last().unwrap(), "16");
    assert!(agent.gets_nothing().await);
    agent.answer(1).await;
    agent.answer(2).await;
    assert_eq!(agent.mids(2).await, ["17", "18"]);
    // Each in its turn: an answer to what was never sent is none.
    for mid in 3..=24 {
        agent.answer(mid).await;
        assert_eq!(agent.mids(1).await, [(mid + 16).to_string()]);
    }
    for mid in 25..=40 {
        agent.answer(mid).await;
    }
    backend.wait_until_pending(server, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn legacy_agent_gets_one_action_at_a_time() {
    let backend = Backend::start(PortKind::Legacy).await;
    let (server, key) = backend.enrol("web-1").await;
    backend.queue(server, 1..=3).await;
    let mut agent = backend.agent(&key).await;
    for mid in 1..=3 {
        assert_eq!(agent.mids(1).await, [mid.to_string()]);
        assert!(agent.gets_nothing().await, "a second action before the answer");
        agent.answer(mid).await;
    }
    backend.wait_until_pending(server, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unanswered_actions_are_sent_again_in_order() {
    let backend = Backend::start(PortKind::Main).await;
    let (server, key) = backend.enrol("web-1").await;
    backend.queue(server, 1..=4).await;
    let mut agent = backend.agent(&key).await;
    assert_eq!(agent.mids(4).await, ["1", "2", "3", "4"]);
    agent.answer(2).await;
    backend.wait_until_pending(server, &["1", "3", "4"]).await;
    drop(agent);
    backend.queue(server, 5..=5).await;
    let mut agent = backend.agent(&key).await;
    assert_eq!(agent.mids(4).await, ["1", "3", "4", "5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_kept_from_the_last_session_are_taken() {
    let backend = Backend::start(PortKind::Main).await;
    let (server, key) = backend.enrol("web-1").await;
    backend.queue(server, 1..=60).await;
    let mut agent = backend.agent(&key).await;
    assert_eq!(agent.mids(16).await.last().unwrap(), "16");
    drop(agent);
    let mut agent = backend.agent(&key).await;
    // Before it has looked at what the backend sends.
    let kept: Vec<u8> = (1..=16).flat_map(feedback).collect();
    agent.writer.send(kept).await.unwrap();
    let answering = async {
        loop {
            let mid = agent.next().await.mid.text().parse().unwrap();
            agent.answer(mid).await;
        }
    };
    tokio::select! {
        () = backend.wait_until_pending(server, &[]) => {}
        () = answering => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answer_cut_in_the_middle_counts_for_nothing() {
    let backend = Backend::start(PortKind::Main).await;
    let (server, key) = backend.enrol("web-1").await;
    backend.queue(server, 1..=1).await;
    let mut agent = backend.agent(&key).await;
    assert_eq!(agent.mids(1).await, ["1"]);
    let half = feedback(1).split_at(20).0.to_vec();
    agent.writer.send(half).await.unwrap();
    agent.link.close().await;
    let mut agent = backend.agent(&key).await;
    assert_eq!(agent.mids(1).await, ["1"]);
    for byte in feedback(1) {
        agent.writer.send(vec![byte]).await.unwrap();
    }
    backend.wait_until_pending(server, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn second_session_takes_over() {
    let backend = Backend::start(PortKind::Main).await;
    let (server, key) = backend.enrol("web-1").await;
    backend.queue(server, 1..=2).await;
    let mut first = backend.agent(&key).await;
    assert_eq!(first.mids(2).await, ["1", "2"]);
    first.answer(1).await;
    backend.wait_until_pending(server, &["2"]).await;
    let mut second = backend.agent(&key).await;
    assert_eq!(second.mids(1).await, ["2"]);
    assert_eq!(first.dismissed().await, CloseReason::EndedByPeer);
    second.answer(2).await;
    backend.wait_until_pending(server, &[]).await;
    assert!(backend.dispatch.is_connected(server), "the end of the first is not the second's");
    backend.queue(server, 3..=3).await;
    assert_eq!(second.mids(1).await, ["3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fight_of_two_machines_is_on_record_once() {
    let backend = Backend::start(PortKind::Main).await;
    let (_, key) = backend.enrol("web-1").await;
    let mut older = backend.agent(&key).await;
    for _ in 0..7 {
        let newer = backend.agent(&key).await;
        older.dismissed().await;
        older = newer;
    }
    let mut tx = backend.store.read().await.unwrap();
    let rows = store::audit::list(&mut tx, &LogFilter::default(), Page::Last, 100).await.unwrap();
    let rivals: Vec<_> = rows.iter().filter(|row| row.row.action == "server.rivals").collect();
    assert_eq!(rivals.len(), 1);
    assert!(rivals[0].row.detail.contains("5 take-overs in a minute, the last from 127.0.0.1"));
    assert_eq!(rivals[0].row.server.as_deref(), Some("web-1"));
}

impl Backend {
    /// What is asked about the server, and whether its agent must wait for the answer.
    async fn asked(&self, server: ServerId) -> Vec<(String, bool)> {
        let mut db = self.store.read().await.unwrap();
        let open = store::questions::of_server(&mut db, server).await.unwrap().into_iter();
        open.map(|open| (open.question.text, open.question.holds)).collect()
    }

    /// The session of an agent that has taken over from itself as often as is no accident, and what
    /// becomes of the next one.
    async fn fight(&self, key: &PrivateKey) -> (Agent, Agent) {
        let mut older = self.agent(key).await;
        for _ in 0..5 {
            let newer = self.agent(key).await;
            older.dismissed().await;
            older = newer;
        }
        (older, self.agent(key).await)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_first_stays_the_second_of_two_machines_is_sent_away() {
    let limits = Limits { rivals: RivalPolicy::First, ..Limits::default() };
    let backend = Backend::start_with(PortKind::Main, limits).await;
    let (server, key) = backend.enrol("web-1").await;
    let (mut first, mut second) = backend.fight(&key).await;
    let reason = second.dismissed().await;
    assert!(matches!(reason, CloseReason::RetryAfter(_)), "{reason}");
    backend.queue(server, 1..=1).await;
    assert_eq!(first.mids(1).await, ["1"], "the first goes on");
    let asked = backend.asked(server).await;
    assert_eq!(asked.len(), 1);
    assert!(asked[0].0.starts_with("the second was refused") && !asked[0].1, "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_both_are_cut_nobody_is_served_until_somebody_has_decided() {
    let limits = Limits { rivals: RivalPolicy::Cut, ..Limits::default() };
    let backend = Backend::start_with(PortKind::Main, limits).await;
    let (server, key) = backend.enrol("web-1").await;
    let (mut first, mut second) = backend.fight(&key).await;
    first.dismissed().await;
    second.dismissed().await;
    backend.queue(server, 1..=1).await;
    let mut third = backend.agent(&key).await;
    let reason = third.dismissed().await;
    assert!(matches!(reason, CloseReason::RetryAfter(_)), "{reason}");
    let asked = backend.asked(server).await;
    assert!(asked.len() == 1 && asked[0].0.starts_with("both were cut") && asked[0].1, "{asked:?}");
    assert_eq!(backend.pending(server).await, ["1"], "nothing is lost");
    let served = async {
        loop {
            let mut tx = backend.store.write().await.unwrap();
            store::questions::close(&mut tx, server).await.unwrap();
            tx.commit().await.unwrap();
            // The sessions that were cut may take a moment to be gone, and count as long.
            let mut right = backend.agent(&key).await;
            if right.reader.recv().await.is_some() {
                return;
            }
        }
    };
    timeout(SOON, served).await.expect("it comes back by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_greets_as_version_1_is_no_machine_that_is_on_record() {
    let backend = Backend::start(PortKind::Main).await;
    let (server, key) = backend.enrol("web-1").await;
    let set_machine = async |machine| {
        let mut tx = backend.store.write().await.unwrap();
        store::questions::set_machine(&mut tx, server, machine).await.unwrap();
        store::questions::close(&mut tx, server).await.unwrap();
        tx.commit().await.unwrap();
    };
    set_machine(Some("m1")).await;
    backend.queue(server, 1..=1).await;
    let mut agent = backend.agent(&key).await;
    let reason = agent.dismissed().await;
    assert!(matches!(reason, CloseReason::RetryAfter(_)), "{reason}");
    let asked = backend.asked(server).await;
    assert!(asked.len() == 1 && asked[0].0.contains("before it was on m1"), "{asked:?}");
    assert!(asked[0].1, "it is held");
    assert_eq!(backend.pending(server).await, ["1"], "nothing is lost");
    set_machine(None).await;
    let mut agent = backend.agent(&key).await;
    assert_eq!(agent.mids(1).await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_the_session_and_loses_nothing() {
    let backend = Backend::start(PortKind::Main).await;
    let (server, key) = backend.enrol("web-1").await;
    backend.queue(server, 1..=1).await;
    let action = ActionMessage {
        mid: MessageId::from_number(7),
        username: Username::parse("root").unwrap(),
        action: Action::RemoveUser { removal: None },
    };
    let garbage = [
        b"hello".to_vec(),
        b":,".to_vec(),
        b"-1:,".to_vec(),
        b"2:{};".to_vec(),
        b"5:hello,".to_vec(),
        b"2:{},".to_vec(),
        Netstring::compose(br#"{"type":"feedback","mid":"1","status":201,"feedback":""}"#),
        Netstring::compose(&action.to_json()),
        format!("{}:", FEEDBACK_LIMIT + 1).into_bytes(),
    ];
    for bytes in garbage {
        let mut agent = backend.agent(&key).await;
        assert_eq!(agent.mids(1).await, ["1"]);
        agent.writer.send(bytes.clone()).await.unwrap();
        let reason = agent.dismissed().await;
        let asked = CloseReason::RetryAfter(Duration::from_secs(30));
        assert_eq!(reason, asked, "{}", String::from_utf8_lossy(&bytes));
        assert_eq!(backend.pending(server).await, ["1"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_answers_to_nothing_end_the_session() {
    let backend = Backend::start(PortKind::Main).await;
    let (_, key) = backend.enrol("web-1").await;
    let mut agent = backend.agent(&key).await;
    for _ in 0..=UNASKED_LIMIT / 100 {
        // Fails when the session has ended, which is what is looked at below.
        let _ = agent.writer.send((0..100).flat_map(feedback).collect::<Vec<u8>>()).await;
    }
    let asked = CloseReason::RetryAfter(Duration::from_secs(30));
    assert_eq!(agent.dismissed().await, asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn largest_feedback_is_taken() {
    let backend = Backend::start(PortKind::Main).await;
    let (server, key) = backend.enrol("web-1").await;
    backend.queue(server, 1..=1).await;
    let mut agent = backend.agent(&key).await;
    assert_eq!(agent.mids(1).await, ["1"]);
    let mut answer = FeedbackMessage::new(MessageId::from_number(1), Status::Unchanged, "");
    answer.feedback = "x".repeat(FEEDBACK_LIMIT - answer.to_json().len());
    let body = answer.to_json();
    assert_eq!(body.len(), FEEDBACK_LIMIT);
    agent.writer.send(Netstring::compose(&body)).await.unwrap();
    backend.wait_until_pending(server, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_that_owes_an_answer_for_too_long_loses_its_session() {
    let limits = Limits { answer_within: Seconds::try_from(1).unwrap(), ..Limits::default() };
    let backend = Backend::start_with(PortKind::Main, limits).await;
    let (server, key) = backend.enrol("web-1").await;
    let mut idle = backend.agent(&key).await;
    let waited = timeout(Duration::from_millis(1500), idle.reader.recv()).await;
    assert!(waited.is_err(), "an agent that owes nothing may keep silent");
    backend.queue(server, 1..=1).await;
    assert_eq!(idle.mids(1).await, ["1"]);
    assert_eq!(idle.dismissed().await, CloseReason::EndedByPeer);
    let mut agent = backend.agent(&key).await;
    assert_eq!(agent.mids(1).await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn session_of_a_removed_server_ends() {
    let backend = Backend::start(PortKind::Main).await;
    let (server, key) = backend.enrol("web-1").await;
    let (other, other_key) = backend.enrol("web-2").await;
    let mut agent = backend.agent(&key).await;
    let mut bystander = backend.agent(&other_key).await;
    backend.queue(server, 1..=1).await;
    agent.mids(1).await;
    backend.dispatch.end(server, EndReason::Removed);
    assert_eq!(agent.dismissed().await, CloseReason::EndedByPeer);
    backend.queue(other, 2..=2).await;
    assert_eq!(bystander.mids(1).await, ["2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_ends_all_sessions_and_the_port() {
    let backend = Backend::start(PortKind::Main).await;
    let (server, key) = backend.enrol("web-1").await;
    backend.queue(server, 1..=1).await;
    let mut agent = backend.agent(&key).await;
    agent.mids(1).await;
    backend.stop.cancel();
    agent.dismissed().await;
    timeout(SOON, backend.serving).await.unwrap().unwrap().unwrap();
    assert!(!backend.dispatch.is_connected(server));
    let mut tx = backend.store.read().await.unwrap();
    let pending = store::actions::pending_of_server(&mut tx, server).await.unwrap();
    assert_eq!(pending.len(), 1, "what was not answered waits for the next start");
}
