//! docs/vectors, as agents would send them: what is a feedback is taken, all else ends the session.

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct MessageVector {
    name: String,
    /// In the vectors of version 2.
    kind: Option<String>,
    body: Option<String>,
    body_hex: Option<String>,
    error: Option<String>,
    /// Of a feedback.
    status: Option<u16>,
}

#[derive(Deserialize)]
struct FrameVector {
    name: String,
    input: Vec<Piece>,
    limit: Option<usize>,
    error: Option<String>,
    end: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Piece {
    Text(String),
    Repeated { repeat: String, times: usize },
}

impl MessageVector {
    fn frame(&self) -> Vec<u8> {
        let hex = |digits: &String| {
            let pairs = digits.as_bytes().chunks(2);
            let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
            pairs.map(byte).collect::<Vec<u8>>()
        };
        let text = self.body.as_ref().map(|body| body.clone().into_bytes());
        Netstring::compose(&text.or_else(|| self.body_hex.as_ref().map(hex)).unwrap())
    }
}

impl FrameVector {
    fn bytes(&self) -> Vec<u8> {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Repeated { repeat, times } => repeat.repeat(*times),
        };
        self.input.iter().map(piece).collect::<String>().into_bytes()
    }

    /// Whether an agent may send it: answers may be longer than actions.
    fn fits_feedback(&self) -> bool {
        let digits = self.bytes().into_iter().take_while(u8::is_ascii_digit);
        let length = String::from_utf8(digits.collect()).unwrap().parse::<usize>();
        self.error.as_deref() == Some("too-long")
            && length.is_ok_and(|length| length > V1_LIMIT && length <= FEEDBACK_LIMIT)
    }
}

/// Another server for each vector: one that comes back again and again is made to wait.
async fn new_agent(backend: &Backend, number: u64) -> (ServerId, Agent) {
    let (server, key) = backend.enrol(&format!("web-{number}")).await;
    backend.queue(server, number..=number).await;
    let mut agent = backend.agent(&key).await;
    assert_eq!(agent.mids(1).await, [number.to_string()]);
    (server, agent)
}

/// What is sent must end the session, with the wish to stay away, and the action waits on.
async fn expect_garbage(backend: &Backend, number: u64, name: &str, bytes: Vec<u8>) {
    let (server, mut agent) = new_agent(backend, number).await;
    agent.writer.send(bytes).await.unwrap();
    let reason = agent.dismissed().await;
    assert_eq!(reason, CloseReason::RetryAfter(Duration::from_secs(30)), "{name}");
    assert_eq!(backend.pending(server).await, [number.to_string()], "{name}");
}

/// Those of version 1, and the feedbacks of version 2.
fn messages() -> Vec<MessageVector> {
    let version_1 = include_str!("../../../../docs/vectors/messages.json");
    let version_2 = include_str!("../../../../docs/vectors/version_2.json");
    let mut vectors: Vec<MessageVector> = serde_json::from_str(version_1).unwrap();
    let feedbacks: Vec<MessageVector> = serde_json::from_str(version_2).unwrap();
    vectors.extend(feedbacks.into_iter().filter(|it| it.kind.as_deref() == Some("feedback")));
    vectors
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_no_feedback_end_the_session() {
    let vectors = messages();
    let backend = Backend::start(PortKind::Main).await;
    let (good, bad): (Vec<_>, Vec<_>) =
        vectors.iter().partition(|vector| vector.error.is_none() && vector.status.is_some());
    assert!(good.len() >= 9 && bad.len() >= 40);
    for (vector, number) in bad.iter().zip(1000..) {
        expect_garbage(&backend, number, &vector.name, vector.frame()).await;
    }
    // Nobody waits for the ids in them, which is no reason to part.
    let (server, agent) = new_agent(&backend, 1).await;
    for vector in good {
        agent.writer.send(vector.frame()).await.unwrap();
    }
    agent.answer(1).await;
    backend.wait_until_pending(server, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_frames_end_the_session() {
    let text = include_str!("../../../../docs/vectors/netstrings.json");
    let vectors: Vec<FrameVector> = serde_json::from_str(text).unwrap();
    let backend = Backend::start(PortKind::Main).await;
    let for_version_1 = vectors.iter().filter(|vector| vector.limit.is_none());
    let broken: Vec<_> = for_version_1.filter(|vector| !vector.fits_feedback()).collect();
    assert!(broken.iter().filter(|vector| vector.error.is_some()).count() >= 12);
    for (vector, number) in broken.into_iter().zip(1000..) {
        if vector.end.is_none() {
            // A frame that is sound holds no feedback here, so it ends the session all the same.
            expect_garbage(&backend, number, &vector.name, vector.bytes()).await;
        } else {
            // A message that does not end is none: the agent hangs up, and the action waits on.
            let (server, agent) = new_agent(&backend, number).await;
            agent.writer.send(vector.bytes()).await.unwrap();
            agent.link.close().await;
            assert_eq!(backend.pending(server).await, [number.to_string()], "{}", vector.name);
        }
    }
}
