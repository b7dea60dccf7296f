//! Servers.

use axum::Json;
use axum::extract::State;
use bastio_protocol::ServerName;
use bastio_protocol::api::{Change, ReplaceServer, Server, ServerDetail, UpdateServer};

use super::HttpState;
use super::extract::{Body, Path};
use super::problem::Problem;
use crate::access::Admin;

/// `GET /servers`
pub(super) async fn list(
    State(state): State<HttpState>,
    admin: Admin,
) -> Result<Json<Vec<Server>>, Problem> {
    Ok(Json(state.fleet.servers(&admin).await?))
}

/// `GET /servers/{name}`
pub(super) async fn show(
    State(state): State<HttpState>,
    admin: Admin,
    Path(name): Path<ServerName>,
) -> Result<Json<ServerDetail>, Problem> {
    Ok(Json(state.fleet.server(&admin, &name).await?))
}

/// `PATCH /servers/{name}`
pub(super) async fn update(
    State(state): State<HttpState>,
    admin: Admin,
    Path(name): Path<ServerName>,
    Body(update): Body<UpdateServer>,
) -> Result<Json<Change>, Problem> {
    Ok(Json(state.fleet.update_server(&admin, &name, &update).await?))
}

/// `POST /servers/{name}/sync`
pub(super) async fn sync(
    State(state): State<HttpState>,
    admin: Admin,
    Path(name): Path<ServerName>,
) -> Result<Json<Change>, Problem> {
    Ok(Json(state.fleet.sync_server(&admin, &name).await?))
}

/// `POST /servers/{name}/accept`
pub(super) async fn accept(
    State(state): State<HttpState>,
    admin: Admin,
    Path(name): Path<ServerName>,
) -> Result<Json<Change>, Problem> {
    Ok(Json(state.fleet.accept_server(&admin, &name).await?))
}

/// `POST /servers/{name}/replace`
pub(super) async fn replace(
    State(state): State<HttpState>,
    admin: Admin,
    Path(name): Path<ServerName>,
    Body(how): Body<ReplaceServer>,
) -> Result<Json<Change>, Problem> {
    Ok(Json(state.fleet.replace_server(&admin, &name, &how.with).await?))
}

/// `DELETE /servers/{name}`
pub(super) async fn remove(
    State(state): State<HttpState>,
    admin: Admin,
    Path(name): Path<ServerName>,
) -> Result<Json<Change>, Problem> {
    Ok(Json(state.fleet.remove_server(&admin, &name).await?))
}
