//! A backend that opens with a hello, and what the connector does with orders: nothing but carry
//! them.

use bastio_protocol::{AgentHello, BackendHello, Detail, DriftMessage, Facts, Order, ServerId, V2};

use super::*;
use crate::pipe::Obeys;

/// One from docs/vectors/orders.json.
fn order() -> String {
    let text = include_str!("../../../../docs/vectors/orders.json");
    let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
    vectors["orders"][0]["body"].as_str().unwrap().to_owned()
}

fn hello() -> String {
    let server = ServerId::parse("7").unwrap();
    let hello = BackendHello { protocol: V2, server, time: 0 };
    String::from_utf8(hello.to_json()).unwrap()
}

async fn agent_hello(session: &mut BackendSession) -> AgentHello {
    loop {
        if let Some(body) = session.decoder.next_body().unwrap() {
            return AgentHello::parse(&body).expect("a hello").unwrap();
        }
        let bytes = timeout(LONG, session.session.reader.recv()).await.unwrap();
        session.decoder.push(&bytes.expect("the agent closed the connection"));
    }
}

#[tokio::test]
async fn version_2_is_offered_and_a_hello_is_answered() {
    let receipt_key = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=".parse().ok();
    let (key, obeys) = (
        PrivateKey::generate(KeyKind::Ed25519).unwrap(),
        Obeys { last_sequence: 41, signing_key: Some("SHA256:abc".to_owned()), receipt_key },
    );
    let mut backend = Backend::start(&key).await;
    let words = [ToConnector::Obeys(obeys), ToConnector::Ready].map(|word| word.to_frame());
    let settings = backend.settings(&backend.host_key);
    let mut agent = Agent::start_after(&settings, &key, &words.concat());
    let mut session = backend.session().await;
    assert_eq!(session.session.protocol, Some(2));
    session.send_body(&hello()).await;
    let answer = agent_hello(&mut session).await;
    let time = answer.time.expect("its clock");
    assert!((super::super::unix_now() - time).abs() < 60, "{time}");
    let expected = AgentHello {
        protocol: V2,
        facts: Facts::default(),
        last_sequence: 41,
        signing_key: Some("SHA256:abc".to_owned()),
        receipt_key,
        time: Some(time),
        together: true,
    };
    assert_eq!(answer, expected);
    // A new key is told with the next hello.
    let obeys =
        Obeys { last_sequence: 42, signing_key: Some("SHA256:def".to_owned()), receipt_key: None };
    agent.processor.say(&ToConnector::Obeys(obeys)).await;
    agent.processor.say(&ToConnector::Feedback(action(1).reply(Status::Done, ""))).await;
    session.feedback().await;
    drop(session);
    let mut session = backend.session().await;
    session.send_body(&hello()).await;
    let answer = agent_hello(&mut session).await;
    assert_eq!((answer.last_sequence, answer.signing_key.as_deref()), (42, Some("SHA256:def")));
}

#[tokio::test]
async fn orders_are_carried_as_they_are_and_answers_come_back() {
    let (mut backend, mut agent) = world().await;
    let mut session = backend.session().await;
    session.send_body(&hello()).await;
    agent_hello(&mut session).await;
    session.send_body(&order()).await;
    session.send(frame(2)).await;
    let taken = loop {
        match agent.processor.next().await.unwrap() {
            ToProcessor::Link(_) => {}
            other => break other,
        }
    };
    let expected = Order::parse(order().as_bytes()).unwrap().unwrap();
    assert_eq!(taken, ToProcessor::Order(expected));
    assert_eq!(agent.processor.action().await, action(2), "not its to refuse");
    agent.processor.answer(&action(1)).await;
    agent.processor.answer(&action(2)).await;
    for mid in 1..=2 {
        assert_eq!(session.feedback().await.mid, action(mid).mid);
    }
}

#[tokio::test]
async fn a_backend_that_says_no_hello_gets_version_1() {
    let (mut backend, mut agent) = world().await;
    let mut session = backend.session().await;
    session.send(frame(1)).await;
    let taken = agent.processor.action().await;
    // Too late, and an order without one.
    session.send_body(&hello()).await;
    session.send_body(&order()).await;
    for _ in 0..2 {
        assert_eq!(session.feedback().await.status, Status::Failed);
    }
    agent.processor.answer(&taken).await;
    assert_eq!(session.feedback().await.mid, action(1).mid);
}

fn drift(at: i64, healed: bool) -> ToConnector {
    ToConnector::Drift(DriftMessage { at, healed, detail: Detail::default() })
}

/// The next drift, by its time, or the next feedback, by its id.
async fn next_word(session: &mut BackendSession) -> String {
    loop {
        if let Some(body) = session.decoder.next_body().unwrap() {
            return match DriftMessage::parse(&body) {
                Some(drift) => format!("drift {}", drift.unwrap().at),
                None => match Message::parse(&body, &KeyPolicy::ANY).unwrap() {
                    Message::Feedback(feedback) => format!("feedback {}", feedback.mid.text()),
                    other => panic!("{other:?}"),
                },
            };
        }
        let bytes = timeout(LONG, session.session.reader.recv()).await.unwrap();
        session.decoder.push(&bytes.expect("the agent closed the connection"));
    }
}

#[tokio::test]
async fn drift_goes_behind_the_hello_and_is_not_counted_as_delivered() {
    let (mut backend, mut agent) = world().await;
    let mut session = backend.session().await;
    for word in [drift(1, false), drift(2, false)] {
        agent.processor.say(&word).await;
    }
    // Nothing of it may come before the hello, however long that takes.
    agent.processor.say(&ToConnector::Feedback(action(1).reply(Status::Done, ""))).await;
    assert_eq!(next_word(&mut session).await, "feedback 1");
    session.send_body(&hello()).await;
    agent_hello(&mut session).await;
    assert_eq!(next_word(&mut session).await, "drift 2");
    agent.processor.say(&drift(3, true)).await;
    assert_eq!(next_word(&mut session).await, "drift 3");
    agent.processor.say(&ToConnector::Feedback(action(2).reply(Status::Done, ""))).await;
    assert_eq!(next_word(&mut session).await, "feedback 2");
    let mut delivered = 0;
    while delivered < 2 {
        if let ToProcessor::Delivered { count } = agent.processor.next().await.unwrap() {
            delivered += count;
        }
    }
    assert_eq!(delivered, 2);
}

#[tokio::test]
async fn a_backend_of_version_1_hears_of_no_drift() {
    let (mut backend, mut agent) = world().await;
    let mut session = backend.session().await;
    session.send(frame(1)).await;
    let taken = agent.processor.action().await;
    agent.processor.say(&drift(1, false)).await;
    agent.processor.answer(&taken).await;
    assert_eq!(next_word(&mut session).await, "feedback 1");
    session.send(frame(2)).await;
    let taken = agent.processor.action().await;
    agent.processor.answer(&taken).await;
    assert_eq!(next_word(&mut session).await, "feedback 2");
}

#[tokio::test]
async fn a_new_connection_is_made_when_the_processor_wants_one() {
    let (mut backend, mut agent) = world().await;
    let session = backend.session().await;
    assert!(matches!(agent.processor.next().await, Some(ToProcessor::Link(_))));
    let begun = std::time::Instant::now();
    agent.processor.say(&ToConnector::Reconnect).await;
    session.ended().await;
    let mut session = backend.session().await;
    assert!(begun.elapsed() < Duration::from_millis(900), "no back-off: {:?}", begun.elapsed());
    loop {
        if let Some(ToProcessor::Link(LinkState::Connected { .. })) = agent.processor.next().await {
            break;
        }
    }
    session.send(frame(1)).await;
    assert_eq!(agent.processor.action().await, action(1));
}
