//! Groups of people.

use axum::Json;
use axum::extract::State;
use bastio_protocol::api::{Change, Group, NewGroup, RemoveGroup, UpdateGroup, UserGroup};

use super::HttpState;
use super::extract::{Body, Path, Query};
use super::problem::Problem;
use crate::access::Admin;

/// `GET /groups`
pub(super) async fn list(
    State(state): State<HttpState>,
    admin: Admin,
) -> Result<Json<Vec<Group>>, Problem> {
    Ok(Json(state.fleet.groups(&admin).await?))
}

/// `POST /groups`
pub(super) async fn add(
    State(state): State<HttpState>,
    admin: Admin,
    Body(new): Body<NewGroup>,
) -> Result<Json<Change>, Problem> {
    Ok(Json(state.fleet.add_group(&admin, &new).await?))
}

/// `GET /groups/{name}`
pub(super) async fn show(
    State(state): State<HttpState>,
    admin: Admin,
    Path(name): Path<UserGroup>,
) -> Result<Json<Group>, Problem> {
    Ok(Json(state.fleet.group(&admin, &name).await?))
}

/// `PATCH /groups/{name}`
pub(super) async fn update(
    State(state): State<HttpState>,
    admin: Admin,
    Path(name): Path<UserGroup>,
    Body(update): Body<UpdateGroup>,
) -> Result<Json<Change>, Problem> {
    Ok(Json(state.fleet.update_group(&admin, &name, &update).await?))
}

/// `DELETE /groups/{name}`
pub(super) async fn remove(
    State(state): State<HttpState>,
    admin: Admin,
    Path(name): Path<UserGroup>,
    Query(how): Query<RemoveGroup>,
) -> Result<Json<Change>, Problem> {
    Ok(Json(state.fleet.remove_group(&admin, &name, how).await?))
}
