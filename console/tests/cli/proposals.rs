//! Proposals: all that is signed is shown, and nobody signs unasked.

use serde_json::json;

use crate::backend::{Answer, Backend, nobody};
use crate::runner::Machine;

#[test]
fn a_proposal_is_shown_with_all_that_it_gives() {
    let gains: Vec<String> =
        (0..300).map(|number| format!("alice on web-{number}: sudo")).collect();
    let statement = json!({"backend": "SHA256:x", "proposal": 7, "request": "00", "gains": "00",
                           "proposer": "admin", "approver": "", "at": 0});
    let machine = Machine::new();
    for (confirmed, size) in [(true, "--yes-really"), (false, "within [rails]")] {
        let proposal = json!({"id": 7, "state": "open", "proposer": "admin", "created": 1,
            "expires": 2, "revision": 3, "reason": "", "request": "POST /grants", "body": "{}",
            "confirmed": confirmed, "gains": gains, "gained": 300, "statement": statement});
        let backend = Backend::start(vec![Answer::Json(200, proposal)]);
        let run = machine.at(&backend.url, &["proposal", "show", "7"]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert!(gains.iter().all(|gain| run.stderr.contains(gain)), "{}", run.stderr);
        assert!(run.stdout.contains(size), "{}", run.stdout);
        assert_eq!(backend.lines(), ["GET /api/v1/proposals/7"]);
    }
}

#[test]
fn nothing_is_approved_unasked() {
    let run = Machine::new().at(&nobody(), &["proposal", "approve", "7"]);
    assert_eq!(run.code, Some(2), "{}", run.stderr);
    assert!(run.stderr.contains("--yes"), "{}", run.stderr);
}
