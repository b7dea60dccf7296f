//! Revisions of the model, and going back to one.

use axum::Json;
use axum::extract::State;
use bastio_protocol::api::{Change, Revision, Undo};
use serde::Deserialize;

use super::HttpState;
use super::extract::{Body, Query};
use super::problem::Problem;
use crate::access::Admin;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    before: Option<i64>,
    #[serde(default = "some")]
    limit: u32,
}

fn some() -> u32 {
    100
}

/// `GET /revisions`
pub(super) async fn list(
    State(state): State<HttpState>,
    admin: Admin,
    Query(which): Query<Which>,
) -> Result<Json<Vec<Revision>>, Problem> {
    Ok(Json(state.fleet.revisions(&admin, which.before, which.limit).await?))
}

/// `POST /undo`
pub(super) async fn undo(
    State(state): State<HttpState>,
    admin: Admin,
    Body(undo): Body<Undo>,
) -> Result<Json<Change>, Problem> {
    Ok(Json(state.fleet.undo(&admin, &undo).await?))
}
