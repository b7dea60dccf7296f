//! Whose an account may be that was found on a server: by a key that logs in to it, by its name, by the
//! mail address behind a key.
//!
//! Pure. What is found here is a proposal: nothing is taken over by it.

use std::collections::{BTreeMap, BTreeSet};

use bastio_protocol::api::{Match, MatchRule};
use bastio_protocol::{FoundUser, Username};

/// Somebody whose account it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Name.
    pub name: Username,
    /// Mail address; may be empty.
    pub mail: String,
    /// Fingerprints of the keys.
    pub keys: BTreeSet<String>,
}

/// The people by what an account is found by.
#[derive(Debug, Default)]
pub struct People<'a> {
    by_name: BTreeMap<&'a str, &'a Username>,
    by_mail: BTreeMap<String, Vec<&'a Username>>,
    by_key: BTreeMap<&'a str, Vec<&'a Username>>,
}

impl<'a> People<'a> {
    /// All of them.
    #[must_use]
    pub fn new(people: &'a [Person]) -> Self {
        let mut found = Self::default();
        for person in people {
            found.by_name.insert(person.name.as_str(), &person.name);
            if person.mail.contains('@') {
                let mail = person.mail.to_ascii_lowercase();
                found.by_mail.entry(mail).or_default().push(&person.name);
            }
            for key in &person.keys {
                found.by_key.entry(key).or_default().push(&person.name);
            }
        }
        found
    }

    /// Whose it may be, those with more and better reasons first.
    #[must_use]
    pub fn matches(&self, account: &FoundUser) -> Vec<Match> {
        let mut rules = BTreeMap::<&Username, BTreeSet<MatchRule>>::new();
        let mut note = |names: Option<&Vec<&'a Username>>, rule| {
            for name in names.into_iter().flatten() {
                rules.entry(name).or_default().insert(rule);
            }
        };
        for key in &account.keys {
            note(self.by_key.get(key.fingerprint.as_str()), MatchRule::Key);
            let mail = key.comment.trim().to_ascii_lowercase();
            note(self.by_mail.get(&mail), MatchRule::Mail);
        }
        if let Some(name) = self.by_name.get(account.name.as_str()) {
            rules.entry(name).or_default().insert(MatchRule::Login);
        }
        let matches = rules.into_iter();
        let mut matches: Vec<Match> = matches
            .map(|(user, by)| Match { user: user.clone(), by: by.into_iter().collect() })
            .collect();
        matches.sort_by_key(|it| (std::cmp::Reverse(it.by.len()), it.by.first().copied()));
        matches
    }
}

#[cfg(test)]
mod tests {
    use bastio_protocol::FoundKey;

    use super::*;

    fn person(name: &str, mail: &str, keys: &[&str]) -> Person {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        Person { name: Username::parse(name).unwrap(), mail: mail.to_owned(), keys }
    }

    fn account(name: &str, keys: &[(&str, &str)]) -> FoundUser {
        let key = |(fingerprint, comment): &(&str, &str)| FoundKey {
            fingerprint: (*fingerprint).to_owned(),
            algorithm: "ssh-ed25519".to_owned(),
            managed: false,
            options: String::new(),
            comment: (*comment).to_owned(),
            file: String::new(),
        };
        let (home, shell, comment) = (String::new(), String::new(), String::new());
        FoundUser {
            name: name.to_owned(),
            uid: 1001,
            gid: 1001,
            home,
            shell,
            comment,
            managed: false,
            locked: false,
            keys: keys.iter().map(key).collect(),
            keys_unreadable: None,
        }
    }

    #[test]
    fn an_account_is_found_by_key_name_and_mail() {
        let people = [
            person("ann", "Ann@example.org", &["SHA256:a", "SHA256:s"]),
            person("bob", "", &["SHA256:b", "SHA256:s"]),
            person("eve", "no mail", &[]),
        ];
        let people = People::new(&people);
        for (found, expected) in [
            (account("ann", &[]), "ann Login"),
            (account("ops", &[("SHA256:a", "")]), "ann Key"),
            (account("ops", &[("SHA256:x", "ann@example.org ")]), "ann Mail"),
            (account("bob", &[("SHA256:a", ""), ("SHA256:b", "")]), "bob Key Login, ann Key"),
            (account("x", &[("SHA256:s", "")]), "ann Key, bob Key"),
            (account("x", &[("SHA256:x", "no mail"), ("SHA256:y", "")]), ""),
            (account("ann", &[("SHA256:b", "ann@example.org")]), "ann Login Mail, bob Key"),
        ] {
            let matches = people.matches(&found).into_iter().map(|it| {
                let rules = it.by.iter().map(|rule| format!(" {rule:?}"));
                format!("{}{}", it.user, rules.collect::<String>())
            });
            assert_eq!(matches.collect::<Vec<_>>().join(", "), expected, "{found:?}");
        }
    }
}
