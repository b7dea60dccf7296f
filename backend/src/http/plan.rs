//! How far the servers are.

use axum::Json;
use axum::extract::State;
use bastio_protocol::ServerName;
use bastio_protocol::api::ServerPlan;
use serde::Deserialize;

use super::HttpState;
use super::extract::Query;
use super::problem::Problem;
use crate::access::Admin;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    server: Option<ServerName>,
}

/// `GET /plan`
pub(super) async fn show(
    State(state): State<HttpState>,
    admin: Admin,
    Query(filter): Query<Filter>,
) -> Result<Json<Vec<ServerPlan>>, Problem> {
    Ok(Json(state.fleet.convergence(&admin, filter.server.as_ref()).await?))
}
