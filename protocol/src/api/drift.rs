//! The bodies about what the backend does when servers report that others have changed something there. Must not
//! know how any of it is done.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Target;

/// What is done about drift, the more cautious the smaller.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum DriftAnswer {
    /// It is shown as trouble until somebody has put it right.
    #[default]
    Show,
    /// It is kept in the log, and is no trouble.
    Leave,
    /// The server is brought back.
    Heal,
}

impl DriftAnswer {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Show, Self::Leave, Self::Heal];

    /// The name as in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Show => "show",
            Self::Leave => "leave",
            Self::Heal => "heal",
        }
    }

    /// Whether it is what is done without any rule.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for DriftAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DriftAnswer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|answer| answer.name() == text);
        found.ok_or("drift is answered with heal, show or leave")
    }
}

/// A rule: what is done about drift on these servers. `POST /drift`, answered with a [`super::Change`]; `DELETE
/// /drift/{on}` takes it away. Of several rules about a server the most cautious one counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriftRule {
    /// The servers.
    pub on: Target,
    /// What is done.
    pub answer: DriftAnswer,
}

/// A rule and what it comes to. `GET /drift`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftRuleInForce {
    /// The servers.
    pub on: Target,
    /// What is done.
    pub answer: DriftAnswer,
    /// How many servers that are enrolled it means.
    pub servers: u32,
    /// For how many of them a more cautious rule counts.
    pub overruled: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_one_name_everywhere() {
        for answer in DriftAnswer::ALL {
            assert_eq!(answer.name().parse(), Ok(answer));
            assert_eq!(
                serde_json::to_string(&answer).expect("JSON"),
                format!("\"{}\"", answer.name())
            );
        }
        assert!("fix".parse::<DriftAnswer>().is_err());
        assert!(DriftAnswer::Show < DriftAnswer::Leave && DriftAnswer::Leave < DriftAnswer::Heal);
    }
}
