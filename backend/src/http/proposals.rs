//! Requests that wait for a second operator, and the keys with which operators approve.
//!
//! A request that was refused for what it adds to what makes root is kept as it came, whatever it is
//! about; approved, it goes the same way once more.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body as HttpBody, to_bytes};
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bastio_protocol::api::{Approve, NewOperatorKey, OperatorKey, Proposal, Reject};
use tower::ServiceExt as _;

use super::extract::{Body, Path};
use super::problem::Problem;
use super::{HttpState, MAX_POLICY_BODY, routes};
use crate::access::Admin;
use crate::approvals::{Approval, ApprovalError, Gains, Kept};

/// In the extensions of a request that is carried out because somebody approved it. Nothing that comes
/// over a network has it.
#[derive(Debug, Clone)]
pub(super) struct Approved(pub(super) Arc<Approval>);

/// Has a passphrase in its body, of which no copies are made, and gives nobody anything.
const SECRET: &str = "/unseal";

/// Keeps what is refused for want of a second operator.
pub(super) async fn keep(State(state): State<HttpState>, request: Request, next: Next) -> Response {
    let is_kept = request.method() != Method::GET && request.uri().path() != SECRET;
    if !state.approvals.are_needed() || !is_kept {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    // Nobody else's body is held in memory; the handler says why not.
    let Ok(admin) = Admin::from_request_parts(&mut parts, &state).await else {
        return next.run(Request::from_parts(parts, body)).await;
    };
    let Ok(bytes) = to_bytes(body, MAX_POLICY_BODY).await else {
        let text = "the body of the request is too long, or was cut off";
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, text, None).into_response();
    };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let kept = Kept {
        method: parts.method.to_string(),
        path,
        body: String::from_utf8_lossy(&bytes).into_owned(),
        confirmed: admin.intent().confirmed,
    };
    let response = next.run(Request::from_parts(parts, HttpBody::from(bytes))).await;
    let Some(gains) = response.extensions().get::<Gains>() else { return response };
    match state.approvals.propose(&admin, &kept, gains).await {
        Ok(id) => Problem::proposed(id, gains).into_response(),
        Err(error) => Problem::from(error).into_response(),
    }
}

/// `GET /proposals`
pub(super) async fn list(
    State(state): State<HttpState>,
    admin: Admin,
) -> Result<Json<Vec<Proposal>>, Problem> {
    Ok(Json(state.approvals.list(&admin).await?))
}

/// `GET /proposals/{id}`
pub(super) async fn show(
    State(state): State<HttpState>,
    admin: Admin,
    Path(id): Path<i64>,
) -> Result<Json<Proposal>, Problem> {
    Ok(Json(state.approvals.show(&admin, id).await?))
}

/// `POST /proposals/{id}/approve`: the answer is that of the request.
pub(super) async fn approve(
    State(state): State<HttpState>,
    admin: Admin,
    Path(id): Path<i64>,
    Body(word): Body<Approve>,
) -> Result<Response, Problem> {
    let (kept, approval) = state.approvals.approve(&admin, id, &word).await?;
    let approval = Arc::new(approval);
    let request = Request::builder()
        .method(kept.method.as_str())
        .uri(kept.path)
        .header(CONTENT_TYPE, "application/json")
        .extension(Approved(Arc::clone(&approval)))
        .body(HttpBody::from(kept.body))
        .map_err(|_| Problem::bad_request("the request of this proposal cannot be read"))?;
    let done = routes().with_state(state.clone()).oneshot(request).await;
    let response = done.unwrap_or_else(|never| match never {});
    if let Some(gains) = response.extensions().get::<Gains>() {
        state.approvals.grown(&admin, id, gains).await?;
        let text = format!("it gives more by now than when you looked: {gains}");
        let hint = "nothing was done; look again: bastio proposal show NUMBER";
        return Err(Problem::new(StatusCode::CONFLICT, text, Some(hint)));
    }
    if response.status().is_success() {
        state.approvals.finish(&approval).await?;
    }
    Ok(response)
}

/// `POST /proposals/{id}/reject`
pub(super) async fn reject(
    State(state): State<HttpState>,
    admin: Admin,
    Path(id): Path<i64>,
    Body(word): Body<Reject>,
) -> Result<Json<Proposal>, Problem> {
    Ok(Json(state.approvals.reject(&admin, id, &word.reason).await?))
}

/// `GET /operator-keys`
pub(super) async fn keys(
    State(state): State<HttpState>,
    admin: Admin,
) -> Result<Json<Vec<OperatorKey>>, Problem> {
    Ok(Json(state.approvals.operator_keys(&admin).await?))
}

/// `POST /operator-keys`
pub(super) async fn register(
    State(state): State<HttpState>,
    admin: Admin,
    Body(new): Body<NewOperatorKey>,
) -> Result<Json<OperatorKey>, Problem> {
    Ok(Json(state.approvals.register(&admin, &new).await?))
}

impl From<ApprovalError> for Problem {
    fn from(error: ApprovalError) -> Self {
        let (text, hint) = (error.to_string(), error.hint());
        let status = match error {
            ApprovalError::NoSuch(_) => StatusCode::NOT_FOUND,
            ApprovalError::Own
            | ApprovalError::NoKey(_)
            | ApprovalError::BadSignature
            | ApprovalError::NoApiKey => StatusCode::FORBIDDEN,
            ApprovalError::Ended(..)
            | ApprovalError::OtherStatement
            | ApprovalError::Clock
            | ApprovalError::KeyOfAnother
            | ApprovalError::TooMany => StatusCode::CONFLICT,
            ApprovalError::BadReason => StatusCode::BAD_REQUEST,
            ApprovalError::Needed(gains) => return Self::needs_approval(gains),
            ApprovalError::Access(error) => return error.into(),
            ApprovalError::Store(error) => return error.into(),
        };
        Self::new(status, text, hint)
    }
}
