//! What became of an edit; waits for news when asked to.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use bastio_protocol::api::Change;
use serde::Deserialize;

use super::HttpState;
use super::extract::{Path, Query};
use super::problem::Problem;
use crate::access::Admin;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitQuery {
    after: Option<u64>,
    #[serde(default)]
    wait: u64,
}

/// `GET /changes/{revision}`
pub(super) async fn show(
    State(state): State<HttpState>,
    admin: Admin,
    Path(revision): Path<i64>,
    Query(query): Query<WaitQuery>,
) -> Result<Json<Change>, Problem> {
    let wait = Duration::from_secs(query.wait);
    Ok(Json(state.fleet.change(&admin, revision, query.after, wait).await?))
}
