//! The two HTTP calls of the original's external API. This file must not know files or what the
//! answers are used for; API keys never show up in its errors.

use std::num::NonZeroU16;
use std::str::FromStr;
use std::time::Duration;

use bastio_protocol::{ServerId, SigningError};
use bastio_transport::HostKeyPin;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use ureq::http::{Response, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use crate::config::Signer;

/// For a whole request, from the name's look-up to the last byte.
const LIMIT: Duration = Duration::from_secs(30);
/// Longest answer, in bytes.
const LONGEST_ANSWER: u64 = 64 * 1024;
/// Longest text of a backend shown to a person, in characters.
const LONGEST_TEXT: usize = 300;
/// What to do when the API key is refused and the backend does not say.
const NO_API_KEY: &str = "make one with: bastio api-key add NAME --role enroll";
/// Where the original's API lives when the URL names no path.
const DEFAULT_PATH: &str = "/api/external";
/// The system's certificate authorities: Debian and SUSE, Red Hat.
const CA_BUNDLES: [&str; 2] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// A backend's HTTP side.
#[derive(Debug)]
pub struct Api {
    agent: Agent,
    base: String,
    host: String,
}

/// The backend's host key, and where its SSH side listens if it says so.
#[derive(Debug)]
pub struct HostKeyAnswer {
    /// The key.
    pub pin: HostKeyPin,
    /// TCP port of the SSH side with this key. Version-1 backends don't say.
    pub port: Option<NonZeroU16>,
}

/// The body of `server/upload_key`. Holds a secret, so it has no `Debug`.
#[derive(Serialize)]
pub struct Upload<'a> {
    /// The secret that lets servers in.
    pub api_key: &'a str,
    /// Two words: type and base64.
    pub public_key: &'a str,
    /// The key to be replaced; empty when none is.
    pub old_public_key: &'a str,
    /// Name for the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
    /// Signature by the key to be replaced, see [`bastio_protocol::replacement_text`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proof: Option<&'a str>,
    /// The key that signs this server's receipts, as base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt_key: Option<String>,
    /// Signature by `public_key`, see [`bastio_protocol::receipt_key_text`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt_proof: Option<String>,
}

/// What the backend answered to an upload.
#[derive(Debug, Default, Deserialize)]
pub struct Uploaded {
    server: Option<UploadedServer>,
}

#[derive(Debug, Deserialize)]
struct UploadedServer {
    /// A number or a text.
    id: Option<serde_json::Value>,
    name: Option<String>,
    signing_key: Option<String>,
    waits: Option<String>,
}

/// Why a call failed.
#[derive(Debug, Error)]
pub enum ApiError {
    /// The URL is none.
    #[error("{url}: {reason}\nhint: give the backend as http://HOST:2358 or https://HOST")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No answer.
    #[error(
        "{url}: {reason}\n\
         hint: is the backend running, is this its HTTP port, and does this server know the name?"
    )]
    Unreachable {
        /// The call.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The backend does not know the API key, or does not let it enrol servers.
    #[error("the backend refused the API key{said}\nhint: {hint}")]
    NotAuthorized {
        /// The backend's words.
        said: Said,
        /// The backend's hint, else ours.
        hint: String,
    },
    /// The backend says that the request is wrong.
    #[error("the backend refused the request as malformed (HTTP 400){0}")]
    BadRequest(Said),
    /// The answer of something else.
    #[error("{url}: HTTP status {status}{said}\nhint: {hint}")]
    Status {
        /// The call.
        url: String,
        /// The status code.
        status: u16,
        /// The body's words, if any.
        said: Said,
        /// What it may mean.
        hint: &'static str,
    },
    /// An answer that is none.
    #[error("{url}: {reason}\nhint: is this the backend's HTTP side?")]
    BadAnswer {
        /// The call.
        url: String,
        /// What is wrong.
        reason: String,
    },
}

/// The words of a backend's error, made safe to print.
#[derive(Debug, Default)]
pub struct Said(String);

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}

#[derive(Deserialize)]
struct HostKeyBody {
    payload: String,
    port: Option<NonZeroU16>,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: String,
    hint: Option<String>,
}

impl Uploaded {
    /// Whether the answer is that of a backend which speaks only version 1.
    #[must_use]
    pub fn is_version_1(&self) -> bool {
        self.server.is_none()
    }

    /// Who signs what the server will be ordered to do; `None` when this backend signs nothing.
    ///
    /// # Errors
    /// What is wrong with the answer.
    pub fn signer(&self) -> Result<Option<Signer>, String> {
        let Some(server) = &self.server else { return Ok(None) };
        let Some(key) = &server.signing_key else { return Ok(None) };
        let id = match &server.id {
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(serde_json::Value::Number(number)) => number.to_string(),
            _ => return Err("a signing key without the server's id".to_owned()),
        };
        let server = ServerId::parse(&id).map_err(|error| error.to_string())?;
        let key = key.parse().map_err(|error: SigningError| error.to_string())?;
        Ok(Some(Signer { server, key }))
    }

    /// What an operator must decide before the agent is let in.
    #[must_use]
    pub fn waits_for(&self) -> Option<String> {
        let waits = self.server.as_ref()?.waits.as_deref()?;
        Some(printable(waits))
    }

    /// The server's name.
    #[must_use]
    pub fn server_name(self) -> Option<String> {
        self.server.and_then(|server| server.name).map(|name| printable(&name))
    }
}

impl Api {
    /// The API behind `url`: a base URL, or only `scheme://host[:port]`.
    ///
    /// # Errors
    /// [`ApiError::Url`].
    pub fn new(url: &str) -> Result<Self, ApiError> {
        let wrong = |reason| ApiError::Url { url: url.to_owned(), reason };
        let parsed = Uri::from_str(url).map_err(|_| wrong("not a URL"))?;
        let scheme = parsed.scheme_str().unwrap_or_default().to_ascii_lowercase();
        if !matches!(scheme.as_str(), "http" | "https") {
            return Err(wrong("the scheme must be http or https"));
        }
        let authority = parsed.authority().ok_or_else(|| wrong("no host"))?;
        if authority.as_str().contains('@') || parsed.query().is_some() {
            return Err(wrong("neither user nor query may stand in the URL"));
        }
        let host = authority.host().to_owned();
        let path = match parsed.path().trim_end_matches('/') {
            "" => DEFAULT_PATH,
            path => path,
        };
        Ok(Self { agent: http_agent(), base: format!("{scheme}://{authority}{path}"), host })
    }

    /// The URL's host.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Fetches the host key: Ed25519 from our backend; a version-1 backend ignores the wish and
    /// returns its RSA key.
    ///
    /// # Errors
    /// [`ApiError`].
    pub fn host_key(&self) -> Result<HostKeyAnswer, ApiError> {
        let url = format!("{}/backend/host_key?type=ed25519", self.base);
        let (status, text) = self.answer(&url, self.agent.get(&url).call())?;
        if status != 200 {
            return Err(refusal(url, status, &text));
        }
        let bad = |reason: String| ApiError::BadAnswer { url: url.clone(), reason };
        let body: HostKeyBody =
            serde_json::from_str(&text).map_err(|error| bad(format!("no host key: {error}")))?;
        let pin = HostKeyPin::from_str(body.payload.trim())
            .map_err(|error| bad(format!("no host key: {error}")))?;
        Ok(HostKeyAnswer { pin, port: body.port })
    }

    /// Uploads a public key.
    ///
    /// # Errors
    /// [`ApiError`]; only status 200 counts as accepted.
    pub fn upload(&self, upload: &Upload<'_>) -> Result<Uploaded, ApiError> {
        let url = format!("{}/server/upload_key", self.base);
        let body = serde_json::to_vec(upload).expect("strings always serialise");
        let sent = self.agent.post(&url).content_type("application/json").send(&body);
        let (status, text) = self.answer(&url, sent)?;
        match status {
            // The body of a version-1 backend means nothing.
            200 => Ok(serde_json::from_str(&text).unwrap_or_default()),
            status => Err(refusal(url, status, &text)),
        }
    }

    fn answer(
        &self,
        url: &str,
        sent: Result<Response<Body>, ureq::Error>,
    ) -> Result<(u16, String), ApiError> {
        let unreachable = |error: ureq::Error| ApiError::Unreachable {
            url: url.to_owned(),
            reason: error.to_string(),
        };
        let mut response = sent.map_err(unreachable)?;
        let text = response
            .body_mut()
            .with_config()
            .limit(LONGEST_ANSWER)
            .lossy_utf8(true)
            .read_to_string()
            .map_err(unreachable)?;
        Ok((response.status().as_u16(), text))
    }
}

fn refusal(url: String, status: u16, text: &str) -> ApiError {
    let body = serde_json::from_str::<ErrorBody>(text).ok();
    let said = Said(body.as_ref().map(|body| printable(&body.error)).unwrap_or_default());
    let hint = match status {
        400 => return ApiError::BadRequest(said),
        401 | 403 => {
            let hint = body.and_then(|body| body.hint).map(|hint| printable(&hint));
            let hint = hint.unwrap_or_else(|| NO_API_KEY.to_owned());
            return ApiError::NotAuthorized { said, hint };
        }
        300..=399 => "the backend is elsewhere: give its final URL",
        404 => "there is no bastio API under this URL",
        500..=599 => "the backend has a problem: look at its log, then try again",
        _ => "is this the backend's HTTP side?",
    };
    ApiError::Status { url, status, said, hint }
}

/// Foreign text without control characters, and not too much of it.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(LONGEST_TEXT).collect()
}

fn http_agent() -> Agent {
    Agent::config_builder()
        .timeout_global(Some(LIMIT))
        .http_status_as_error(false)
        // A redirect could carry the API key to another host, or from https to http.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("bastio-agent/", env!("CARGO_PKG_VERSION")))
        .tls_config(TlsConfig::builder().root_certs(system_roots()).build())
        .build()
        .into()
}

/// The system's certificate authorities, so that a company's own counts; Mozilla's where the
/// system has none.
fn system_roots() -> RootCerts {
    let bundle = CA_BUNDLES.iter().find_map(|path| std::fs::read(path).ok()).unwrap_or_default();
    let roots: Vec<_> = parse_pem(&bundle)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if roots.is_empty() { RootCerts::WebPki } else { RootCerts::new_with_certs(&roots) }
}
