//! What is done about drift.

use axum::Json;
use axum::extract::State;
use bastio_protocol::Target;
use bastio_protocol::api::{Change, DriftRule, DriftRuleInForce};

use super::HttpState;
use super::extract::{Body, Path};
use super::problem::Problem;
use crate::access::Admin;

/// `GET /drift`
pub(super) async fn list(
    State(state): State<HttpState>,
    admin: Admin,
) -> Result<Json<Vec<DriftRuleInForce>>, Problem> {
    Ok(Json(state.fleet.drift_rules(&admin).await?))
}

/// `POST /drift`
pub(super) async fn set(
    State(state): State<HttpState>,
    admin: Admin,
    Body(rule): Body<DriftRule>,
) -> Result<Json<Change>, Problem> {
    Ok(Json(state.fleet.set_drift_rule(&admin, &rule).await?))
}

/// `DELETE /drift/{on}`
pub(super) async fn remove(
    State(state): State<HttpState>,
    admin: Admin,
    Path(on): Path<Target>,
) -> Result<Json<Change>, Problem> {
    Ok(Json(state.fleet.remove_drift_rule(&admin, &on).await?))
}
