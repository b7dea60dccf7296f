//! Options of keys: what is taken has one spelling, is one word for sshd, and stays itself in a file.
#![no_main]

use bastio_protocol::{KeyExpiry, KeyFile, KeyLineSpec, KeyOptions, KeyPolicy, PublicKey};
use libfuzzer_sys::fuzz_target;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB fuzz";

fuzz_target!(|text: &str| {
    let Ok(options) = KeyOptions::parse(text) else { return };
    assert_eq!(KeyOptions::parse(options.as_str()).as_ref(), Ok(&options));
    let key = PublicKey::parse(KEY, &KeyPolicy::ANY).expect("a good key");
    let expiry = (text.len() % 2 == 0)
        .then(|| KeyExpiry::utc(i64::try_from(text.len()).expect("short") << 20));
    let wanted = KeyLineSpec { key, options, expiry };
    let mut file = KeyFile::parse(b"# others\nno-pty ssh-rsa AAAA x");
    assert_eq!(file.set_ours(std::slice::from_ref(&wanted)).added.len(), 1);
    let bytes = file.to_bytes();
    assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 3, "no further line");
    let read: Vec<_> = KeyFile::parse(&bytes).keys().collect();
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].spec().as_ref(), Ok(&wanted));
    assert!(file.set_ours(std::slice::from_ref(&wanted)).is_empty());
});
