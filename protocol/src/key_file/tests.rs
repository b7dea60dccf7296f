//! Edits of `authorized_keys` against docs/vectors/key_files.json, and over foreign bytes.

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Vector {
    name: String,
    before: String,
    op: String,
    key: String,
    after: String,
    changed: bool,
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("../../../docs/vectors/key_files.json"))
        .expect("the vectors are valid JSON")
}

fn key(line: &str) -> PublicKey {
    PublicKey::parse(line, &KeyPolicy::default()).expect("a key")
}

fn some_key() -> PublicKey {
    key(&vectors()[0].key)
}

#[test]
fn vectors_hold() {
    for vector in vectors() {
        let mut file = KeyFile::parse(vector.before.as_bytes());
        let change = match vector.op.as_str() {
            "insert" => file.insert(&key(&vector.key)),
            "remove" => file.remove(&key(&vector.key)),
            other => panic!("unknown operation {other}"),
        };
        assert_eq!(String::from_utf8_lossy(&file.to_bytes()), vector.after, "{}", vector.name);
        assert_eq!(change == Change::Changed, vector.changed, "{}", vector.name);
    }
}

#[test]
fn lists_our_lines_apart_from_foreign_ones() {
    let ours = some_key();
    let mut file = KeyFile::parse(b"");
    file.insert(&ours);
    let line = file.keys().next().expect("one line");
    assert!(line.ours && line.options.is_empty());
    assert_eq!(line.key.to_string(), ours.to_string(), "the mark is no comment");
    let unmarked = KeyFile::parse(format!("no-pty {}\n", ours.without_comment()).as_bytes());
    let line = unmarked.keys().next().expect("one line");
    assert!(line.options == "no-pty" && !line.ours);
    let odd =
        format!("from=\"a b\" {}\0\n", ours.without_comment().replacen("AAAA", "AA\u{c}AA", 1));
    let line = KeyFile::parse(odd.as_bytes()).keys().next().expect("one line");
    assert!(line.key == ours && line.options == "from=\"a b\"");
}

#[test]
fn a_key_is_removed_however_it_is_spelled() {
    let key = some_key();
    let odd = key.without_comment().replacen("AAAA", "AA\u{c}AA", 1);
    let mut file = KeyFile::parse(format!("# mine\n{odd}\0\n").as_bytes());
    assert_eq!(file.remove(&key), Change::Changed);
    assert_eq!(file.to_bytes(), b"# mine\n");
}

#[test]
fn bytes_that_are_no_utf_8_survive() {
    let foreign = b"# caf\xe9\r\nssh-rsa \xff\xfe\x00 x\n\xc3".to_vec();
    let mut file = KeyFile::parse(&foreign);
    assert_eq!(file.insert(&some_key()), Change::Changed);
    assert!(file.to_bytes().starts_with(&foreign));
    assert_eq!(file.remove(&some_key()), Change::Changed);
    let mut ended = foreign;
    ended.push(b'\n');
    assert_eq!(file.to_bytes(), ended);
}

proptest! {
    #[test]
    fn foreign_text_survives_byte_for_byte(
        text in proptest::collection::vec(
            prop_oneof![3 => any::<u8>(), 1 => Just(b'\n'), 1 => Just(b'"'), 1 => Just(b' ')], 0..300)
    ) {
        let mut file = KeyFile::parse(&text);
        prop_assert_eq!(file.to_bytes(), text.clone());
        prop_assert_eq!(file.remove(&some_key()), Change::Unchanged);
        prop_assert_eq!(file.insert(&some_key()), Change::Changed);
        prop_assert_eq!(file.insert(&some_key()), Change::Unchanged);
        prop_assert!(file.to_bytes().starts_with(&text));
        prop_assert_eq!(file.remove(&some_key()), Change::Changed);
        let left = file.to_bytes();
        prop_assert!(left == text || left == [&text[..], b"\n"].concat());
    }
}
