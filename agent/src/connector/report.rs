//! Says how the link is: one line in the log for each change, and the state for the status file.
//! This file must not decide anything about the link.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::{debug, error, info, warn};

use crate::link::Trouble;
use crate::pipe::LinkState;

/// Longest reason in the status file, in characters.
const LONGEST_REASON: usize = 300;

/// Remembers what was said last: the same trouble at the next attempt is no news.
#[derive(Debug)]
pub(super) struct Reporter {
    backend: String,
    said: Option<Trouble>,
}

impl Reporter {
    /// For the backend at `HOST:PORT`.
    pub(super) fn new(backend: String) -> Self {
        Self { backend, said: None }
    }

    /// The first word, before anything was tried.
    pub(super) fn begin(&self) -> LinkState {
        info!(backend = self.backend, "connecting");
        LinkState::Disconnected { reason: "connecting".to_owned(), retry_in: 0 }
    }

    /// The link is up.
    pub(super) fn up(&mut self) -> LinkState {
        self.said = None;
        info!(backend = self.backend, "connected");
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        LinkState::Connected { backend: self.backend.clone(), since }
    }

    /// The link is down.
    pub(super) fn down(&mut self, trouble: &Trouble, retry_in: Duration) -> LinkState {
        let reason = reason(trouble);
        let backend = &self.backend;
        let retry_in_s = retry_in.as_secs();
        if self.said.as_ref() == Some(trouble) {
            debug!(backend, reason, retry_in_s, "still not connected");
        } else if matches!(trouble, Trouble::WrongHostKey { .. }) {
            error!(backend, retry_in_s, "not connecting: {reason}");
        } else {
            warn!(backend, reason, retry_in_s, "not connected");
        }
        self.said = Some(trouble.clone());
        LinkState::Disconnected {
            reason: reason.chars().take(LONGEST_REASON).collect(),
            retry_in: retry_in.as_secs(),
        }
    }
}

/// The trouble in words, with what to do where a person has to do something.
fn reason(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Network(detail) | Trouble::Refused(detail) => detail.clone(),
        Trouble::Malformed(detail) => format!("the backend sends what cannot be read: {detail}"),
        // The pins stay as they were read at the start, before root was given up: nothing that
        // the network or this process can reach may change them.
        Trouble::WrongHostKey { pinned, seen } => format!(
            "the backend shows the host key {seen}, pinned is {}. Someone may be in between. \
             If the key was changed on purpose: bastio-agent enroll --host-key {seen}, then restart",
            pinned.join(" or ")
        ),
        Trouble::Paced(pause) => format!("the backend asks to come back in {} s", pause.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Reporter;
    use crate::link::Trouble;
    use crate::pipe::LinkState;

    #[test]
    fn a_wrong_host_key_names_both_keys_and_what_to_do() {
        let trouble = Trouble::WrongHostKey {
            pinned: vec!["SHA256:aaa".to_owned(), "SHA256:bbb".to_owned()],
            seen: "SHA256:ccc".to_owned(),
        };
        let state = Reporter::new("b:1".to_owned()).down(&trouble, Duration::from_secs(40));
        let LinkState::Disconnected { reason, retry_in } = state else { panic!("connected") };
        assert_eq!(retry_in, 40);
        for part in ["SHA256:aaa or SHA256:bbb", "SHA256:ccc", "bastio-agent enroll"] {
            assert!(reason.contains(part), "{part}: {reason}");
        }
    }

    #[test]
    fn a_long_reason_is_cut() {
        let trouble = Trouble::Network("é".repeat(100_000));
        let state = Reporter::new("b:1".to_owned()).down(&trouble, Duration::ZERO);
        let LinkState::Disconnected { reason, .. } = state else { panic!("connected") };
        assert_eq!(reason.chars().count(), 300);
    }
}
