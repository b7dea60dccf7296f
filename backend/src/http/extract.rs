//! What handlers take out of requests: path, query, body, peer, and the proof of access.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use bastio_protocol::api::{CONFIRM_HEADER, DRY_RUN_HEADER, IF_REVISION_HEADER};

use super::HttpState;
use super::problem::Problem;
use super::proposals::Approved;
use crate::access::{Admin, Intent};

/// Parts of the path.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub(super) struct Path<T>(pub(super) T);

/// The query.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub(super) struct Query<T>(pub(super) T);

/// A JSON body.
#[derive(FromRequest)]
#[from_request(via(axum::Json), rejection(Problem))]
pub(super) struct Body<T>(pub(super) T);

/// Where a request comes from; the server puts it in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// Where a request comes from, if it came over a network.
pub(super) struct From(pub(super) Option<IpAddr>);

impl<S: Sync> FromRequestParts<S> for From {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get::<Peer>().map(|peer| peer.0)))
    }
}

/// A handler that takes [`Admin`] runs only for requests with such a token.
impl FromRequestParts<HttpState> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, Problem> {
        if let Some(Approved(approval)) = parts.extensions.get() {
            return Ok(state.keys.approved(Arc::clone(approval)).await?);
        }
        let token = bearer(parts).ok_or_else(|| Problem::unauthorized("no API key was sent"))?;
        let from = parts.extensions.get::<Peer>().map(|peer| peer.0);
        let intent = Intent {
            dry_run: says(parts, DRY_RUN_HEADER, "yes")?,
            confirmed: says(parts, CONFIRM_HEADER, "yes-really")?,
            if_revision: number(parts, IF_REVISION_HEADER)?,
        };
        Ok(state.keys.admin(token, from).await?.with_intent(intent))
    }
}

/// Whether a header that knows one value is there. Any other value is refused: a request that was
/// only to be tried must not be done for a typing error.
fn says(parts: &Parts, name: &str, yes: &str) -> Result<bool, Problem> {
    match parts.headers.get(name) {
        None => Ok(false),
        Some(value) if value == yes => Ok(true),
        Some(_) => Err(Problem::bad_request(format!("{name}: the only value there is, is {yes}"))),
    }
}

/// The number in a header; anything else in it is refused.
fn number(parts: &Parts, name: &str) -> Result<Option<i64>, Problem> {
    let Some(value) = parts.headers.get(name) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| Problem::bad_request(format!("{name}: a number is wanted")))
}

pub(super) fn bearer(parts: &Parts) -> Option<&str> {
    let header = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}
