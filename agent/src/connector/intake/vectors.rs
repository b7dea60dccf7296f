//! docs/vectors as a backend would send them: what is an action, what is refused, what ends the connection.

use bastio_protocol::{Netstring, NetstringError, Status};
use serde::Deserialize;

use super::{Heard, Intake};

#[derive(Deserialize)]
struct MessageVector {
    name: String,
    /// In the vectors of version 2; drift never goes to an agent.
    kind: Option<String>,
    body: Option<String>,
    body_hex: Option<String>,
    action: Option<String>,
    /// JSON of the id, if it can be used.
    mid: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct FrameVector {
    name: String,
    input: Vec<Piece>,
    bodies: Vec<serde_json::Value>,
    limit: Option<usize>,
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Piece {
    Text(String),
    Repeated { repeat: String, times: usize },
}

impl MessageVector {
    fn body(&self) -> Vec<u8> {
        if let Some(body) = &self.body {
            return body.clone().into_bytes();
        }
        let pairs = self.body_hex.as_deref().unwrap().as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        pairs.map(byte).collect()
    }
}

fn hear(bytes: &[u8]) -> (Vec<Heard>, Option<NetstringError>) {
    let (mut intake, mut heard) = (Intake::new(), Vec::new());
    intake.push(bytes);
    loop {
        match intake.next() {
            Ok(Some(message)) => heard.push(message),
            Ok(None) => return (heard, None),
            Err(error) => return (heard, Some(error)),
        }
    }
}

#[test]
fn messages_are_heard_as_they_say() {
    let version_1 = include_str!("../../../../docs/vectors/messages.json");
    let version_2 = include_str!("../../../../docs/vectors/version_2.json");
    for text in [version_1, version_2] {
        let vectors: Vec<MessageVector> = serde_json::from_str(text).unwrap();
        assert!(vectors.len() > 60);
        expect_heard(&vectors);
    }
}

fn expect_heard(vectors: &[MessageVector]) {
    for vector in vectors.iter().filter(|vector| vector.kind.as_deref() != Some("drift")) {
        let MessageVector { name, action, mid, error, .. } = vector;
        let (mut heard, broken) = hear(&Netstring::compose(&vector.body()));
        assert_eq!((heard.len(), broken), (1, None), "{name}");
        match (heard.remove(0), action, error) {
            (Heard::Action(heard), Some(action), None) => {
                assert_eq!(
                    (heard.action.name(), heard.mid.as_json()),
                    (action.as_str(), mid.as_deref().unwrap())
                );
            }
            (Heard::Host(heard), Some(action), None) => {
                assert_eq!(
                    (heard.request.name(), heard.mid.as_json()),
                    (action.as_str(), mid.as_deref().unwrap())
                );
            }
            (Heard::Feedback, None, None) => {}
            (Heard::Refused(answer), None, Some(_)) => {
                assert_eq!(answer.status, Status::Failed, "{name}");
                assert!(mid.as_deref().is_none_or(|mid| mid == answer.mid.as_json()), "{name}");
                assert!(mid.is_some() || answer.mid.text().parse::<u64>().is_ok(), "{name}");
            }
            // Whether a key is good enough is the processor's to say.
            (Heard::Action(_), None, Some(_)) => assert!(name.ends_with("key too small"), "{name}"),
            (heard, ..) => panic!("{name}: {heard:?}"),
        }
    }
}

#[test]
fn broken_frames_are_errors_and_what_came_before_counts() {
    let text = include_str!("../../../../docs/vectors/netstrings.json");
    let vectors: Vec<FrameVector> = serde_json::from_str(text).unwrap();
    assert!(vectors.len() > 20);
    for vector in vectors.iter().filter(|vector| vector.limit.is_none()) {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Repeated { repeat, times } => repeat.repeat(*times),
        };
        let bytes: String = vector.input.iter().map(piece).collect();
        let (heard, broken) = hear(bytes.as_bytes());
        assert_eq!(heard.len(), vector.bodies.len(), "{}", vector.name);
        assert!(heard.iter().all(|heard| matches!(heard, Heard::Refused(_))), "{}", vector.name);
        assert_eq!(broken.is_some(), vector.error.is_some(), "{}", vector.name);
    }
}
