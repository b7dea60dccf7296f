//! Finds the key of a line in every spelling that sshd takes, so that a key which was taken out
//! opens nothing any more.
//!
//! OpenSSH reads far more than it writes: white space inside the base64, names of signatures as
//! names of keys, short names and needless zeros inside the blob; and behind a NUL it reads
//! nothing. What is read here and not by sshd gives no access, so nothing is lost by removing it.
//! Source: OpenSSH's `sshkey_read`, `sshkey_fromb` and `b64_pton`, tried with version 9.2. This
//! file must not know files or edits.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{KeyLine, MARK, is_ours, options_len};
use crate::ssh_blob::{BlobReader, write_string};
use crate::{Algorithm, KeyPolicy, PublicKey};

/// Names of signatures that sshd takes for names of keys.
const SIGNATURES: [(&str, Algorithm); 3] = [
    ("rsa-sha2-256", Algorithm::Rsa),
    ("rsa-sha2-512", Algorithm::Rsa),
    ("webauthn-sk-ecdsa-sha2-nistp256@openssh.com", Algorithm::SkEcdsaP256),
];

/// The key that a line may give access to.
pub(super) fn key_of(line: &[u8]) -> Option<PublicKey> {
    read(line).map(|line| line.key)
}

/// The line, if it may give access to a key.
pub(super) fn read(line: &[u8]) -> Option<KeyLine> {
    let ours = is_ours(line);
    let text = skip_blanks(line.split(|byte| *byte == 0).next()?);
    if text.starts_with(b"#") {
        return None;
    }
    if let Some(key) = read_key(text) {
        return Some(KeyLine { key, ours, options: String::new() });
    }
    let (options, rest) = text.split_at_checked(options_len(text))?;
    let key = read_key(skip_blanks(rest))?;
    Some(KeyLine { key, ours, options: String::from_utf8_lossy(options).into_owned() })
}

/// Reads `TYPE BASE64 COMMENT`. The mark is no part of the comment.
fn read_key(text: &[u8]) -> Option<PublicKey> {
    let (name, rest) = split_word(text);
    let algorithm = algorithm(std::str::from_utf8(name).ok()?)?;
    let (encoded, comment) = split_word(skip_blanks(rest));
    let encoded: Vec<u8> = encoded.iter().copied().filter(|byte| !is_space(*byte)).collect();
    let blob = one_spelling(algorithm, &STANDARD.decode(encoded).ok()?)?;
    let line = format!("{} {}", algorithm.name(), STANDARD.encode(blob));
    let comment = String::from_utf8_lossy(comment);
    let comment = comment.trim_ascii();
    let unmarked = comment.strip_suffix(MARK).filter(|rest| rest.is_empty() || rest.ends_with(' '));
    let comment = unmarked.unwrap_or(comment);
    let whole = PublicKey::parse(&format!("{line} {comment}"), &KeyPolicy::ANY);
    whole.or_else(|_| PublicKey::parse(&line, &KeyPolicy::ANY)).ok()
}

fn algorithm(name: &str) -> Option<Algorithm> {
    let signature = SIGNATURES.iter().find(|(signature, _)| *signature == name);
    signature.map(|(_, algorithm)| *algorithm).or_else(|| Algorithm::from_name(name))
}

/// The blob as OpenSSH itself would write it.
fn one_spelling(algorithm: Algorithm, blob: &[u8]) -> Option<Vec<u8>> {
    let mut fields = BlobReader::new(blob);
    fields.string()?;
    let mut spelled = Vec::with_capacity(blob.len());
    write_string(&mut spelled, algorithm.name().as_bytes());
    while !fields.is_empty() {
        let field = fields.string()?;
        if algorithm == Algorithm::Rsa {
            write_string(&mut spelled, &positive(field));
        } else {
            write_string(&mut spelled, field);
        }
    }
    Some(spelled)
}

/// A number with as many leading zeros as it needs.
fn positive(field: &[u8]) -> Vec<u8> {
    let zeros = field.iter().take_while(|byte| **byte == 0).count();
    let digits = field.get(zeros..).unwrap_or_default();
    let sign: &[u8] = if digits.first().is_some_and(|byte| *byte >= 0x80) { &[0] } else { &[] };
    [sign, digits].concat()
}

fn split_word(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|byte| is_blank(*byte)).unwrap_or(text.len()))
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| is_blank(**byte)).count();
    text.get(blanks..).unwrap_or_default()
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// As isspace(3) in the C locale.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

    fn ed25519() -> PublicKey {
        PublicKey::parse(&format!("ssh-ed25519 {ED25519}"), &KeyPolicy::ANY).expect("a key")
    }

    fn blob(fields: &[&[u8]]) -> String {
        let mut blob = Vec::new();
        fields.iter().for_each(|field| write_string(&mut blob, field));
        STANDARD.encode(blob)
    }

    #[test]
    fn every_spelling_of_a_line_that_sshd_takes_is_found() {
        let (head, tail) = ED25519.split_at(20);
        for line in [
            format!("ssh-ed25519 {ED25519}\n"),
            format!(" \tssh-ed25519 \t{ED25519}"),
            format!("ssh-ed25519 {ED25519}\0junk\n"),
            format!("ssh-ed25519 {head}\u{b}{tail}\n"),
            format!("ssh-ed25519 {head}\u{c}{tail}\n"),
            format!("ssh-ed25519 {head}\r{tail}\r\n"),
            format!("ssh-ed25519 \u{c}{ED25519}\u{c}\n"),
            format!("no-pty\tssh-ed25519\t{ED25519}\n"),
            format!("environment=\"A=a\\\" b\" ssh-ed25519 {ED25519}\n"),
            format!("environment=\"A=a\\\\\" b\" ssh-ed25519 {ED25519}\n"),
            format!("ssh-ed25519 {ED25519} \u{1}\u{1b}[2J {}\n", "c".repeat(20_000)),
        ] {
            assert_eq!(key_of(line.as_bytes()), Some(ed25519()), "{line:?}");
        }
    }

    #[test]
    fn every_spelling_of_a_blob_that_sshd_takes_is_found() {
        let (e, n): (&[u8], &[u8]) = (&[1, 0, 1], &[0, 0x80, 1, 2, 3]);
        let plain = blob(&[b"ssh-rsa", e, n]);
        let key = PublicKey::parse(&format!("ssh-rsa {plain}"), &KeyPolicy::ANY).expect("a key");
        for line in [
            format!("rsa-sha2-256 {plain}"),
            format!("rsa-sha2-512 {plain}"),
            format!("ssh-rsa {}", blob(&[b"ssh-rsa", &[0, 1, 0, 1], n])),
            format!("ssh-rsa {}", blob(&[b"ssh-rsa", e, &[0, 0, 0x80, 1, 2, 3]])),
            format!("ssh-rsa {}", blob(&[b"rsa-sha2-256", e, n])),
            format!("ssh-rsa {}", blob(&[b"RSA", e, n])),
        ] {
            assert_eq!(key_of(line.as_bytes()), Some(key.clone()), "{line}");
        }
        let short = blob(&[b"ED25519", ed25519().blob().get(19..).unwrap_or_default()]);
        assert_eq!(key_of(format!("ssh-ed25519 {short}").as_bytes()), Some(ed25519()));
    }

    #[test]
    fn what_gives_no_access_is_no_key() {
        for line in [
            format!("#ssh-ed25519 {ED25519}"),
            format!("  # ssh-ed25519 {ED25519}"),
            format!("\0ssh-ed25519 {ED25519}"),
            format!("ED25519 {ED25519}"),
            format!("no-pty no-pty ssh-ed25519 {ED25519}"),
            format!("command=\"echo ssh-ed25519 {ED25519}"),
            format!("ssh-ed25519 {ED25519}\u{1}"),
            "ssh-ed25519".to_owned(),
            format!("ssh-rsa {}", blob(&[b"ssh-rsa", b"", b""])),
            String::new(),
        ] {
            assert_eq!(key_of(line.as_bytes()), None, "{line:?}");
        }
    }
}
