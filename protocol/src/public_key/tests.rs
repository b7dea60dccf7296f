//! Keys against docs/vectors/public_keys.json; fingerprints there are ssh-keygen's.

use super::*;

#[derive(Deserialize)]
struct Vector {
    name: String,
    line: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    fingerprint: Option<String>,
    comment: Option<String>,
    error: Option<String>,
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("../../../docs/vectors/public_keys.json"))
        .expect("the vectors are valid JSON")
}

fn variant(error: &PublicKeyError) -> &'static str {
    match error {
        PublicKeyError::NotAKeyLine => "not-a-key-line",
        PublicKeyError::PrivateKey => "private-key",
        PublicKeyError::ControlCharacter(_) => "control-character",
        PublicKeyError::CommentTooLong => "comment-too-long",
        PublicKeyError::Certificate(_) => "certificate",
        PublicKeyError::UnknownType(_) => "unknown-type",
        PublicKeyError::NotBase64 => "not-base64",
        PublicKeyError::TypeMismatch { .. } => "type-mismatch",
        PublicKeyError::Damaged => "damaged",
        PublicKeyError::TooSmall { .. } => "too-small",
    }
}

#[test]
fn vectors_are_read_as_they_say() {
    for vector in vectors() {
        let name = &vector.name;
        match PublicKey::parse(&vector.line, &KeyPolicy::default()) {
            Err(error) => assert_eq!(Some(variant(&error)), vector.error.as_deref(), "{name}"),
            Ok(key) => {
                assert_eq!(vector.error, None, "{name}");
                assert_eq!(Some(key.algorithm().name()), vector.kind.as_deref(), "{name}");
                assert_eq!(Some(key.fingerprint()), vector.fingerprint, "{name}");
                assert_eq!(Some(key.comment()), vector.comment.as_deref(), "{name}");
                let again = PublicKey::parse(&key.to_string(), &KeyPolicy::default());
                assert_eq!(again.as_ref(), Ok(&key), "{name}");
            }
        }
    }
}

#[test]
fn equal_is_the_key_not_the_comment() {
    let vectors = vectors();
    let key = |name: &str| {
        let vector = vectors.iter().find(|vector| vector.name == name).expect(name);
        PublicKey::parse(&vector.line, &KeyPolicy::default()).expect(name)
    };
    assert_eq!(key("ed25519"), key("ed25519 with a comment"));
    assert_ne!(key("rsa of 2048 bits"), key("rsa of 3072 bits"));
}

#[test]
fn any_well_formed_key_can_be_named_for_removal() {
    let vectors = vectors();
    let small = vectors.iter().find(|vector| vector.name == "rsa of 1024 bits").expect("a vector");
    assert!(PublicKey::parse(&small.line, &KeyPolicy::ANY).is_ok());
}

#[test]
fn debug_shows_the_fingerprint_and_not_the_line() {
    let vector = &vectors()[0];
    let key = PublicKey::parse(&vector.line, &KeyPolicy::default()).expect("a key");
    assert_eq!(format!("{key:?}"), format!("PublicKey(ssh-ed25519 {})", key.fingerprint()));
}
