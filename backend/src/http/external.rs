//! The two endpoints of the original: the host key of the SSH port, and the upload of an agent's
//! key. Their status codes are part of version 1: 200, 400 for a missing or invalid field, 403
//! for an unknown API key, and for a key that may not take another one's place.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use bastio_protocol::{KeyPolicy, PublicKey, ServerName, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::HttpState;
use super::extract::{From, Query};
use super::problem::Problem;
use crate::access::AccessError;
use crate::fleet::Enrolment;

#[derive(Deserialize)]
pub(super) struct HostKeyQuery {
    r#type: Option<KeyType>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KeyType {
    Rsa,
    Ed25519,
}

#[derive(Serialize)]
pub(super) struct HostKey {
    payload: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

/// `GET backend/host_key`
pub(super) async fn host_key(
    State(state): State<HttpState>,
    Query(query): Query<HostKeyQuery>,
) -> Result<Json<HostKey>, Problem> {
    let site = &state.site;
    match query.r#type.unwrap_or(KeyType::Rsa) {
        KeyType::Ed25519 => Ok(Json(HostKey {
            payload: site.ed25519_host_key.without_comment(),
            port: Some(site.ssh_port),
        })),
        KeyType::Rsa => {
            let key = site.rsa_host_key.as_ref();
            let key = key.ok_or_else(|| Problem::not_found("this backend has no RSA host key"))?;
            Ok(Json(HostKey { payload: key.without_comment(), port: None }))
        }
    }
}

#[derive(Deserialize)]
struct Upload {
    api_key: String,
    public_key: String,
    #[serde(default)]
    old_public_key: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    proof: Option<String>,
    #[serde(default)]
    receipt_key: Option<VerifyingKey>,
    #[serde(default)]
    receipt_proof: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Accepted {
    server: AcceptedServer,
}

#[derive(Serialize)]
struct AcceptedServer {
    id: i64,
    name: ServerName,
    /// For agents of version 2, to pin; others take no notice.
    signing_key: VerifyingKey,
    /// What somebody must decide before the server's agent is let in.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits: Option<String>,
}

/// `POST server/upload_key`
pub(super) async fn upload_key(
    State(state): State<HttpState>,
    From(from): From,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Accepted>, Problem> {
    let upload: Upload = serde_json::from_slice(&body?).map_err(|_| {
        Problem::bad_request("api_key, public_key and old_public_key are wanted as JSON strings")
    })?;
    let proof = state.keys.enroller(&upload.api_key, from).await.map_err(forbidden)?;
    let request = parse(&upload)?;
    let enrolled = state.fleet.enroll(&proof, &request).await?;
    state.fleet.take_receipt_key(&proof, &enrolled, &request).await?;
    let signing_key = state.site.signing_key;
    state.fleet.hand_signing_key(&proof, enrolled.id, &signing_key.fingerprint()).await?;
    let waits = state.fleet.waits_for(&proof, enrolled.id).await?;
    let server = AcceptedServer { id: enrolled.id.0, name: enrolled.name, signing_key, waits };
    Ok(Json(Accepted { server }))
}

fn forbidden(error: AccessError) -> Problem {
    match error {
        AccessError::Unknown => {
            let hint = "`bastio api-key add NAME --role enroll` makes an API key for agents";
            Problem::new(StatusCode::FORBIDDEN, "unknown API key", Some(hint))
        }
        other => other.into(),
    }
}

fn parse(upload: &Upload) -> Result<Enrolment, Problem> {
    let key = |field: &str, line: &str| {
        PublicKey::parse(line, &KeyPolicy::default())
            .map_err(|fault| Problem::bad_request(format!("{field}: {fault}")))
    };
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let old = given(&upload.old_public_key);
    let name = given(&upload.name).map(|name| {
        ServerName::parse(&name).map_err(|fault| Problem::bad_request(fault.to_string()))
    });
    Ok(Enrolment {
        public_key: key("public_key", &upload.public_key)?,
        old_public_key: old.map(|line| key("old_public_key", &line)).transpose()?,
        name: name.transpose()?,
        proof: given(&upload.proof),
        receipt_key: upload.receipt_key,
        receipt_proof: given(&upload.receipt_proof),
    })
}
