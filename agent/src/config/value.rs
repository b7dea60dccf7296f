//! The types of single values, each parsed once. This file must not know where they come from.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bastio_protocol::{ServerId, SigningError, Username};
use bastio_transport::HostKeyPin;
use serde::Deserialize;
use tracing::level_filters::LevelFilter;

use super::{ConfigError, Signer};
use crate::sshd::KeyMode;
use crate::sudoers::PlainSudo;

/// Longest host name (RFC 1035: 253 characters) or address.
const MAX_HOST: usize = 253;
/// Longest API key, in bytes.
const MAX_API_KEY: usize = 256;

/// A host name or an address (IPv6 without brackets).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host(String);

/// A text that never shows: not in Debug, not in errors.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

/// `host_key` as one text or as a list of texts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Lines {
    /// One line, or several with commas or line breaks between.
    One(String),
    /// A list.
    Many(Vec<String>),
}

impl Host {
    /// Takes a name or an address; brackets around an IPv6 address are removed.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for anything that cannot be one.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        let good = |c: char| c.is_ascii_alphanumeric() || ".-_:%".contains(c);
        let usable = !bare.is_empty()
            && bare.len() <= MAX_HOST
            && !bare.starts_with('-')
            && bare.chars().all(good);
        if usable {
            Ok(Self(bare.to_owned()))
        } else {
            Err(wrong("host", "not a host name or address; give it without scheme, path or port"))
        }
    }

    /// The bare text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text with brackets around an IPv6 address, so that a port may follow.
    #[must_use]
    pub fn bracketed(&self) -> String {
        if self.0.contains(':') { format!("[{}]", self.0) } else { self.0.clone() }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Secret {
    /// Takes a secret, without white space around it.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(...)")
    }
}

impl Lines {
    fn lines(&self) -> Vec<&str> {
        let all: Vec<&str> = match self {
            Self::One(text) => text.split([',', '\n']).collect(),
            Self::Many(lines) => lines.iter().map(String::as_str).collect(),
        };
        all.into_iter().map(str::trim).filter(|line| !line.is_empty()).collect()
    }
}

pub(super) fn host_keys(lines: &Lines) -> Result<Vec<HostKeyPin>, ConfigError> {
    let parse = |line: &str| {
        HostKeyPin::from_str(line).map_err(|error| wrong("host_key", &error.to_string()))
    };
    lines.lines().into_iter().map(parse).collect()
}

/// An API key is sent as an SSH user name, so it is one word of printable ASCII.
pub(super) fn api_key(key: Secret) -> Result<Secret, ConfigError> {
    let text = key.expose();
    if text.len() <= MAX_API_KEY && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(key)
    } else {
        Err(wrong("api_key", "an API key is one word of printable ASCII, at most 256 characters"))
    }
}

/// Both or neither: an order is bound to a server, whoever signs it.
pub(super) fn signer(
    server: Option<&str>,
    key: Option<&str>,
) -> Result<Option<Signer>, ConfigError> {
    match (server, key) {
        (None, None) => Ok(None),
        (Some(server), Some(key)) => Ok(Some(Signer {
            server: ServerId::parse(server)
                .map_err(|error| wrong("server_id", &error.to_string()))?,
            key: key
                .parse()
                .map_err(|error: SigningError| wrong("signing_key", &error.to_string()))?,
        })),
        (None, Some(_)) => Err(wrong("server_id", "missing beside signing_key; enrol again")),
        (Some(_), None) => Err(wrong("signing_key", "missing beside server_id; enrol again")),
    }
}

pub(super) fn require_signed(wanted: Option<bool>, has_key: bool) -> Result<bool, ConfigError> {
    match wanted {
        Some(true) if !has_key => Err(wrong(
            "require_signed",
            "no signing_key is pinned, so nothing would ever be obeyed; enrol again",
        )),
        wanted => Ok(wanted.unwrap_or(has_key)),
    }
}

pub(super) fn plain_sudo(text: Option<&str>) -> Result<PlainSudo, ConfigError> {
    match text {
        None | Some("group") => Ok(PlainSudo::Group),
        Some("nopasswd") => Ok(PlainSudo::NoPassword),
        Some(_) => Err(wrong("sudo.plain", "one of group, nopasswd")),
    }
}

pub(super) fn key_mode(text: Option<&str>) -> Result<KeyMode, ConfigError> {
    match text {
        None | Some("home") => Ok(KeyMode::Home),
        Some("managed") => Ok(KeyMode::Managed),
        Some(_) => Err(wrong("keys", "either home or managed")),
    }
}

/// A login name.
pub(super) fn break_glass(name: Option<&str>) -> Result<Option<Username>, ConfigError> {
    let parse =
        |name| Username::parse(name).map_err(|error| wrong("break_glass", &error.to_string()));
    name.map(parse).transpose()
}

/// Long enough for a new connection, short enough that somebody waits for it.
pub(super) fn confirm_within(seconds: Option<u64>) -> Result<Duration, ConfigError> {
    match seconds.unwrap_or(60) {
        seconds @ 5..=3600 => Ok(Duration::from_secs(seconds)),
        _ => Err(wrong("confirm_within", "between 5 and 3600 seconds")),
    }
}

pub(super) fn log_level(text: Option<&str>) -> Result<LevelFilter, ConfigError> {
    let Some(text) = text else { return Ok(LevelFilter::INFO) };
    text.parse().map_err(|_| wrong("log", "one of off, error, warn, info, debug, trace"))
}

pub(super) fn wrong(key: &'static str, reason: &str) -> ConfigError {
    ConfigError::Value { key, reason: reason.to_owned() }
}
