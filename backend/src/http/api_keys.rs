//! API keys.

use axum::Json;
use axum::extract::State;
use bastio_protocol::api::{ApiKey, CreatedApiKey, EnrollHint, NewApiKey, Role};

use super::HttpState;
use super::extract::{Body, Path};
use super::problem::Problem;
use crate::access::Admin;

/// `GET /api-keys`
pub(super) async fn list(
    State(state): State<HttpState>,
    admin: Admin,
) -> Result<Json<Vec<ApiKey>>, Problem> {
    Ok(Json(state.keys.list(&admin).await?))
}

/// `POST /api-keys`
pub(super) async fn create(
    State(state): State<HttpState>,
    admin: Admin,
    Body(new): Body<NewApiKey>,
) -> Result<Json<CreatedApiKey>, Problem> {
    let (key, secret) = state.keys.create(&admin, &new).await?;
    let enroll = (new.role == Role::Enroll).then(|| EnrollHint {
        backend: state.site.public_url.clone(),
        host_key: state.site.ed25519_host_key.fingerprint(),
    });
    Ok(Json(CreatedApiKey { key, secret: secret.expose().to_owned(), enroll }))
}

/// `DELETE /api-keys/{name}`
pub(super) async fn revoke(
    State(state): State<HttpState>,
    admin: Admin,
    Path(name): Path<String>,
) -> Result<Json<ApiKey>, Problem> {
    Ok(Json(state.keys.revoke(&admin, &name).await?))
}
