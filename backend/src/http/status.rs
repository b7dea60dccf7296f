//! The fleet in numbers.

use axum::Json;
use axum::extract::State;
use bastio_protocol::api::StatusReport;

use super::HttpState;
use super::problem::Problem;
use crate::access::Admin;

/// `GET /status`
pub(super) async fn status(
    State(state): State<HttpState>,
    admin: Admin,
) -> Result<Json<StatusReport>, Problem> {
    let host_key = state.site.ed25519_host_key.fingerprint();
    let sealed = state.sealed().map(str::to_owned);
    Ok(Json(StatusReport { sealed, ..state.fleet.status(&admin, host_key).await? }))
}
