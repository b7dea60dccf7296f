//! `authorized_keys`: unknown text survives byte for byte, and a key that is put in can be taken out again.
#![no_main]

use bastio_protocol::{Change, KeyFile, KeyPolicy, PublicKey};
use libfuzzer_sys::fuzz_target;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB fuzz";

fuzz_target!(|text: &[u8]| {
    let key = PublicKey::parse(KEY, &KeyPolicy::ANY).expect("a good key");
    let mut file = KeyFile::parse(text);
    assert_eq!(file.to_bytes(), text);
    if file.keys().any(|line| line.key == key) {
        // In an odd spelling it may stand there, and a line of ours is added all the same.
        file.insert(&key);
        assert_eq!(file.insert(&key), Change::Unchanged);
        assert_eq!(file.remove(&key), Change::Changed);
        assert!(file.keys().all(|line| line.key != key));
        return;
    }
    assert_eq!(file.insert(&key), Change::Changed);
    assert!(file.to_bytes().starts_with(text));
    assert_eq!(file.keys().filter(|line| line.key == key).count(), 1);
    assert_eq!(file.remove(&key), Change::Changed);
    let left = file.to_bytes();
    assert!(left == text || left == [text, b"\n"].concat());
});
