//! For those who watch the backend: its metrics, whether it lives, and whether it is ready.
//!
//! `/healthz` and `/readyz` are open to everybody and tell a word.

use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::HttpState;
use super::extract::bearer;
use super::problem::Problem;
use crate::access::Watcher;

/// Version 0.0.4 of the format.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// How long the database may take to answer a backend that is ready.
const READY_WITHIN: Duration = Duration::from_secs(1);
/// The route of requests that have none; their paths are anybody's choice.
const NO_ROUTE: &str = "none";

/// A handler that takes [`Watcher`] runs only for requests with a token that may read metrics.
impl FromRequestParts<HttpState> for Watcher {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &HttpState) -> Result<Self, Problem> {
        let token = bearer(parts).ok_or_else(|| {
            let hint = "send `Authorization: Bearer TOKEN` with the secret of an API key of role \
                        metrics or admin; `bastio api-key add prometheus --role metrics`";
            Problem::new(StatusCode::UNAUTHORIZED, "no API key was sent", Some(hint))
        })?;
        Ok(state.keys.watcher(token).await?)
    }
}

/// `GET /metrics`
pub(super) async fn metrics(State(state): State<HttpState>, _proof: Watcher) -> Response {
    ([(header::CONTENT_TYPE, FORMAT)], state.metrics.scrape().await).into_response()
}

/// `GET /healthz`
pub(super) async fn health() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// `GET /readyz`. This port is bound last, so whoever reads this finds the others, too. A backend
/// whose signing key is sealed is ready to be asked for everything, `bastio unseal` among it.
pub(super) async fn readiness(State(state): State<HttpState>) -> (StatusCode, Json<Value>) {
    let (code, word) = if state.draining.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else if !state.store.answers_within(READY_WITHIN).await {
        (StatusCode::SERVICE_UNAVAILABLE, "database")
    } else if let Some(reason) = state.sealed() {
        return (StatusCode::OK, Json(json!({ "status": "degraded", "reason": reason })));
    } else {
        (StatusCode::OK, "ready")
    };
    (code, Json(json!({ "status": word })))
}

/// Counts requests by method, route and status.
pub(super) async fn count(
    State(state): State<HttpState>,
    request: Request,
    next: Next,
) -> Response {
    let method = method(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    state.metrics.requests().answered(method, route, response.status().as_u16());
    response
}

/// Anybody may send any method.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}
