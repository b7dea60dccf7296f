//! The HTTP side: requests in, domain calls, JSON out.
//!
//! Handlers are thin: parse, take the proof of access, call the domain, answer. This room must
//! not know SQL or SSH; what the client may read and what belongs in the log are kept apart.

mod adoption;
mod api_keys;
mod changes;
mod declared;
mod drift;
mod external;
mod extract;
mod grants;
mod groups;
mod log;
mod plan;
mod policies;
mod problem;
mod proposals;
mod requests;
mod serve;
mod servers;
mod sources;
mod status;
mod undo;
mod unseal;
mod users;
mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post};
use bastio_protocol::{GroupName, PublicKey, Username, VerifyingKey};
use bastio_transport::Tally;
use tokio_util::sync::CancellationToken;

use tracing::Instrument as _;

use crate::access::ApiKeys;
use crate::approvals::Approvals;
use crate::dispatch::Dispatch;
use crate::fleet::Fleet;
use crate::metrics::Metrics;
use crate::plan::Rails;
use crate::store::Store;
use crate::store::uids::UidRange;
use crate::unsealing::{SEALED, Unsealing};
use extract::Peer;
use problem::Problem;
pub use serve::serve;

/// Largest body of a request, in bytes.
const MAX_BODY: usize = 1024 * 1024;
/// Largest body that is a whole model, in bytes.
const MAX_POLICY_BODY: usize = 16 * 1024 * 1024;
/// Largest body that is read before it is known who sends it, in bytes: two keys and a secret.
const MAX_EXTERNAL_BODY: usize = 64 * 1024;
/// Most of a path that is logged, in bytes: anybody may send any.
const LOGGED_PATH: usize = 200;
/// Asked for every few seconds, for ever: no news.
const WATCHED: [&str; 3] = ["/metrics", "/healthz", "/readyz"];
/// Longest time from the head of a request to its answer; the longest long poll takes 30 s.
const REQUEST_LIMIT: Duration = Duration::from_secs(45);

/// What agents are told about this backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Base URL of this HTTP side, as agents reach it.
    pub public_url: String,
    /// Host key of the port of original agents.
    pub rsa_host_key: Option<PublicKey>,
    /// Host key of the main SSH port.
    pub ed25519_host_key: PublicKey,
    /// The key that signs what agents are ordered to do.
    pub signing_key: VerifyingKey,
    /// The main SSH port.
    pub ssh_port: u16,
}

/// What handlers work with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HttpState {
    fleet: Fleet,
    keys: ApiKeys,
    site: Arc<Site>,
    store: Store,
    metrics: Metrics,
    draining: CancellationToken,
    approvals: Approvals,
    /// What signs, also what is told about people's access.
    signing: Option<Unsealing>,
}

impl HttpState {
    /// The state over a store; `dispatch` must be over the same store.
    #[must_use]
    pub fn new(store: Store, dispatch: Dispatch, site: Site) -> Self {
        // The key is there when the port is.
        let original_agents = site.rsa_host_key.is_some();
        let host_key = site.ed25519_host_key.fingerprint();
        Self {
            approvals: Approvals::new(store.clone(), &host_key),
            metrics: Metrics::new(store.clone(), dispatch.clone()),
            fleet: Fleet::new(store.clone(), dispatch).with_original_agents(original_agents),
            keys: ApiKeys::new(store.clone()),
            site: Arc::new(site),
            store,
            draining: CancellationToken::new(),
            signing: None,
        }
    }
}

impl HttpState {
    /// How large an edit may be before it needs a confirmation.
    #[must_use]
    pub fn with_rails(mut self, rails: Rails) -> Self {
        self.fleet = self.fleet.with_rails(rails);
        self
    }

    /// From where login names get numeric ids, if they do.
    #[must_use]
    pub fn with_uids(mut self, uids: Option<UidRange>) -> Self {
        self.fleet = self.fleet.with_uids(uids);
        self
    }

    /// Names of the system's own accounts that may be logins all the same.
    #[must_use]
    pub fn with_system_names(mut self, allowed: BTreeSet<Username>) -> Self {
        self.fleet = self.fleet.with_system_names(allowed);
        self
    }

    /// How many revisions can be undone.
    #[must_use]
    pub fn with_history(mut self, revisions: u32) -> Self {
        self.fleet = self.fleet.with_history(revisions);
        self
    }

    /// What the ports for agents have counted, under their names.
    #[must_use]
    pub fn with_ports(mut self, ports: Vec<(&'static str, Arc<Tally>)>) -> Self {
        self.metrics = self.metrics.with_ports(ports);
        self
    }

    /// For how many seconds what makes root waits for a second operator; nothing does without.
    #[must_use]
    pub fn with_approvals(mut self, seconds: Option<i64>) -> Self {
        self.approvals = self.approvals.with_validity(seconds);
        self.fleet = self.fleet.with_approvals(seconds.is_some());
        self.keys = self.keys.with_approvals(seconds.is_some());
        self
    }

    /// A site's own groups whose members can become root.
    #[must_use]
    pub fn with_root_groups(mut self, groups: BTreeSet<GroupName>) -> Self {
        self.fleet = self.fleet.with_root_groups(groups);
        self
    }

    /// What signs, and may be sealed still.
    #[must_use]
    pub fn with_signing(mut self, signing: Unsealing) -> Self {
        self.metrics = self.metrics.with_signing(signing.clone());
        self.signing = Some(signing);
        self
    }

    /// Why nothing is signed, if so.
    fn sealed(&self) -> Option<&'static str> {
        self.signing.as_ref().is_some_and(Unsealing::is_sealed).then_some(SEALED)
    }

    /// From when on the backend is not ready any more.
    #[must_use]
    pub fn with_draining(mut self, draining: CancellationToken) -> Self {
        self.draining = draining;
        self
    }

    /// The model that the handlers edit.
    #[must_use]
    pub fn fleet(&self) -> Fleet {
        self.fleet.clone()
    }
}

/// Every route: the two endpoints of the original under `/api/external`, `/api/v1`, and what
/// watchers ask for.
pub fn router(state: HttpState) -> Router {
    Router::new()
        .nest("/api/external", external_routes())
        .nest("/api/v1", v1_routes(&state))
        .route("/metrics", get(watch::metrics))
        .route("/healthz", get(watch::health))
        .route("/readyz", get(watch::readiness))
        .fallback(async || Problem::not_found("there is nothing at this address"))
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(limit_time))
        .layer(middleware::from_fn(log_request))
        .layer(middleware::from_fn_with_state(state.clone(), watch::count))
        .with_state(state)
}

fn external_routes() -> Router<HttpState> {
    Router::new()
        .route("/backend/host_key", get(external::host_key))
        .route("/backend/host_key/", get(external::host_key))
        .route("/server/upload_key", post(external::upload_key))
        .route("/server/upload_key/", post(external::upload_key))
        .layer(DefaultBodyLimit::max(MAX_EXTERNAL_BODY))
}

/// What is asked for, kept where it needs a second operator.
fn v1_routes(state: &HttpState) -> Router<HttpState> {
    let keep = middleware::from_fn_with_state(state.clone(), proposals::keep);
    routes()
        .layer(keep)
        .route("/proposals", get(proposals::list))
        .route("/proposals/{id}", get(proposals::show))
        .route("/proposals/{id}/approve", post(proposals::approve))
        .route("/proposals/{id}/reject", post(proposals::reject))
}

/// What can be asked for, and proposed.
fn routes() -> Router<HttpState> {
    Router::new()
        .route("/status", get(status::status))
        .route("/unseal", post(unseal::unseal))
        .route("/operator-keys", get(proposals::keys).post(proposals::register))
        .route("/log", get(log::list))
        .route("/plan", get(plan::show))
        .route("/revisions", get(undo::list))
        .route("/undo", post(undo::undo))
        .route(
            "/policy",
            get(declared::export)
                .post(declared::apply)
                .layer(DefaultBodyLimit::max(MAX_POLICY_BODY)),
        )
        .route("/changes/{revision}", get(changes::show))
        .route("/servers", get(servers::list))
        .route("/servers/{name}", get(servers::show).patch(servers::update).delete(servers::remove))
        .route("/servers/{name}/sync", post(servers::sync))
        .route("/servers/{name}/accept", post(servers::accept))
        .route("/servers/{name}/replace", post(servers::replace))
        .route("/servers/{name}/adoption", get(adoption::list).post(adoption::take))
        .route("/servers/{name}/adoption/{login}", delete(adoption::give_back))
        .route("/users", get(users::list).post(users::add))
        .route("/users/{name}", get(users::show).patch(users::update).delete(users::remove))
        .route("/users/{name}/keys", get(users::keys).post(users::add_keys))
        .route("/users/{name}/keys/{fingerprint}", delete(users::remove_key))
        .route("/grants", get(grants::list).post(grants::add))
        .route("/grants/{id}", delete(grants::remove))
        .route("/groups", get(groups::list).post(groups::add))
        .route("/groups/{name}", get(groups::show).patch(groups::update).delete(groups::remove))
        .route("/servers/{name}/requests", post(requests::ask))
        .route("/requests/{id}", get(requests::show))
        .route("/users/{name}/end-sessions", post(users::end_sessions))
        .route("/users/{name}/disable", post(users::disable))
        .route("/users/{name}/enable", post(users::enable))
        .route("/users/{name}/proof", get(users::proof))
        .route("/sudo-policies", get(policies::list).post(policies::add))
        .route("/sudo-policies/{name}", delete(policies::remove))
        .route("/drift", get(drift::list).post(drift::set))
        .route("/drift/{on}", delete(drift::remove))
        .route("/api-keys", get(api_keys::list).post(api_keys::create))
        .route("/api-keys/{name}", delete(api_keys::revoke))
}

async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "the request took too long",
            Some("send the whole request at once, and repeat it"),
        )
        .into_response(),
    }
}

/// One line a request: neither query nor headers nor body, which may hold secrets.
async fn log_request(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    // The path of a URI is ASCII, else it is not cut.
    let path = request.uri().path();
    let path = path.get(..LOGGED_PATH).unwrap_or(path).to_owned();
    let address = request.extensions().get::<Peer>().map(|peer| peer.0.to_string());
    let span = tracing::info_span!("request", %method, path, address);
    let response = next.run(request).instrument(span).await;
    let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let status = response.status().as_u16();
    if WATCHED.contains(&path.as_str()) {
        tracing::debug!(%method, path, status, millis = took, address, "request");
    } else {
        tracing::info!(%method, path, status, millis = took, address, "request");
    }
    response
}

#[cfg(test)]
mod tests;
