//! What the backend sends: bytes go in, actions and refusals come out. A framed message that is
//! no action is answered; broken frames end the connection. This file must not know sockets.

use bastio_protocol::{
    ActionMessage, FeedbackMessage, KeyPolicy, Message, MessageError, MessageId, NetstringDecoder,
    NetstringError, Status, V1_LIMIT,
};

use crate::chance;

/// One frame, understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// For the processor.
    Action(ActionMessage),
    /// No action; this is the answer.
    Refused(FeedbackMessage),
    /// A feedback, which no backend should send to an agent.
    Feedback,
}

/// Decodes one connection's bytes.
#[derive(Debug)]
pub(super) struct Intake(NetstringDecoder);

impl Intake {
    /// For the beginning of a connection.
    pub(super) fn new() -> Self {
        Self(NetstringDecoder::new(V1_LIMIT))
    }

    /// Takes bytes as they arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.push(bytes);
    }

    /// The next message; `None` when more bytes are needed.
    ///
    /// Keys are checked for their form only: whether they are good enough is the processor's
    /// policy.
    pub(super) fn next(&mut self) -> Result<Option<Heard>, NetstringError> {
        let Some(body) = self.0.next_body()? else { return Ok(None) };
        Ok(Some(match Message::parse(&body, &KeyPolicy::ANY) {
            Ok(Message::Action(action)) => Heard::Action(action),
            Ok(Message::Feedback(_)) => Heard::Feedback,
            Err(error) => Heard::Refused(refusal(error)),
        }))
    }
}

/// The answer to a message that is none; with an id of its own when the message has no usable one.
fn refusal(error: MessageError) -> FeedbackMessage {
    let feedback = error.to_string();
    let mid = error.mid.unwrap_or_else(|| MessageId::from_number(chance::number()));
    FeedbackMessage { mid, status: Status::Failed, feedback }
}

#[cfg(test)]
mod vectors;

#[cfg(test)]
mod tests {
    use bastio_protocol::{Netstring, NetstringError, Status};

    use super::{Heard, Intake};

    fn all(bytes: &[u8]) -> Result<Vec<Heard>, NetstringError> {
        let mut intake = Intake::new();
        let mut heard = Vec::new();
        for byte in bytes {
            intake.push(&[*byte]);
            while let Some(message) = intake.next()? {
                heard.push(message);
            }
        }
        Ok(heard)
    }

    fn one(body: &str) -> Heard {
        all(&Netstring::compose(body.as_bytes())).unwrap().remove(0)
    }

    #[test]
    fn actions_pass() {
        let body = r#"{"type":"action","mid":"7","action":"remove-user","username":"alice"}"#;
        let Heard::Action(action) = one(body) else { panic!("no action") };
        assert_eq!((action.mid.text(), action.username.as_str()), ("7".to_owned(), "alice"));
    }

    #[test]
    fn bad_messages_are_answered_with_their_mid() {
        for (body, mid) in [
            (r#"{"type":"action","mid":"7","action":"dance","username":"alice"}"#, Some("\"7\"")),
            (r#"{"type":"action","mid":1.50,"action":"remove-user"}"#, Some("1.50")),
            (r#"{"type":"dance","mid":true}"#, Some("true")),
            (r#"{"type":"action","action":"remove-user","username":"alice"}"#, None),
            (r#"{"type":"action","mid":{},"action":"remove-user","username":"alice"}"#, None),
            ("no json", None),
            ("", None),
        ] {
            let Heard::Refused(answer) = one(body) else { panic!("not refused: {body}") };
            assert_eq!(answer.status, Status::Failed);
            assert!(!answer.feedback.is_empty());
            match mid {
                Some(mid) => assert_eq!(answer.mid.as_json(), mid),
                None => assert!(answer.mid.text().parse::<u64>().is_ok(), "{body}"),
            }
        }
    }

    #[test]
    fn a_feedback_is_told_apart() {
        let body = r#"{"type":"feedback","mid":"7","status":200,"feedback":"done"}"#;
        assert_eq!(one(body), Heard::Feedback);
    }

    #[test]
    fn broken_frames_are_errors() {
        for bytes in ["x", ":,", "3:abcd", "32769:", "-1:,"] {
            assert!(all(bytes.as_bytes()).is_err(), "{bytes}");
        }
    }
}
