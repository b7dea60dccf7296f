//! People and their keys.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use bastio_protocol::api::{
    Change, EndSessions, Key, NewKeys, NewUser, RemoveUser, StateReason, UpdateUser, User,
};
use bastio_protocol::{AccessReport, Username};

use serde::Deserialize;

use super::HttpState;
use super::extract::{Body, Path, Query};
use super::problem::Problem;
use crate::access::Admin;
use crate::unsealing::Unsealing;

/// `GET /users`
pub(super) async fn list(
    State(state): State<HttpState>,
    admin: Admin,
) -> Result<Json<Vec<User>>, Problem> {
    Ok(Json(state.fleet.users(&admin).await?))
}

/// `POST /users`
pub(super) async fn add(
    State(state): State<HttpState>,
    admin: Admin,
    Body(new): Body<NewUser>,
) -> Result<Json<Change>, Problem> {
    Ok(Json(state.fleet.add_user(&admin, &new).await?))
}

/// `GET /users/{name}`
pub(super) async fn show(
    State(state): State<HttpState>,
    admin: Admin,
    Path(name): Path<Username>,
) -> Result<Json<User>, Problem> {
    Ok(Json(state.fleet.user(&admin, &name).await?))
}

/// `PATCH /users/{name}`
pub(super) async fn update(
    State(state): State<HttpState>,
    admin: Admin,
    Path(name): Path<Username>,
    Body(update): Body<UpdateUser>,
) -> Result<Json<Change>, Problem> {
    Ok(Json(state.fleet.update_user(&admin, &name, &update).await?))
}

/// `DELETE /users/{name}`
pub(super) async fn remove(
    State(state): State<HttpState>,
    admin: Admin,
    Path(name): Path<Username>,
    Query(how): Query<RemoveUser>,
) -> Result<Json<Change>, Problem> {
    Ok(Json(state.fleet.remove_user(&admin, &name, how).await?))
}

/// `POST /users/{name}/end-sessions`
pub(super) async fn end_sessions(
    State(state): State<HttpState>,
    admin: Admin,
    Path(name): Path<Username>,
    Body(how): Body<EndSessions>,
) -> Result<Json<Change>, Problem> {
    Ok(Json(state.fleet.end_sessions(&admin, &name, &how).await?))
}

/// `GET /users/{name}/keys`
pub(super) async fn keys(
    State(state): State<HttpState>,
    admin: Admin,
    Path(name): Path<Username>,
) -> Result<Json<Vec<Key>>, Problem> {
    Ok(Json(state.fleet.user(&admin, &name).await?.keys))
}

/// `POST /users/{name}/keys`
pub(super) async fn add_keys(
    State(state): State<HttpState>,
    admin: Admin,
    Path(name): Path<Username>,
    Body(new): Body<NewKeys>,
) -> Result<Json<Change>, Problem> {
    Ok(Json(state.fleet.add_keys(&admin, &name, &new).await?))
}

/// `DELETE /users/{name}/keys/{fingerprint}`
pub(super) async fn remove_key(
    State(state): State<HttpState>,
    admin: Admin,
    Path((name, fingerprint)): Path<(Username, String)>,
) -> Result<Json<Change>, Problem> {
    Ok(Json(state.fleet.remove_key(&admin, &name, &fingerprint).await?))
}

/// `POST /users/{name}/disable`
pub(super) async fn disable(
    State(state): State<HttpState>,
    admin: Admin,
    Path(name): Path<Username>,
    Body(why): Body<StateReason>,
) -> Result<Json<Change>, Problem> {
    Ok(Json(state.fleet.disable_user(&admin, &name, &why.reason).await?))
}

/// `POST /users/{name}/enable`
pub(super) async fn enable(
    State(state): State<HttpState>,
    admin: Admin,
    Path(name): Path<Username>,
    Body(why): Body<StateReason>,
) -> Result<Json<Change>, Problem> {
    Ok(Json(state.fleet.enable_user(&admin, &name, &why.reason).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProofQuery {
    #[serde(default)]
    wait: u64,
}

/// `GET /users/{name}/proof`
pub(super) async fn proof(
    State(state): State<HttpState>,
    admin: Admin,
    Path(name): Path<Username>,
    Query(query): Query<ProofQuery>,
) -> Result<Json<AccessReport>, Problem> {
    let wait = Duration::from_secs(query.wait);
    let keys = state.signing.as_ref().and_then(Unsealing::keys);
    let signer = keys.map(|keys| keys.current().as_ref());
    Ok(Json(state.fleet.access_report(&admin, &name, wait, signer).await?))
}
