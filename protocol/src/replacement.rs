//! What the holder of an agent's key signs: to put another key in its place, and to name the key that signs the
//! server's receipts. Pure text; this file must not know how a signature is made.

use crate::VerifyingKey;

/// Namespace of the signature (PROTOCOL.sshsig): it is good for nothing else.
pub const REPLACE_NAMESPACE: &str = "bastio-replace-key";

/// The bytes to be signed: both keys as lines of two words, type and base64, each with its newline.
/// They name both keys, so a signature that was overheard puts no third key in place.
#[must_use]
pub fn replacement_text(old_key: &str, new_key: &str) -> String {
    format!("{old_key}\n{new_key}\n")
}

/// Namespace of the signature that names the receipt key.
pub const RECEIPT_NAMESPACE: &str = "bastio-receipt-key";

/// The bytes to be signed: the agent's key as a line of two words, and the receipt key as base64, each with its newline.
#[must_use]
pub fn receipt_key_text(agent_key: &str, receipt_key: &VerifyingKey) -> String {
    format!("{agent_key}\n{receipt_key}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_both_lines() {
        assert_eq!(
            replacement_text("ssh-rsa AAAA", "ssh-ed25519 BBBB"),
            "ssh-rsa AAAA\nssh-ed25519 BBBB\n"
        );
        let key = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
        assert_eq!(
            receipt_key_text("ssh-rsa AAAA", &key.parse().expect("a key")),
            format!("ssh-rsa AAAA\n{key}\n")
        );
    }
}
