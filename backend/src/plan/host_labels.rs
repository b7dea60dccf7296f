//! Labels that say what a server's agent has told about it: `host/os=debian`.
//!
//! Pure. They are the server's own claim: whoever owns a server can let it be called anything.

use std::collections::BTreeMap;

use bastio_protocol::api::Labels;

/// What the names of these labels begin with. Operators set no others that begin so.
const PREFIX: &str = "host/";
/// Longest value, in bytes.
const MAX_VALUE: usize = 63;
/// The facts that become labels, with the labels' names behind the prefix.
const KNOWN: [(&str, &str); 8] = [
    ("hostname", "name"),
    ("os_id", "os"),
    ("os_version", "os-version"),
    ("arch", "arch"),
    ("kernel", "kernel"),
    ("agent_version", "agent"),
    ("sshd_version", "sshd"),
    ("sudo_version", "sudo"),
];

/// The labels that follow from facts.
#[must_use]
pub fn host_labels(facts: &BTreeMap<String, String>) -> Labels {
    let label = |(fact, name): (&str, &str)| {
        let value = clean(facts.get(fact)?);
        (!value.is_empty()).then(|| (format!("{PREFIX}{name}"), value))
    };
    KNOWN.into_iter().filter_map(label).collect()
}

/// Whether a label of that name is not an operator's to set.
#[must_use]
pub fn is_host_label(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Letters, digits, `.`, `_`, `/`, and one `-` for everything between them.
fn clean(value: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._/".contains(c);
    let words = value.split(|c| !fits(c)).filter(|word| !word.is_empty());
    let mut clean = words.collect::<Vec<_>>().join("-");
    // All of it is ASCII.
    clean.truncate(MAX_VALUE);
    clean.truncate(clean.trim_end_matches('-').len());
    clean
}

#[cfg(test)]
mod tests {
    use bastio_protocol::parse_label;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn facts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn facts_become_labels() {
        let told = facts(&[
            ("os", "Debian GNU/Linux 12 (bookworm)"),
            ("os_id", "debian"),
            ("os_version", "12"),
            ("kernel", "Linux 6.1.0-18-amd64"),
            ("sshd_version", "OpenSSH_9.2p1 Debian-2+deb12u3"),
            ("agent_version", " "),
            ("machine_id", "abc"),
        ]);
        let expected = facts(&[
            ("host/kernel", "Linux-6.1.0-18-amd64"),
            ("host/os", "debian"),
            ("host/os-version", "12"),
            ("host/sshd", "OpenSSH_9.2p1-Debian-2-deb12u3"),
        ]);
        assert_eq!(host_labels(&told), expected);
        assert_eq!(host_labels(&BTreeMap::new()), Labels::new());
    }

    proptest! {
        #[test]
        fn whatever_is_told_is_a_label_or_nothing(value in any::<String>()) {
            for (name, value) in host_labels(&facts(&[("os_id", &value)])) {
                prop_assert!(is_host_label(&name) && value.len() <= MAX_VALUE);
                let parsed = parse_label(&format!("{name}={value}")).expect("a label");
                prop_assert_eq!(parsed, (name, value));
            }
        }
    }
}
