//! Grants.

use axum::Json;
use axum::extract::State;
use bastio_protocol::Username;
use bastio_protocol::api::{Change, Grant, NewGrant};
use serde::Deserialize;

use super::HttpState;
use super::extract::{Body, Path, Query};
use super::problem::Problem;
use crate::access::Admin;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    user: Option<Username>,
}

/// `GET /grants`
pub(super) async fn list(
    State(state): State<HttpState>,
    admin: Admin,
    Query(filter): Query<Filter>,
) -> Result<Json<Vec<Grant>>, Problem> {
    Ok(Json(state.fleet.grants(&admin, filter.user.as_ref()).await?))
}

/// `POST /grants`
pub(super) async fn add(
    State(state): State<HttpState>,
    admin: Admin,
    Body(new): Body<NewGrant>,
) -> Result<Json<Change>, Problem> {
    Ok(Json(state.fleet.add_grant(&admin, &new).await?))
}

/// `DELETE /grants/{id}`
pub(super) async fn remove(
    State(state): State<HttpState>,
    admin: Admin,
    Path(id): Path<i64>,
) -> Result<Json<Change>, Problem> {
    Ok(Json(state.fleet.remove_grant(&admin, id).await?))
}
