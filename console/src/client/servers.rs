//! Requests about servers: what they are, what is asked of them as a whole, and what is taken over from them. Must not know
//! how requests travel.

use std::time::Duration;

use bastio_protocol::api::{
    Adopt, Candidate, Change, NewRequest, ReplaceServer, RequestKind, RequestReport, Server,
    ServerDetail, UpdateServer,
};
use bastio_protocol::{ServerName, Username};

use ureq::http::Method;

use super::{Client, ClientError, GRACE, Intent, REQUEST, answer, path};

impl Client {
    /// All servers.
    pub fn servers(&self) -> Result<Vec<Server>, ClientError> {
        self.get("servers")
    }

    /// One server.
    pub fn server(&self, name: &ServerName) -> Result<ServerDetail, ClientError> {
        self.get(&path(["servers", name.as_str()]))
    }

    /// Renames or labels a server.
    pub fn update_server(
        &self,
        name: &ServerName,
        edit: &UpdateServer,
    ) -> Result<Change, ClientError> {
        self.send(Method::PATCH, &path(["servers", name.as_str()]), edit)
    }

    /// Removes a server.
    pub fn remove_server(&self, name: &ServerName) -> Result<Change, ClientError> {
        self.delete(&path(["servers", name.as_str()]))
    }

    /// Sends a server everything that it should have.
    pub fn sync_server(&self, name: &ServerName) -> Result<Change, ClientError> {
        self.send(Method::POST, &path(["servers", name.as_str(), "sync"]), &serde_json::json!({}))
    }

    /// Decides that all is well with a server.
    pub fn accept_server(&self, name: &ServerName) -> Result<Change, ClientError> {
        self.send(Method::POST, &path(["servers", name.as_str(), "accept"]), &serde_json::json!({}))
    }

    /// Lets a server take the place of another.
    pub fn replace_server(
        &self,
        name: &ServerName,
        with: ServerName,
    ) -> Result<Change, ClientError> {
        self.send(
            Method::POST,
            &path(["servers", name.as_str(), "replace"]),
            &ReplaceServer { with },
        )
    }

    /// What is on a server by that report, and whose it may be.
    pub fn candidates(
        &self,
        name: &ServerName,
        request: i64,
    ) -> Result<Vec<Candidate>, ClientError> {
        self.get(&format!("{}?request={request}", path(["servers", name.as_str(), "adoption"])))
    }

    /// Takes an account over.
    pub fn adopt(&self, name: &ServerName, adopt: &Adopt) -> Result<Change, ClientError> {
        self.send(Method::POST, &path(["servers", name.as_str(), "adoption"]), adopt)
    }

    /// Gives an account back.
    pub fn give_back(&self, name: &ServerName, login: &Username) -> Result<Change, ClientError> {
        self.delete(&path(["servers", name.as_str(), "adoption", login.as_str()]))
    }

    /// Asks a server what there is, also where everything else is only tried: that changes nothing.
    pub fn ask_report(&self, name: &ServerName) -> Result<RequestReport, ClientError> {
        let new = NewRequest { kind: RequestKind::Report, allow_no_admin: false };
        let body = serde_json::to_vec(&new).map_err(|_| ClientError::Unsendable)?;
        let path = path(["servers", name.as_str(), "requests"]);
        let meant = Intent::default();
        answer::parse(&self.call_as(meant, Method::POST, &path, Some(body), REQUEST)?)
    }

    /// Asks something of a server as a whole.
    pub fn request(
        &self,
        name: &ServerName,
        new: NewRequest,
    ) -> Result<RequestReport, ClientError> {
        self.send(Method::POST, &path(["servers", name.as_str(), "requests"]), &new)
    }

    /// A request as soon as it has ended, at the latest after `wait` seconds.
    pub fn await_request(&self, id: i64, wait: u64) -> Result<RequestReport, ClientError> {
        let path = format!("requests/{id}?wait={wait}");
        let body = self.call(Method::GET, &path, None, Duration::from_secs(wait) + GRACE)?;
        answer::parse(&body)
    }
}
