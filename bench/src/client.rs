//! A client of the backend's API that follows what it asks for to its end. Must not know what is measured.

use std::time::Duration;

use bastio_protocol::api::{ActionState, CONFIRM_HEADER, Change, RequestReport};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::BenchError;

/// A client with an administrator's token.
pub struct Client {
    agent: ureq::Agent,
    base: String,
    token: String,
}

impl Client {
    pub fn new(url: String, token: &str) -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(40)));
        // Each connection is for one request: none is used that the backend is closing just then.
        let config = config.max_idle_connections(0);
        let agent = ureq::Agent::new_with_config(config.build());
        Self { agent, base: format!("{url}/api/v1"), token: format!("Bearer {token}") }
    }

    /// Follows a change until the server has answered; how many actions it was. All must succeed.
    pub fn settle(&self, mut change: Change) -> Result<usize, BenchError> {
        while !change.complete {
            let query = format!("after={}&wait=20", change.progress);
            change = self.get(&format!("/changes/{}?{query}", change.revision))?;
        }
        let actions = change.servers.iter().flat_map(|server| &server.actions);
        match actions.clone().find(|action| action.state == ActionState::Failed) {
            Some(action) => Err(BenchError::Action(action.feedback.clone().unwrap_or_default())),
            None => Ok(actions.count()),
        }
    }

    /// The same for what is asked of a whole server, which is one action.
    pub fn settle_request(&self, mut report: RequestReport) -> Result<usize, BenchError> {
        while matches!(report.state, ActionState::Queued | ActionState::Sent) {
            report = self.get(&format!("/requests/{}?wait=20", report.id))?;
        }
        match report.state {
            ActionState::Failed => Err(BenchError::Action(report.feedback.unwrap_or_default())),
            _ => Ok(1),
        }
    }

    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, BenchError> {
        let request = self.agent.post(format!("{}{path}", self.base));
        read(request.header("Authorization", &self.token).send_json(body))
    }

    pub fn patch(&self, path: &str, body: &Value) -> Result<Change, BenchError> {
        let request = self.agent.patch(format!("{}{path}", self.base));
        let request = request.header(CONFIRM_HEADER, "yes-really");
        read(request.header("Authorization", &self.token).send_json(body))
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, BenchError> {
        let request = self.agent.get(format!("{}{path}", self.base));
        read(request.header("Authorization", &self.token).call())
    }

    pub fn delete(&self, path: &str) -> Result<Change, BenchError> {
        let request = self.agent.delete(format!("{}{path}", self.base));
        let request = request.header(CONFIRM_HEADER, "yes-really");
        read(request.header("Authorization", &self.token).call())
    }
}

fn read<T: DeserializeOwned>(
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<T, BenchError> {
    let mut answer = answer.map_err(Box::new)?;
    Ok(answer.body_mut().read_json().map_err(Box::new)?)
}
