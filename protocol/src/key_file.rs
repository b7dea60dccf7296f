//! The text of an `authorized_keys` file: find, insert and remove keys, keep all else.
//!
//! Works on bytes, because foreign lines need not be UTF-8. Every line that is not touched stays
//! byte for byte as it was, line endings included. This file must not know paths or owners.

mod lenient;
mod ours;

pub use self::ours::{KeyEdit, KeyLineSpec};
use crate::{KeyOptions, KeyOptionsError, KeyPolicy, PublicKey};

/// The last word of the lines that bastio wrote.
const MARK: &str = "bastio:managed";

/// An `authorized_keys` file in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyFile {
    /// Lines, each with its line ending; only the last may lack one.
    lines: Vec<Vec<u8>>,
}

/// What an edit did to the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The text is another one now.
    Changed,
    /// The text was so already.
    Unchanged,
}

/// A line that gives access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyLine {
    /// The key.
    pub key: PublicKey,
    /// Whether bastio wrote the line.
    pub ours: bool,
    /// The options in front of the key as they stand, whoever wrote them; what is no UTF-8 is
    /// replaced. Empty when there are none.
    pub options: String,
}

impl KeyFile {
    /// Reads the text of a file.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        Self { lines: text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect() }
    }

    /// The text as it has to be written.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.lines.concat()
    }

    /// Adds a line of ours for `key`, unless some line gives access to that key already. A
    /// missing newline at the end of the file is added first.
    pub fn insert(&mut self, key: &PublicKey) -> Change {
        // Where the two readings differ, sshd may not take the line.
        let gives_access = |line: &Vec<u8>| {
            usual_key(line).is_some_and(|found| found == *key)
                && lenient::key_of(line).is_some_and(|found| found == *key)
        };
        if self.lines.iter().any(gives_access) {
            return Change::Unchanged;
        }
        self.append(&KeyLineSpec::plain(key.clone()));
        Change::Changed
    }

    /// Removes every line that gives access to `key`, whoever wrote it, whatever comment or
    /// options it has, and however it is spelled: the order to revoke a key is about the key.
    /// Comment lines stay.
    pub fn remove(&mut self, key: &PublicKey) -> Change {
        let before = self.lines.len();
        self.lines.retain(|line| lenient::key_of(line).is_none_or(|found| found != *key));
        if self.lines.len() == before { Change::Unchanged } else { Change::Changed }
    }

    /// The lines that give access, in their order, however they are spelled.
    pub fn keys(&self) -> impl Iterator<Item = KeyLine> {
        self.lines.iter().filter_map(|line| lenient::read(line))
    }

    /// Whether that is one line of others that gives access, without its newline.
    #[must_use]
    pub fn is_key_line(line: &str) -> bool {
        let read = lenient::read(line.as_bytes());
        !line.contains(['\n', '\r', '\0']) && read.is_some_and(|read| !read.ours)
    }

    /// Adds a line of others as it stands, unless some line gives access to its key already.
    pub fn put_back(&mut self, line: &str) -> Change {
        let Some(key) = lenient::key_of(line.as_bytes()).filter(|_| Self::is_key_line(line)) else {
            return Change::Unchanged;
        };
        if self.keys().any(|found| found.key == key) {
            return Change::Unchanged;
        }
        self.end_last_line();
        self.lines.push(format!("{line}\n").into_bytes());
        Change::Changed
    }

    fn end_last_line(&mut self) {
        if let Some(last) = self.lines.last_mut()
            && !last.ends_with(b"\n")
        {
            last.push(b'\n');
        }
    }

    fn append(&mut self, spec: &KeyLineSpec) {
        self.end_last_line();
        self.lines.push(spec.to_line());
    }
}

impl KeyLine {
    /// The line as bastio would write it.
    ///
    /// # Errors
    /// [`KeyOptionsError`] when its options are none that bastio writes.
    pub fn spec(&self) -> Result<KeyLineSpec, KeyOptionsError> {
        let (options, expiry) = KeyOptions::with_expiry(&self.options)?;
        Ok(KeyLineSpec { key: self.key.clone(), options, expiry })
    }
}

/// The key of a line as OpenSSH's own tools write it: blank lines and comments aside, a key
/// stands first or behind one word of options. `None` when it is written otherwise.
fn usual_key(line: &[u8]) -> Option<PublicKey> {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    if text.is_empty() || text.starts_with('#') {
        return None;
    }
    let behind = || text.get(options_len(text.as_bytes())..);
    parse_key(text).or_else(|| parse_key(behind()?.trim_start()))
}

/// Reads `TYPE BASE64`, whatever may stand behind it.
fn parse_key(text: &str) -> Option<PublicKey> {
    let mut words = text.split_ascii_whitespace();
    let line = format!("{} {}", words.next()?, words.next()?);
    PublicKey::parse(&line, &KeyPolicy::ANY).ok()
}

/// Whether the mark is the last word.
fn is_ours(line: &[u8]) -> bool {
    let last = line.split(u8::is_ascii_whitespace).rfind(|word| !word.is_empty());
    last == Some(MARK.as_bytes())
}

/// Length in bytes of the options at the front: up to the first blank outside double quotes, in
/// which `\"` stands for a quote (sshd(8)), even behind another backslash.
pub(crate) fn options_len(text: &[u8]) -> usize {
    let mut quoted = false;
    let mut before = 0;
    for (index, byte) in text.iter().enumerate() {
        match byte {
            b' ' | b'\t' if !quoted => return index,
            b'"' if before != b'\\' => quoted = !quoted,
            _ => {}
        }
        before = *byte;
    }
    text.len()
}

#[cfg(test)]
mod tests;
