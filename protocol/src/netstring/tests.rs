//! Frames against docs/vectors/netstrings.json, in pieces of every size, and against noise.

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Vector {
    name: String,
    input: Vec<Piece>,
    bodies: Vec<Body>,
    limit: Option<usize>,
    error: Option<String>,
    end: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Piece {
    Text(String),
    Repeat { repeat: String, times: usize },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Body {
    Text(String),
    Pieces(Vec<Piece>),
}

impl Piece {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Repeat { repeat, times } => repeat.repeat(*times).into_bytes(),
        }
    }
}

impl Body {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Pieces(pieces) => pieces.iter().flat_map(Piece::bytes).collect(),
        }
    }
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("../../../docs/vectors/netstrings.json"))
        .expect("the vectors are valid JSON")
}

fn variant(error: &NetstringError) -> &'static str {
    match error {
        NetstringError::NotADigit { .. } => "not-a-digit",
        NetstringError::NoLength => "no-length",
        NetstringError::TooLong { .. } => "too-long",
        NetstringError::MissingComma { .. } => "missing-comma",
        NetstringError::Truncated => "truncated",
        NetstringError::TrailingBytes { .. } => "trailing-bytes",
    }
}

/// Pushes `input` in pieces of `size` bytes; the bodies, the error, and how the end was taken.
fn decode(
    input: &[u8],
    size: usize,
    limit: usize,
) -> (Vec<Vec<u8>>, Option<NetstringError>, Result<(), NetstringError>) {
    let mut decoder = NetstringDecoder::new(limit);
    let mut bodies = Vec::new();
    for piece in input.chunks(size) {
        decoder.push(piece);
        loop {
            match decoder.next_body() {
                Ok(Some(body)) => bodies.push(body),
                Ok(None) => break,
                Err(error) => return (bodies, Some(error), decoder.finish()),
            }
        }
    }
    (bodies, None, decoder.finish())
}

#[test]
fn vectors_hold_in_pieces_of_every_size() {
    for vector in vectors() {
        let input: Vec<u8> = vector.input.iter().flat_map(Piece::bytes).collect();
        let expected: Vec<Vec<u8>> = vector.bodies.iter().map(Body::bytes).collect();
        for size in [1, 2, 3, 7, 1024, usize::MAX] {
            let (bodies, error, end) = decode(&input, size, vector.limit.unwrap_or(V1_LIMIT));
            let case = format!("{} in pieces of {size}", vector.name);
            assert_eq!(bodies, expected, "{case}");
            assert_eq!(error.as_ref().map(variant), vector.error.as_deref(), "{case}");
            let end = end.err().filter(|_| error.is_none());
            assert_eq!(end.as_ref().map(variant), vector.end.as_deref(), "{case}");
        }
    }
}

#[test]
fn ten_thousand_random_streams_end_in_a_body_or_a_named_error() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 10_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let noise = proptest::collection::vec(
        prop_oneof![4 => any::<u8>(), 2 => proptest::sample::select(b"0123456789:,".to_vec())],
        0..200,
    );
    runner
        .run(&(noise, 1..20_usize), |(input, size)| {
            let whole = decode(&input, usize::MAX, 64);
            prop_assert_eq!(&decode(&input, size, 64), &whole, "pieces change nothing");
            prop_assert!(whole.0.iter().all(|body| body.len() <= 64));
            Ok(())
        })
        .expect("no stream breaks the decoder");
}

#[test]
fn holds_no_more_than_one_frame_of_what_was_taken() {
    let mut decoder = NetstringDecoder::new(V1_LIMIT);
    for _ in 0..1000 {
        decoder.push(&Netstring::compose(&[b'x'; 1000]));
        assert_eq!(decoder.next_body().map(|body| body.map(|b| b.len())), Ok(Some(1000)));
        assert!(decoder.buffer.capacity() < 16 * 1024);
    }
    assert_eq!(decoder.finish(), Ok(()));
}

#[test]
fn parse_takes_exactly_one_frame() {
    assert_eq!(Netstring::parse(b"2:hi,", 10), Ok(b"hi".to_vec()));
    assert_eq!(Netstring::parse(b"2:hi", 10), Err(NetstringError::Truncated));
    assert_eq!(Netstring::parse(b"2:hi,1", 10), Err(NetstringError::TrailingBytes { extra: 1 }));
}

proptest! {
    #[test]
    fn what_is_composed_is_parsed(bodies in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 0..300), 0..8), size in 1..50_usize) {
        let stream: Vec<u8> = bodies.iter().flat_map(|body| Netstring::compose(body)).collect();
        prop_assert_eq!(decode(&stream, size, V1_LIMIT), (bodies, None, Ok(())));
    }
}
