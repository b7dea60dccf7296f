//! Messages: whatever parses is written and read again as the same.
#![no_main]

use bastio_protocol::{KeyPolicy, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let Ok(message) = Message::parse(body, &KeyPolicy::default()) else { return };
    let written = match &message {
        Message::Action(action) => action.to_json(),
        Message::Host(host) => host.to_json(),
        Message::Feedback(feedback) => feedback.to_json(),
    };
    let again = Message::parse(&written, &KeyPolicy::default()).expect("what was written is read");
    assert_eq!(again, message);
});
