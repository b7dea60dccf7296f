//! The whole model, or a part of it, at once.

use axum::Json;
use axum::extract::State;
use bastio_protocol::api::{Change, Policy};
use serde::Deserialize;

use super::HttpState;
use super::extract::{Body, Query};
use super::problem::Problem;
use crate::access::Admin;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct How {
    /// Whether what the sections of the policy do not name goes.
    #[serde(default)]
    prune: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct When {
    /// As of that revision; as it is now when absent.
    revision: Option<i64>,
}

/// `GET /policy?revision=NUMBER`
pub(super) async fn export(
    State(state): State<HttpState>,
    admin: Admin,
    Query(when): Query<When>,
) -> Result<Json<Policy>, Problem> {
    Ok(Json(match when.revision {
        Some(revision) => state.fleet.export_at(&admin, revision).await?,
        None => state.fleet.export(&admin).await?,
    }))
}

/// `POST /policy?prune=true`
pub(super) async fn apply(
    State(state): State<HttpState>,
    admin: Admin,
    Query(how): Query<How>,
    Body(wanted): Body<Policy>,
) -> Result<Json<Change>, Problem> {
    Ok(Json(state.fleet.apply(&admin, &wanted, how.prune).await?))
}
