//! Requests to the backend's HTTP API and what came of them: one method an operation.
//!
//! Must not know commands, files or terminals. A token goes to the backend's own address only:
//! redirects are reported, never followed.

mod answer;
mod operators;
mod servers;

use std::time::Duration;

use bastio_protocol::api::{
    ApiKey, CONFIRM_HEADER, Change, CreatedApiKey, DRY_RUN_HEADER, DriftRule, DriftRuleInForce,
    EndSessions, Grant, Group, IF_REVISION_HEADER, Key, NamedPolicy, NewApiKey, NewGrant, NewGroup,
    NewKeys, NewUser, Policy, PolicyName, RemoveGroup, RemoveUser, Revision, ServerPlan,
    StateReason, StatusReport, Undo, UpdateGroup, UpdateUser, User, UserGroup,
};
use bastio_protocol::audit::{ChainedRow, LogFilter};
use bastio_protocol::{AccessReport, ServerName, Target, Username};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::Agent;
use ureq::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use ureq::http::{HeaderValue, Method, Request};
use ureq::tls::{RootCerts, TlsConfig};

pub use self::answer::ClientError;
use crate::settings::{Access, BackendUrl};

/// Limit for finding and reaching the backend.
const CONNECT: Duration = Duration::from_secs(10);
/// Limit for a whole request.
const REQUEST: Duration = Duration::from_secs(35);
/// Limit for making a whole model so: longer than the backend's own for any request.
const WHOLE: Duration = Duration::from_secs(60);
/// What a long poll gets beyond the time that the backend was asked to wait.
const GRACE: Duration = Duration::from_secs(10);

/// How long a connection is kept for the next request: less than any server waits for one, so that
/// none is used that the other end is closing.
const IDLE: Duration = Duration::from_secs(5);

/// What stands in a path segment as it is (RFC 3986 section 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Which of the rows of the audit log that pass a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogPage {
    /// The last ones, at most so many.
    Last(u32),
    /// The first ones behind a row.
    After {
        /// The row.
        id: i64,
        /// At most so many.
        limit: u32,
        /// How long to wait for one, in seconds.
        wait: u64,
    },
}

/// A backend, ready to be asked.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    url: BackendUrl,
    authorization: HeaderValue,
    intent: Intent,
}

/// How serious the edits of a command are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Intent {
    /// Only to see what they would do.
    pub dry_run: bool,
    /// Done also where they concern much of the fleet, or lock somebody out.
    pub confirmed: bool,
    /// Only if the model is at that revision still.
    pub if_revision: Option<i64>,
}

impl Client {
    /// A client of that backend; sends nothing yet.
    ///
    /// # Errors
    /// [`ClientError::Unsendable`], should the token not fit into a header.
    pub fn new(access: &Access, intent: Intent) -> Result<Self, ClientError> {
        // The platform's roots: a company's own authority counts once the system trusts it.
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let agent = Agent::config_builder()
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(REQUEST))
            .max_idle_age(IDLE)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("bastio/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build()
            .new_agent();
        let bearer = format!("Bearer {}", access.token.expose());
        let mut authorization =
            HeaderValue::try_from(bearer).map_err(|_| ClientError::Unsendable)?;
        authorization.set_sensitive(true);
        Ok(Self { agent, url: access.url.clone(), authorization, intent })
    }

    /// The backend's address.
    pub fn url(&self) -> &BackendUrl {
        &self.url
    }

    /// The fleet in numbers.
    pub fn status(&self) -> Result<StatusReport, ClientError> {
        self.get("status")
    }

    /// Ends a person's sessions.
    pub fn end_sessions(&self, name: &Username, how: &EndSessions) -> Result<Change, ClientError> {
        self.send(Method::POST, &path(["users", name.as_str(), "end-sessions"]), how)
    }

    /// Disables or enables a person (`how`).
    pub fn set_user_state(
        &self,
        name: &Username,
        how: &str,
        reason: &str,
    ) -> Result<Change, ClientError> {
        let why = StateReason { reason: reason.to_owned() };
        self.send(Method::POST, &path(["users", name.as_str(), how]), &why)
    }

    /// Where a person's access stands, as soon as no connected server owes an answer, at the latest after `wait`
    /// seconds.
    pub fn access_report(&self, name: &Username, wait: u64) -> Result<AccessReport, ClientError> {
        let path = format!("{}?wait={wait}", path(["users", name.as_str(), "proof"]));
        answer::parse(&self.call(Method::GET, &path, None, Duration::from_secs(wait) + REQUEST)?)
    }

    /// All people.
    pub fn users(&self) -> Result<Vec<User>, ClientError> {
        self.get("users")
    }

    /// One person.
    pub fn user(&self, name: &Username) -> Result<User, ClientError> {
        self.get(&path(["users", name.as_str()]))
    }

    /// Adds a person, keys and a grant in one go.
    pub fn add_user(&self, user: &NewUser) -> Result<Change, ClientError> {
        self.send(Method::POST, "users", user)
    }

    /// Changes a person.
    pub fn update_user(&self, name: &Username, edit: &UpdateUser) -> Result<Change, ClientError> {
        self.send(Method::PATCH, &path(["users", name.as_str()]), edit)
    }

    /// Removes a person with keys and grants.
    pub fn remove_user(&self, name: &Username, how: RemoveUser) -> Result<Change, ClientError> {
        let home = how.home.map(|home| format!("?home={}", home.name())).unwrap_or_default();
        self.delete(&format!("{}{home}", path(["users", name.as_str()])))
    }

    /// The keys of a person.
    pub fn keys(&self, user: &Username) -> Result<Vec<Key>, ClientError> {
        self.get(&path(["users", user.as_str(), "keys"]))
    }

    /// Adds keys to a person.
    pub fn add_keys(&self, user: &Username, keys: &NewKeys) -> Result<Change, ClientError> {
        self.send(Method::POST, &path(["users", user.as_str(), "keys"]), keys)
    }

    /// Removes a key of a person.
    pub fn remove_key(&self, user: &Username, fingerprint: &str) -> Result<Change, ClientError> {
        self.delete(&path(["users", user.as_str(), "keys", fingerprint]))
    }

    /// All groups of people.
    pub fn groups(&self) -> Result<Vec<Group>, ClientError> {
        self.get("groups")
    }

    /// One group.
    pub fn group(&self, name: &UserGroup) -> Result<Group, ClientError> {
        self.get(&path(["groups", name.as_str()]))
    }

    /// Adds a group.
    pub fn add_group(&self, group: &NewGroup) -> Result<Change, ClientError> {
        self.send(Method::POST, "groups", group)
    }

    /// Changes who is in a group.
    pub fn update_group(
        &self,
        name: &UserGroup,
        edit: &UpdateGroup,
    ) -> Result<Change, ClientError> {
        self.send(Method::PATCH, &path(["groups", name.as_str()]), edit)
    }

    /// Removes a group.
    pub fn remove_group(&self, name: &UserGroup, how: RemoveGroup) -> Result<Change, ClientError> {
        let with = if how.with_grants { "?with_grants=true" } else { "" };
        self.delete(&format!("{}{with}", path(["groups", name.as_str()])))
    }

    /// All grants.
    pub fn grants(&self) -> Result<Vec<Grant>, ClientError> {
        self.get("grants")
    }

    /// Makes a grant.
    pub fn add_grant(&self, grant: &NewGrant) -> Result<Change, ClientError> {
        self.send(Method::POST, "grants", grant)
    }

    /// Takes a grant back.
    pub fn remove_grant(&self, id: i64) -> Result<Change, ClientError> {
        self.delete(&path(["grants", &id.to_string()]))
    }

    /// All sudo policies.
    pub fn sudo_policies(&self) -> Result<Vec<NamedPolicy>, ClientError> {
        self.get("sudo-policies")
    }

    /// Makes a sudo policy.
    pub fn add_sudo_policy(&self, policy: &NamedPolicy) -> Result<NamedPolicy, ClientError> {
        self.send(Method::POST, "sudo-policies", policy)
    }

    /// Removes a sudo policy.
    pub fn remove_sudo_policy(&self, name: &PolicyName) -> Result<NamedPolicy, ClientError> {
        self.delete(&path(["sudo-policies", name.as_str()]))
    }

    /// All rules about drift.
    pub fn drift_rules(&self) -> Result<Vec<DriftRuleInForce>, ClientError> {
        self.get("drift")
    }

    /// Says what is done about drift on servers.
    pub fn set_drift_rule(&self, rule: &DriftRule) -> Result<Change, ClientError> {
        self.send(Method::POST, "drift", rule)
    }

    /// Takes a rule about drift away.
    pub fn remove_drift_rule(&self, on: &Target) -> Result<Change, ClientError> {
        self.delete(&path(["drift", &on.to_string()]))
    }

    /// The whole model, as it is or as it was at a revision.
    pub fn policy(&self, revision: Option<i64>) -> Result<Policy, ClientError> {
        match revision {
            None => self.get("policy"),
            Some(revision) => self.get(&format!("policy?revision={revision}")),
        }
    }

    /// So many revisions at most, below one when given, the last first.
    pub fn revisions(&self, limit: u32, before: Option<i64>) -> Result<Vec<Revision>, ClientError> {
        let before = before.map(|before| format!("&before={before}")).unwrap_or_default();
        self.get(&format!("revisions?limit={limit}{before}"))
    }

    /// Goes back to a revision.
    pub fn undo(&self, undo: &Undo) -> Result<Change, ClientError> {
        let body = serde_json::to_vec(undo).map_err(|_| ClientError::Unsendable)?;
        answer::parse(&self.call(Method::POST, "undo", Some(body), WHOLE)?)
    }

    /// Makes what a policy names so; what its sections do not name goes when `prune` is said.
    pub fn apply(&self, policy: &Policy, prune: bool) -> Result<Change, ClientError> {
        let body = serde_json::to_vec(policy).map_err(|_| ClientError::Unsendable)?;
        let path = if prune { "policy?prune=true" } else { "policy" };
        answer::parse(&self.call(Method::POST, path, Some(body), WHOLE)?)
    }

    /// All API keys, without their secrets.
    pub fn api_keys(&self) -> Result<Vec<ApiKey>, ClientError> {
        self.get("api-keys")
    }

    /// Makes an API key.
    pub fn add_api_key(&self, key: &NewApiKey) -> Result<CreatedApiKey, ClientError> {
        self.send(Method::POST, "api-keys", key)
    }

    /// Removes an API key.
    pub fn remove_api_key(&self, name: &str) -> Result<ApiKey, ClientError> {
        self.delete(&path(["api-keys", name]))
    }

    /// How far the servers are; only that one when named.
    pub fn plan(&self, only: Option<&ServerName>) -> Result<Vec<ServerPlan>, ClientError> {
        match only {
            None => self.get("plan"),
            Some(name) => self.get(&format!("plan?server={}", encode(name.as_str()))),
        }
    }

    /// Rows of the audit log, the oldest first.
    pub fn log(&self, filter: &LogFilter, page: LogPage) -> Result<Vec<ChainedRow>, ClientError> {
        let (limit, after, wait) = match page {
            LogPage::Last(limit) => (limit, None, 0),
            LogPage::After { id, limit, wait } => (limit, Some(id), wait),
        };
        let LogFilter { user, server, actor, action, since, until } = filter;
        let mut path = format!("log?limit={limit}");
        for (name, value) in [
            ("user", user.as_ref().map(ToString::to_string)),
            ("server", server.as_ref().map(ToString::to_string)),
            ("actor", actor.as_ref().map(ToString::to_string)),
            ("action", action.as_ref().map(ToString::to_string)),
            ("since", since.map(|at| at.to_string())),
            ("until", until.map(|at| at.to_string())),
            ("after", after.map(|id| id.to_string())),
            ("wait", Some(wait).filter(|wait| *wait > 0).map(|wait| wait.to_string())),
        ] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", encode(&value)));
            }
        }
        let limit = REQUEST.max(Duration::from_secs(wait) + GRACE);
        answer::parse(&self.call(Method::GET, &path, None, limit)?)
    }

    /// An edit as soon as it got beyond the progress `after`, at the latest after `wait` seconds.
    pub fn change(&self, revision: i64, after: u64, wait: u64) -> Result<Change, ClientError> {
        let path = format!("changes/{revision}?after={after}&wait={wait}");
        let body = self.call(Method::GET, &path, None, Duration::from_secs(wait) + GRACE)?;
        answer::parse(&body)
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        answer::parse(&self.call(Method::GET, path, None, REQUEST)?)
    }

    fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        answer::parse(&self.call(Method::DELETE, path, None, REQUEST)?)
    }

    fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|_| ClientError::Unsendable)?;
        answer::parse(&self.call(method, path, Some(body), REQUEST)?)
    }

    /// Sends one request; the body of an answer that says yes.
    fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        limit: Duration,
    ) -> Result<Vec<u8>, ClientError> {
        self.call_as(self.intent, method, path, body, limit)
    }

    fn call_as(
        &self,
        intent: Intent,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        limit: Duration,
    ) -> Result<Vec<u8>, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/api/v1/{path}", self.url))
            .header(AUTHORIZATION, &self.authorization)
            .header(ACCEPT, "application/json");
        if intent.dry_run {
            request = request.header(DRY_RUN_HEADER, "yes");
        }
        if intent.confirmed {
            request = request.header(CONFIRM_HEADER, "yes-really");
        }
        if let Some(revision) = intent.if_revision {
            request = request.header(IF_REVISION_HEADER, revision);
        }
        let answer = match body {
            None => request.body(()).map(|request| self.run(request, limit)),
            Some(body) => request
                .header(CONTENT_TYPE, "application/json")
                .body(body)
                .map(|request| self.run(request, limit)),
        };
        let answer = answer.map_err(|_| ClientError::Unsendable)?;
        answer::read(
            answer.map_err(|error| ClientError::unreachable(&self.url, &error))?,
            &self.url,
        )
    }

    fn run(
        &self,
        request: Request<impl ureq::AsSendBody>,
        limit: Duration,
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let request = self.agent.configure_request(request).timeout_global(Some(limit)).build();
        self.agent.run(request)
    }
}

fn path<const N: usize>(segments: [&str; N]) -> String {
    segments.map(encode).join("/")
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_segment_can_leave_it() {
        for (segment, expected) in [
            ("web-1.example_org~", "k/web-1.example_org~"),
            ("SHA256:a+b/c", "k/SHA256%3Aa%2Bb%2Fc"),
            ("../admin?x=1#y", "k/..%2Fadmin%3Fx%3D1%23y"),
            ("é %", "k/%C3%A9%20%25"),
        ] {
            assert_eq!(path(["k", segment]), expected);
        }
    }
}
