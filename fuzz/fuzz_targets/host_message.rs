//! What version 2 adds: what is read is written to the letter the second time, fits a frame, and is refused or
//! obeyed whole.
#![no_main]

use bastio_protocol::{DriftMessage, HostRequest, KeyPolicy, Message, V2_LIMIT, WANTED_LIMIT};
use libfuzzer_sys::fuzz_target;

fn write(message: &Message) -> Vec<u8> {
    match message {
        Message::Action(action) => action.to_json(),
        Message::Host(host) => host.to_json(),
        Message::Feedback(feedback) => feedback.to_json(),
    }
}

fuzz_target!(|body: &[u8]| {
    if let Some(Ok(drift)) = DriftMessage::parse(body) {
        let again =
            DriftMessage::parse(&drift.to_json()).expect("a drift").expect("what was written");
        assert_eq!(again, drift);
    }
    let Ok(message) = Message::parse(body, &KeyPolicy::default()) else { return };
    let written = write(&message);
    let again = Message::parse(&written, &KeyPolicy::default()).expect("what was written is read");
    assert_eq!(write(&again), written);
    assert_eq!(again, message);
    if let Message::Host(host) = &message
        && let HostRequest::Sync { wanted, .. } = &host.request
    {
        let length = serde_json::to_vec(wanted).expect("JSON").len();
        assert!(length <= WANTED_LIMIT && written.len() <= V2_LIMIT);
        assert!(
            wanted.accounts.values().all(|account| account.check(&KeyPolicy::default()).is_ok())
        );
    }
});
