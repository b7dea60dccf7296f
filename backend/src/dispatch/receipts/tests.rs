//! What counts as proof, what does not and is told, and what a report makes of both.

use std::time::Duration;

use bastio_protocol::api::UserState;
use bastio_protocol::audit::LogFilter;
use bastio_protocol::{
    AccessReport, AccessStatus, AgentHello, Facts, HostRequest, Occasion, Payload, ServerId,
    States, V2,
};

use super::*;
use crate::fleet::FleetError;
use crate::testing::{NOW, TestBackend, key, login, new_user, signing_key};

fn hello(seed: Option<u8>) -> AgentHello {
    let (facts, receipt_key) =
        (Facts::default(), seed.map(|seed| signing_key(seed).verifying_key()));
    let (signing_key, time, together) = (None, None, false);
    AgentHello { protocol: V2, facts, last_sequence: 0, signing_key, receipt_key, time, together }
}

async fn connect(backend: &TestBackend, number: u8, seed: Option<u8>) -> Session {
    let mut session = backend.connect(number).await;
    session.met(&hello(seed)).await.expect("a store");
    session
}

/// What an agent with that receipt key signs after the action.
fn answer(seed: u8, server: i64, message: &ActionMessage) -> FeedbackMessage {
    answer_after(1, seed, server, message)
}

/// As [`answer`], with the number of the last order that the server had obeyed.
fn answer_after(sequence: u64, seed: u8, server: i64, message: &ActionMessage) -> FeedbackMessage {
    let login = &message.username;
    let (standing, sessions_ended) = match &message.action {
        Action::SetUser { wanted } if !wanted.locked => (Standing::Present(wanted), false),
        Action::SetUser { .. } => (Standing::Locked, false),
        Action::EndSessions => (Standing::Locked, true),
        Action::RemoveUser { .. } => (Standing::Absent, true),
        other => panic!("{other:?}"),
    };
    let mut states = States::default();
    states.add(&StateOfAccount { login, standing, sessions_ended });
    let occasion = Occasion {
        server: ServerId::from_number(server),
        sequence,
        at: NOW,
        mid: message.mid.clone(),
        action: message.action.name().to_owned(),
        status: Status::Done,
    };
    let mut feedback = message.reply(Status::Done, "done");
    feedback.receipt = Some(Box::new(Receipt::sign(&signing_key(seed), occasion, states)));
    feedback
}

async fn take(
    session: &Session,
    answer: impl Fn(&ActionMessage) -> FeedbackMessage,
) -> Vec<Action> {
    let mut seen = Vec::new();
    loop {
        let sent = session.next(10).await.expect("a queue");
        if sent.is_empty() {
            return seen;
        }
        for message in sent {
            session.feedback(&answer(&message)).await.expect("taken");
            seen.push(message.action);
        }
    }
}

async fn report(backend: &TestBackend) -> AccessReport {
    let (admin, alice) = (&backend.admin, login("alice"));
    let signer = signing_key(9);
    let report = backend.fleet.access_report(admin, &alice, Duration::ZERO, Some(&signer));
    let report = report.await.expect("a report");
    let file = report.to_file();
    assert_eq!(AccessReport::verify(file.as_bytes(), None), Ok(report.clone()));
    report
}

async fn statuses(backend: &TestBackend) -> Vec<AccessStatus> {
    report(backend).await.accounts.iter().map(|entry| entry.status).collect()
}

/// Alice on web-1, with an end, so that each edit is one set-user.
async fn alice_on(backend: &TestBackend, on: &str) {
    let mut new = new_user("alice", &[key(10)], on, true);
    new.terms.until = Some(NOW + 1000);
    backend.fleet.add_user(&backend.admin, &new).await.expect("added");
}

async fn refusals(backend: &TestBackend) -> Vec<String> {
    let rows = backend.log(&LogFilter::default()).await.into_iter();
    rows.filter(|row| row.row.action == "receipt.refused").map(|row| row.row.detail).collect()
}

#[tokio::test]
async fn who_is_disabled_loses_everything_at_once_and_the_servers_prove_it() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await;
    backend.enroll("web-2", 2).await;
    let session = connect(&backend, 1, Some(1)).await;
    alice_on(&backend, "*").await;
    take(&session, |message| answer(1, web.id.0, message)).await;
    assert_eq!(statuses(&backend).await, [AccessStatus::Open, AccessStatus::Pending]);

    let (fleet, admin, alice) = (&backend.fleet, &backend.admin, login("alice"));
    for round in 0..2 {
        fleet.disable_user(admin, &alice, "left").await.expect("disabled");
        assert_eq!(fleet.user(admin, &alice).await.expect("read").state, UserState::Disabled);
        let sent = take(&session, |message| answer(1, web.id.0, message)).await;
        match (round, &sent[..]) {
            (0, [Action::SetUser { wanted }, Action::EndSessions]) => {
                assert!(wanted.locked && wanted.keys.is_empty() && wanted.sudo.is_none());
            }
            (1, [Action::EndSessions]) => {}
            other => panic!("{other:?}"),
        }
        let found = report(&backend).await;
        assert_eq!(found.accounts[0].status, AccessStatus::Proven);
        assert_eq!(found.accounts[1].status, AccessStatus::Pending, "never seen");
        assert_eq!(found.accounts[1].lasts_until, None, "nothing is known of it");
    }
    let update =
        bastio_protocol::api::UpdateUser { state: Some(UserState::Active), ..Default::default() };
    let unlocked = fleet.update_user(admin, &alice, &update).await;
    assert!(matches!(unlocked, Err(FleetError::Disabled(_))), "{unlocked:?}");
    fleet.enable_user(admin, &alice, "back").await.expect("enabled");
    let sent = take(&session, |message| answer(1, web.id.0, message)).await;
    assert!(matches!(&sent[..], [Action::SetUser { wanted }] if !wanted.locked), "{sent:?}");
    assert_eq!(statuses(&backend).await[0], AccessStatus::Open);
    assert_eq!(refusals(&backend).await, [""; 0]);
}

#[tokio::test]
async fn an_offline_server_is_bounded_by_what_it_ends_itself() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await;
    let session = connect(&backend, 1, Some(1)).await;
    alice_on(&backend, "*").await;
    take(&session, |message| answer(1, web.id.0, message)).await;
    session.close().await.expect("closed");
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    fleet.disable_user(admin, &login("alice"), "").await.expect("disabled");
    let found = report(&backend).await;
    assert_eq!(found.accounts[0].status, AccessStatus::Pending);
    assert_eq!(found.accounts[0].lasts_until, Some(NOW + 1000));
    assert!(found.accounts[0].last_seen.is_some());
}

#[tokio::test]
async fn what_is_altered_replayed_or_of_another_server_or_key_proves_nothing_and_is_told() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await;
    let session = connect(&backend, 1, Some(1)).await;
    alice_on(&backend, "web-1").await;
    take(&session, |message| answer(1, web.id.0, message)).await;
    let old = std::sync::Mutex::new(None);
    type Spoil<'a> = Box<dyn Fn(&ActionMessage) -> FeedbackMessage + 'a>;
    let spoilt: Vec<(&str, Spoil<'_>)> = vec![
        (
            "",
            Box::new(|message| {
                let answer = answer(1, web.id.0, message);
                *old.lock().expect("ours") = answer.receipt.clone();
                answer
            }),
        ),
        (
            "of another action",
            Box::new(|message| {
                let mut answer = answer(1, web.id.0, message);
                answer.receipt = old.lock().expect("ours").clone();
                answer
            }),
        ),
        ("not that of the server's receipt key", Box::new(|m| answer(2, web.id.0, m))),
        ("of the server 99", Box::new(|message| answer(1, 99, message))),
        ("had no receipt", Box::new(|message| message.reply(Status::Done, "done"))),
    ];
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    for (told, (words, spoil)) in spoilt.iter().enumerate() {
        fleet.disable_user(admin, &login("alice"), "").await.expect("disabled");
        take(&session, |message| match &message.action {
            Action::EndSessions => spoil(message),
            _ => answer(1, web.id.0, message),
        })
        .await;
        let entry = report(&backend).await.accounts.remove(0);
        if words.is_empty() {
            assert_eq!(entry.status, AccessStatus::Proven);
            continue;
        }
        assert_eq!(entry.status, AccessStatus::Unproven, "{words}");
        assert!(entry.why.as_ref().is_some_and(|why| why.contains(words)), "{:?}", entry.why);
        assert_eq!(refusals(&backend).await.len(), told, "{words}");
    }
    assert!(refusals(&backend).await[0].contains("of another action"));
}

#[tokio::test]
async fn a_receipt_that_says_another_state_than_was_ordered_proves_nothing() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await;
    let session = connect(&backend, 1, Some(1)).await;
    alice_on(&backend, "web-1").await;
    take(&session, |message| {
        let other = ActionMessage { action: Action::EndSessions, ..message.clone() };
        let mut answer = answer(1, web.id.0, &other);
        let found = answer.receipt.as_ref().expect("one").occasion();
        let occasion = Occasion { action: message.action.name().to_owned(), ..found };
        let mut states = States::default();
        let login = &message.username;
        states.add(&StateOfAccount { login, standing: Standing::Locked, sessions_ended: true });
        answer.receipt = Some(Box::new(Receipt::sign(&signing_key(1), occasion, states)));
        answer
    })
    .await;
    assert_eq!(refusals(&backend).await, ["it says another state"]);
}

#[tokio::test]
async fn the_first_key_stays_until_the_server_is_enrolled_again() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await;
    drop(connect(&backend, 1, Some(1)).await);
    let session = connect(&backend, 1, Some(2)).await;
    let mut db = backend.store.read().await.expect("a reader");
    let known = store::receipts::key(&mut db, web.id).await.expect("read");
    drop(db);
    assert_eq!(known, Some(signing_key(1).verifying_key()));
    let rows = backend.log(&LogFilter::default()).await;
    let told = |action: &str| rows.iter().filter(|row| row.row.action == action).count();
    assert_eq!((told("server.receipt-key"), told("server.receipt-key-differs")), (1, 1));
    alice_on(&backend, "web-1").await;
    take(&session, |message| answer(2, web.id.0, message)).await;
    assert_eq!(refusals(&backend).await.len(), 1);
}

#[tokio::test]
async fn an_agent_without_receipts_is_told_as_such() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let session = connect(&backend, 1, None).await;
    alice_on(&backend, "web-1").await;
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    fleet.disable_user(admin, &login("alice"), "").await.expect("disabled");
    take(&session, |message| message.reply(Status::Done, "done")).await;
    let entry = report(&backend).await.accounts.remove(0);
    assert_eq!(entry.status, AccessStatus::Unproven);
    assert!(entry.why.expect("a reason").contains("gives no receipts"));
    assert_eq!(refusals(&backend).await, [""; 0]);
    let unknown = fleet.access_report(admin, &login("nobody-here"), Duration::ZERO, None).await;
    assert!(matches!(unknown, Err(FleetError::NoSuchUser(_))));
}

#[tokio::test]
async fn a_receipt_from_before_the_last_one_is_refused_by_its_number() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await;
    let session = connect(&backend, 1, Some(1)).await;
    alice_on(&backend, "web-1").await;
    take(&session, |message| answer_after(7, 1, web.id.0, message)).await;
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    for (sequence, expected) in
        [(7, AccessStatus::Proven), (6, AccessStatus::Unproven), (8, AccessStatus::Proven)]
    {
        fleet.disable_user(admin, &login("alice"), "").await.expect("disabled");
        take(&session, |message| answer_after(sequence, 1, web.id.0, message)).await;
        assert_eq!(statuses(&backend).await, [expected], "{sequence}");
    }
    let words = "it is old: signed after order 6, another one after order 7";
    let refused = refusals(&backend).await;
    assert!(!refused.is_empty() && refused.iter().all(|why| why == words), "{refused:?}");
}

/// The answer to the sync that waits, with all accounts of it in that state.
async fn answer_sync(
    backend: &TestBackend,
    session: &Session,
    (sequence, standing): (u64, Standing<'_>),
    spoil: impl Fn(Receipt) -> Option<Receipt>,
) {
    let web = bastio_protocol::ServerName::parse("web-1").expect("a name");
    backend.fleet.sync_server(&backend.admin, &web).await.expect("asked");
    let payloads = session.next_payloads(10).await.expect("a queue");
    let Some(Payload::Host(message)) = payloads.first() else { panic!("{payloads:?}") };
    let HostRequest::Sync { wanted, .. } = &message.request else { panic!("{message:?}") };
    let mut states = States { complete: true, ..States::default() };
    for login in wanted.accounts.keys() {
        states.add(&StateOfAccount { login, standing, sessions_ended: true });
    }
    let occasion = Occasion {
        server: ServerId::from_number(session.server().id.0),
        sequence,
        at: NOW,
        mid: message.mid.clone(),
        action: "sync".to_owned(),
        status: Status::Done,
    };
    let mut feedback = message.reply(Status::Done, "done");
    feedback.receipt = spoil(Receipt::sign(&signing_key(1), occasion, states)).map(Box::new);
    session.feedback(&feedback).await.expect("taken");
}

#[tokio::test]
async fn what_a_sync_leaves_is_proved_by_its_receipt_and_by_no_other() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    let session = connect(&backend, 1, Some(1)).await;
    alice_on(&backend, "web-1").await;
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    fleet.disable_user(admin, &login("alice"), "").await.expect("disabled");
    // Nothing of it has reached the server one by one.
    let old = std::sync::Mutex::new(None);
    answer_sync(&backend, &session, (5, Standing::Locked), |receipt| {
        *old.lock().expect("ours") = Some(receipt.clone());
        None
    })
    .await;
    take(&session, |message| message.reply(Status::Done, "done")).await;
    assert_eq!(statuses(&backend).await, [AccessStatus::Unproven], "nothing was signed");
    let told = refusals(&backend).await.len();
    let spoilt = old.lock().expect("ours").clone();
    answer_sync(&backend, &session, (5, Standing::Locked), |_| spoilt.clone()).await;
    assert_eq!(statuses(&backend).await, [AccessStatus::Unproven]);
    assert!(refusals(&backend).await[told].contains("of another action"));
    answer_sync(&backend, &session, (5, Standing::Absent), Some).await;
    assert_eq!(refusals(&backend).await[told + 1], "it says another state of alice");
    let mut tx = backend.store.write().await.expect("a writer");
    let web = session.server().id;
    store::receipts::forget(&mut tx, web, &login("alice")).await.expect("forgotten");
    tx.commit().await.expect("written");
    answer_sync(&backend, &session, (6, Standing::Locked), Some).await;
    assert_eq!(statuses(&backend).await, [AccessStatus::Proven]);
    answer_sync(&backend, &session, (5, Standing::Locked), Some).await;
    let words = "it is old: signed after order 5, another one after order 6";
    assert_eq!(refusals(&backend).await[told + 2], words);
    assert_eq!(statuses(&backend).await, [AccessStatus::Proven], "by the one before");
    // Whoever has no account of bastio's there is proved to have none.
    fleet.enable_user(admin, &login("alice"), "").await.expect("enabled");
    take(&session, |message| answer_after(7, 1, web.0, message)).await;
    assert_eq!(statuses(&backend).await, [AccessStatus::Open]);
    fleet.remove_user(admin, &login("alice"), Default::default()).await.expect("removed");
    take(&session, |message| answer_after(8, 1, web.0, message)).await;
    answer_sync(&backend, &session, (9, Standing::Locked), Some).await;
    assert_eq!(statuses(&backend).await, [AccessStatus::Proven]);
}

#[tokio::test]
async fn an_answer_before_the_hello_counts_no_more_than_one_behind_it() {
    let backend = TestBackend::new().await;
    let web = backend.enroll("web-1", 1).await;
    let session = connect(&backend, 1, Some(1)).await;
    alice_on(&backend, "web-1").await;
    take(&session, |message| answer(1, web.id.0, message)).await;
    backend.fleet.disable_user(&backend.admin, &login("alice"), "").await.expect("disabled");
    let mut sent = session.next(10).await.expect("a queue");
    assert_eq!(sent.len(), 2);
    // The same agent comes back, and answers before it has said anything of itself.
    let session = backend.connect(1).await;
    let last = sent.pop().expect("the end of the sessions");
    let first = sent.pop().expect("the lock");
    session.feedback(&answer(1, web.id.0, &first)).await.expect("a store");
    session.feedback(&last.reply(Status::Done, "done")).await.expect("a store");
    assert_ne!(statuses(&backend).await, [AccessStatus::Proven]);
    assert_eq!(refusals(&backend).await, ["the answer had no receipt"]);
}
