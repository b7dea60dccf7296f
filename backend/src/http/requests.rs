//! What is asked of servers as a whole.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use bastio_protocol::ServerName;
use bastio_protocol::api::{NewRequest, RequestReport};
use serde::Deserialize;

use super::HttpState;
use super::extract::{Body, Path, Query};
use super::problem::Problem;
use crate::access::Admin;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitQuery {
    #[serde(default)]
    wait: u64,
}

/// `POST /servers/{name}/requests`
pub(super) async fn ask(
    State(state): State<HttpState>,
    admin: Admin,
    Path(name): Path<ServerName>,
    Body(new): Body<NewRequest>,
) -> Result<(StatusCode, Json<RequestReport>), Problem> {
    Ok((StatusCode::ACCEPTED, Json(state.fleet.request(&admin, &name, new).await?)))
}

/// `GET /requests/{id}`
pub(super) async fn show(
    State(state): State<HttpState>,
    admin: Admin,
    Path(id): Path<i64>,
    Query(query): Query<WaitQuery>,
) -> Result<Json<RequestReport>, Problem> {
    let wait = Duration::from_secs(query.wait);
    Ok(Json(state.fleet.await_request(&admin, id, wait).await?))
}
