//! What the backend's answers mean. Must not know which operation was asked for.

use bastio_protocol::api::ApiError;
use serde::de::DeserializeOwned;
use thiserror::Error;
use ureq::Body;
use ureq::http::header::LOCATION;
use ureq::http::{Response, StatusCode};

use crate::settings::BackendUrl;

/// Largest answer that is read, in bytes: 20,000 servers in a list.
const MAX_ANSWER: u64 = 32 * 1024 * 1024;

/// What to ask oneself when something else than a backend answers.
const STRANGER: &str = "is this URL a bastio backend, and of a version near this one?";

/// What to do when the backend does not know the token.
const UNKNOWN_TOKEN: &str = "log in with a token of role admin: bastio login URL; if none is left, \
                             the backend's host makes one: bastio-backend admin-token";

/// Why a request came to nothing.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No backend answered.
    #[error("cannot reach {url}: {reason}")]
    Unreachable {
        /// The backend.
        url: BackendUrl,
        /// What was seen.
        reason: String,
    },
    /// The backend said no.
    #[error("{error}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// Its words.
        error: String,
        /// Its advice.
        hint: Option<String>,
        /// The proposal that the request became.
        proposal: Option<i64>,
    },
    /// It sent us elsewhere, where the token must not go unasked.
    #[error("{url} answers with a redirect to {to}")]
    Redirect {
        /// The backend.
        url: BackendUrl,
        /// Where to.
        to: String,
    },
    /// The answer is none of this API.
    #[error("the answer is not what this version of bastio understands: {0}")]
    Misunderstood(String),
    /// The request could not be put together.
    #[error("the request cannot be sent as HTTP")]
    Unsendable,
}

impl ClientError {
    /// The error for a request that got no answer, or none that could be read.
    pub fn unreachable(url: &BackendUrl, error: &ureq::Error) -> Self {
        let reason = match error {
            ureq::Error::BodyExceedsLimit(limit) => {
                return Self::Misunderstood(format!("more than {limit} bytes"));
            }
            ureq::Error::Io(error) => error.to_string(),
            ureq::Error::HostNotFound => "no such host".to_owned(),
            ureq::Error::Timeout(at) => format!("no answer in time ({at})"),
            other => other.to_string(),
        };
        Self::Unreachable { url: url.clone(), reason }
    }

    /// Whether no backend answered.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// The proposal that the request became: it waits for another operator.
    pub fn proposal(&self) -> Option<i64> {
        match self {
            Self::Refused { proposal, .. } => *proposal,
            _ => None,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { .. } => Some(
                "is the backend running, and is its URL right? see: bastio login --help".into(),
            ),
            // The backend's own advice is for those who speak HTTP to it.
            Self::Refused { status, .. } if *status == StatusCode::UNAUTHORIZED => {
                Some(UNKNOWN_TOKEN.into())
            }
            Self::Refused { hint: Some(hint), .. } => Some(hint.clone()),
            Self::Refused { .. } | Self::Unsendable => None,
            Self::Redirect { .. } => Some("log in with the URL that the backend itself has".into()),
            Self::Misunderstood(_) => Some(STRANGER.into()),
        }
    }
}

/// Reads an answer; the body when it says yes.
pub fn read(answer: Response<Body>, url: &BackendUrl) -> Result<Vec<u8>, ClientError> {
    let (parts, body) = answer.into_parts();
    let body = body
        .into_with_config()
        .limit(MAX_ANSWER)
        .read_to_vec()
        .map_err(|error| ClientError::unreachable(url, &error))?;
    if parts.status.is_success() {
        return Ok(body);
    }
    if parts.status.is_redirection() {
        let to = parts.headers.get(LOCATION).and_then(|to| to.to_str().ok());
        let to = to.unwrap_or("nowhere").to_owned();
        return Err(ClientError::Redirect { url: url.clone(), to });
    }
    Err(refusal(parts.status, &body, url))
}

/// The error in an answer that says no. A gateway that finds no backend behind it answers 502 to
/// 504 in its own words.
fn refusal(status: StatusCode, body: &[u8], url: &BackendUrl) -> ClientError {
    match serde_json::from_slice::<ApiError>(body) {
        Ok(ApiError { error, hint, proposal }) => {
            ClientError::Refused { status, error, hint, proposal }
        }
        Err(_) if matches!(status.as_u16(), 502..=504) => {
            ClientError::Unreachable { url: url.clone(), reason: status.to_string() }
        }
        Err(_) => {
            let error = format!("the backend answered {status}");
            // A bastio backend gives its reason even for addresses that it does not know.
            let stranger = matches!(status.as_u16(), 404 | 405);
            let hint = stranger.then(|| STRANGER.to_owned());
            ClientError::Refused { status, error, hint, proposal: None }
        }
    }
}

/// Parses the body of an answer.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| ClientError::Misunderstood(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_from_absence() {
        let url: BackendUrl = "http://b".parse().expect("an URL");
        let api = br#"{"error":"no such user","hint":"see user ls"}"#;
        for (status, body, message, unreachable) in [
            (404, &api[..], "no such user", false),
            (503, &api[..], "no such user", false),
            (503, b"<html>", "cannot reach http://b: 503 Service Unavailable", true),
            (502, b"", "cannot reach http://b: 502 Bad Gateway", true),
            (500, b"oops", "the backend answered 500 Internal Server Error", false),
            (403, b"{}", "the backend answered 403 Forbidden", false),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let error = refusal(status, body, &url);
            assert_eq!(
                (error.to_string().as_str(), error.is_unreachable()),
                (message, unreachable)
            );
        }
    }
}
