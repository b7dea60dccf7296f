//! `authorized_keys`: unknown text survives byte for byte, and a key that is put in can be taken out again.
#![no_main]

use bastio_protocol::{Change, KeyExpiry, KeyFile, KeyLineSpec, KeyOptions, KeyPolicy, PublicKey};
use libfuzzer_sys::fuzz_target;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB fuzz";

/// All lines of ours at once: twice is as once, and one key has one line with what was wanted.
fn set_ours(text: &[u8], key: &PublicKey) {
    let options = KeyOptions::parse("restrict,from=\"10.0.0.0/8\"").expect("options");
    let wanted = [KeyLineSpec { key: key.clone(), options, expiry: Some(KeyExpiry::utc(1 << 31)) }];
    let mut file = KeyFile::parse(text);
    let edit = file.set_ours(&wanted);
    assert_eq!(edit.is_empty(), file.to_bytes() == text);
    let mut file = KeyFile::parse(&file.to_bytes());
    assert!(file.set_ours(&wanted).is_empty());
    let lines: Vec<_> = file.keys().filter(|line| line.ours || line.key == *key).collect();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].spec().as_ref(), Ok(&wanted[0]));
    file.set_ours(&[]);
    assert!(file.keys().all(|line| !line.ours && line.key != *key));
}

fuzz_target!(|text: &[u8]| {
    let key = PublicKey::parse(KEY, &KeyPolicy::ANY).expect("a good key");
    set_ours(text, &key);
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
