//! What an operator must decide about servers, and how to say it.

use serde::{Deserialize, Serialize};

use crate::ServerName;

/// What is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuestionKind {
    /// It was enrolled under the name of another server: is it that one, set up anew?
    SameName,
    /// Its agent's key is used on another machine than before: is that right?
    Machine,
    /// Its agent's key is used from two places at once.
    Rivals,
    /// The backend was restored from a backup, and what the server was told since is not known. It ends
    /// by itself with a sync, or with a check that finds no difference.
    Restored,
}

impl QuestionKind {
    /// The name as in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SameName => "same-name",
            Self::Machine => "machine",
            Self::Rivals => "rivals",
            Self::Restored => "restored",
        }
    }
}

/// Something that an operator must decide about a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// What.
    pub kind: QuestionKind,
    /// Whether its agent is kept waiting until then: it gets no orders, and comes back by itself.
    pub holds: bool,
    /// The same for people.
    pub text: String,
    /// Asked at.
    pub since: i64,
}

/// A server takes the place of another: its name, labels and grants. `POST
/// /servers/{name}/replace`, answered with a [`super::Change`]. That all is well as it is, says
/// `POST /servers/{name}/accept`, answered the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplaceServer {
    /// The server that was enrolled anew.
    pub with: ServerName,
}
