//! The options in front of a key, as sshd(8) defines them under AUTHORIZED_KEYS FILE FORMAT.
//!
//! Closed: what is not understood here is refused, and so is what sshd would read otherwise than it
//! looks (a name given twice, `restrict` behind what it takes back). What is taken has one spelling.
//! This file must not know the key behind the options, nor which sshd understands which of them.

mod expiry;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::expiry::KeyExpiry;
use crate::PublicKey;

/// Longest list of options, in bytes of its one spelling. sshd's limit is on the line; with
/// the longest key and comment this stays below the 8 KiB of old versions.
const MAX_LEN: usize = 4096;

/// Options of one key, in one spelling. Nothing by default: the key may do everything.
///
/// Two lists are equal when sshd makes the same of them, as far as that can be told: flags that
/// change nothing are left out, and what has no order is sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyOptions {
    text: String,
    /// Whether an option in it is for keys on a token (`sk-...`) only.
    for_token: bool,
}

/// Why a text is no list of options.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("key options: {reason}")]
pub struct KeyOptionsError {
    reason: String,
}

/// What a connection may do, each with a `no-` in front for the opposite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Flag {
    AgentForwarding,
    PortForwarding,
    Pty,
    UserRc,
    X11Forwarding,
}

/// The list while it is read.
#[derive(Default)]
struct Options {
    restrict: bool,
    flags: BTreeMap<Flag, bool>,
    from: Option<String>,
    command: Option<String>,
    environment: BTreeMap<String, String>,
    permit_open: BTreeSet<String>,
    permit_listen: BTreeSet<String>,
    tunnel: Option<String>,
    no_touch: bool,
    verify: bool,
    expiry: Option<KeyExpiry>,
}

impl KeyOptions {
    /// Parses a list of options: names in any case, values in double quotes with `\"` for a quote.
    ///
    /// # Errors
    /// [`KeyOptionsError`] with the first fault found and what to write instead. `expiry-time`
    /// is refused: the end of a key has a field of its own. So are `cert-authority` and
    /// `principals`: a line with them lets in whomever somebody else signs.
    pub fn parse(text: &str) -> Result<Self, KeyOptionsError> {
        match Self::with_expiry(text)? {
            (options, None) => Ok(options),
            (_, Some(_)) => Err(fault(
                "expiry-time is not given here; say when the key ends (until)".to_owned(),
            )),
        }
    }

    /// Parses what stands in front of a key in a file, where the key's end is one of the options.
    pub(crate) fn with_expiry(text: &str) -> Result<(Self, Option<KeyExpiry>), KeyOptionsError> {
        if let Some(found) = text.chars().find(|c| c.is_control()) {
            return Err(fault(format!("the control character {found:?} in them")));
        }
        let options = Options::parse(text)?;
        let text = options.to_text();
        if text.len() > MAX_LEN {
            return Err(fault(format!("more than {MAX_LEN} bytes")));
        }
        Ok((Self { text, for_token: options.no_touch || options.verify }, options.expiry))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The options as they stand in front of the key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether these options make sense in front of that key.
    ///
    /// # Errors
    /// [`KeyOptionsError`]: sshd would ignore `verify-required` in front of a key that no token holds,
    /// and whoever wrote it believes that it protects.
    pub fn fits(&self, key: &PublicKey) -> Result<(), KeyOptionsError> {
        if !self.for_token || key.algorithm().is_on_token() {
            return Ok(());
        }
        Err(fault(format!(
            "verify-required and no-touch-required mean nothing for a key of type {}; only sk- \
             keys have them",
            key.algorithm().name()
        )))
    }
}

impl Flag {
    const ALL: [Self; 5] =
        [Self::AgentForwarding, Self::PortForwarding, Self::Pty, Self::UserRc, Self::X11Forwarding];

    fn name(self) -> &'static str {
        match self {
            Self::AgentForwarding => "agent-forwarding",
            Self::PortForwarding => "port-forwarding",
            Self::Pty => "pty",
            Self::UserRc => "user-rc",
            Self::X11Forwarding => "X11-forwarding",
        }
    }
}

impl Options {
    fn parse(text: &str) -> Result<Self, KeyOptionsError> {
        let mut options = Self::default();
        let mut rest = text;
        while !rest.is_empty() {
            let (name, value, behind) = split_option(rest)?;
            match value {
                None => options.take_flag(name)?,
                Some(value) => options.take_value(name, value)?,
            }
            rest = match behind.strip_prefix(',') {
                Some("") => return Err(fault("a comma at the end".to_owned())),
                Some(next) => next,
                None if behind.is_empty() => behind,
                None => return Err(fault(format!("a comma is missing behind {name:?}"))),
            };
        }
        Ok(options)
    }

    fn take_flag(&mut self, name: &str) -> Result<(), KeyOptionsError> {
        let lower = name.to_ascii_lowercase();
        match lower.as_str() {
            "restrict" => return self.take_restrict(),
            "no-touch-required" => self.no_touch = true,
            "verify-required" => self.verify = true,
            "cert-authority" => return Err(certificates()),
            _ => {
                let (wanted, allowed) =
                    lower.strip_prefix("no-").map_or((lower.as_str(), true), |name| (name, false));
                let flag =
                    Flag::ALL.into_iter().find(|flag| flag.name().eq_ignore_ascii_case(wanted));
                let flag = flag.ok_or_else(|| unknown(name))?;
                if self.flags.insert(flag, allowed).is_some_and(|before| before != allowed) {
                    let name = flag.name();
                    return Err(fault(format!("both {name} and no-{name}; give one")));
                }
            }
        }
        Ok(())
    }

    fn take_restrict(&mut self) -> Result<(), KeyOptionsError> {
        if let Some((flag, _)) = self.flags.iter().find(|(_, allowed)| **allowed) {
            let name = flag.name();
            return Err(fault(format!("restrict takes {name} back; write restrict first")));
        }
        self.restrict = true;
        Ok(())
    }

    fn take_value(&mut self, name: &str, value: String) -> Result<(), KeyOptionsError> {
        match name.to_ascii_lowercase().as_str() {
            "command" => once(&mut self.command, name, values::command(value)?),
            "from" => once(&mut self.from, name, values::from(value)?),
            "tunnel" => once(&mut self.tunnel, name, values::tunnel(value)?),
            "environment" => {
                let (variable, content) = values::environment(&value)?;
                if self.environment.insert(variable.clone(), content).is_some() {
                    return Err(fault(format!("{variable} is set twice; sshd takes the first")));
                }
                Ok(())
            }
            "permitopen" => {
                self.permit_open.insert(values::permit_open(value)?);
                Ok(())
            }
            "permitlisten" => {
                self.permit_listen.insert(values::permit_listen(value)?);
                Ok(())
            }
            "expiry-time" => once(&mut self.expiry, name, KeyExpiry::parse(&value)?),
            "principals" => Err(certificates()),
            _ => Err(unknown(name)),
        }
    }

    /// The one spelling.
    fn to_text(&self) -> String {
        let mut words = Vec::new();
        if self.restrict {
            words.push("restrict".to_owned());
        }
        // Behind `restrict` only what it is given back counts, without it only what is taken.
        for (flag, _) in self.flags.iter().filter(|(_, allowed)| **allowed == self.restrict) {
            words.push(format!("{}{}", if self.restrict { "" } else { "no-" }, flag.name()));
        }
        words.extend(self.from.iter().map(|value| quote("from", value)));
        words.extend(self.command.iter().map(|value| quote("command", value)));
        for (variable, content) in &self.environment {
            words.push(quote("environment", &format!("{variable}={content}")));
        }
        words.extend(self.permit_open.iter().map(|value| quote("permitopen", value)));
        words.extend(self.permit_listen.iter().map(|value| quote("permitlisten", value)));
        words.extend(self.tunnel.iter().map(|value| quote("tunnel", value)));
        words.extend(self.no_touch.then(|| "no-touch-required".to_owned()));
        words.extend(self.verify.then(|| "verify-required".to_owned()));
        words.join(",")
    }
}

/// The name at the front, its value if it has one, and what stands behind both.
fn split_option(text: &str) -> Result<(&str, Option<String>, &str), KeyOptionsError> {
    let end = text.find(['=', ',', '"', ' ']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        return Err(fault("a name is missing, or there is a blank between options".to_owned()));
    }
    let Some(value) = rest.strip_prefix('=') else { return Ok((name, None, rest)) };
    let (value, rest) = dequote(value)
        .ok_or_else(|| fault(format!("the value of {name} must stand in double quotes")))?;
    Ok((name, Some(value), rest))
}

/// Reads a value in double quotes, in which `\"` stands for a quote, and every other backslash for
/// itself: what sshd's `opt_dequote` does. The value, and what stands behind it.
fn dequote(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut value = String::new();
    loop {
        if let Some(behind) = rest.strip_prefix("\\\"") {
            value.push('"');
            rest = behind;
            continue;
        }
        let mut chars = rest.chars();
        let next = chars.next()?;
        rest = chars.as_str();
        if next == '"' {
            return Some((value, rest));
        }
        value.push(next);
    }
}

/// `name="value"`. A value that was read never ends in a backslash, so that the last quote is one.
pub(crate) fn quote(name: &str, value: &str) -> String {
    format!("{name}=\"{}\"", value.replace('"', "\\\""))
}

fn once<T>(place: &mut Option<T>, name: &str, value: T) -> Result<(), KeyOptionsError> {
    match place.replace(value) {
        Some(_) => Err(fault(format!("{name} stands there twice"))),
        None => Ok(()),
    }
}

fn fault(reason: String) -> KeyOptionsError {
    KeyOptionsError { reason }
}

fn unknown(name: &str) -> KeyOptionsError {
    let name: String = name.chars().take(40).collect();
    fault(format!(
        "{name:?} is no option that is taken; known are restrict, from=\"\", command=\"\", \
         environment=\"\", permitopen=\"\", permitlisten=\"\", tunnel=\"\", no-touch-required, \
         verify-required, and agent-forwarding, port-forwarding, pty, user-rc, X11-forwarding, \
         each also with no- in front"
    ))
}

fn certificates() -> KeyOptionsError {
    fault(
        "cert-authority and principals are not taken: such a line lets in whomever somebody \
         else signs; give the people's own keys"
            .to_owned(),
    )
}

impl fmt::Display for KeyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for KeyOptions {
    type Error = KeyOptionsError;

    fn try_from(text: String) -> Result<Self, KeyOptionsError> {
        Self::parse(&text)
    }
}

impl std::str::FromStr for KeyOptions {
    type Err = KeyOptionsError;

    fn from_str(text: &str) -> Result<Self, KeyOptionsError> {
        Self::parse(text)
    }
}

impl From<KeyOptions> for String {
    fn from(options: KeyOptions) -> Self {
        options.text
    }
}

#[cfg(test)]
mod tests;
