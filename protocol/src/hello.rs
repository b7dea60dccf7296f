//! The first frames of version 2: what backend and agent tell each other before anything else.
//!
//! This file must not know where facts come from, nor what they are shown for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::VerifyingKey;
use crate::order::{ServerId, is_kind};

/// The version of the wire that a hello opens.
pub const V2: u32 = 2;
/// Largest body after the hellos, in bytes (1 MiB; the limit itself is allowed).
pub const V2_LIMIT: usize = 1024 * 1024;
/// `type` of both.
const KIND: &str = "hello";
/// Most facts kept.
const MAX_FACTS: usize = 32;
/// Longest name of a fact, in bytes.
const MAX_NAME: usize = 32;
/// Longest value of a fact, in characters.
const MAX_VALUE: usize = 200;

/// The backend's hello, its first frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "hello")]
pub struct BackendHello {
    /// The version that it speaks.
    pub protocol: u32,
    /// The id under which it knows the server.
    pub server: ServerId,
    /// Its clock, in seconds since the Unix epoch.
    pub time: i64,
}

/// The agent's hello, the answer to the backend's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "hello")]
pub struct AgentHello {
    /// The version that it speaks.
    pub protocol: u32,
    /// What it knows about its server.
    pub facts: Facts,
    /// The highest sequence number that it has obeyed.
    pub last_sequence: u64,
    /// Fingerprint of the key whose orders it obeys; absent when it knows none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<String>,
    /// The key that signs its receipts; absent when it gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt_key: Option<VerifyingKey>,
    /// Its clock, in seconds since the Unix epoch; absent from agents that do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<i64>,
    /// Whether it obeys orders that are signed together with others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub together: bool,
}

/// Names and values for people: a few short lines, whatever came in. Names are made of
/// `a-z0-9_`; values have no control characters and are cut at 200 characters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, String>")]
pub struct Facts(BTreeMap<String, String>);

/// The body of an agent's frame, when that is a hello.
macro_rules! reads_hello {
    ($type:ty) => {
        impl $type {
            /// Parses the body of a frame. `None` when its `type` is another. Unknown members are
            /// ignored: later versions may say more.
            ///
            /// # Errors
            /// As the JSON of it is wrong.
            #[must_use = "nothing else is read from the body"]
            pub fn parse(body: &[u8]) -> Option<Result<Self, serde_json::Error>> {
                is_kind(body, KIND).then(|| serde_json::from_slice(body))
            }

            /// The JSON body.
            #[must_use]
            pub fn to_json(&self) -> Vec<u8> {
                serde_json::to_vec(self).expect("strings and numbers always serialise")
            }
        }
    };
}

reads_hello!(BackendHello);
reads_hello!(AgentHello);

impl Facts {
    /// The facts by name.
    #[must_use]
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// The facts by name.
    #[must_use]
    pub fn into_map(self) -> BTreeMap<String, String> {
        self.0
    }
}

impl From<BTreeMap<String, String>> for Facts {
    /// Keeps what is fit to be kept.
    fn from(found: BTreeMap<String, String>) -> Self {
        let named = |name: &String| {
            let good = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
            (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(good)
        };
        let clean = |value: String| -> String {
            value.trim().chars().filter(|c| !c.is_control()).take(MAX_VALUE).collect()
        };
        let kept = found.into_iter().filter(|(name, _)| named(name));
        Self(kept.take(MAX_FACTS).map(|(name, value)| (name, clean(value))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(pairs: &[(&str, &str)]) -> Facts {
        let owned = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Facts::from(owned.collect::<BTreeMap<_, _>>())
    }

    #[test]
    fn hellos_are_written_and_read() {
        let backend = BackendHello { protocol: V2, server: ServerId::from_number(7), time: 1_800 };
        let text = r#"{"type":"hello","protocol":2,"server":"7","time":1800}"#;
        assert_eq!(String::from_utf8(backend.to_json()).expect("UTF-8"), text);
        assert_eq!(BackendHello::parse(text.as_bytes()).expect("a hello").expect("good"), backend);
        let more = r#"{"later":[1],"type":"hello","protocol":3,"server":"7","time":0}"#;
        assert_eq!(BackendHello::parse(more.as_bytes()).expect("one").expect("good").protocol, 3);

        let hello = AgentHello {
            protocol: V2,
            facts: facts(&[("hostname", "web-1")]),
            last_sequence: 9,
            signing_key: None,
            receipt_key: None,
            time: None,
            together: false,
        };
        let text =
            r#"{"type":"hello","protocol":2,"facts":{"hostname":"web-1"},"last_sequence":9}"#;
        assert_eq!(String::from_utf8(hello.to_json()).expect("UTF-8"), text);
        assert_eq!(AgentHello::parse(text.as_bytes()).expect("a hello").expect("good"), hello);
        let hello = AgentHello { time: Some(1_800), together: true, ..hello };
        let text = r#"{"type":"hello","protocol":2,"facts":{"hostname":"web-1"},"last_sequence":9,"time":1800,"together":true}"#;
        assert_eq!(String::from_utf8(hello.to_json()).expect("UTF-8"), text);
        assert_eq!(AgentHello::parse(text.as_bytes()).expect("a hello").expect("good"), hello);
    }

    #[test]
    fn what_is_no_hello_is_told_apart_from_a_wrong_one() {
        for other in ["", "{}", r#"{"type":"action","mid":"1"}"#, r#"["hello"]"#, r#"{"type":5}"#] {
            assert!(BackendHello::parse(other.as_bytes()).is_none(), "{other}");
        }
        for wrong in [
            r#"{"type":"hello"}"#,
            r#"{"type":"hello","protocol":"2","server":"7","time":0}"#,
            r#"{"type":"hello","protocol":2,"server":"two words","time":0}"#,
            r#"{"type":"hello","protocol":2,"server":"","time":0}"#,
        ] {
            assert!(BackendHello::parse(wrong.as_bytes()).expect("a hello").is_err(), "{wrong}");
        }
    }

    #[test]
    fn facts_are_few_short_and_clean() {
        let long = "x".repeat(500);
        let kept = facts(&[("os", "a\u{1b}[31mb\n"), ("Bad Name", "x"), ("kernel", &long)]);
        let expected = facts(&[("kernel", &long[..200]), ("os", "a[31mb")]);
        assert_eq!(kept, expected);
        assert_eq!(kept.as_map().len(), 2);
        let many: BTreeMap<String, String> =
            (0..100).map(|number| (format!("f{number}"), String::new())).collect();
        assert_eq!(Facts::from(many).into_map().len(), MAX_FACTS);
    }
}
