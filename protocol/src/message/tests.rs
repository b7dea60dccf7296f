//! Messages against docs/vectors/messages.json, and there and back.

use proptest::prelude::*;

use super::*;

mod version_2;

#[derive(Deserialize)]
struct Vector {
    name: String,
    #[serde(default)]
    body: String,
    body_hex: Option<String>,
    error: Option<String>,
    mid: Option<String>,
    action: Option<String>,
    username: Option<String>,
    sudo: Option<bool>,
    public_key: Option<String>,
    status: Option<u16>,
    feedback: Option<String>,
}

impl Vector {
    fn bytes(&self) -> Vec<u8> {
        let Some(hex) = &self.body_hex else { return self.body.clone().into_bytes() };
        let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
        digits.map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect()
    }
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("../../../docs/vectors/messages.json"))
        .expect("the vectors are valid JSON")
}

fn variant(fault: &MessageFault) -> &'static str {
    match fault {
        MessageFault::NotAnObject(_) => "not-an-object",
        MessageFault::UnknownType => "unknown-type",
        MessageFault::UnknownAction => "unknown-action",
        MessageFault::MessageId(_) => "message-id",
        MessageFault::MissingMember(_) => "missing-member",
        MessageFault::WrongType { .. } => "wrong-type",
        MessageFault::Username(_) => "username",
        MessageFault::PublicKey(_) => "public-key",
        MessageFault::Content { .. } => "content",
        MessageFault::Wanted(_) => "wanted",
        MessageFault::UnknownStatus => "unknown-status",
    }
}

/// The key of an action with its comment, which equality ignores.
fn key_text(action: &Action) -> Option<String> {
    match action {
        Action::AddKey { public_key } | Action::RemoveKey { public_key } => {
            Some(public_key.to_string())
        }
        _ => None,
    }
}

fn sudo(action: &Action) -> Option<bool> {
    match action {
        Action::AddUser { sudo } | Action::UpdateUser { sudo } => Some(*sudo),
        _ => None,
    }
}

#[test]
fn vectors_are_read_as_they_say() {
    for vector in vectors() {
        let name = &vector.name;
        match Message::parse(&vector.bytes(), &KeyPolicy::default()) {
            Err(error) => {
                assert_eq!(Some(variant(&error.fault)), vector.error.as_deref(), "{name}");
                assert_eq!(error.mid.map(|mid| mid.to_string()), vector.mid, "{name}");
            }
            Ok(Message::Host(message)) => {
                assert_eq!(Some(message.request.name()), vector.action.as_deref(), "{name}");
                assert_eq!(Some(message.mid.to_string()), vector.mid, "{name}");
            }
            Ok(Message::Action(message)) => {
                assert_eq!(Some(message.action.name()), vector.action.as_deref(), "{name}");
                assert_eq!(Some(message.mid.to_string()), vector.mid, "{name}");
                assert_eq!(Some(message.username.to_string()), vector.username, "{name}");
                assert_eq!(sudo(&message.action), vector.sudo, "{name}");
                assert_eq!(key_text(&message.action), vector.public_key, "{name}");
                assert_eq!(vector.error, None, "{name}");
            }
            Ok(Message::Feedback(message)) => {
                assert_eq!(Some(message.status.code()), vector.status, "{name}");
                assert_eq!(Some(message.mid.to_string()), vector.mid, "{name}");
                assert_eq!(Some(message.feedback), vector.feedback, "{name}");
                assert_eq!(vector.error, None, "{name}");
            }
        }
    }
}

#[test]
fn what_is_written_is_read_again() {
    for vector in vectors().into_iter().filter(|vector| vector.error.is_none()) {
        let message =
            Message::parse(&vector.bytes(), &KeyPolicy::default()).expect("a good vector");
        let written = match &message {
            Message::Action(action) => action.to_json(),
            Message::Host(host) => host.to_json(),
            Message::Feedback(feedback) => feedback.to_json(),
        };
        let again = Message::parse(&written, &KeyPolicy::default()).expect("what we wrote");
        assert_eq!(again, message, "{}", vector.name);
    }
}

#[test]
fn actions_are_written_with_the_members_of_version_1_only() {
    let message = ActionMessage {
        mid: MessageId::from_number(7),
        username: Username::parse("alice").expect("a name"),
        action: Action::AddUser { sudo: true },
    };
    let expected =
        r#"{"type":"action","mid":"7","action":"add-user","username":"alice","sudo":true}"#;
    assert_eq!(message.to_json(), expected.as_bytes());
    let reply = message.reply(Status::Done, "alice was created successfully");
    let expected =
        r#"{"type":"feedback","mid":"7","status":200,"feedback":"alice was created successfully"}"#;
    assert_eq!(reply.to_json(), expected.as_bytes());
}

proptest! {
    #[test]
    fn any_feedback_text_survives(text in ".*", mid in ".{1,40}") {
        let feedback = FeedbackMessage::new(MessageId::from(mid.as_str()), Status::Failed, text);
        let read = Message::parse(&feedback.to_json(), &KeyPolicy::default()).expect("what we wrote");
        prop_assert_eq!(read, Message::Feedback(feedback));
    }

    #[test]
    fn noise_is_an_error_never_a_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Message::parse(&body, &KeyPolicy::default()).is_err());
    }
}
