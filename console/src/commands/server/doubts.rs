//! What is doubtful about a server, in words: a clock that is off, and what somebody must decide.

use bastio_protocol::ServerName;
use bastio_protocol::api::{Question, QuestionKind, Server};

use crate::table::{Cell, Tone};
use crate::text::ago;

/// How the list shows a server about which something is doubtful; `None` when nothing is.
pub fn cell(server: &Server) -> Option<Cell> {
    let held = server.questions.iter().any(|question| question.holds);
    if held {
        return Some(Cell::new("undecided", Tone::Bad));
    }
    match server.questions.first().map(|question| question.kind) {
        Some(QuestionKind::Restored) => return Some(Cell::new("restored: check it", Tone::Bad)),
        Some(_) => return Some(Cell::new("two agents", Tone::Bad)),
        None => {}
    }
    server.clock_offset.map(|_| Cell::new("clock off", Tone::Warn))
}

/// The rows of `server show`.
pub fn rows(server: &Server, now: i64) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if let Some(offset) = server.clock_offset {
        rows.push(("clock", clock(offset)));
    }
    for question in &server.questions {
        let held = if question.holds { "; its agent waits" } else { "" };
        let since = ago(question.since, now);
        rows.push(("to decide", format!("{} (since {since}{held})", question.text)));
    }
    rows
}

fn clock(offset: i64) -> String {
    let side = if offset > 0 { "ahead of" } else { "behind" };
    format!("{} s {side} the backend's", offset.unsigned_abs())
}

/// What to do about it.
pub fn hint(server: &Server) -> Option<String> {
    let name = &server.name;
    let decide = server.questions.first().map(|question| decision(question, name));
    let clock = server.clock_offset.map(|_| {
        "set its clock (NTP); if most servers are off, set the backend's. Orders go out again by \
         themselves"
            .to_owned()
    });
    decide.or(clock)
}

fn decision(question: &Question, name: &ServerName) -> String {
    match question.kind {
        QuestionKind::SameName => format!(
            "decide with one of the two commands above, or turn it away: bastio server rm {name}"
        ),
        QuestionKind::Machine => format!(
            "if this is right: bastio server accept {name}. If the key was copied or stolen, enrol \
             the right machine anew and remove this one: bastio server rm {name}"
        ),
        QuestionKind::Restored => format!(
            "see what a sync would change: bastio server check {name}; then: bastio server sync {name}"
        ),
        QuestionKind::Rivals => format!(
            "find both machines (bastio log --server {name}); on the wrong one, stop the agent and \
             delete its key, then: bastio server accept {name}. If the key was stolen, enrol the \
             right one anew: bastio server rm {name}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bastio_protocol::api::Presence;

    fn server() -> Server {
        Server {
            name: "web-1".parse().expect("a name"),
            labels: Default::default(),
            presence: Presence::Offline,
            last_seen: None,
            address: None,
            agent: None,
            fingerprint: String::new(),
            created: 0,
            pending: 0,
            failed: 0,
            drifted: false,
            drift_answer: Default::default(),
            keeps_drifting: false,
            clock_offset: None,
            questions: Vec::new(),
            in_sync_at: 0,
            failure: None,
        }
    }

    #[test]
    fn what_is_doubtful_is_shown_with_what_to_do() {
        assert_eq!((cell(&server()), hint(&server())), (None, None));
        let late = Server { clock_offset: Some(-3600), ..server() };
        assert_eq!(cell(&late), Some(Cell::new("clock off", Tone::Warn)));
        assert_eq!(rows(&late, 0), [("clock", "3600 s behind the backend's".to_owned())]);
        assert!(hint(&late).is_some_and(|hint| hint.contains("NTP")));
        for (kind, holds, shown, told) in [
            (QuestionKind::SameName, true, "undecided", "bastio server rm web-1"),
            (QuestionKind::Machine, true, "undecided", "bastio server accept web-1"),
            (QuestionKind::Rivals, true, "undecided", "bastio server accept web-1"),
            (QuestionKind::Restored, false, "restored: check it", "bastio server sync web-1"),
            (QuestionKind::Rivals, false, "two agents", "bastio log --server web-1"),
        ] {
            let questions = vec![Question { kind, holds, text: "is it?".into(), since: 100 }];
            let server = Server { questions, ..late.clone() };
            assert_eq!(cell(&server), Some(Cell::new(shown, Tone::Bad)));
            assert!(hint(&server).is_some_and(|hint| hint.contains(told)), "{kind:?}");
            let words = &rows(&server, 160)[1].1;
            assert!(words.starts_with("is it? (since ") && words.contains("waits") == holds);
        }
    }
}
