//! Where the settings come from: flags, then the environment (`BASTIO_AGENT_...`), then the file,
//! then defaults. Texts become strong types here and nowhere else; unknown keys are refused.
//! This file must not know what the settings are used for.

mod file;
mod layer;
mod value;

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bastio_protocol::{KeyPolicy, Removal, ServerId, Username, VerifyingKey};
use bastio_transport::HostKeyPin;
use thiserror::Error;
use tracing::level_filters::LevelFilter;

use crate::sshd::KeyMode;
use crate::sudoers::PlainSudo;

pub use file::{Backend, write};
pub use layer::Layer;
pub use value::{Host, Secret};

use crate::drift::Policy;

/// The configuration file when `--config` is not given.
pub const DEFAULT_FILE: &str = "/etc/bastio/agent.toml";
/// The agent's private key when nothing else is said.
pub const DEFAULT_AGENT_KEY: &str = "/etc/bastio/agent.key";
/// The port of a backend's SSH listener when nothing else is said.
pub const DEFAULT_PORT: NonZeroU16 = NonZeroU16::new(2357).expect("2357 is not zero");

const DEFAULT_USER: &str = "bastio";
const DEFAULT_STATUS_FILE: &str = "/run/bastio-agent/status.json";
const DEFAULT_QUARANTINE_DAYS: u32 = 30;
const DEFAULT_STATE: &str = "/var/lib/bastio-agent";
/// The SSH user name at a backend that knows agents by their keys alone.
const DEFAULT_LOGIN: &str = "bastio-agent";

/// Everything that can be set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The file that was read, or that would have been.
    pub file: PathBuf,
    /// The backend; `None` before the server is enrolled.
    pub backend: Option<BackendSettings>,
    /// URL of the backend's HTTP side, for `upload-key`.
    pub api_url: Option<String>,
    /// Whose orders the processor obeys; `None` when none are signed.
    pub signer: Option<Signer>,
    /// Whether actions that nobody has signed are refused.
    pub require_signed: bool,
    /// Path of the agent's private key.
    pub agent_key: PathBuf,
    /// The account that the connector runs as.
    pub user: String,
    /// Which users' keys are good enough.
    pub key_policy: KeyPolicy,
    /// What becomes of the homes of removed accounts where the backend does not say it.
    pub removal: Removal,
    /// How long homes in quarantine are kept, in days.
    pub quarantine_days: u32,
    /// The account that is never locked out, and whose changes must be confirmed.
    pub break_glass: Option<Username>,
    /// How long a change that must be confirmed may take for it.
    pub confirm_within: Duration,
    /// What is done about drift.
    pub drift: Policy,
    /// Where the state is written for `status`.
    pub status_file: PathBuf,
    /// The folder of the journal.
    pub state: PathBuf,
    /// What plain sudo rights are on this host.
    pub plain_sudo: PlainSudo,
    /// Where keys lie.
    pub keys: KeyMode,
    /// What is logged.
    pub log: LevelFilter,
    /// What a person should know about the file: keys that have no effect any more.
    pub notes: Vec<String>,
}

/// How to reach the backend and who we are there.
#[derive(Debug, Clone)]
pub struct BackendSettings {
    /// Name or address.
    pub host: Host,
    /// TCP port.
    pub port: NonZeroU16,
    /// The backend has one of these keys; never empty.
    pub host_keys: Vec<HostKeyPin>,
    /// API key of a version-1 backend, which is the SSH user name there.
    pub api_key: Option<Secret>,
}

/// Who signs what this server is ordered to do, pinned at enrolment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// The server's id at its backend, to which orders are bound.
    pub server: ServerId,
    /// The key that signs.
    pub key: VerifyingKey,
}

/// Why there are no usable settings.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file is there and cannot be read.
    #[error("cannot read {}: {source}{hint}", file.display(), hint = read_hint(source))]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A source has an unknown key, a value of the wrong type, or broken syntax.
    #[error("{origin}: {reason}")]
    Invalid {
        /// The file, or the environment.
        origin: String,
        /// What is wrong, with the key.
        reason: String,
    },
    /// One value is not usable.
    #[error("{key}: {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The file can be changed, or its API key read, by others.
    #[error("{} may be {what} by others (mode {mode:03o})\nhint: chmod 600 {}", file.display(), file.display())]
    TooOpen {
        /// The file.
        file: PathBuf,
        /// `changed` or `read`.
        what: &'static str,
        /// Its permission bits.
        mode: u32,
    },
    /// No backend is configured.
    #[error(
        "{} names no backend\nhint: bastio-agent enroll --backend http://HOST:2358 --api-key-file FILE",
        .0.display()
    )]
    NoBackend(PathBuf),
    /// A backend is named but its host key is not pinned.
    #[error(
        "no host_key is pinned for the backend {host}, so it could be anyone\n\
         hint: bastio-agent enroll pins it, or set host_key to the backend's public host key"
    )]
    NoHostKey {
        /// The backend.
        host: String,
    },
    /// The file cannot be written.
    #[error("cannot write {}: {source}", file.display())]
    Unwritable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

fn read_hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => "\nhint: run it as root",
        _ => "",
    }
}

impl Settings {
    /// Reads all sources. A file that is not there counts as empty.
    ///
    /// # Errors
    /// [`ConfigError`] when a source is there and not usable.
    pub fn load(file: &Path, flags: Layer) -> Result<Self, ConfigError> {
        Self::merge(file, flags, layer::environment(None)?, file::read(file)?)
    }

    /// The settings without the file, for who may not read it.
    ///
    /// # Errors
    /// [`ConfigError`] when the environment is not usable.
    pub fn without_file(file: &Path, flags: Layer) -> Result<Self, ConfigError> {
        Self::merge(file, flags, layer::environment(None)?, Layer::default())
    }

    fn merge(
        file: &Path,
        flags: Layer,
        environment: Layer,
        in_file: Layer,
    ) -> Result<Self, ConfigError> {
        let notes = in_file.notes.clone();
        let merged = flags.or(environment).or(in_file);
        let signer = value::signer(merged.server_id.as_deref(), merged.signing_key.as_deref())?;
        Ok(Self {
            file: file.to_owned(),
            backend: backend(&merged)?,
            signer: signer.clone(),
            require_signed: value::require_signed(merged.require_signed, signer.is_some())?,
            api_url: merged.api_url,
            agent_key: merged.agent_key.unwrap_or_else(|| DEFAULT_AGENT_KEY.into()),
            user: merged.user.unwrap_or_else(|| DEFAULT_USER.to_owned()),
            key_policy: merged
                .min_rsa_bits
                .map_or_else(KeyPolicy::default, |min_rsa_bits| KeyPolicy { min_rsa_bits }),
            removal: merged.removal.unwrap_or_default(),
            quarantine_days: merged.quarantine_days.unwrap_or(DEFAULT_QUARANTINE_DAYS),
            break_glass: value::break_glass(merged.break_glass.as_deref())?,
            confirm_within: value::confirm_within(merged.confirm_within)?,
            drift: merged.drift.unwrap_or_default(),
            status_file: merged.status_file.unwrap_or_else(|| DEFAULT_STATUS_FILE.into()),
            state: merged.state.unwrap_or_else(|| DEFAULT_STATE.into()),
            plain_sudo: value::plain_sudo(merged.sudo.and_then(|sudo| sudo.plain).as_deref())?,
            keys: value::key_mode(merged.keys.as_deref())?,
            log: value::log_level(merged.log.as_deref())?,
            notes,
        })
    }

    /// The backend.
    ///
    /// # Errors
    /// [`ConfigError::NoBackend`] before the server is enrolled.
    pub fn backend(&self) -> Result<&BackendSettings, ConfigError> {
        self.backend.as_ref().ok_or_else(|| ConfigError::NoBackend(self.file.clone()))
    }
}

impl BackendSettings {
    /// `HOST:PORT` for people.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.host.bracketed(), self.port)
    }

    /// The SSH user name. A secret when the backend speaks only version 1.
    #[must_use]
    pub fn login(&self) -> &str {
        self.api_key.as_ref().map_or(DEFAULT_LOGIN, Secret::expose)
    }
}

fn backend(merged: &Layer) -> Result<Option<BackendSettings>, ConfigError> {
    let Some(host) = &merged.host else { return Ok(None) };
    let host = Host::parse(host)?;
    let host_keys = merged.host_key.as_ref().map_or(Ok(Vec::new()), value::host_keys)?;
    if host_keys.is_empty() {
        return Err(ConfigError::NoHostKey { host: host.to_string() });
    }
    let api_key = merged.api_key.clone().filter(|key| !key.expose().is_empty());
    Ok(Some(BackendSettings {
        host,
        port: merged.port.unwrap_or(DEFAULT_PORT),
        host_keys,
        api_key: api_key.map(value::api_key).transpose()?,
    }))
}

#[cfg(test)]
mod tests;
