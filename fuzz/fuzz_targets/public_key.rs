//! Public keys: whatever parses is one line without control characters, and reads again as the same key.
#![no_main]

use bastio_protocol::{KeyPolicy, PublicKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(key) = PublicKey::parse(text, &KeyPolicy::default()) else { return };
    let line = key.to_string();
    assert!(!line.chars().any(|c| c.is_control() && c != '\t'), "{line:?}");
    let again = PublicKey::parse(&line, &KeyPolicy::default()).expect("what was written is read");
    assert_eq!((again.blob(), again.comment()), (key.blob(), key.comment()));
});
