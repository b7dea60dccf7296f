//! Agents report drift, and the rules say what becomes of it.

use std::sync::atomic::{AtomicI64, Ordering};

use bastio_protocol::api::{NewRequest, Policy, RequestKind, Server, Undo, UpdateServer};
use bastio_protocol::audit::LogFilter;
use bastio_protocol::{
    ChangeKind, ChangeNote, Detail, DriftMessage, FailureNote, HostMessage, HostRequest, Payload,
    Status,
};

use super::*;
use crate::access::Intent;
use crate::dispatch::{Session, Signal};
use crate::plan::{HEAL_WINDOW, HEALS};
use crate::testing::{NOW, TestBackend, host, login};

fn on(text: &str) -> Target {
    text.parse().expect("a target")
}

fn found(what: &str) -> DriftMessage {
    let (username, text) = (Some(login("alice")), what.to_owned());
    let note = ChangeNote { username, kind: ChangeKind::RemoveKey, text };
    let detail = Detail { changes: vec![note], ..Detail::default() };
    DriftMessage { at: NOW, healed: false, detail }
}

/// The same, and an account was locked by hand.
fn locked(what: &str) -> DriftMessage {
    let mut drift = found(what);
    let text = "locked by hand on the server".to_owned();
    drift.detail.failures.push(FailureNote { username: Some(login("alice")), text });
    drift
}

async fn rule(backend: &TestBackend, text: &str, answer: DriftAnswer) -> i64 {
    let rule = DriftRule { on: on(text), answer };
    backend.fleet.set_drift_rule(&backend.admin, &rule).await.expect("set").revision
}

/// The sync that the agent is asked for, if it is.
async fn sync(session: &Session) -> Option<HostMessage> {
    let payloads = session.next_payloads(10).await.expect("a queue");
    payloads.into_iter().find_map(|payload| match payload {
        Payload::Host(message)
            if matches!(message.request, HostRequest::Sync { dry_run: false, .. }) =>
        {
            Some(message)
        }
        _ => None,
    })
}

async fn report(session: &Session, drift: &DriftMessage) -> Option<HostMessage> {
    session.drifted(drift).await.expect("taken");
    sync(session).await
}

async fn web(backend: &TestBackend) -> Server {
    backend.fleet.server(&backend.admin, &host("web-1")).await.expect("there").server
}

async fn log(backend: &TestBackend) -> Vec<(String, String)> {
    let action = Some("drift.*".parse().expect("a pattern"));
    let rows = backend.log(&LogFilter { action, ..LogFilter::default() }).await;
    rows.into_iter().map(|chained| (chained.row.action, chained.row.detail)).collect()
}

#[tokio::test]
async fn drift_is_healed_where_a_rule_says_so_and_shown_elsewhere() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    backend.enroll("db-1", 2).await;
    let (web_1, db_1) = (backend.connect_v2(1).await, backend.connect_v2(2).await);
    rule(&backend, "web-1", DriftAnswer::Heal).await;
    assert!(report(&db_1, &found("a key")).await.is_none());
    let asked = report(&web_1, &found("a key")).await.expect("a sync");
    let shown = web(&backend).await;
    assert_eq!((shown.drifted, shown.keeps_drifting), (true, false), "until it is put right");
    web_1.feedback(&asked.reply(Status::Done, "put right")).await.expect("taken");
    let shown = web(&backend).await;
    assert_eq!((shown.drifted, shown.drift_answer), (false, DriftAnswer::Heal));
    let status = backend.fleet.status(&backend.admin, String::new()).await.expect("read");
    assert_eq!((status.drifted, status.keep_drifting), (1, 0), "db-1");
    let healed_by_itself = DriftMessage { healed: true, ..found("another key") };
    assert!(report(&web_1, &healed_by_itself).await.is_none(), "nothing is left to be done");
    let log = log(&backend).await;
    assert_eq!(log[1], ("drift.heal".into(), "sync 1 of at most 3 within an hour".into()));
    assert!(log[2].1.starts_with("to be healed; a sync would put it right"), "{log:?}");
}

static CLOCK: AtomicI64 = AtomicI64::new(NOW);

#[tokio::test]
async fn a_server_that_keeps_drifting_is_healed_a_few_times_an_hour_and_shown() {
    let backend = TestBackend::with_clock(|| CLOCK.load(Ordering::SeqCst)).await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect_v2(1).await;
    rule(&backend, "*", DriftAnswer::Heal).await;
    for number in 0..HEALS {
        let asked = report(&session, &found(&format!("key {number}"))).await.expect("a sync");
        session.drifted(&found("more of it")).await.expect("taken");
        assert!(sync(&session).await.is_none(), "one is on its way");
        session.feedback(&asked.reply(Status::Done, "put right")).await.expect("taken");
    }
    for number in 0..5 {
        assert!(report(&session, &found(&format!("once more {number}"))).await.is_none());
    }
    let shown = web(&backend).await;
    assert!(shown.drifted && shown.keeps_drifting);
    let status = backend.fleet.status(&backend.admin, String::new()).await.expect("read");
    assert_eq!((status.drifted, status.keep_drifting), (1, 1));
    let plan = backend.fleet.convergence(&backend.admin, None).await.expect("read");
    assert!(plan[0].drifted && plan[0].keeps_drifting);
    let rows = log(&backend).await;
    assert_eq!(rows.iter().filter(|(action, _)| action == "drift.heal").count(), HEALS);
    assert!(rows.last().expect("some").1.starts_with("keeps drifting"), "{rows:?}");

    // An hour behind the last try it is tried again without any news, and that once.
    assert_eq!(backend.fleet.heal_due().await.expect("a store"), Some(NOW + HEAL_WINDOW));
    assert!(sync(&session).await.is_none());
    CLOCK.store(NOW + HEAL_WINDOW, Ordering::SeqCst);
    assert_eq!(backend.fleet.heal_due().await.expect("a store"), None, "it is on its way");
    let asked = sync(&session).await.expect("a sync");
    assert!(!web(&backend).await.keeps_drifting);
    session.feedback(&asked.reply(Status::Failed, "no")).await.expect("taken");
    assert!(web(&backend).await.keeps_drifting);
    assert_eq!(backend.fleet.heal_due().await.expect("a store"), Some(NOW + 2 * HEAL_WINDOW));
    let gone = DriftMessage { detail: Detail::default(), ..found("") };
    session.drifted(&gone).await.expect("taken");
    assert!(!web(&backend).await.keeps_drifting);
    assert_eq!(backend.fleet.heal_due().await.expect("a store"), None);
}

#[tokio::test]
async fn what_was_locked_by_hand_is_not_opened_by_a_rule() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect_v2(1).await;
    rule(&backend, "*", DriftAnswer::Heal).await;
    assert!(report(&session, &locked("a key")).await.is_none());
    assert_eq!(backend.fleet.heal_due().await.expect("a store"), None);
    assert!(web(&backend).await.drifted);
    let rows = log(&backend).await;
    assert!(rows[0].1.starts_with("not healed: somebody must look at it; "), "{rows:?}");
    assert!(report(&session, &found("a key")).await.is_some(), "it was unlocked");
}

/// What became of the syncs that were not sent, or failed.
async fn failed(backend: &TestBackend) -> Vec<String> {
    let action = Some("request.failed".parse().expect("a pattern"));
    let rows = backend.log(&LogFilter { action, ..LogFilter::default() }).await;
    rows.into_iter().map(|chained| chained.row.detail).collect()
}

/// A backend by whose rule a server is to be healed that has drifted and is gone.
async fn with_a_sync_that_waits() -> TestBackend {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect_v2(1).await;
    assert!(report(&session, &found("a key")).await.is_none());
    session.close().await.expect("closed");
    rule(&backend, "*", DriftAnswer::Heal).await;
    assert_eq!(backend.fleet.heal_due().await.expect("a store"), None, "it waits");
    backend
}

#[tokio::test]
async fn who_comes_back_is_healed_once_it_has_told_what_differs_there_now() {
    let backend = with_a_sync_that_waits().await;
    let mut session = backend.connect_v2(1).await;
    assert!(sync(&session).await.is_none(), "somebody may have locked an account there");
    session.drifted(&found("a key")).await.expect("no news, and still");
    assert_eq!(session.signal().await, Signal::Work);
    let asked = sync(&session).await.expect("a sync");
    // Lost on its way, and asked again once that is known to be right still.
    session.close().await.expect("closed");
    let session = backend.connect_v2(1).await;
    assert!(sync(&session).await.is_none());
    let again = report(&session, &found("a key")).await.expect("a sync");
    assert_ne!(again.mid, asked.mid);
    // Done, and the answer was lost.
    session.close().await.expect("closed");
    let session = backend.connect_v2(1).await;
    let gone = DriftMessage { detail: Detail::default(), ..found("") };
    let again = report(&session, &gone).await.expect("asked what came of it");
    session.feedback(&again.reply(Status::Done, "put right")).await.expect("taken");
    assert!(!web(&backend).await.drifted);
    assert!(failed(&backend).await.is_empty());
}

#[tokio::test]
async fn what_was_locked_by_hand_while_a_sync_waited_or_was_lost_is_not_opened_by_it() {
    let backend = with_a_sync_that_waits().await;
    let session = backend.connect_v2(1).await;
    assert!(report(&session, &locked("a key")).await.is_none());
    let not_sent = "sync: not sent: somebody must look at it";
    assert_eq!(failed(&backend).await, [not_sent]);
    // It waits for a key that is sealed, and the account is locked meanwhile.
    session.drifted(&found("another key")).await.expect("taken");
    session.drifted(&locked("another key")).await.expect("taken");
    assert!(sync(&session).await.is_none());
    assert_eq!(failed(&backend).await, [not_sent; 2]);
    // So much of it that it is not kept.
    session.drifted(&found("a third")).await.expect("taken");
    session.drifted(&locked(&"a key ".repeat(20_000))).await.expect("taken");
    assert!(sync(&session).await.is_none());
    assert_eq!(failed(&backend).await, [not_sent; 3]);
}

#[tokio::test]
async fn a_sync_that_may_have_been_done_and_is_taken_back_leaves_nothing_trusted() {
    let backend = TestBackend::new().await;
    let server = backend.enroll("web-1", 1).await.id;
    let session = backend.connect_v2(1).await;
    backend.add_user("alice", &[], "web-1", false).await;
    rule(&backend, "*", DriftAnswer::Heal).await;
    assert!(report(&session, &found("a key")).await.is_some());
    session.close().await.expect("closed");
    let session = backend.connect_v2(1).await;
    assert!(report(&session, &locked("a key")).await.is_none());
    assert_eq!(failed(&backend).await, ["sync: not sent: somebody must look at it"]);
    let mut db = backend.store.read().await.expect("a reader");
    let suspects = store::suspects::of_server(&mut db, server).await.expect("read");
    assert!(suspects.contains_key(&login("alice")), "{suspects:?}");
}

#[tokio::test]
async fn a_sync_that_nothing_asks_for_any_more_is_not_sent_and_an_operators_is() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect_v2(1).await;
    rule(&backend, "*", DriftAnswer::Heal).await;
    session.drifted(&found("a key")).await.expect("taken");
    rule(&backend, "web-1", DriftAnswer::Show).await;
    assert!(sync(&session).await.is_none());
    backend.fleet.remove_drift_rule(&backend.admin, &on("web-1")).await.expect("removed");
    session.drifted(&found("another key")).await.expect("taken");
    let gone = DriftMessage { detail: Detail::default(), ..found("") };
    session.drifted(&gone).await.expect("taken");
    assert!(sync(&session).await.is_none());
    let told = failed(&backend).await;
    let why = ["no rule wants it any more", "nothing is to be put right any more"];
    assert_eq!(told, why.map(|why| format!("sync: not sent: {why}")));
    session.close().await.expect("closed");
    let new = NewRequest { kind: RequestKind::Sync, allow_no_admin: false };
    backend.fleet.request(&backend.admin, &host("web-1"), new).await.expect("asked");
    assert!(sync(&backend.connect_v2(1).await).await.is_some(), "who asks by hand means it");
}

#[tokio::test]
async fn who_has_nothing_to_tell_is_healed_a_little_later() {
    let backend = with_a_sync_that_waits().await;
    let mut session = backend.connect_v2(1).await;
    assert!(sync(&session).await.is_none());
    session.is_silent_now();
    assert_eq!(backend.fleet.heal_due().await.expect("a store"), None);
    assert_eq!(session.signal().await, Signal::Work);
    assert!(sync(&session).await.is_some());
}

#[tokio::test]
async fn what_is_left_is_no_trouble_and_still_known() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect_v2(1).await;
    rule(&backend, "*", DriftAnswer::Heal).await;
    rule(&backend, "web-1", DriftAnswer::Leave).await;
    assert!(report(&session, &found("a key")).await.is_none());
    let shown = web(&backend).await;
    assert_eq!((shown.drifted, shown.drift_answer), (false, DriftAnswer::Leave));
    let status = backend.fleet.status(&backend.admin, String::new()).await.expect("read");
    assert_eq!((status.drifted, status.in_sync), (0, 1));
    let detail = backend.fleet.server(&backend.admin, &host("web-1")).await.expect("there");
    assert_eq!(detail.drift.as_deref(), Some(&found("a key")));
    let rows = log(&backend).await;
    assert!(rows[0].1.starts_with("left so by a rule; a sync would"), "{rows:?}");
    assert_eq!(backend.fleet.heal_due().await.expect("a store"), None);
}

#[tokio::test]
async fn a_new_rule_heals_what_has_drifted_before_it_and_nothing_undecided() {
    let backend = TestBackend::new().await;
    let server = backend.enroll("web-1", 1).await;
    let session = backend.connect_v2(1).await;
    assert!(report(&session, &found("a key")).await.is_none());
    let dry = backend.admin.clone().with_intent(Intent { dry_run: true, ..Intent::default() });
    let heal = DriftRule { on: on("*"), answer: DriftAnswer::Heal };
    backend.fleet.set_drift_rule(&dry, &heal).await.expect("tried");
    assert_eq!(backend.fleet.drift_rules(&backend.admin).await.expect("read"), []);
    rule(&backend, "*", DriftAnswer::Heal).await;
    let mut tx = backend.store.write().await.expect("a writer");
    let question = bastio_protocol::api::Question {
        kind: bastio_protocol::api::QuestionKind::Rivals,
        holds: false,
        text: "which?".into(),
        since: NOW,
    };
    let open = store::questions::Open { question, subject: String::new() };
    store::questions::ask(&mut tx, server.id, &open).await.expect("asked");
    tx.commit().await.expect("written");
    assert_eq!(backend.fleet.heal_due().await.expect("a store"), None);
    assert!(report(&session, &found("another key")).await.is_none());
    backend.fleet.accept_server(&backend.admin, &host("web-1")).await.expect("decided");
    assert_eq!(backend.fleet.heal_due().await.expect("a store"), None);
    let asked = sync(&session).await.expect("a sync");
    session.feedback(&asked.reply(Status::Done, "put right")).await.expect("taken");
    assert!(!web(&backend).await.drifted);
}

#[tokio::test]
async fn rules_are_part_of_the_model_and_go_back_with_it() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    backend.enroll("web-2", 2).await;
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    let first = rule(&backend, "web-1,web-2", DriftAnswer::Heal).await;
    rule(&backend, "web-2", DriftAnswer::Show).await;
    assert_eq!(rule(&backend, "web-2", DriftAnswer::Show).await, first + 1, "nothing to change");
    let rules = fleet.drift_rules(admin).await.expect("read");
    let numbers: Vec<_> = rules.iter().map(|rule| (rule.servers, rule.overruled)).collect();
    assert_eq!(numbers, [(2, 1), (1, 0)]);
    let unknown = DriftRule { on: on("web-9"), answer: DriftAnswer::Heal };
    let refused = fleet.set_drift_rule(admin, &unknown).await;
    assert!(matches!(refused, Err(FleetError::NoSuchServer(_))), "{refused:?}");
    let refused = fleet.remove_drift_rule(admin, &on("env=prod")).await;
    assert!(matches!(refused, Err(FleetError::NoSuchDriftRule(_))), "{refused:?}");

    let text = r#"{"version":1,"drift":{"*":"leave","web-2":"heal"}}"#;
    let wanted: Policy = serde_json::from_str(text).expect("a policy");
    fleet.apply(admin, &wanted, true).await.expect("applied");
    let again = fleet.apply(admin, &wanted, true).await.expect("applied");
    assert_eq!(again.summary, "nothing to change");
    assert_eq!(fleet.export(admin).await.expect("read").drift, wanted.drift);
    let wrong = r#"{"version":1,"drift":{"web-9":"heal"}}"#;
    let refused = fleet.apply(admin, &serde_json::from_str(wrong).expect("one"), false).await;
    let refused = refused.expect_err("no such server").to_string();
    assert_eq!(refused, "drift: web-9: there is no server named web-9");

    // Rules follow a server that gets another name, and a later one of its name inherits none.
    let renamed = UpdateServer { name: Some(host("www")), ..UpdateServer::default() };
    fleet.update_server(admin, &host("web-2"), &renamed).await.expect("renamed");
    let undo = Undo { to: first, server: None, reason: String::new() };
    fleet.undo(admin, &undo).await.expect("undone");
    let rules = fleet.drift_rules(admin).await.expect("read");
    assert_eq!(rules.iter().map(|rule| rule.on.to_string()).collect::<Vec<_>>(), ["web-1,www"]);
    fleet.remove_server(admin, &host("www")).await.expect("removed");
    let rules = fleet.drift_rules(admin).await.expect("read");
    assert_eq!(rules.iter().map(|rule| rule.on.to_string()).collect::<Vec<_>>(), ["web-1"]);
    fleet.remove_drift_rule(admin, &on("web-1")).await.expect("removed");
    assert_eq!(fleet.drift_rules(admin).await.expect("read"), []);
    let at = fleet.export_at(admin, first).await.expect("known").drift.expect("whole");
    assert_eq!(at, [(on("web-1"), DriftAnswer::Heal)].into(), "www is gone");
    let logged =
        LogFilter { action: Some("drift-rule.*".parse().expect("one")), ..LogFilter::default() };
    assert!(backend.log(&logged).await.iter().any(|it| it.row.detail == "web-1,web-2: heal"));
}
