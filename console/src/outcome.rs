//! What an edit came to, server by server: states, exit code, table and notes. Pure.
//!
//! Must not know how changes are fetched.

use bastio_protocol::api::{ActionReport, ActionState, Change, Presence, ServerOutcome};
use bastio_protocol::{ChangeKind, ServerName};

use crate::failure::Ending;
use crate::table::{Cell, Table, Tone};
use crate::text::count;

/// What a server whose agent is away will do.
const LATER: &str = "will follow when it is back";
/// What a server will do whose agent was never there.
const NEVER_SEEN: &str = "will follow once its agent is started";

/// How far a server is with an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerState {
    /// Every action is done.
    Done,
    /// An action failed.
    Failed,
    /// Its agent is away; the actions wait for it.
    Offline,
    /// Its agent was never there; the actions wait for it.
    Unborn,
    /// Its agent is there and has not answered.
    Waiting,
}

impl ServerState {
    /// The state of that server; one failed action makes it failed.
    pub fn of(server: &ServerOutcome) -> Self {
        if server.actions.iter().any(|action| action.state == ActionState::Failed) {
            Self::Failed
        } else if !has_open_actions(server) {
            Self::Done
        } else {
            match server.presence {
                Presence::Connected => Self::Waiting,
                Presence::Offline => Self::Offline,
                Presence::NeverSeen => Self::Unborn,
            }
        }
    }

    fn cell(self) -> Cell {
        match self {
            Self::Done => Cell::new("done", Tone::Good),
            Self::Failed => Cell::new("failed", Tone::Bad),
            Self::Offline => Cell::new("offline", Tone::Warn),
            Self::Unborn => Cell::new("never seen", Tone::Warn),
            Self::Waiting => Cell::new("waiting", Tone::Warn),
        }
    }
}

fn has_open_actions(server: &ServerOutcome) -> bool {
    server.actions.iter().any(is_open)
}

fn is_open(action: &ActionReport) -> bool {
    matches!(action.state, ActionState::Queued | ActionState::Sent)
}

/// Whether an answer of that server is to be expected soon.
fn is_busy(server: &ServerOutcome) -> bool {
    server.presence == Presence::Connected && has_open_actions(server)
}

/// Whether every server that is there has answered everything.
pub fn is_settled(change: &Change) -> bool {
    change.complete || !change.servers.iter().any(is_busy)
}

/// How the command ends: servers that are away are no failure, servers that are there and did not
/// answer in time are.
pub fn ending(change: &Change) -> Ending {
    let fails = |state| matches!(state, ServerState::Failed | ServerState::Waiting);
    let failed = change.servers.iter().map(ServerState::of).any(fails);
    if failed { Ending::SomeFailed } else { Ending::AllDone }
}

/// The live line while servers answer.
pub fn progress(change: &Change) -> String {
    let expected = |server: &&ServerOutcome| {
        server.presence == Presence::Connected || !has_open_actions(server)
    };
    let servers: Vec<&ServerOutcome> = change.servers.iter().filter(expected).collect();
    let busy: Vec<&ServerName> = servers.iter().filter(|s| is_busy(s)).map(|s| &s.server).collect();
    let answered = servers.len() - busy.len();
    let actions = || servers.iter().flat_map(|server| &server.actions);
    let closed = actions().filter(|action| !is_open(action)).count();
    format!(
        "{answered} of {} answered ({closed} of {}); waiting for {}",
        count(servers.len(), "server"),
        count(actions().count(), "action"),
        list(busy)
    )
}

/// One line a server.
pub fn table(change: &Change) -> Table {
    let mut table = Table::new(&["SERVER", "STATE", "ACTIONS", "FEEDBACK"]);
    for server in &change.servers {
        let state = ServerState::of(server);
        let done = server.actions.iter().filter(|a| a.state == ActionState::Done).count();
        let actions = format!("{done}/{}", server.actions.len());
        table.row([
            server.server.as_str().into(),
            state.cell(),
            actions.into(),
            feedback(state, &server.actions).into(),
        ]);
    }
    table
}

/// What was changed, where the server says it: `: create-user, add-key`.
fn kinds(action: Option<&ActionReport>) -> String {
    let detail = action.and_then(|action| action.detail.as_deref());
    let kinds = detail.into_iter().flat_map(|detail| &detail.changes).map(|note| kind(note.kind));
    let kinds: Vec<String> = kinds.collect();
    if kinds.is_empty() { String::new() } else { format!(": {}", kinds.join(", ")) }
}

/// As on the wire: `add-key`.
pub fn kind(kind: ChangeKind) -> String {
    let name = serde_json::to_value(kind).ok();
    name.as_ref().and_then(|name| name.as_str()).unwrap_or_default().to_owned()
}

/// The words of the first failed action, or of the first action when all is done, or what is to
/// come.
fn feedback(state: ServerState, actions: &[ActionReport]) -> String {
    let failed = actions.iter().find(|action| action.state == ActionState::Failed);
    match state {
        ServerState::Failed => words_of(failed).unwrap_or("failed without a word").to_owned(),
        ServerState::Offline => LATER.to_owned(),
        ServerState::Unborn => NEVER_SEEN.to_owned(),
        ServerState::Waiting => "connected, no answer yet".to_owned(),
        ServerState::Done => {
            let words = words_of(actions.first()).unwrap_or("");
            format!("{words}{}", kinds(actions.first()))
        }
    }
}

fn words_of(action: Option<&ActionReport>) -> Option<&str> {
    action?.feedback.as_deref()
}

/// What people should know beside the table. `seconds` is how long servers were waited for.
pub fn notes(change: &Change, seconds: u64) -> Vec<String> {
    let named = |wanted: ServerState| -> Vec<&ServerName> {
        let fits = |server: &&ServerOutcome| ServerState::of(server) == wanted;
        change.servers.iter().filter(fits).map(|server| &server.server).collect()
    };
    let mut notes = Vec::new();
    for (state, what) in [
        (ServerState::Offline, format!("offline, {LATER}")),
        (ServerState::Unborn, format!("never seen, {NEVER_SEEN}")),
    ] {
        let names = named(state);
        if !names.is_empty() {
            notes.push(format!("{what}: {}", list(names)));
        }
    }
    for server in &change.servers {
        for warning in server.actions.iter().filter_map(|action| action.detail.as_deref()) {
            let said = warning.warnings.iter().map(|text| crate::text::one_line(text));
            notes.extend(said.map(|text| format!("warning: {}: {text}", server.server)));
        }
    }
    let waiting = named(ServerState::Waiting);
    if let Some(first) = waiting.first() {
        let next = format!("the backend goes on by itself, see: bastio server show {first}");
        notes.push(format!(
            "connected, but no answer within {seconds} s: {}; {next}",
            list(waiting.clone())
        ));
    }
    notes
}

/// At most five names, then how many more.
fn list(names: Vec<&ServerName>) -> String {
    const SHOWN: usize = 5;
    let more = names.len().saturating_sub(SHOWN);
    let shown: Vec<&str> = names.into_iter().take(SHOWN).map(ServerName::as_str).collect();
    let shown = shown.join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

/// Several edits as one: the last revision, and each server's actions in order. `None` for none.
pub fn merge(changes: Vec<Change>) -> Option<Change> {
    changes.into_iter().reduce(|mut all, next| {
        all.revision = next.revision;
        all.summary = format!("{}; {}", all.summary, next.summary);
        all.progress = next.progress;
        all.complete = all.complete && next.complete;
        for server in next.servers {
            match all.servers.iter_mut().find(|known| known.server == server.server) {
                Some(known) => {
                    known.presence = server.presence;
                    known.actions.extend(server.actions);
                }
                None => all.servers.push(server),
            }
        }
        all
    })
}

#[cfg(test)]
mod tests {
    use bastio_protocol::Username;

    use super::ActionState::{Done, Failed, Queued, Sent};
    use super::Presence::{Connected, NeverSeen, Offline};
    use super::*;

    fn server(name: &str, presence: Presence, states: &[ActionState]) -> ServerOutcome {
        let action = |state: &ActionState| ActionReport {
            action: "add-key".into(),
            username: Username::parse("alice").expect("a name"),
            state: *state,
            tries: 1,
            status: None,
            feedback: (*state == Failed).then(|| format!("{name} says\nno")),
            detail: None,
            mid: "1".into(),
        };
        ServerOutcome {
            server: ServerName::parse(name).expect("a name"),
            presence,
            actions: states.iter().map(action).collect(),
        }
    }

    fn change(revision: i64, servers: Vec<ServerOutcome>) -> Change {
        let complete = !servers.iter().any(has_open_actions);
        let summary = format!("edit {revision}");
        Change { revision, summary, progress: 1, complete, servers, request: None, preview: None }
    }

    #[test]
    fn each_state_of_a_server_and_what_it_means_for_the_command() {
        for (presence, states, state, settled, ends) in [
            (Connected, &[][..], ServerState::Done, true, Ending::AllDone),
            (Connected, &[Done, Done], ServerState::Done, true, Ending::AllDone),
            (Offline, &[Done], ServerState::Done, true, Ending::AllDone),
            (Connected, &[Done, Sent], ServerState::Waiting, false, Ending::SomeFailed),
            (Connected, &[Queued], ServerState::Waiting, false, Ending::SomeFailed),
            (Offline, &[Done, Queued], ServerState::Offline, true, Ending::AllDone),
            (Offline, &[Sent], ServerState::Offline, true, Ending::AllDone),
            (NeverSeen, &[Queued], ServerState::Unborn, true, Ending::AllDone),
            (Connected, &[Failed, Done], ServerState::Failed, true, Ending::SomeFailed),
            (Connected, &[Failed, Queued], ServerState::Failed, false, Ending::SomeFailed),
            (Offline, &[Failed, Queued], ServerState::Failed, true, Ending::SomeFailed),
        ] {
            let change = change(1, vec![server("web-1", presence, states)]);
            let found = change.servers.first().map(ServerState::of);
            assert_eq!(found, Some(state), "{presence:?} {states:?}");
            assert_eq!(is_settled(&change), settled, "{presence:?} {states:?}");
            assert_eq!(ending(&change), ends, "{presence:?} {states:?}");
        }
    }

    #[test]
    fn the_table_has_a_line_a_server_with_the_first_failure() {
        let change = change(
            7,
            vec![
                server("web-1", Connected, &[Done, Done]),
                server("web-2", Connected, &[Done, Failed, Failed]),
                server("db-1", Offline, &[Queued]),
                server("db-2", Connected, &[Sent]),
                server("new-1", NeverSeen, &[Queued]),
            ],
        );
        assert_eq!(
            table(&change).render(false),
            "SERVER  STATE       ACTIONS  FEEDBACK\n\
             web-1   done        2/2      -\n\
             web-2   failed      1/3      web-2 says no\n\
             db-1    offline     0/1      will follow when it is back\n\
             db-2    waiting     0/1      connected, no answer yet\n\
             new-1   never seen  0/1      will follow once its agent is started\n"
        );
        assert_eq!(progress(&change), "2 of 3 servers answered (5 of 6 actions); waiting for db-2");
        assert_eq!(
            notes(&change, 60),
            [
                "offline, will follow when it is back: db-1",
                "never seen, will follow once its agent is started: new-1",
                "connected, but no answer within 60 s: db-2; the backend goes on by itself, see: \
                 bastio server show db-2",
            ]
        );
    }

    #[test]
    fn long_lists_of_names_are_cut() {
        let names: Vec<ServerName> =
            (1..=7).filter_map(|n| ServerName::parse(&format!("s{n}")).ok()).collect();
        assert_eq!(list(names.iter().collect()), "s1, s2, s3, s4, s5 and 2 more");
        assert_eq!(list(names.iter().take(5).collect()), "s1, s2, s3, s4, s5");
    }

    #[test]
    fn several_edits_merge_into_one() {
        assert_eq!(merge(vec![]), None);
        let first = change(1, vec![server("web-1", Connected, &[Done])]);
        let second = change(
            2,
            vec![server("web-1", Offline, &[Queued]), server("db-1", Connected, &[Failed])],
        );
        let merged = merge(vec![first, second]).expect("one");
        assert_eq!(
            (merged.revision, merged.summary.as_str(), merged.complete),
            (2, "edit 1; edit 2", false)
        );
        assert_eq!(merged.servers.len(), 2);
        let states: Vec<_> = merged.servers.iter().map(ServerState::of).collect();
        assert_eq!(states, [ServerState::Offline, ServerState::Failed]);
    }
}
