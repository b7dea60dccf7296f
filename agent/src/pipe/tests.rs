//! The pipe's messages: there and back, and everything else refused.

use super::*;
use bastio_protocol::{Action, Detail, MessageId, PublicKey, Status, Username};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f a key";

fn action(action: Action) -> ToProcessor {
    ToProcessor::Action(ActionMessage {
        mid: MessageId::from("m-1"),
        username: Username::parse("alice").unwrap(),
        action,
    })
}

fn key() -> PublicKey {
    PublicKey::parse(KEY, &KeyPolicy::ANY).unwrap()
}

/// All of docs/vectors/orders.json, signed alone and together.
fn orders() -> Vec<ToProcessor> {
    let text = include_str!("../../../docs/vectors/orders.json");
    let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
    let bodies =
        vectors["orders"].as_array().unwrap().iter().map(|it| it["body"].as_str().unwrap());
    bodies.map(|body| ToProcessor::Order(Order::parse(body.as_bytes()).unwrap().unwrap())).collect()
}

fn body(frame: &[u8]) -> Vec<u8> {
    Netstring::parse(frame, PIPE_LIMIT).unwrap()
}

#[test]
fn everything_sent_to_the_processor_arrives_equal() {
    for message in [
        action(Action::AddUser { sudo: true }),
        action(Action::AddUser { sudo: false }),
        action(Action::RemoveUser { removal: None }),
        action(Action::UpdateUser { sudo: true }),
        action(Action::AddKey { public_key: key() }),
        action(Action::RemoveKey { public_key: key() }),
        ToProcessor::Link(LinkState::Connected { backend: "b.example:2357".into(), since: 17 }),
        ToProcessor::Link(LinkState::Disconnected { reason: "refused\n\"é".into(), retry_in: 5 }),
        ToProcessor::Delivered { count: 3 },
    ]
    .into_iter()
    .chain(orders())
    {
        assert_eq!(ToProcessor::parse(&body(&message.to_frame())).unwrap(), message);
    }
}

#[test]
fn everything_sent_to_the_connector_arrives_equal() {
    let feedback = FeedbackMessage::new(MessageId::from_number(7), Status::Failed, "no\nway: é");
    for message in [
        ToConnector::Feedback(feedback),
        ToConnector::Ready,
        ToConnector::Obeys(Obeys { last_sequence: u64::MAX, signing_key: None, receipt_key: None }),
        ToConnector::Obeys(Obeys {
            last_sequence: 0,
            signing_key: Some("SHA256:x".into()),
            receipt_key: "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=".parse().ok(),
        }),
        ToConnector::Drift(DriftMessage { at: 7, healed: true, detail: Detail::default() }),
        ToConnector::Reconnect,
        ToConnector::Answered,
        ToConnector::Stopping,
    ] {
        assert_eq!(ToConnector::parse(&body(&message.to_frame())).unwrap(), message);
    }
}

#[test]
fn only_the_listed_kinds_cross_towards_the_processor() {
    for (text, expected) in [
        (r#"{"type":"feedback","mid":"1","status":200,"feedback":""}"#, "direction"),
        (r#"{"type":"stopping"}"#, "direction"),
        (r#"{"type":"ready"}"#, "direction"),
        (r#"{"type":"delivered","count":-1}"#, "no message"),
        (r#"{"type":"shell","command":"id"}"#, "direction"),
        (r#"{"type":1}"#, "no message"),
        (r#"{"mid":"1"}"#, "no message"),
        ("", "no message"),
        ("[]", "no message"),
        (r#"{"type":"link","link":{"state":"up"}}"#, "no message"),
        (r#"{"type":"link","link":{"state":"connected","backend":"b","since":-1}}"#, "no message"),
        (r#"{"type":"action","mid":"1","action":"remove-user","username":"../root"}"#, "user name"),
        (r#"{"type":"action","action":"remove-user","username":"alice"}"#, "mid"),
        (r#"{"type":"action","mid":"1","action":"exec","username":"alice"}"#, "unknown action"),
    ] {
        let error = ToProcessor::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn only_the_listed_kinds_cross_towards_the_connector() {
    for (text, expected) in [
        (r#"{"type":"action","mid":"1","action":"remove-user","username":"alice"}"#, "direction"),
        (r#"{"type":"link"}"#, "direction"),
        (r#"{"type":"delivered","count":1}"#, "direction"),
        (r#"{"type":"feedback","mid":"1","status":201,"feedback":""}"#, "status"),
        (r#"{"type":"feedback","mid":"1","status":200}"#, "no feedback"),
    ] {
        let error = ToConnector::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn another_spelling_of_a_good_message_is_refused() {
    for text in [
        // Unknown member, other order, white space, a member twice, an escaped letter.
        r#"{"type":"action","mid":"1","action":"remove-user","username":"alice","x":1}"#,
        r#"{"mid":"1","type":"action","action":"remove-user","username":"alice"}"#,
        r#"{"type":"action", "mid":"1","action":"remove-user","username":"alice"}"#,
        r#"{"type":"action","mid":"1","action":"remove-user","username":"bob","username":"alice"}"#,
        r#"{"type":"action","mid":"1","action":"remove-user","username":"\u0061lice"}"#,
    ] {
        assert!(matches!(ToProcessor::parse(text.as_bytes()), Err(PipeError::Spelling)), "{text}");
    }
    let control = br#"{"type":"stopping","now":true}"#;
    assert!(matches!(ToConnector::parse(control), Err(PipeError::Spelling)));
}

#[test]
fn the_longest_key_with_the_longest_id_fits_the_limit() {
    let public_key = PublicKey::parse(&format!("{KEY} {}", "\u{e9}".repeat(500)), &KeyPolicy::ANY);
    let message = ToProcessor::Action(ActionMessage {
        mid: MessageId::from(&*"m".repeat(254)),
        username: Username::parse("a2345678901234567890123456789012").unwrap(),
        action: Action::AddKey { public_key: public_key.unwrap() },
    });
    assert_eq!(ToProcessor::parse(&body(&message.to_frame())).unwrap(), message);
}
