//! Opening the sealed signing key.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use bastio_protocol::api::{Unseal, Unsealed};
use zeroize::Zeroizing;

use super::HttpState;
use super::extract::Body;
use super::problem::Problem;
use crate::access::Admin;
use crate::unsealing::UnsealError;

/// `POST /unseal`
pub(super) async fn unseal(
    State(state): State<HttpState>,
    admin: Admin,
    Body(unseal): Body<Unseal>,
) -> Result<Json<Unsealed>, Problem> {
    let passphrase = Zeroizing::new(unseal.passphrase);
    let Some(signing) = &state.signing else {
        return Err(Problem::not_found("this backend signs nothing"));
    };
    Ok(Json(signing.unseal(&admin, &passphrase).await?))
}

impl From<UnsealError> for Problem {
    fn from(error: UnsealError) -> Self {
        let (text, wait) = (error.to_string(), error.wait());
        match error {
            UnsealError::NoPassphrase(_) => Self::bad_request(text),
            UnsealError::Wrong => {
                let hint = "it is the one that `bastio-backend key seal` was given; the audit log \
                            has this try";
                Self::new(StatusCode::FORBIDDEN, text, Some(hint))
            }
            UnsealError::NotNow(_) => {
                let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, text, None);
                problem.after(wait.unwrap_or_default())
            }
            UnsealError::Key(error) => {
                tracing::error!(%error, "the sealed signing key cannot be opened");
                let hint = "see at the backend's host: bastio-backend key status";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, text, Some(hint))
            }
            UnsealError::Access(error) => error.into(),
            UnsealError::Store(error) => error.into(),
        }
    }
}
