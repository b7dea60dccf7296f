//! The configuration file: TOML of ours, or the INI file of the original agent; and writing ours.
//! This file must not know defaults or the environment.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::num::NonZeroU16;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use config::{File, FileFormat};
use serde::Deserialize;

use super::layer::{self, Layer};
use super::value::{Host, Lines, Secret};
use super::{ConfigError, DEFAULT_AGENT_KEY, Signer};
use crate::files::replace_secret;

/// What an enrolment found out about the backend.
#[derive(Debug)]
pub struct Backend<'a> {
    /// Name or address.
    pub host: &'a Host,
    /// TCP port.
    pub port: NonZeroU16,
    /// Public key line of the pinned host key.
    pub host_key: &'a str,
    /// Only for version-1 backends.
    pub api_key: Option<&'a Secret>,
    /// Who signs its orders; `None` at version-1 backends, which sign nothing.
    pub signer: Option<&'a Signer>,
    /// URL of its HTTP side.
    pub api_url: &'a str,
    /// Path of the private key that was uploaded; written when it is not the default.
    pub agent_key: &'a Path,
}

/// The original's file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ini {
    #[serde(default)]
    agent: IniAgent,
}

/// Its one section.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct IniAgent {
    agentkey: Option<String>,
    #[serde(alias = "api_key")]
    apikey: Option<String>,
    host: Option<String>,
    port: Option<NonZeroU16>,
    minthreads: Option<String>,
    stacksize: Option<String>,
    /// Ours: the original fetched the key at every start.
    host_key: Option<String>,
}

/// Reads the file, in whichever of the two forms; an absent file is an empty layer.
pub(super) fn read(file: &Path) -> Result<Layer, ConfigError> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Layer::default()),
        Err(source) => return Err(ConfigError::Unreadable { file: file.to_owned(), source }),
    };
    let origin = file.display().to_string();
    let layer = if is_ini(file, &text) {
        layer::parse::<Ini>(File::from_str(&text, FileFormat::Ini), &origin)?.agent.into_layer()
    } else {
        layer::parse(File::from_str(&text, FileFormat::Toml), &origin)?
    };
    check_mode(file, &layer)?;
    Ok(layer)
}

/// Writes the file anew (0600, at once or not at all) with this backend; other keys stay as
/// they are, comments go.
///
/// # Errors
/// [`ConfigError`] when the present file is not ours or the new one cannot be written.
pub fn write(file: &Path, backend: &Backend<'_>) -> Result<(), ConfigError> {
    if file.extension().is_some_and(|extension| extension == "conf") {
        let reason = "an enrolment writes TOML; give --config a name that ends in .toml";
        return Err(ConfigError::Invalid {
            origin: file.display().to_string(),
            reason: reason.to_owned(),
        });
    }
    let text = render(backend, &read(file)?);
    replace_secret(file, text.as_bytes())
        .map_err(|source| ConfigError::Unwritable { file: file.to_owned(), source })
}

/// The original's file ends in `.conf` or begins with its section; a file of ours has no sections.
fn is_ini(file: &Path, text: &str) -> bool {
    let mut lines = text.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    file.extension().is_some_and(|extension| extension == "conf") || first == Some("[agent]")
}

fn check_mode(file: &Path, layer: &Layer) -> Result<(), ConfigError> {
    let metadata = fs::metadata(file)
        .map_err(|source| ConfigError::Unreadable { file: file.to_owned(), source })?;
    let mode = metadata.permissions().mode() & 0o777;
    let what = if mode & 0o022 != 0 {
        "changed"
    } else if layer.api_key.is_some() && mode & 0o004 != 0 {
        "read"
    } else {
        return Ok(());
    };
    Err(ConfigError::TooOpen { file: file.to_owned(), what, mode })
}

impl IniAgent {
    fn into_layer(self) -> Layer {
        let plain = |text: Option<String>| text.map(|text| text.replace("%%", "%"));
        let mut notes = Vec::new();
        for (key, value) in [("minthreads", &self.minthreads), ("stacksize", &self.stacksize)] {
            if value.is_some() {
                notes.push(format!("{key} has no effect any more; this agent needs no tuning"));
            }
        }
        Layer {
            host: plain(self.host),
            port: self.port,
            host_key: self.host_key.map(Lines::One),
            api_key: plain(self.apikey).as_deref().map(Secret::new),
            agent_key: plain(self.agentkey).map(Into::into),
            notes,
            ..Layer::default()
        }
    }
}

fn render(backend: &Backend<'_>, kept: &Layer) -> String {
    let mut text = "# Written by `bastio-agent enroll`.\n".to_owned();
    let mut line = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            writeln!(text, "{key} = {value}").expect("writing to a String cannot fail");
        }
    };
    let path = |path: &Path| quote(&path.to_string_lossy());
    line("host", Some(quote(backend.host.as_str())));
    line("port", Some(backend.port.to_string()));
    line("host_key", Some(format!("[{}]", quote(backend.host_key))));
    line("api_key", backend.api_key.map(|key| quote(key.expose())));
    line("api_url", Some(quote(backend.api_url)));
    if let Some(signer) = backend.signer {
        line("server_id", Some(quote(signer.server.as_str())));
        line("signing_key", Some(quote(&signer.key.to_string())));
        line("require_signed", Some("true".to_owned()));
    }
    let key = backend.agent_key;
    line("agent_key", (key != Path::new(DEFAULT_AGENT_KEY)).then(|| path(key)));
    line("user", kept.user.as_deref().map(quote));
    line("min_rsa_bits", kept.min_rsa_bits.map(|bits| bits.to_string()));
    line("removal", kept.removal.map(|removal| quote(removal.name())));
    line("quarantine_days", kept.quarantine_days.map(|days| days.to_string()));
    line("break_glass", kept.break_glass.as_deref().map(quote));
    line("confirm_within", kept.confirm_within.map(|seconds| seconds.to_string()));
    line("drift", kept.drift.map(|policy| quote(policy.name())));
    line("status_file", kept.status_file.as_deref().map(path));
    line("state", kept.state.as_deref().map(path));
    line("keys", kept.keys.as_deref().map(quote));
    line("log", kept.log.as_deref().map(quote));
    // Tables come behind all plain keys.
    if let Some(plain) = kept.sudo.as_ref().and_then(|sudo| sudo.plain.as_deref()) {
        line("\n[sudo]\nplain", Some(quote(plain)));
    }
    text
}

/// A TOML basic string: JSON's escapes are a subset of TOML's.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
