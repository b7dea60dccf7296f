//! Making this server known to a backend: fetch and pin its host key, upload the agent's public
//! key, write the configuration; and later replacing the key. It must not know SSH connections
//! or accounts.

mod api;

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use bastio_protocol::{
    RECEIPT_NAMESPACE, REPLACE_NAMESPACE, ServerName, VerifyingKey, receipt_key_text,
    replacement_text,
};
use bastio_transport::{KeyError, KeyKind, PrivateKey};
use thiserror::Error;

pub use self::api::{Api, ApiError, HostKeyAnswer, Upload};
use crate::config::{self, BackendSettings, ConfigError, DEFAULT_PORT, Host, Secret};
use crate::files;

/// What a person asked for.
#[derive(Debug)]
pub struct Enrolment {
    /// URL of the backend's HTTP side.
    pub backend: String,
    /// The secret that lets new servers in.
    pub api_key: Secret,
    /// The fingerprint that the backend's host key must have.
    pub expected: Option<String>,
    /// SSH host, when it is not the URL's.
    pub host: Option<String>,
    /// SSH port, when it is not the one the backend names.
    pub port: Option<NonZeroU16>,
    /// The name under which the server is to be listed.
    pub name: Option<String>,
    /// The name of this host, for when `name` is not given.
    pub host_name: Option<String>,
    /// What kind of key to make when there is none.
    pub key_kind: KeyKind,
    /// The key that signs this server's receipts, when there is one.
    pub receipt_key: Option<VerifyingKey>,
}

/// What an enrolment did.
#[derive(Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// The server's name at the backend, when the backend says one.
    pub server: Option<String>,
    /// `HOST:PORT` of the backend's SSH side.
    pub address: String,
    /// Fingerprint of the host key that is now pinned.
    pub pinned: String,
    /// Whether that fingerprint was given, or pinned before: nobody has to compare it now.
    pub checked: bool,
    /// Whether the agent's key was made.
    pub key_made: bool,
    /// Fingerprint of the agent's key.
    pub agent_key: String,
    /// Fingerprint of the key that signs this server's orders, when this backend signs.
    pub signing_key: Option<String>,
    /// What an operator must decide before the agent is let in.
    pub waits: Option<String>,
}

/// Why a server was not enrolled, or its key not replaced.
#[derive(Debug, Error)]
pub enum EnrollError {
    /// The backend did not do its part.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The configuration is in the way.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The agent's key is not usable.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The backend's host key is another than the one asked for.
    #[error(
        "the backend shows the host key {seen}, not {expected}: nothing was uploaded\n\
         hint: compare with the --host-key that `bastio api-key add` printed; someone may be in between"
    )]
    WrongHostKey {
        /// The fingerprint given.
        expected: String,
        /// The fingerprint found.
        seen: String,
    },
    /// Another host key was pinned before.
    #[error(
        "the backend shows the host key {seen}, but {pinned} is pinned in {}: nothing was uploaded\n\
         hint: if the key was changed on purpose, say so with --host-key {seen}",
        file.display()
    )]
    PinChanged {
        /// The configuration.
        file: PathBuf,
        /// The fingerprint pinned so far.
        pinned: String,
        /// The fingerprint found.
        seen: String,
    },
    /// The new key is the old one.
    #[error("{} holds the key that is in use already", .0.display())]
    SameKey(PathBuf),
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Does all of it. Doing it twice with the same key ends the same.
///
/// # Errors
/// [`EnrollError`]; the configuration is then as it was.
pub fn enroll(
    asked: &Enrolment,
    config_file: &Path,
    key_file: &Path,
    present: Option<&BackendSettings>,
) -> Result<Enrolled, EnrollError> {
    let api = Api::new(&asked.backend)?;
    let answer = api.host_key()?;
    let host = Host::parse(asked.host.as_deref().unwrap_or(api.host()))?;
    let port = asked.port.or(answer.port).unwrap_or(DEFAULT_PORT);
    let checked = check_pin(asked, &answer, config_file, present)?;
    let (key, key_made) = read_or_make(key_file, asked.key_kind)?;
    // A version-1 backend, which names no port, is not sent a field that it does not know.
    let fallback = answer
        .port
        .and(asked.host_name.as_deref())
        .and_then(server_name)
        .map(|name| name.to_string());
    let receipt_key = answer.port.and(asked.receipt_key);
    let receipt_proof = receipt_key.map(|receipts| prove(&key, &receipts)).transpose()?;
    let upload = Upload {
        api_key: asked.api_key.expose(),
        public_key: &key.public_line(),
        old_public_key: "",
        name: asked.name.as_deref().or(fallback.as_deref()),
        proof: None,
        receipt_key: receipt_key.map(|key| key.to_string()),
        receipt_proof,
    };
    let uploaded = api.upload(&upload)?;
    let signer = uploaded.signer().map_err(|reason| {
        let url = asked.backend.clone();
        ApiError::BadAnswer { url, reason }
    })?;
    let backend = config::Backend {
        host: &host,
        port,
        host_key: &answer.pin.key().line(),
        // Our backend knows the server by its key. A version-1 backend wants the API key at
        // every login.
        api_key: uploaded.is_version_1().then_some(&asked.api_key),
        signer: signer.as_ref(),
        api_url: &asked.backend,
        agent_key: key_file,
    };
    config::write(config_file, &backend)?;
    let waits = uploaded.waits_for();
    Ok(Enrolled {
        server: uploaded.server_name(),
        address: format!("{}:{port}", host.bracketed()),
        pinned: answer.pin.fingerprint(),
        checked,
        key_made,
        agent_key: key.fingerprint(),
        signing_key: signer.map(|signer| signer.key.fingerprint()),
        waits,
    })
}

/// The agent's word that this key signs its server's receipts.
fn prove(key: &PrivateKey, receipts: &VerifyingKey) -> Result<String, KeyError> {
    let text = receipt_key_text(&key.public_line(), receipts);
    key.sign(RECEIPT_NAMESPACE, text.as_bytes())
}

/// The server's name that a host name gives: its first label in small letters, with `-` for what may
/// not stand in a name. `None` when nothing is left, or for `localhost`, which says nothing.
fn server_name(host_name: &str) -> Option<ServerName> {
    let label = host_name.split('.').next()?.to_ascii_lowercase();
    let fits = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '-' };
    let name: String = label.chars().map(fits).collect();
    let name = name.trim_matches(['-', '_']);
    ServerName::parse(name).ok().filter(|name| name.as_str() != "localhost")
}

/// Reads the agent's key, or makes one. `true` when it was made.
///
/// # Errors
/// [`EnrollError`] when the file is there and not usable, or cannot be written.
pub fn read_or_make(path: &Path, kind: KeyKind) -> Result<(PrivateKey, bool), EnrollError> {
    if path.exists() {
        return Ok((PrivateKey::read(path)?, false));
    }
    files::make_parent(path)
        .map_err(|source| EnrollError::Write { path: path.to_owned(), source })?;
    let key = PrivateKey::generate(kind)?;
    key.write_new(path)?;
    Ok((key, true))
}

/// Uploads the agent's key again.
///
/// # Errors
/// [`EnrollError`] when the backend refuses.
pub fn upload(api: &Api, api_key: &Secret, key: &PrivateKey) -> Result<(), EnrollError> {
    let upload = Upload {
        api_key: api_key.expose(),
        public_key: &key.public_line(),
        old_public_key: "",
        name: None,
        proof: None,
        receipt_key: None,
        receipt_proof: None,
    };
    api.upload(&upload)?;
    Ok(())
}

/// Replaces the agent's key at the backend and then here. The old key signs that the new one is to
/// take its place: its public half is no secret. It is not kept: the backend takes it no more, and
/// a private key without a use is only a risk.
///
/// # Errors
/// [`EnrollError`]; unless the backend has accepted the new key, the old file is as it was.
pub fn replace_key(
    api: &Api,
    api_key: &Secret,
    key_file: &Path,
    new_key_file: &Path,
) -> Result<PrivateKey, EnrollError> {
    let old = PrivateKey::read(key_file)?;
    let new = PrivateKey::read(new_key_file)?;
    if old.public() == new.public() {
        return Err(EnrollError::SameKey(new_key_file.to_owned()));
    }
    let text = new.to_openssh()?;
    let (old_line, new_line) = (old.public_line(), new.public_line());
    // A version-1 backend, which names no port, is not sent a field that it does not know.
    let proof = match api.host_key()?.port {
        Some(_) => {
            let statement = replacement_text(&old_line, &new_line);
            Some(old.sign(REPLACE_NAMESPACE, statement.as_bytes())?)
        }
        None => None,
    };
    let upload = Upload {
        api_key: api_key.expose(),
        public_key: &new_line,
        old_public_key: &old_line,
        name: None,
        proof: proof.as_deref(),
        receipt_key: None,
        receipt_proof: None,
    };
    api.upload(&upload)?;
    files::replace_secret(key_file, text.as_bytes())
        .map_err(|source| EnrollError::Write { path: key_file.to_owned(), source })?;
    Ok(new)
}

/// The key must be the one that was given, else the one that was pinned before, else any; `false`
/// when it is any.
fn check_pin(
    asked: &Enrolment,
    answer: &HostKeyAnswer,
    config_file: &Path,
    present: Option<&BackendSettings>,
) -> Result<bool, EnrollError> {
    let seen = answer.pin.fingerprint();
    if let Some(expected) = &asked.expected {
        return if expected.trim_end_matches('=') == seen {
            Ok(true)
        } else {
            Err(EnrollError::WrongHostKey { expected: expected.clone(), seen })
        };
    }
    let Some(present) = present else { return Ok(false) };
    if present.host_keys.iter().any(|pin| pin.fingerprint() == seen) {
        return Ok(true);
    }
    let pinned: Vec<String> = present.host_keys.iter().map(|pin| pin.fingerprint()).collect();
    let file = config_file.to_owned();
    Err(EnrollError::PinChanged { file, pinned: pinned.join(" or "), seen })
}

#[cfg(test)]
mod tests;
