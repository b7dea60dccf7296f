//! Version 2: hellos, signed orders, and the way from one signing key to the next.

use std::collections::BTreeMap;
use std::time::Instant;

use bastio_protocol::{
    AgentHello, BackendHello, Facts, Late, NetstringDecoder, Order, Payload, V2, V2_LIMIT,
    VerifyingKey,
};

use super::*;
use crate::sealed::Passphrase;

/// An agent of version 2.
struct Modern {
    agent: Agent,
    decoder: NetstringDecoder,
}

impl Modern {
    async fn connect(backend: &Backend, key: &PrivateKey) -> Self {
        let agent = backend.try_agent_of(Some(V2), key).await.unwrap();
        Self { agent, decoder: NetstringDecoder::new(V2_LIMIT) }
    }

    /// Connects, and both have said hello.
    async fn met(
        backend: &Backend,
        key: &PrivateKey,
        signing_key: Option<&VerifyingKey>,
        last_sequence: u64,
    ) -> Self {
        let mut agent = Self::connect(backend, key).await;
        agent.hello().await;
        agent.greet(signing_key, last_sequence).await;
        agent
    }

    async fn body(&mut self) -> Vec<u8> {
        loop {
            if let Some(body) = self.decoder.next_body().unwrap() {
                return body;
            }
            let bytes = timeout(SOON, self.agent.reader.recv()).await.expect("nothing came");
            self.decoder.push(&bytes.expect("the session is open"));
        }
    }

    async fn hello(&mut self) -> BackendHello {
        BackendHello::parse(&self.body().await).expect("a hello").unwrap()
    }

    async fn order(&mut self) -> Order {
        Order::parse(&self.body().await).expect("an order").unwrap()
    }

    async fn say(&self, body: &[u8]) {
        self.agent.writer.send(Netstring::compose(body)).await.unwrap();
    }

    async fn greet(&self, signing_key: Option<&VerifyingKey>, last_sequence: u64) {
        self.greet_as(signing_key, last_sequence, false).await;
    }

    async fn greet_as(
        &self,
        signing_key: Option<&VerifyingKey>,
        last_sequence: u64,
        together: bool,
    ) {
        let facts = BTreeMap::from([("hostname".to_owned(), "web-1.rack7".to_owned())]);
        let hello = AgentHello {
            protocol: V2,
            facts: Facts::from(facts),
            last_sequence,
            signing_key: signing_key.map(VerifyingKey::fingerprint),
            receipt_key: None,
            time: None,
            together,
        };
        self.say(&hello.to_json()).await;
    }

    async fn gets_nothing(&mut self) -> bool {
        timeout(A_WHILE, self.agent.reader.recv()).await.is_err()
    }
}

impl Backend {
    fn signing_key(&self) -> VerifyingKey {
        self.signing.verifying_key()
    }

    /// The same backend after `rotate-signing-key`.
    async fn rotated(self) -> Self {
        self.stop.cancel();
        timeout(SOON, self.serving).await.unwrap().unwrap().unwrap();
        self.store.close().await;
        KeyFiles::rotate(self.folder.path(), None).unwrap();
        Self::start_in(self.folder, PortKind::Main, Limits::default()).await
    }

    async fn facts(&self, server: ServerId) -> BTreeMap<String, String> {
        let mut tx = self.store.read().await.unwrap();
        store::servers::facts(&mut tx, server).await.unwrap()
    }

    async fn known_keys(&self) -> Vec<String> {
        let mut tx = self.store.read().await.unwrap();
        store::servers::signing_keys(&mut tx).await.unwrap().into_iter().collect()
    }
}

fn mid_of(order: &Order) -> String {
    match order.payload().unwrap() {
        Payload::Action(action) => action.mid.text(),
        Payload::Host(host) => host.mid.text(),
        Payload::RotateKey { .. } => panic!("a rotation"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_signed_numbered_and_limited_in_time() {
    let backend = Backend::start(PortKind::Main).await;
    let (server, key) = backend.enrol("web-1").await;
    let signing_key = backend.signing_key();
    backend.queue(server, 1..=3).await;
    let mut agent = Modern::connect(&backend, &key).await;
    let hello = agent.hello().await;
    assert_eq!((hello.protocol, hello.server.as_str()), (2, server.0.to_string().as_str()));
    assert!(agent.gets_nothing().await, "an action before the agent's hello");
    agent.greet(Some(&signing_key), 40).await;
    let now = backend.store.now();
    for (mid, sequence) in [("1", 41), ("2", 42), ("3", 43)] {
        let order = agent.order().await;
        assert!(order.verify(&signing_key));
        assert_eq!((mid_of(&order).as_str(), order.sequence()), (mid, sequence));
        assert_eq!(order.server(), &hello.server);
        assert!((now + 600..now + 630).contains(&order.not_after()), "{order:?}");
    }
    assert_eq!(backend.facts(server).await["hostname"], "web-1.rack7");
    agent.agent.answer(1).await;
    backend.wait_until_pending(server, &["2", "3"]).await;
    drop(agent);
    // The agent claims less than it was sent, which changes nothing.
    let mut agent = Modern::met(&backend, &key, Some(&signing_key), 0).await;
    let mut highest = 43;
    for mid in ["2", "3"] {
        let order = agent.order().await;
        assert_eq!(mid_of(&order), mid);
        assert!(order.sequence() > highest, "signed anew: {order:?}");
        highest = order.sequence();
    }
    assert_eq!(backend.known_keys().await, [signing_key.fingerprint()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_beyond_all_bounds_are_not_believed() {
    let backend = Backend::start(PortKind::Main).await;
    let (server, key) = backend.enrol("web-1").await;
    backend.queue(server, 1..=1).await;
    let mut agent = Modern::met(&backend, &key, Some(&backend.signing_key()), u64::MAX).await;
    assert_eq!(agent.order().await.sequence(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_without_a_signing_key_get_plain_actions() {
    let backend = Backend::start(PortKind::Main).await;
    let (server, key) = backend.enrol("web-1").await;
    backend.queue(server, 1..=1).await;
    let mut agent = Modern::connect(&backend, &key).await;
    agent.hello().await;
    // What it could not know to have arrived comes before its hello.
    agent.agent.answer(99).await;
    agent.greet(None, 0).await;
    let body = agent.body().await;
    let Message::Action(action) = Message::parse(&body, &KeyPolicy::default()).unwrap() else {
        panic!("no action")
    };
    assert_eq!(action.mid.text(), "1");
    agent.agent.answer(1).await;
    backend.wait_until_pending(server, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_may_be_as_long_as_version_2_allows() {
    let backend = Backend::start(PortKind::Main).await;
    let (server, key) = backend.enrol("web-1").await;
    backend.queue(server, 1..=1).await;
    let mut agent = Modern::met(&backend, &key, Some(&backend.signing_key()), 0).await;
    agent.order().await;
    let mut answer = FeedbackMessage::new(MessageId::from_number(1), Status::Unchanged, "");
    answer.feedback = "x".repeat(V2_LIMIT - answer.to_json().len());
    agent.say(&answer.to_json()).await;
    backend.wait_until_pending(server, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hellos_that_are_none_end_the_session() {
    let backend = Backend::start(PortKind::Main).await;
    let bodies = [
        r#"{"type":"hello"}"#,
        r#"{"type":"hello","protocol":2,"facts":[],"last_sequence":0}"#,
        r#"{"type":"hello","protocol":2,"facts":{},"last_sequence":-1}"#,
        r#"{"type":"order"}"#,
    ];
    for (number, body) in bodies.into_iter().enumerate() {
        let (_, key) = backend.enrol(&format!("web-{number}")).await;
        let mut agent = Modern::connect(&backend, &key).await;
        agent.hello().await;
        agent.say(body.as_bytes()).await;
        let reason = agent.agent.dismissed().await;
        assert_eq!(reason, CloseReason::RetryAfter(Duration::from_secs(30)), "{body}");
    }
    // One hello is enough.
    let (_, key) = backend.enrol("web-9").await;
    let mut agent = Modern::met(&backend, &key, None, 0).await;
    agent.greet(None, 0).await;
    agent.agent.dismissed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_key_tells_of_the_new_one_before_anything_else() {
    let backend = Backend::start(PortKind::Main).await;
    let (server, key) = backend.enrol("web-1").await;
    let old = backend.signing_key();
    backend.queue(server, 1..=2).await;
    // Twice: the agent missed one.
    let backend = backend.rotated().await.rotated().await;
    let new = backend.signing_key();
    let mut agent = Modern::met(&backend, &key, Some(&old), 0).await;
    let order = agent.order().await;
    assert!(order.verify(&old) && !order.verify(&new));
    let Payload::RotateKey { mid, key: offered } = order.payload().unwrap() else {
        panic!("no rotation: {order:?}")
    };
    assert_eq!(offered, new);
    assert!(agent.gets_nothing().await, "nothing before the answer");
    let answer = FeedbackMessage::new(mid, Status::Done, "");
    agent.say(&answer.to_json()).await;
    for sequence in [2, 3] {
        let order = agent.order().await;
        assert!(order.verify(&new) && !order.verify(&old));
        assert_eq!(order.sequence(), sequence);
    }
    assert_eq!(backend.known_keys().await, [new.fingerprint()]);
    drop(agent);
    let mut agent = Modern::met(&backend, &key, Some(&new), 3).await;
    assert_eq!(mid_of(&agent.order().await), "1");
}

/// Also an agent that has to be told of a new key first.
#[tokio::test(flavor = "multi_thread")]
async fn only_for_agents_that_say_so_orders_are_signed_together_with_others() {
    let backend = Backend::start(PortKind::Main).await;
    let old = backend.signing_key();
    let (web, web_key) = backend.enrol("web-1").await;
    let (db, db_key) = backend.enrol("db-1").await;
    let (new, new_key) = backend.enrol("new-1").await;
    let backend = backend.rotated().await;
    let current = backend.signing_key();
    let mut agents = Vec::new();
    for (server, key, obeys, together) in [
        (web, &web_key, &current, true),
        (db, &db_key, &current, false),
        (new, &new_key, &old, true),
    ] {
        let mut agent = Modern::connect(&backend, key).await;
        agent.hello().await;
        agent.greet_as(Some(obeys), 0, together).await;
        if *obeys == old {
            let mid = agent.order().await.payload().unwrap().mid().clone();
            assert_eq!(backend.dispatch.signs_together(server), None, "nothing before its answer");
            agent.say(&FeedbackMessage::new(mid, Status::Done, "").to_json()).await;
        }
        let until = Instant::now() + SOON;
        while backend.dispatch.signs_together(server).is_none() {
            assert!(Instant::now() < until, "the agent obeys nobody");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(backend.dispatch.signs_together(server), Some(together));
        agents.push(agent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_refuses_the_new_key_is_served_with_the_old_one() {
    let backend = Backend::start(PortKind::Main).await;
    let (server, key) = backend.enrol("web-1").await;
    let old = backend.signing_key();
    backend.queue(server, 1..=1).await;
    let backend = backend.rotated().await;
    let mut agent = Modern::met(&backend, &key, Some(&old), 0).await;
    let mid = agent.order().await.mid().unwrap();
    let answer = FeedbackMessage::new(mid, Status::Failed, "disk full");
    agent.say(&answer.to_json()).await;
    assert!(agent.order().await.verify(&old));
    assert_eq!(backend.known_keys().await, [old.fingerprint()]);
}

/// The agent's clock was set a day ahead: it refuses, is asked to wait, and is told again when it is right.
#[tokio::test(flavor = "multi_thread")]
async fn orders_that_came_too_late_by_the_agents_clock_are_given_again() {
    let backend = Backend::start(PortKind::Main).await;
    let (server, key) = backend.enrol("web-1").await;
    let signing_key = backend.signing_key();
    backend.queue(server, 1..=2).await;
    let late = |order: &Order, now: i64| {
        let feedback = Late { not_after: order.not_after(), now }.to_string();
        let mid = MessageId::from_number(mid_of(order).parse().unwrap());
        FeedbackMessage::new(mid, Status::Failed, feedback).to_json()
    };
    let offset = async || {
        let mut db = backend.store.read().await.unwrap();
        store::clocks::offset(&mut db, server).await.unwrap()
    };
    let ahead = backend.store.now() + 86_400;
    let mut agent = Modern::met(&backend, &key, Some(&signing_key), 0).await;
    let first = agent.order().await;
    agent.order().await;
    assert_eq!(offset().await, None, "this agent told no time");
    agent.say(&late(&first, ahead)).await;
    let reason = agent.agent.dismissed().await;
    assert!(matches!(reason, CloseReason::RetryAfter(_)), "{reason}");
    assert_eq!(backend.pending(server).await, ["1", "2"], "nothing failed, nothing is lost");
    assert!(offset().await.is_some_and(|offset| (86_399..=86_402).contains(&offset)));

    // It is back with the right time, and first says again what it could not know to have arrived.
    let mut agent = Modern::connect(&backend, &key).await;
    agent.hello().await;
    agent.say(&late(&first, ahead)).await;
    agent.greet(Some(&signing_key), 0).await;
    for mid in [1, 2] {
        let order = agent.order().await;
        assert_eq!(mid_of(&order), mid.to_string());
        assert!(order.sequence() > first.sequence());
        agent.agent.answer(mid).await;
    }
    backend.wait_until_pending(server, &[]).await;
}

/// Another kind of refusal is an answer like any other.
#[tokio::test(flavor = "multi_thread")]
async fn other_refusals_are_failures() {
    let backend = Backend::start(PortKind::Main).await;
    let (server, key) = backend.enrol("web-1").await;
    backend.queue(server, 1..=1).await;
    let mut agent = Modern::met(&backend, &key, Some(&backend.signing_key()), 0).await;
    agent.order().await;
    let feedback = "the signature is not that of the pinned key; nothing was done".to_owned();
    let mid = MessageId::from_number(1);
    let answer = FeedbackMessage::new(mid, Status::Failed, feedback);
    agent.say(&answer.to_json()).await;
    backend.wait_until_pending(server, &[]).await;
    assert!(agent.gets_nothing().await, "the session stays");
}

/// What is kept is short, whatever comes; what is too long for a frame ends the session.
#[tokio::test(flavor = "multi_thread")]
async fn a_mebibyte_of_text_is_cut_to_what_is_kept() {
    let backend = Backend::start(PortKind::Main).await;
    let (server, key) = backend.enrol("web-1").await;
    let signing_key = backend.signing_key();
    backend.queue(server, 1..=2).await;
    let mut agent = Modern::met(&backend, &key, Some(&signing_key), 0).await;
    agent.order().await;
    let mut answer = FeedbackMessage::new(MessageId::from_number(1), Status::Failed, "");
    answer.feedback = "x".repeat(V2_LIMIT - answer.to_json().len());
    assert_eq!(answer.to_json().len(), V2_LIMIT);
    agent.say(&answer.to_json()).await;
    backend.wait_until_pending(server, &["2"]).await;
    let mut db = backend.store.read().await.unwrap();
    let rows = store::audit::list(&mut db, &LogFilter::default(), Page::Last, 100).await.unwrap();
    drop(db);
    let row = rows.iter().find(|row| row.row.action == "action.failed").unwrap();
    assert!((4000..5000).contains(&row.row.detail.len()), "{}", row.row.detail.len());

    agent.order().await;
    answer.feedback.push('x');
    agent.say(&answer.to_json()).await;
    let reason = agent.agent.dismissed().await;
    assert!(matches!(reason, CloseReason::RetryAfter(_)), "{reason}");
    assert_eq!(backend.pending(server).await, ["2"]);
}

/// The passphrase of [`Backend::locked`].
const PASSPHRASE: &str = "correct horse";

impl Backend {
    /// The same backend with its signing key sealed, started without the passphrase.
    async fn locked(self) -> Self {
        self.stop.cancel();
        timeout(SOON, self.serving).await.unwrap().unwrap().unwrap();
        self.store.close().await;
        let with = Passphrase::parse(PASSPHRASE).unwrap();
        KeyFiles::seal_cheaply(self.folder.path(), &with).unwrap();
        Self::start_in(self.folder, PortKind::Main, Limits::default()).await
    }

    async fn unlock(&self) {
        let with = Passphrase::parse(PASSPHRASE).unwrap();
        let keys = self.signing.attempt(Instant::now()).unwrap().open(with).await.unwrap();
        self.signing.install(keys);
        self.dispatch.wake_all();
    }
}

/// Locked, agents are served but for what must be signed; that is sent as soon as the key is open.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_sealed_key_nothing_signed_is_sent_until_it_is_opened() {
    let backend = Backend::start(PortKind::Main).await;
    let signing_key = backend.signing_key();
    let (server, key) = backend.enrol("web-1").await;
    let (plain, plain_key) = backend.enrol("old-1").await;
    let (unpinned, unpinned_key) = backend.enrol("new-1").await;
    let backend = backend.locked().await;
    assert!(backend.signing.keys().is_none());
    assert_eq!(backend.signing_key(), signing_key, "who enrols pins it all the same");
    backend.queue(server, 1..=1).await;
    let mut agent = Modern::met(&backend, &key, Some(&signing_key), 0).await;
    assert!(agent.gets_nothing().await);
    backend.queue(server, 2..=2).await;
    assert!(agent.gets_nothing().await, "queued while it is connected");
    // Answers are taken; what no signature protects is served.
    agent.agent.answer(99).await;
    backend.queue(plain, 3..=3).await;
    assert_eq!(backend.agent(&plain_key).await.mids(1).await, ["3"], "version 1");
    backend.queue(unpinned, 4..=4).await;
    let mut other = Modern::met(&backend, &unpinned_key, None, 0).await;
    let body = other.body().await;
    assert!(matches!(Message::parse(&body, &KeyPolicy::default()), Ok(Message::Action(_))));

    backend.unlock().await;
    for mid in ["1", "2"] {
        let order = agent.order().await;
        assert!(order.verify(&signing_key));
        assert_eq!(mid_of(&order), mid);
    }
    for mid in [1, 2] {
        agent.agent.answer(mid).await;
    }
    backend.wait_until_pending(server, &[]).await;
    backend.queue(server, 5..=5).await;
    assert_eq!(mid_of(&agent.order().await), "5");
}

/// The agent still obeys an old key: it learns of the new one when both are open.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_waits_for_sealed_keys() {
    let backend = Backend::start(PortKind::Main).await;
    let (server, key) = backend.enrol("web-1").await;
    let old = backend.signing_key();
    backend.queue(server, 1..=1).await;
    let backend = backend.rotated().await.locked().await;
    let mut agent = Modern::met(&backend, &key, Some(&old), 0).await;
    assert!(agent.gets_nothing().await);
    backend.unlock().await;
    let order = agent.order().await;
    assert!(order.verify(&old));
    let Payload::RotateKey { mid, key: new } = order.payload().unwrap() else {
        panic!("no rotation: {order:?}")
    };
    agent.say(&FeedbackMessage::new(mid, Status::Done, "").to_json()).await;
    let order = agent.order().await;
    assert!(order.verify(&new) && new == backend.signing_key());
    assert_eq!(mid_of(&order), "1");
}
