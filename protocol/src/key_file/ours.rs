//! The lines of ours in a file: all of them at once, with options and an end.
//!
//! This file must not know paths, owners, or which keys an account should have.

use std::collections::BTreeMap;
use std::fmt;

use super::{KeyFile, KeyLine, MARK, lenient};
use crate::key_options::quote;
use crate::{KeyExpiry, KeyOptions, PublicKey};

/// A line as bastio writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyLineSpec {
    /// The key, with its comment.
    pub key: PublicKey,
    /// What it may be used for.
    pub options: KeyOptions,
    /// Until when sshd takes it.
    pub expiry: Option<KeyExpiry>,
}

/// Which keys an edit was about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyEdit {
    /// Log in now and did not before.
    pub added: Vec<PublicKey>,
    /// Logged in before, with other options or another end, or more often than once.
    pub changed: Vec<PublicKey>,
    /// Log in no more.
    pub removed: Vec<PublicKey>,
}

impl KeyEdit {
    /// Whether the text is as it was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl KeyLineSpec {
    /// A line without options and end.
    #[must_use]
    pub fn plain(key: PublicKey) -> Self {
        Self { key, options: KeyOptions::default(), expiry: None }
    }

    fn is_plain(&self) -> bool {
        self.options.is_empty() && self.expiry.is_none()
    }

    /// Its bytes, with the newline.
    pub(super) fn to_line(&self) -> Vec<u8> {
        format!("{self} {MARK}\n").into_bytes()
    }

    /// Whether that line of ours says the same. The comment does not count: it gives no access.
    fn is_said_by(&self, line: &KeyLine) -> bool {
        line.ours && line.spec().is_ok_and(|spec| spec == *self)
    }
}

impl fmt::Display for KeyLineSpec {
    /// Options, end, key and comment; without the mark.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expiry = self.expiry.as_ref().map(|expiry| quote("expiry-time", expiry.as_str()));
        let options = (!self.options.is_empty()).then(|| self.options.to_string());
        let words: Vec<String> = options.into_iter().chain(expiry).collect();
        if !words.is_empty() {
            write!(f, "{} ", words.join(","))?;
        }
        write!(f, "{}", self.key)
    }
}

/// What becomes of a line.
enum Fate {
    Stays,
    Goes,
    Becomes(Vec<u8>),
}

impl KeyFile {
    /// Makes the lines of ours exactly these; of several for one key the first counts.
    ///
    /// Lines of others stay byte for byte, but for those of a key that is given or taken here:
    /// - a wanted key that stands on lines of others only: they stay as its lines when it is wanted
    ///   without options and end and all of them have none either. Else ours takes their place,
    ///   since they would give more than is wanted, or less;
    /// - a key that had a line of ours and is not wanted any more: all its lines go, as
    ///   [`KeyFile::remove`] has it.
    pub fn set_ours(&mut self, wanted: &[KeyLineSpec]) -> KeyEdit {
        let mut missing = BTreeMap::new();
        for spec in wanted {
            missing.entry(&spec.key).or_insert(spec);
        }
        let mut edit = KeyEdit::default();
        let mut fates: Vec<Fate> = self.lines.iter().map(|_| Fate::Stays).collect();
        for (key, lines) in self.lines_of_each_key() {
            let edited = match missing.remove(&key) {
                Some(spec) => settle(spec, &lines, &mut fates).then_some(&mut edit.changed),
                None if lines.iter().any(|(_, line)| line.ours) => {
                    lines.iter().for_each(|(index, _)| set(&mut fates, *index, Fate::Goes));
                    Some(&mut edit.removed)
                }
                None => None,
            };
            edited.into_iter().for_each(|keys| keys.push(key.clone()));
        }
        self.apply(fates);
        for spec in wanted.iter().filter(|spec| missing.remove(&spec.key).is_some()) {
            self.append(spec);
            edit.added.push(spec.key.clone());
        }
        edit
    }

    /// The lines that may give access, by key, each with its place.
    fn lines_of_each_key(&self) -> BTreeMap<PublicKey, Vec<(usize, KeyLine)>> {
        let mut lines: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (index, text) in self.lines.iter().enumerate() {
            if let Some(line) = lenient::read(text) {
                lines.entry(line.key.clone()).or_default().push((index, line));
            }
        }
        lines
    }

    fn apply(&mut self, fates: Vec<Fate>) {
        let lines = std::mem::take(&mut self.lines).into_iter().zip(fates);
        self.lines = lines
            .filter_map(|(line, fate)| match fate {
                Fate::Stays => Some(line),
                Fate::Goes => None,
                Fate::Becomes(line) => Some(line),
            })
            .collect();
    }
}

/// Decides over the lines of one wanted key; whether any of them changes.
fn settle(spec: &KeyLineSpec, lines: &[(usize, KeyLine)], fates: &mut [Fate]) -> bool {
    let is_free = |line: &KeyLine| line.options.is_empty();
    let others_may_stay =
        spec.is_plain() && lines.iter().all(|(_, line)| line.ours || is_free(line));
    let has_others = lines.iter().any(|(_, line)| !line.ours);
    let good = lines.iter().find(|(_, line)| spec.is_said_by(line)).map(|(index, _)| *index);
    // Where a line of others says it, no line of ours has to.
    let place = match good {
        Some(index) => Some(index),
        None if others_may_stay && has_others => None,
        None => lines.first().map(|(index, _)| *index),
    };
    let mut changed = false;
    for (index, line) in lines {
        let fate = match place {
            Some(place) if place == *index && good.is_some() => continue,
            Some(place) if place == *index => Fate::Becomes(spec.to_line()),
            _ if !line.ours && others_may_stay => continue,
            _ => Fate::Goes,
        };
        changed = true;
        set(fates, *index, fate);
    }
    changed
}

fn set(fates: &mut [Fate], index: usize, fate: Fate) {
    if let Some(place) = fates.get_mut(index) {
        *place = fate;
    }
}

#[cfg(test)]
mod tests;
