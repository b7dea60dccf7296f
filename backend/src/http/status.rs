//! The fleet in numbers, and the audit log.

use axum::Json;
use axum::extract::State;
use bastio_protocol::api::{AuditRow, StatusReport};
use bastio_protocol::{ServerName, Username};
use serde::Deserialize;

use super::HttpState;
use super::extract::Query;
use super::problem::Problem;
use crate::access::Admin;

/// Rows of the log when nobody says how many.
const DEFAULT_LOG: u32 = 100;

/// `GET /status`
pub(super) async fn status(
    State(state): State<HttpState>,
    admin: Admin,
) -> Result<Json<StatusReport>, Problem> {
    let host_key = state.site.ed25519_host_key.fingerprint();
    Ok(Json(state.fleet.status(&admin, host_key).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogQuery {
    limit: Option<u32>,
    user: Option<Username>,
    server: Option<ServerName>,
}

/// `GET /log`
pub(super) async fn log(
    State(state): State<HttpState>,
    admin: Admin,
    Query(query): Query<LogQuery>,
) -> Result<Json<Vec<AuditRow>>, Problem> {
    let limit = query.limit.unwrap_or(DEFAULT_LOG);
    let rows = state.fleet.log(&admin, limit, query.user.as_ref(), query.server.as_ref()).await?;
    Ok(Json(rows))
}
