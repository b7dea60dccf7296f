//! One source of settings, as it was written: every key may be absent. This file must not know
//! defaults or what a value means.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::path::PathBuf;

use bastio_protocol::Removal;
use config::{Config, Environment, Source};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::ConfigError;
use super::value::{Lines, Secret};
use crate::drift::Policy;

/// The prefix of environment variables: `BASTIO_AGENT_HOST` sets `host`.
const PREFIX: &str = "BASTIO_AGENT";

/// The keys that one source sets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Name or address of the backend.
    pub host: Option<String>,
    /// TCP port of its SSH listener. Default 2357.
    pub port: Option<NonZeroU16>,
    /// Its public host keys.
    pub host_key: Option<Lines>,
    /// API key; only for backends that speak version 1.
    pub api_key: Option<Secret>,
    /// URL of the backend's HTTP side, for `upload-key`.
    pub api_url: Option<String>,
    /// The server's id at its backend, to which orders are bound.
    pub server_id: Option<String>,
    /// The backend's key that signs orders, in base64.
    pub signing_key: Option<String>,
    /// Whether actions that nobody has signed are refused. Default: when there is a `signing_key`.
    pub require_signed: Option<bool>,
    /// Path of the agent's private key. Default `/etc/bastio/agent.key`.
    pub agent_key: Option<PathBuf>,
    /// The account that the connector runs as. Default `bastio`.
    pub user: Option<String>,
    /// Smallest RSA key of a user, in bits. Default 2048.
    pub min_rsa_bits: Option<usize>,
    /// `keep`, `lock`, `quarantine` or `delete`: what becomes of the homes of removed accounts
    /// where the backend does not say it. Default `keep`.
    pub removal: Option<Removal>,
    /// How long homes in quarantine are kept, in days. Default 30.
    pub quarantine_days: Option<u32>,
    /// The account that is never locked out, and whose changes must be confirmed.
    pub break_glass: Option<String>,
    /// How long such a change may take to be confirmed, in seconds. Default 60.
    pub confirm_within: Option<u64>,
    /// What is done about changes by others: `report` (default) or `heal`.
    pub drift: Option<Policy>,
    /// Where the state is written. Default `/run/bastio-agent/status.json`.
    pub status_file: Option<PathBuf>,
    /// The folder of the journal. Default `/var/lib/bastio-agent`.
    pub state: Option<PathBuf>,
    /// Where keys lie: `home` (where sshd reads them anyway) or `managed` (outside of homes). Default
    /// `home`.
    pub keys: Option<String>,
    /// `off`, `error`, `warn`, `info`, `debug` or `trace`. Default `info`.
    pub log: Option<String>,
    /// The table `[sudo]`.
    pub sudo: Option<SudoKeys>,
    /// Not a key: remarks about the source.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// The table `[sudo]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SudoKeys {
    /// What plain sudo rights are: `group` or `nopasswd`. Default `group`.
    pub plain: Option<String>,
}

impl Layer {
    /// This layer, with `below` where it says nothing.
    #[must_use]
    pub fn or(self, below: Self) -> Self {
        Self {
            host: self.host.or(below.host),
            port: self.port.or(below.port),
            host_key: self.host_key.or(below.host_key),
            api_key: self.api_key.or(below.api_key),
            api_url: self.api_url.or(below.api_url),
            server_id: self.server_id.or(below.server_id),
            signing_key: self.signing_key.or(below.signing_key),
            require_signed: self.require_signed.or(below.require_signed),
            agent_key: self.agent_key.or(below.agent_key),
            user: self.user.or(below.user),
            min_rsa_bits: self.min_rsa_bits.or(below.min_rsa_bits),
            removal: self.removal.or(below.removal),
            quarantine_days: self.quarantine_days.or(below.quarantine_days),
            break_glass: self.break_glass.or(below.break_glass),
            confirm_within: self.confirm_within.or(below.confirm_within),
            drift: self.drift.or(below.drift),
            status_file: self.status_file.or(below.status_file),
            state: self.state.or(below.state),
            keys: self.keys.or(below.keys),
            log: self.log.or(below.log),
            sudo: self.sudo.or(below.sudo),
            notes: [self.notes, below.notes].concat(),
        }
    }
}

/// The layer of the environment; of `variables` in tests.
pub(super) fn environment(
    variables: Option<HashMap<String, String>>,
) -> Result<Layer, ConfigError> {
    let source =
        Environment::with_prefix(PREFIX).prefix_separator("_").ignore_empty(true).source(variables);
    parse(source, "the environment (BASTIO_AGENT_...)")
}

/// Reads one source alone, so that an error can name it.
pub(super) fn parse<T: DeserializeOwned>(
    source: impl Source + Send + Sync + 'static,
    origin: &str,
) -> Result<T, ConfigError> {
    let parsed = Config::builder().add_source(source).build().and_then(Config::try_deserialize);
    parsed.map_err(|error| ConfigError::Invalid {
        origin: origin.to_owned(),
        reason: without_quoted_lines(&error.to_string()),
    })
}

/// A syntax error as TOML's reader tells it, without the line that it shows: an API key may stand
/// there.
fn without_quoted_lines(reason: &str) -> String {
    let is_quoted = |line: &str| {
        let behind = line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit());
        behind.trim_start().starts_with('|')
    };
    let told = reason.lines().map(str::trim).filter(|line| !line.is_empty() && !is_quoted(line));
    told.collect::<Vec<_>>().join(": ")
}
