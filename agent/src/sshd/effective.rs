//! What `sshd -T` prints: one setting a line, its name in small letters, then its value.
//!
//! This file must not know where the text came from.

use std::collections::BTreeMap;

use super::pattern::Pattern;

/// The settings that people ask about when they ask who may log in and how.
const TOLD: [&str; 24] = [
    "port",
    "listenaddress",
    "authorizedkeysfile",
    "authorizedkeyscommand",
    "authorizedkeyscommanduser",
    "authorizedprincipalsfile",
    "trustedusercakeys",
    "revokedkeys",
    "authenticationmethods",
    "passwordauthentication",
    "kbdinteractiveauthentication",
    "pubkeyauthentication",
    "hostbasedauthentication",
    "permitemptypasswords",
    "permitrootlogin",
    "usepam",
    "strictmodes",
    "allowusers",
    "allowgroups",
    "denyusers",
    "denygroups",
    "maxauthtries",
    "forcecommand",
    "permituserenvironment",
];

/// Effective settings of an sshd.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effective(BTreeMap<String, Vec<String>>);

impl Effective {
    /// Reads the text; `None` when it is not what `sshd -T` prints.
    pub fn parse(text: &str) -> Option<Self> {
        let mut settings: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(' ').unwrap_or((line, ""));
            settings.entry(name.to_ascii_lowercase()).or_default().push(value.trim().to_owned());
        }
        settings.contains_key("authorizedkeysfile").then_some(Self(settings))
    }

    /// The first value of a setting; `none` counts as none.
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name)?.first()?.as_str();
        (!value.is_empty() && value != "none").then_some(value)
    }

    /// All values of a setting that may stand several times.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }

    /// Whether a setting is `yes`, or is one that this sshd does not have.
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name).is_none_or(|value| value == "yes")
    }

    /// `AuthorizedKeysFile`: the files, none for `none`.
    pub fn key_files(&self) -> Vec<Pattern> {
        let files = self.get("authorizedkeysfile").unwrap_or_default();
        files.split_ascii_whitespace().filter(|it| *it != "none").map(Pattern::new).collect()
    }

    /// What people ask about, several values joined by commas.
    pub fn report(&self) -> BTreeMap<String, String> {
        let told = TOLD.into_iter().filter_map(|name| {
            let values: Vec<&str> = self.all(name).collect();
            (!values.is_empty()).then(|| (name.to_owned(), values.join(", ")))
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAMPLES: [&str; 3] = [
        include_str!("samples/bullseye.txt"),
        include_str!("samples/bookworm.txt"),
        include_str!("samples/trixie.txt"),
    ];

    #[test]
    fn the_output_of_three_debians_is_read() {
        for text in SAMPLES {
            let effective = Effective::parse(text).unwrap();
            let files: Vec<String> =
                effective.key_files().iter().map(ToString::to_string).collect();
            assert_eq!(files, [".ssh/authorized_keys", ".ssh/authorized_keys2"]);
            assert_eq!(effective.get("authorizedkeyscommand"), None);
            assert!(effective.is_on("strictmodes") && effective.is_on("pubkeyauthentication"));
            let addresses: Vec<&str> = effective.all("listenaddress").collect();
            assert_eq!(addresses, ["[::]:22", "0.0.0.0:22"]);
            let report = effective.report();
            for (name, value) in [
                ("port", "22"),
                ("permitrootlogin", "without-password"),
                ("usepam", "yes"),
                ("maxauthtries", "6"),
                ("authorizedkeyscommand", "none"),
                ("listenaddress", "[::]:22, 0.0.0.0:22"),
            ] {
                assert_eq!(report[name], value);
            }
        }
    }

    #[test]
    fn none_is_no_file_and_lists_are_kept() {
        let text = "allowusers a\nallowusers b@10.0.0.1\nauthorizedkeysfile none\nStrictModes no\n";
        let effective = Effective::parse(text).unwrap();
        assert_eq!(effective.key_files(), []);
        assert!(!effective.is_on("strictmodes"));
        assert_eq!(effective.report()["allowusers"], "a, b@10.0.0.1");
        assert_eq!(Effective::parse("Missing privilege separation directory"), None);
        assert_eq!(Effective::parse(""), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm(text in "(?s).{0,400}") {
            if let Some(effective) = Effective::parse(&text) {
                let _ = (effective.report(), effective.key_files());
            }
        }
    }
}
