//! What a version-1 backend may do to the wire, on purpose or not: bad messages, broken frames, packets cut anywhere.
//! The same vectors that every crate runs, here through the whole agent.

use std::collections::HashSet;
use std::thread;
use std::time::Duration;

use bastio_tests::require_root;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Feedback;
use super::backend::Rig;

/// The agent's shortest wait before it connects again, in seconds; and its longest after one connection.
const SHORTEST: f64 = 1.0;
const LONGEST: f64 = 2.0;
/// A slow machine's share in what was measured, in seconds.
const SLOWNESS: f64 = 3.0;
/// How many servers the broken frames are spread over: each is waited for.
const SERVERS: usize = 3;

#[derive(Deserialize)]
struct Message {
    name: String,
    body: Option<String>,
    body_hex: Option<String>,
    /// JSON of the id, if it can be used.
    mid: Option<String>,
    error: Option<String>,
    /// Of a feedback.
    status: Option<u64>,
}

#[derive(Deserialize)]
struct Frames {
    name: String,
    input: Vec<Piece>,
    bodies: Vec<Value>,
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

fn messages() -> Vec<Message> {
    serde_json::from_str(include_str!("../../../../docs/vectors/messages.json")).unwrap()
}

/// Those for a reader with the limit of version 1.
fn frames() -> Vec<Frames> {
    let all: Vec<Frames> =
        serde_json::from_str(include_str!("../../../../docs/vectors/netstrings.json")).unwrap();
    all.into_iter().filter(|frames| frames.limit.is_none()).collect()
}

impl Message {
    fn bytes(&self) -> Vec<u8> {
        if let Some(body) = &self.body {
            return body.clone().into_bytes();
        }
        let digits = self.body_hex.as_deref().unwrap().as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.map(byte).collect()
    }
}

impl Frames {
    fn bytes(&self) -> Vec<u8> {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Repeated { repeat, times } => repeat.repeat(*times),
        };
        self.input.iter().map(piece).collect::<String>().into_bytes()
    }
}

fn frame(body: &[u8]) -> Vec<u8> {
    [format!("{}:", body.len()).as_bytes(), body, b","].concat()
}

/// Bytes as the script takes them: one character each.
fn latin_1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn absent(mid: &str) -> Value {
    json!({"action": "remove-user", "username": "nobody_here", "mid": mid})
}

fn mids(feedbacks: &[Feedback]) -> Vec<&str> {
    feedbacks.iter().map(|feedback| feedback.mid.as_str()).collect()
}

#[test]
fn every_message_gets_one_answer_and_none_ends_the_connection() {
    require_root!();
    let mut rig = Rig::start(&[]);
    for message in messages() {
        let answers = usize::from(message.status.is_none());
        let step = json!({"raw": latin_1(&frame(&message.bytes())), "answers": answers});
        // What comes too much is an answer to the next one.
        let feedbacks = rig.backend.feedbacks(&step);
        assert_eq!(feedbacks.len(), answers, "{}", message.name);
        let Some(feedback) = feedbacks.first() else { continue };
        match &message.mid {
            Some(mid) => assert_eq!(&feedback.mid, mid, "{}", message.name),
            None => {
                let fresh: String = serde_json::from_str(&feedback.mid).unwrap();
                assert!(fresh.parse::<u64>().is_ok(), "{}: {fresh}", message.name);
            }
        }
        if message.error.is_some() {
            assert_eq!(feedback.status, 500, "{}", message.name);
        }
        assert!(!feedback.text.is_empty(), "{}", message.name);
    }
    rig.backend.run(&json!({"quiet": 0.5}));
    assert_eq!(rig.backend.feedback(&absent("last")).mid, "\"last\"");
    rig.backend.finish();
}

#[test]
fn good_frames_are_read_whole_and_in_pieces() {
    require_root!();
    let mut rig = Rig::start(&[]);
    for frames in frames().iter().filter(|frames| frames.error.is_none() && frames.end.is_none()) {
        let bytes = frames.bytes();
        let cut = if bytes.len() < 1000 { 1 } else { 999 };
        for cut in [bytes.len(), cut] {
            let step = json!({"raw": latin_1(&bytes), "cut": cut, "answers": frames.bodies.len()});
            let feedbacks = rig.backend.feedbacks(&step);
            assert_eq!(feedbacks.len(), frames.bodies.len(), "{}", frames.name);
            assert!(feedbacks.iter().all(|feedback| feedback.status == 500), "{feedbacks:?}");
        }
    }
    rig.backend.run(&json!({"quiet": 0.3}));
    rig.backend.finish();
}

#[test]
fn packets_may_end_anywhere() {
    require_root!();
    let mut rig = Rig::start(&[]);
    let message = |mid: &str| {
        let mut message = absent(mid);
        message["type"] = "action".into();
        frame(message.to_string().as_bytes())
    };
    let one = message("one");
    for (cut, pause) in [(1, 0.0), (1, 0.002), (2, 0.1), (one.len() - 1, 0.1), (30, 0.1)] {
        // The first two bytes are the length, the last one is the comma.
        let step = json!({"raw": latin_1(&one), "cut": cut, "pause": pause, "answers": 1});
        let feedback = rig.backend.feedback(&step);
        assert_eq!((feedback.mid.as_str(), feedback.status), ("\"one\"", 300), "{cut}");
    }
    let several = [message("a"), message("b"), message("c")].concat();
    let feedbacks = rig.backend.feedbacks(&json!({"raw": latin_1(&several), "answers": 3}));
    assert_eq!(mids(&feedbacks), ["\"a\"", "\"b\"", "\"c\""]);
    // 62 KB in one go, cut by SSH where it likes.
    let many: Vec<u8> = (0..900).flat_map(|number| message(&number.to_string())).collect();
    assert!(many.len() > 60_000);
    let feedbacks = rig.backend.feedbacks(&json!({"raw": latin_1(&many), "answers": 900}));
    let expected: Vec<String> = (0..900).map(|number| format!("\"{number}\"")).collect();
    assert_eq!(mids(&feedbacks), expected);
    rig.backend.finish();
}

#[test]
fn forty_actions_in_flight_are_answered_in_order() {
    require_root!();
    let mut rig = Rig::start(&[]);
    let user = |number: u64| format!("user{}", number / 4);
    let steps: Vec<Value> = (0..40)
        .map(|number| {
            let mid = number.to_string();
            let user = user(number);
            match number % 4 {
                0 => json!({"action": "add-user", "username": user, "sudo": false, "mid": mid}),
                1 => json!({"action": "update-user", "username": user, "sudo": true, "mid": mid}),
                2 => json!({"action": "update-user", "username": user, "sudo": false, "mid": mid}),
                _ => json!({"action": "remove-user", "username": user, "mid": mid}),
            }
        })
        .collect();
    let feedbacks = rig.backend.feedbacks(&Value::from(steps));
    let expected: Vec<String> = (0..40).map(|number| format!("\"{number}\"")).collect();
    assert_eq!(mids(&feedbacks), expected);
    assert!(feedbacks.iter().all(|feedback| feedback.status == 200), "{feedbacks:?}");
    assert_eq!(rig.shell("grep -c ^user /etc/passwd || true"), "0\n");
    rig.backend.finish();
}

/// Sends broken frames; the agent must hang up, come back after its wait, and work on.
fn break_frames(all: &[Frames]) {
    let mut rig = Rig::start(&[]);
    let mut earlier = HashSet::new();
    for (round, frames) in all.iter().enumerate() {
        let raw = json!({"raw": latin_1(&frames.bytes())});
        // A frame that the backend itself cuts off ends with the connection.
        let end = match frames.end {
            None => json!({"wait": "closed"}),
            Some(_) => json!({"drop": true}),
        };
        let mut events = rig.backend.run(&json!([raw, end]));
        let at = |name: &str| {
            let mut named = events.iter().filter(|event| event["event"] == name);
            let at = named.next().expect(name);
            assert!(named.next().is_none(), "{}: {events:?}", frames.name);
            at["at"].as_f64().unwrap()
        };
        let gone = at(if frames.end.is_none() { "closed" } else { "dropped" });
        let away = at("connected") - gone;
        assert!(
            (SHORTEST..LONGEST + SLOWNESS).contains(&away),
            "{}: away for {away} s",
            frames.name
        );
        let next = format!("next-{round}");
        events.extend(rig.backend.run(&absent(&next)));
        let feedbacks = events.iter().filter(|event| event["event"] == "feedback");
        let mids: Vec<String> = feedbacks.map(|event| Feedback::of(event).mid).collect();
        assert_eq!(mids.last(), Some(&format!("\"{next}\"")), "{}", frames.name);
        // An answer that was not confirmed when its connection ended may come again, also in the next round.
        let fresh: HashSet<String> =
            mids.into_iter().filter(|mid| earlier.insert(mid.clone())).collect();
        assert_eq!(fresh.len(), frames.bodies.len() + 1, "{}: {events:?}", frames.name);
        // Each wait is to be the first one.
        rig.backend.begin(&json!({"wait": "closed"}));
        rig.restart_agent();
        rig.backend.until("done");
    }
    assert!(rig.agent.stop(Duration::from_secs(5)).unwrap().success());
    rig.backend.finish();
}

#[test]
fn broken_frames_end_the_connection_and_the_agent_comes_back() {
    require_root!();
    let broken: Vec<Frames> = frames()
        .into_iter()
        .filter(|frames| frames.error.is_some() || frames.end.is_some())
        .collect();
    assert!(broken.len() > 15);
    thread::scope(|scope| {
        for part in broken.chunks(broken.len().div_ceil(SERVERS)) {
            scope.spawn(|| break_frames(part));
        }
    });
}

/// A backend that sends the same bad bytes on every connection does not make the agent spin.
#[test]
fn poison_on_every_connection_is_met_with_longer_and_longer_waits() {
    require_root!();
    let mut rig = Rig::start(&[]);
    for wait in [2.0, 4.0, 8.0] {
        let events = rig.backend.run(&json!([{"raw": "poison"}, {"wait": "closed"}]));
        let at = |name: &str| {
            events.iter().find(|event| event["event"] == name).unwrap()["at"].as_f64().unwrap()
        };
        let away = at("connected") - at("closed");
        assert!((SHORTEST..wait + SLOWNESS).contains(&away), "{away} s, at most {wait} s");
    }
    assert_eq!(rig.backend.feedback(&absent("still there")).status, 300);
    rig.backend.finish();
}
