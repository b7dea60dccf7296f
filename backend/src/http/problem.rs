//! What a client reads when a request is not carried out. What only operators may know goes to
//! the log here, once.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bastio_protocol::api::ApiError;

use crate::access::AccessError;
use crate::approvals::Gains;
use crate::fleet::{EnrollError, FleetError};
use crate::store::{StoreError, Trouble};

/// An answer that is an error. Public as the rejection of [`crate::access::Admin`], and unnameable outside.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    body: ApiError,
    /// After how many seconds to come back.
    after: Option<u64>,
    /// For what it needs a second operator.
    gains: Option<Box<Gains>>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, error: impl Into<String>, hint: Option<&str>) -> Self {
        let hint = hint.map(str::to_owned);
        let body = ApiError { error: error.into(), hint, proposal: None };
        // What is away is back shortly, if at all.
        let after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(5);
        Self { status, body, after, gains: None }
    }

    /// Nothing was done for want of a second operator.
    pub(super) fn needs_approval(gains: Gains) -> Self {
        let text = format!("this needs another operator's approval: {gains}");
        let problem = Self::new(StatusCode::CONFLICT, text, Some("nothing was done"));
        Self { gains: Some(Box::new(gains)), ..problem }
    }

    /// The request waits under that number for a second operator.
    pub(super) fn proposed(id: i64, gains: &Gains) -> Self {
        let text = format!("this waits for another operator, as proposal {id}: {gains}");
        let hint = format!(
            "nothing was done yet; another admin looks with `bastio proposal show {id}`, and says \
             `bastio proposal approve {id}`"
        );
        let mut problem = Self::new(StatusCode::CONFLICT, text, Some(&hint));
        problem.body.proposal = Some(id);
        problem
    }

    /// The same, for who may come back after that time.
    pub(super) fn after(self, time: Duration) -> Self {
        Self { after: Some(time.as_secs().max(1)), ..self }
    }

    pub(super) fn bad_request(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, None)
    }

    pub(super) fn not_found(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error, None)
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "this address has no such method", None)
    }

    /// No token, or none that is known.
    pub(super) fn unauthorized(error: &str) -> Self {
        let hint = "send `Authorization: Bearer TOKEN` with the secret of an API key of role \
                    admin; `bastio login URL` stores it";
        Self::new(StatusCode::UNAUTHORIZED, error, Some(hint))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        if let Some(gains) = self.gains {
            response.extensions_mut().insert(*gains);
        }
        if let Some(after) = self.after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after));
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let trouble = error.trouble();
        tracing::error!(%error, ?trouble, "the store failed a request");
        let (status, text, hint) = match trouble {
            Trouble::Full => (
                StatusCode::INSUFFICIENT_STORAGE,
                "the backend's database has no space left",
                "nothing was changed; free space on the disk of the state folder, then repeat it",
            ),
            Trouble::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the backend's database is held by others, or too slow",
                "nothing was changed; repeat it shortly. If it stays so: does another program have \
                 the database open, is its disk slow?",
            ),
            Trouble::Gone => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the backend's database is gone, or cannot be reached",
                "look whether the state folder is mounted and bastio.db in it, and at the backend's \
                 log; once it is back, `bastio log` says whether this was done",
            ),
            Trouble::Damaged => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "the backend's database is damaged",
                "nothing was changed; stop the backend, keep a copy, and restore the last backup",
            ),
            Trouble::Other => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "the backend's database did not answer",
                "nothing was changed; the backend's log says why",
            ),
        };
        Self::new(status, text, Some(hint))
    }
}

impl From<AccessError> for Problem {
    fn from(error: AccessError) -> Self {
        let text = error.to_string();
        match error {
            AccessError::Unknown => Self::unauthorized(&text),
            AccessError::EnrolsOnly | AccessError::WatchesOnly => {
                Self::new(StatusCode::FORBIDDEN, text, Some("use an API key of role admin"))
            }
            AccessError::BadName => Self::bad_request(text),
            AccessError::NameTaken(_) => {
                let hint = "choose another name, or remove that one: `bastio api-key rm`";
                Self::new(StatusCode::CONFLICT, text, Some(hint))
            }
            AccessError::NoSuchKey(_) => {
                let hint = "`bastio api-key ls` shows every API key";
                Self::new(StatusCode::NOT_FOUND, text, Some(hint))
            }
            AccessError::NotTriable => {
                let hint = "nothing was done; leave --dry-run out";
                Self::new(StatusCode::BAD_REQUEST, text, Some(hint))
            }
            AccessError::HashWanted => {
                let hint = "another operator must approve it first: `bastio api-key add` of today sends a hash";
                Self::new(StatusCode::BAD_REQUEST, text, Some(hint))
            }
            AccessError::BadHash => Self::bad_request(text),
            AccessError::NeedsApproval(gains) => Self::needs_approval(gains),
            AccessError::Ended(_) => Self::new(StatusCode::CONFLICT, text, None),
            AccessError::LastAdmin(_) => {
                let hint = "without it nobody could change anything; make another one first";
                Self::new(StatusCode::CONFLICT, text, Some(hint))
            }
            AccessError::Store(error) => error.into(),
        }
    }
}

impl From<FleetError> for Problem {
    fn from(error: FleetError) -> Self {
        let (text, hint) = (error.to_string(), error.hint());
        let status = match error {
            FleetError::NeedsApproval(gains) => return Self::needs_approval(gains),
            FleetError::At { error, .. } => {
                let inner = Self::from(*error);
                return Self::new(inner.status, text, hint);
            }
            FleetError::NoSuchServer(_)
            | FleetError::NoSuchUser(_)
            | FleetError::NoSuchGroup(_)
            | FleetError::NoSuchGrant(_)
            | FleetError::NoSuchKey { .. }
            | FleetError::NoSuchPolicy(_)
            | FleetError::NoSuchDriftRule(_)
            | FleetError::NoSuchRequest(_)
            | FleetError::NoSuchRevision(_) => StatusCode::NOT_FOUND,
            FleetError::NameTaken(_)
            | FleetError::Conflict(_)
            | FleetError::ConflictLater { .. }
            | FleetError::Overtaken(_)
            | FleetError::TwoOptions { .. }
            | FleetError::Version1(_)
            | FleetError::NotConnected(_)
            | FleetError::NoReport(_)
            | FleetError::NotToBeTaken { .. }
            | FleetError::NotAdopted { .. }
            | FleetError::Wanted { .. }
            | FleetError::TooLongAgo { .. }
            | FleetError::NotThereAlone { .. }
            | FleetError::UidTaken { .. }
            | FleetError::NoUidLeft(_)
            | FleetError::NothingAsked(_)
            | FleetError::NotAsked { .. }
            | FleetError::PolicyTaken(_)
            | FleetError::Disabled(_)
            | FleetError::GroupTaken(_)
            | FleetError::GroupInUse { .. }
            | FleetError::Circle(_)
            | FleetError::SudoByGroup { .. }
            | FleetError::PolicyInUse { .. }
            | FleetError::ProposalEnded(_)
            | FleetError::LeftBehind(_)
            | FleetError::NeedsConfirmation(_) => StatusCode::CONFLICT,
            FleetError::SystemName(_)
            | FleetError::UnfitOptions { .. }
            | FleetError::Past
            | FleetError::NotTriable
            | FleetError::Backwards
            | FleetError::Faults(_)
            | FleetError::TwoSudos
            | FleetError::BadPolicy(_)
            | FleetError::BadKey { .. }
            | FleetError::NoKeys
            | FleetError::BadLabel(_)
            | FleetError::HostLabel(_)
            | FleetError::BadText { .. } => StatusCode::BAD_REQUEST,
            FleetError::Store(error) => return error.into(),
        };
        Self::new(status, text, hint)
    }
}

impl From<EnrollError> for Problem {
    fn from(error: EnrollError) -> Self {
        match error {
            EnrollError::UnfitKey(_) | EnrollError::OldKeyUnknown | EnrollError::KeyOfAnother => {
                Self::bad_request(error.to_string())
            }
            EnrollError::NoReceiptProof => {
                let hint = "enrol where the agent's key is: bastio-agent enroll";
                Self::new(StatusCode::FORBIDDEN, error.to_string(), Some(hint))
            }
            EnrollError::NoProof => {
                let hint = "replace it with `bastio-agent upload-key --new-agent-key FILE` where \
                            the old key is, or use an API key of role admin";
                Self::new(StatusCode::FORBIDDEN, error.to_string(), Some(hint))
            }
            EnrollError::Fleet(error) => error.into(),
        }
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        let large = rejection.status() == StatusCode::PAYLOAD_TOO_LARGE;
        let hint = "nothing was changed; send it in parts: sections of a policy that are absent are \
                    left alone";
        Self::new(rejection.status(), rejection.body_text(), large.then_some(hint))
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text(), None)
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text(), None)
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text(), None)
    }
}
