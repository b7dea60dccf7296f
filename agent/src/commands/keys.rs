//! `enroll`, `generate-key`, `upload-key`: what has to do with the agent's own key.

use std::io::Read as _;
use std::path::Path;

use bastio_protocol::VerifyingKey;
use bastio_transport::{KeyKind, PrivateKey};

use super::{CommandError, say};
use crate::cli::{ApiKeyArgs, EnrollArgs, GenerateKeyArgs, Kind, UploadKeyArgs};
use crate::config::{Secret, Settings};
use crate::connector::lockdown::Identity;
use crate::enroll::{self, Api, EnrollError, Enrolled, Enrolment};
use crate::files;
use crate::processor::forget_succession;
use crate::receipt_key;

/// The environment variable with an API key.
const API_KEY: &str = "BASTIO_API_KEY";
/// Bits of an RSA key when nothing is said.
const RSA_BITS: usize = 3072;
/// Longest API key file, in bytes.
const LONGEST: u64 = 4096;

pub(super) fn enroll(args: &EnrollArgs, settings: &Settings) -> Result<(), CommandError> {
    let asked = Enrolment {
        backend: args.backend.clone(),
        api_key: api_key(&args.api_key)?,
        expected: args.host_key.clone(),
        host: args.host.clone(),
        port: args.port,
        name: args.name.clone(),
        host_name: nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()),
        key_kind: kind(args.kind, None),
        receipt_key: receipt_key(settings),
    };
    let pinned = args.host_key.is_some() || settings.backend.is_some();
    if let Some(warning) = clear_text(&asked.backend, pinned) {
        say(&warning);
    }
    let present = settings.backend.as_ref();
    let done = enroll::enroll(&asked, &settings.file, &settings.agent_key, present)?;
    forget_succession(&settings.state).map_err(|source| {
        let path = settings.state.clone();
        EnrollError::Write { path, source }
    })?;
    tell(&done, settings);
    Ok(())
}

/// The key that signs receipts; without one, the server is enrolled all the same.
fn receipt_key(settings: &Settings) -> Option<VerifyingKey> {
    match receipt_key::read_or_make(&settings.state) {
        Ok(key) => Some(key.verifying_key()),
        Err(error) => {
            say(&format!("warning: this server will give no receipts: {error}"));
            None
        }
    }
}

/// The warning for a URL whose requests anybody on the way can read; `pinned` when they can at least
/// not show another host key.
fn clear_text(url: &str, pinned: bool) -> Option<String> {
    let (scheme, _) = url.split_once(':')?;
    if !scheme.eq_ignore_ascii_case("http") {
        return None;
    }
    let place = if pinned { "" } else { " and, without --host-key, take the backend's place" };
    Some(format!(
        "warning: over plain http the API key goes in clear text: whoever is in between can read \
         it{place}. Put an https proxy before the backend, or use an API key of role enroll for \
         this server alone and remove it afterwards: bastio api-key rm NAME"
    ))
}

fn tell(done: &Enrolled, settings: &Settings) {
    let made = if done.key_made { "made" } else { "kept" };
    let server = done.server.as_deref().map_or_else(String::new, |name| format!(" as {name}"));
    say(&format!("enrolled{server} at {}", done.address));
    say(&format!("  agent key      {} ({made}, {})", done.agent_key, settings.agent_key.display()));
    say(&format!("  host key       {} (pinned)", done.pinned));
    if let Some(key) = &done.signing_key {
        say(&format!("  signing key    {key} (pinned; nothing else is obeyed)"));
    }
    say(&format!("  configuration  {}", settings.file.display()));
    if let Some(waits) = &done.waits {
        say(&format!(
            "The backend lets this server in once an operator has decided: {waits}\n\
             The agent can be started meanwhile: it comes in by itself."
        ));
    }
    if !done.checked {
        say(
            "The host key was not checked. Compare it with the --host-key that `bastio api-key add` \
             prints, or with the backend's first words.",
        );
    }
    if let Err(missing) = Identity::find(&settings.user) {
        say(&format!("Before the agent can start: {missing}"));
    }
    say(&format!("Next: {}", next_step()));
}

/// How the agent is started here: by systemd where the package put its units, by hand elsewhere.
fn next_step() -> &'static str {
    let has_unit = ["/usr/lib/systemd/system", "/lib/systemd/system"]
        .iter()
        .any(|folder| Path::new(folder).join("bastio-agent.service").exists());
    if has_unit { "systemctl start bastio-agent" } else { "bastio-agent start" }
}

pub(super) fn generate(args: &GenerateKeyArgs, settings: &Settings) -> Result<(), CommandError> {
    let path = &settings.agent_key;
    if args.bits.is_some() && args.kind == Kind::Ed25519 {
        let text = "--bits is for --type rsa; an Ed25519 key has one size";
        return Err(CommandError::Usage(text.to_owned()));
    }
    // Looked at first, because an RSA key takes a while; write_new decides.
    if !args.force && path.exists() {
        return Err(bastio_transport::KeyError::Exists(path.clone()).into());
    }
    let write = |source| EnrollError::Write { path: path.clone(), source };
    files::make_parent(path).map_err(write)?;
    let key = PrivateKey::generate(kind(args.kind, args.bits))?;
    if args.force {
        files::replace_secret(path, key.to_openssh()?.as_bytes()).map_err(write)?;
    } else {
        key.write_new(path)?;
    }
    say(&format!("{} {}", key.fingerprint(), path.display()));
    say(&key.public_line());
    Ok(())
}

pub(super) fn upload(args: &UploadKeyArgs, settings: &Settings) -> Result<(), CommandError> {
    let present = settings.backend.as_ref().and_then(|backend| backend.api_key.clone());
    let api_key = match api_key(&args.api_key) {
        Err(CommandError::Usage(_)) if present.is_some() => {
            present.unwrap_or_else(|| Secret::new(""))
        }
        given => given?,
    };
    let url = args.backend.as_ref().or(settings.api_url.as_ref()).ok_or_else(|| {
        let text = "the backend's URL is not known\nhint: --backend http://HOST:2358";
        CommandError::Usage(text.to_owned())
    })?;
    let api = Api::new(url).map_err(EnrollError::from)?;
    if let Some(warning) = clear_text(url, true) {
        say(&warning);
    }
    let Some(new) = &args.new_agent_key else {
        let key = PrivateKey::read(&settings.agent_key)?;
        enroll::upload(&api, &api_key, &key)?;
        say(&format!("the backend knows the key {}", key.fingerprint()));
        return Ok(());
    };
    let key = enroll::replace_key(&api, &api_key, &settings.agent_key, new)?;
    say(&format!("the key is now {} in {}", key.fingerprint(), settings.agent_key.display()));
    say(&format!("Delete {} and restart the agent.", new.display()));
    Ok(())
}

fn kind(kind: Kind, bits: Option<usize>) -> KeyKind {
    match kind {
        Kind::Ed25519 => KeyKind::Ed25519,
        Kind::Rsa => KeyKind::Rsa { bits: bits.unwrap_or(RSA_BITS) },
    }
}

/// The API key, from the file, from standard input or from the environment.
fn api_key(args: &ApiKeyArgs) -> Result<Secret, CommandError> {
    let text = match &args.api_key_file {
        Some(path) => read_limited(path)?,
        None => std::env::var(API_KEY).unwrap_or_default(),
    };
    let secret = Secret::new(&text);
    if secret.expose().is_empty() {
        let text = "no API key\nhint: give --api-key-file FILE, or - for standard input, or set \
                    BASTIO_API_KEY";
        return Err(CommandError::Usage(text.to_owned()));
    }
    Ok(secret)
}

fn read_limited(path: &Path) -> Result<String, CommandError> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(LONGEST).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text))
    };
    let failed =
        |error| CommandError::Usage(format!("the API key file {}: {error}", path.display()));
    read.map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::clear_text;

    #[test]
    fn an_api_key_in_clear_text_is_told_also_where_the_host_key_is_pinned() {
        for url in ["http://b:2358", "HTTP://b:2358", "Http://b/api/external"] {
            let pinned = clear_text(url, true).expect("a warning");
            assert!(pinned.contains("the API key goes in clear text"), "{pinned}");
            assert!(pinned.contains("https proxy") && pinned.contains("bastio api-key rm"));
            assert!(!pinned.contains("take the backend's place"), "{pinned}");
            let open = clear_text(url, false).expect("a warning");
            assert!(open.contains("without --host-key, take the backend's place"), "{open}");
        }
        for url in ["https://b", "HTTPS://b", "b"] {
            assert_eq!(clear_text(url, false), None, "{url}");
        }
    }
}
