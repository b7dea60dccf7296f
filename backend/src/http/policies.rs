//! Sudo policies.

use axum::Json;
use axum::extract::State;
use bastio_protocol::api::{NamedPolicy, PolicyName};

use super::HttpState;
use super::extract::{Body, Path};
use super::problem::Problem;
use crate::access::Admin;

/// `GET /sudo-policies`
pub(super) async fn list(
    State(state): State<HttpState>,
    admin: Admin,
) -> Result<Json<Vec<NamedPolicy>>, Problem> {
    Ok(Json(state.fleet.policies(&admin).await?))
}

/// `POST /sudo-policies`
pub(super) async fn add(
    State(state): State<HttpState>,
    admin: Admin,
    Body(new): Body<NamedPolicy>,
) -> Result<Json<NamedPolicy>, Problem> {
    Ok(Json(state.fleet.add_policy(&admin, &new).await?))
}

/// `DELETE /sudo-policies/{name}`
pub(super) async fn remove(
    State(state): State<HttpState>,
    admin: Admin,
    Path(name): Path<PolicyName>,
) -> Result<Json<NamedPolicy>, Problem> {
    Ok(Json(state.fleet.remove_policy(&admin, &name).await?))
}
