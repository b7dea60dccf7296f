//! What the backend sends: bytes go in, actions and refusals come out. A framed message that is
//! no action is answered; broken frames end the connection. This file must not know sockets.

use bastio_protocol::{
    ActionMessage, BackendHello, FeedbackMessage, HostMessage, KeyPolicy, Message, MessageError,
    MessageId, NetstringDecoder, NetstringError, Order, Status, V1_LIMIT, V2, V2_LIMIT,
};

use crate::chance;

/// One frame, understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The backend speaks version 2.
    Hello(BackendHello),
    /// For the processor.
    Action(ActionMessage),
    /// For the processor, about the whole server.
    Host(HostMessage),
    /// For the processor, which alone can tell whether to believe it.
    Order(Order),
    /// No action; this is the answer.
    Refused(FeedbackMessage),
    /// A feedback, which no backend should send to an agent.
    Feedback,
}

/// Decodes one connection's bytes.
#[derive(Debug)]
pub(super) struct Intake {
    decoder: NetstringDecoder,
    speaks: Speaks,
}

/// What the backend speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    /// Nothing was heard yet: only now a hello may come.
    Unknown,
    Version1,
    Version2,
}

impl Intake {
    /// For the beginning of a connection.
    pub(super) fn new() -> Self {
        Self { decoder: NetstringDecoder::new(V1_LIMIT), speaks: Speaks::Unknown }
    }

    /// Takes bytes as they arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.decoder.push(bytes);
    }

    /// The next message; `None` when more bytes are needed.
    ///
    /// Keys are checked for their form only: whether they are good enough is the processor's
    /// policy.
    pub(super) fn next(&mut self) -> Result<Option<Heard>, NetstringError> {
        let Some(body) = self.decoder.next_body()? else { return Ok(None) };
        if self.speaks == Speaks::Unknown {
            self.speaks = Speaks::Version1;
            if let Some(Ok(hello)) = BackendHello::parse(&body)
                && hello.protocol >= V2
            {
                self.speaks = Speaks::Version2;
                self.decoder.set_limit(V2_LIMIT);
                return Ok(Some(Heard::Hello(hello)));
            }
        }
        if self.speaks == Speaks::Version2
            && let Some(order) = Order::parse(&body)
        {
            return Ok(Some(
                order.map_or_else(|error| Heard::Refused(no_order(&error)), Heard::Order),
            ));
        }
        Ok(Some(match Message::parse(&body, &KeyPolicy::ANY) {
            Ok(Message::Action(action)) => Heard::Action(action),
            Ok(Message::Host(host)) => Heard::Host(host),
            Ok(Message::Feedback(_)) => Heard::Feedback,
            Err(error) => Heard::Refused(refusal(error)),
        }))
    }
}

/// The answer to an order that is none: there is no id in it that could be believed.
fn no_order(error: &serde_json::Error) -> FeedbackMessage {
    let feedback = format!("an order that cannot be read: {error}; nothing was done");
    let mid = MessageId::from_number(chance::number());
    FeedbackMessage::new(mid, Status::Failed, feedback)
}

/// The answer to a message that is none; with an id of its own when the message has no usable one.
fn refusal(error: MessageError) -> FeedbackMessage {
    let feedback = error.to_string();
    let mid = error.mid.unwrap_or_else(|| MessageId::from_number(chance::number()));
    FeedbackMessage::new(mid, Status::Failed, feedback)
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

    const HELLO: &str = r#"{"type":"hello","protocol":2,"server":"7","time":1800000000}"#;
    const ACTION: &str = r#"{"type":"action","mid":"7","action":"remove-user","username":"alice"}"#;

    fn frames(bodies: &[&str]) -> Vec<u8> {
        bodies.iter().flat_map(|body| Netstring::compose(body.as_bytes())).collect()
    }

    /// All from docs/vectors/orders.json.
    fn orders() -> Vec<String> {
        let text = include_str!("../../../docs/vectors/orders.json");
        let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
        let bodies = vectors["orders"].as_array().unwrap().iter().map(|it| it["body"].as_str());
        bodies.map(|body| body.unwrap().to_owned()).collect()
    }

    #[test]
    fn orders_are_handed_on_as_they_came() {
        for body in orders() {
            let heard = all(&frames(&[HELLO, &body])).unwrap();
            let [Heard::Hello(_), Heard::Order(order)] = &heard[..] else { panic!("{heard:?}") };
            assert_eq!(String::from_utf8(order.to_json()).unwrap(), body);
        }
    }

    #[test]
    fn a_hello_opens_version_2() {
        let order = orders().remove(0);
        let heard = all(&frames(&[HELLO, &order, ACTION])).unwrap();
        let [Heard::Hello(hello), Heard::Order(found), Heard::Action(_)] = &heard[..] else {
            panic!("{heard:?}")
        };
        assert_eq!((hello.server.as_str(), found.sequence()), ("7", 1));
        // A second hello is none.
        let heard = all(&frames(&[HELLO, HELLO])).unwrap();
        assert!(matches!(heard[..], [Heard::Hello(_), Heard::Refused(_)]), "{heard:?}");
        let heard = all(&frames(&[HELLO, r#"{"type":"order","mid":"7"}"#])).unwrap();
        assert!(matches!(heard[..], [Heard::Hello(_), Heard::Refused(_)]), "{heard:?}");
    }

    #[test]
    fn without_a_hello_in_front_it_is_version_1() {
        let order = orders().remove(0);
        for bodies in [
            &[ACTION, HELLO, &order][..],
            &[r#"{"type":"hello","protocol":1,"server":"7","time":0}"#, &order],
            &[r#"{"type":"hello"}"#, &order],
            &[&order, HELLO],
        ] {
            let heard = all(&frames(bodies)).unwrap();
            let refused = heard.iter().filter(|heard| matches!(heard, Heard::Refused(_)));
            assert!(refused.count() >= 2, "{heard:?}");
        }
        assert!(all(&frames(&[ACTION, &" ".repeat(32_769)])).is_err());
    }

    #[test]
    fn frames_may_be_longer_behind_the_hello_only() {
        let long = format!("{ACTION}{}", " ".repeat(1_048_576 - ACTION.len()));
        let mut intake = Intake::new();
        intake.push(&frames(&[HELLO, &long]));
        assert!(matches!(intake.next(), Ok(Some(Heard::Hello(_)))));
        assert!(matches!(intake.next(), Ok(Some(Heard::Action(_)))));
        intake.push(b"1048577:");
        assert!(intake.next().is_err());
        let mut intake = Intake::new();
        intake.push(&frames(&[&long]));
        assert!(intake.next().is_err());
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
