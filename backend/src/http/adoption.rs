//! What is on a server already.

use axum::Json;
use axum::extract::State;
use bastio_protocol::api::{Adopt, Candidate, Change};
use bastio_protocol::{ServerName, Username};
use serde::Deserialize;

use super::HttpState;
use super::extract::{Body, Path, Query};
use super::problem::Problem;
use crate::access::Admin;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Seen {
    request: i64,
}

/// `GET /servers/{name}/adoption`
pub(super) async fn list(
    State(state): State<HttpState>,
    admin: Admin,
    Path(name): Path<ServerName>,
    Query(seen): Query<Seen>,
) -> Result<Json<Vec<Candidate>>, Problem> {
    Ok(Json(state.fleet.candidates(&admin, &name, seen.request).await?))
}

/// `POST /servers/{name}/adoption`
pub(super) async fn take(
    State(state): State<HttpState>,
    admin: Admin,
    Path(name): Path<ServerName>,
    Body(adopt): Body<Adopt>,
) -> Result<Json<Change>, Problem> {
    Ok(Json(state.fleet.adopt(&admin, &name, &adopt).await?))
}

/// `DELETE /servers/{name}/adoption/{login}`
pub(super) async fn give_back(
    State(state): State<HttpState>,
    admin: Admin,
    Path((name, login)): Path<(ServerName, Username)>,
) -> Result<Json<Change>, Problem> {
    Ok(Json(state.fleet.give_back(&admin, &name, &login).await?))
}
