//! Frames: pieces of any size decode to the same bodies, and what was decoded composes to frames that decode again.
#![no_main]

use bastio_protocol::{Netstring, NetstringDecoder, NetstringError};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 4096;

fn decode(input: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<NetstringError>) {
    let mut decoder = NetstringDecoder::new(LIMIT);
    let mut bodies = Vec::new();
    for bytes in input.chunks(piece) {
        decoder.push(bytes);
        loop {
            match decoder.next_body() {
                Ok(Some(body)) => bodies.push(body),
                Ok(None) => break,
                Err(error) => return (bodies, Some(error)),
            }
        }
    }
    (bodies, None)
}

fuzz_target!(|input: &[u8]| {
    let (&size, stream) = input.split_first().unwrap_or((&0, &[]));
    let whole = decode(stream, usize::MAX);
    assert_eq!(decode(stream, usize::from(size) + 1), whole);
    assert!(whole.0.iter().all(|body| body.len() <= LIMIT));
    let again: Vec<u8> = whole.0.iter().flat_map(|body| Netstring::compose(body)).collect();
    assert_eq!(decode(&again, usize::MAX), (whole.0, None));
});
