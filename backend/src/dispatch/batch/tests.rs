//! Many sessions at once come to the same as each alone.

use std::sync::Arc;

use bastio_protocol::api::{NewKeys, RemoveUser};
use bastio_protocol::audit::{LogFilter, Pattern};
use bastio_protocol::{
    ActionMessage, AgentHello, Facts, KeyOptions, Payload, Status, Username, V2,
};
use tokio::task::JoinSet;

use super::{Answer, Given, HandOut, Slip, Wanted};
use crate::dispatch::{DispatchError, Session};
use crate::store;
use crate::testing::{NOW, TestBackend, feedback, key, login};

const SERVERS: u8 = 40;

/// Every agent takes all it is sent and answers: some with a failure, some with nothing that was asked, some twice.
async fn work(number: u8, mut session: Session) -> (u8, Session, Vec<u64>) {
    let mut sequences = Vec::new();
    loop {
        let payloads = session.next_payloads(1).await.expect("a queue");
        if payloads.is_empty() {
            return (number, session, sequences);
        }
        for payload in payloads {
            sequences.push(session.number().await.expect("a store"));
            let Payload::Action(message) = payload else { panic!("{payload:?}") };
            let status = if number.is_multiple_of(5) { Status::Failed } else { Status::Done };
            let stray = feedback("77", Status::Done, "of nothing");
            session.feedback(&stray).await.expect("a store");
            for _ in 0..=number % 2 {
                session.feedback(&message.reply(status, "as told")).await.expect("a store");
            }
        }
    }
}

#[tokio::test]
async fn what_is_common_is_not_handed_back() {
    let backend = TestBackend::new().await;
    let mut slips = Vec::new();
    let mut sessions = Vec::new();
    for number in 0..3 {
        backend.enroll(&format!("s{number}"), number).await;
        let session = backend.connect_v2(number).await;
        let (server, place) = (session.server().id, session.place());
        let generation = place.generation;
        let wanted = Wanted::HandOut(HandOut { server, generation, limit: 10 });
        slips.push(Slip { wanted, lease: place.epoch.map(|epoch| (server, epoch)) });
        sessions.push(session);
    }
    backend.add_user("alice", &[key(200)], "*", true).await;
    let given = super::work(backend.dispatch.clone(), slips).await;
    for given in &given {
        assert!(matches!(given, Some(Given::Actions(all)) if all.len() == 1), "{given:?}");
    }
}

/// An answer of `session`'s agent to what it was `asked`.
fn answer(session: &Session, asked: &ActionMessage, status: Status) -> Slip {
    let server = session.server();
    let answer = Answer {
        server: server.id,
        name: server.name.clone(),
        address: session.address(),
        receipt_key: None,
        feedback: Arc::new(asked.reply(status, "as told")),
        asked: Some(Arc::new(asked.clone())),
    };
    let lease = session.place().epoch.map(|epoch| (server.id, epoch));
    Slip { wanted: Wanted::Answer(Box::new(answer)), lease }
}

#[tokio::test]
async fn of_answers_that_come_together_those_that_leave_a_doubt_are_handed_back() {
    let backend = TestBackend::new().await;
    let mut sessions = Vec::new();
    for number in 0..5 {
        backend.enroll(&format!("s{number}"), number).await;
        sessions.push(backend.connect_v2(number).await);
    }
    backend.add_user("bob", &[key(201)], "s4", false).await;
    backend.answer_all(&sessions[4], Status::Done).await;
    backend.add_user("alice", &[key(200)], "*", true).await;
    let mut asked = Vec::new();
    for session in &sessions {
        asked.push(session.next(10).await.expect("a queue").remove(0));
    }
    backend
        .fleet
        .remove_user(&backend.admin, &login("bob"), RemoveUser::default())
        .await
        .expect("removed");
    let removal = sessions[4].next(10).await.expect("a queue").remove(0);
    let slips = vec![
        answer(&sessions[0], &asked[0], Status::Done),
        answer(&sessions[0], &asked[0], Status::Done),
        answer(&sessions[2], &asked[1], Status::Done),
        answer(&sessions[2], &asked[2], Status::Done),
        answer(&sessions[3], &asked[3], Status::Failed),
        answer(&sessions[4], &asked[4], Status::Done),
        answer(&sessions[4], &removal, Status::Done),
    ];
    let given = super::work(backend.dispatch.clone(), slips).await;
    let taken: Vec<bool> = given.iter().map(|given| matches!(given, Some(Given::Taken))).collect();
    assert_eq!(taken, [true, false, false, true, false, true, true], "{given:?}");
    let mut db = backend.store.read().await.expect("a reader");
    for (session, there) in sessions.iter().zip([true, false, true, false, true]) {
        let server = session.server().id;
        let accounts = store::accounts::of_server(&mut db, server).await.expect("read");
        let names: Vec<_> = accounts.keys().map(Username::as_str).collect();
        assert_eq!(names, if there { vec!["alice"] } else { vec![] }, "{}", session.server().name);
        let left = store::actions::pending_of_server(&mut db, server).await.expect("read");
        assert_eq!(left.is_empty(), there, "{}", session.server().name);
    }
}

#[tokio::test]
async fn of_one_account_one_answer_is_taken_at_a_time() {
    let backend = TestBackend::new().await;
    backend.enroll("s0", 0).await;
    let session = backend.connect_v2(0).await;
    backend.add_user("alice", &[key(200)], "*", true).await;
    let first = session.next(10).await.expect("a queue").remove(0);
    let keys = vec![key(201).to_string()];
    let more = NewKeys { keys, options: KeyOptions::default(), until: None };
    backend.fleet.add_keys(&backend.admin, &login("alice"), &more).await.expect("added");
    let second = session.next(10).await.expect("a queue").remove(0);
    let both = || [&first, &second].map(|asked| answer(&session, asked, Status::Done));
    for expected in [[true, false], [false, true]] {
        let given = super::work(backend.dispatch.clone(), both().into()).await;
        let taken: Vec<bool> =
            given.iter().map(|given| matches!(given, Some(Given::Taken))).collect();
        assert_eq!(taken, expected, "{given:?}");
    }
    let mut db = backend.store.read().await.expect("a reader");
    let accounts = store::accounts::of_server(&mut db, session.server().id).await.expect("read");
    assert_eq!(accounts[&login("alice")].keys, [key(200), key(201)].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_that_works_at_once_ends_as_it_should() {
    let backend = TestBackend::new().await;
    let mut servers = Vec::new();
    let mut tasks = JoinSet::new();
    for number in 0..SERVERS {
        servers.push(backend.enroll(&format!("s{number}"), number).await.id);
    }
    backend.add_user("alice", &[key(200), key(201)], "*", true).await;
    for number in 0..SERVERS {
        tasks.spawn(work(number, backend.connect_v2(number).await));
    }
    let mut sessions = Vec::new();
    while let Some(done) = tasks.join_next().await {
        let (number, session, sequences) = done.expect("worked");
        assert!(sequences.is_sorted_by(|a, b| a < b), "{number}: {sequences:?}");
        assert!(number.is_multiple_of(5) || sequences.len() == 3, "{number}: {sequences:?}");
        sessions.push(session.close());
    }
    for session in sessions {
        session.await.expect("closed");
    }
    let mut db = backend.store.read().await.expect("a reader");
    for (number, server) in (0..SERVERS).zip(servers) {
        let accounts = store::accounts::of_server(&mut db, server).await.expect("read");
        let alice = accounts.get(&login("alice"));
        if number.is_multiple_of(5) {
            assert!(alice.is_none(), "{number}");
        } else {
            let alice = alice.expect("confirmed");
            assert!(alice.sudo && alice.keys == [key(200), key(201)].into(), "{number}");
        }
        let left = store::actions::pending_of_server(&mut db, server).await.expect("read");
        assert!(left.is_empty(), "{number}: {left:?}");
    }
    let rows = backend.log(&LogFilter::default()).await;
    assert!(rows.iter().all(|row| row.is_whole()));
    assert!(rows.windows(2).all(|two| two[1].prev_hash == two[0].hash));
    let done = rows.iter().filter(|row| row.row.action == "action.done").count();
    assert_eq!(done, 3 * usize::from(SERVERS - SERVERS / 5), "each once");
}

/// All agents log in at once and say hello; those who were let in. Every fifth is on `machine`, every seventh has a clock
/// that is `off` by so many seconds.
async fn arrive(backend: &Arc<TestBackend>, os: &str, machine: &str, off: i64) -> Vec<u8> {
    let mut tasks = JoinSet::new();
    for number in 0..SERVERS {
        let backend = Arc::clone(backend);
        let machine = if number.is_multiple_of(5) { machine } else { "its own" };
        let facts = [("os_version", os), ("arch", "x86_64"), ("machine_id", machine)];
        let facts = facts.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let hello = AgentHello {
            protocol: V2,
            facts: Facts::from(std::collections::BTreeMap::from(facts)),
            last_sequence: u64::from(number),
            signing_key: Some("SHA256:key".to_owned()),
            receipt_key: None,
            time: Some(NOW + if number.is_multiple_of(7) { off } else { 1 }),
            together: false,
        };
        tasks.spawn(async move {
            let mut session = backend.connect(number).await;
            let met = session.met(&hello).await;
            let sequence = session.number().await.expect("a store");
            session.close().await.expect("closed");
            assert!(sequence > u64::from(number));
            match met {
                Ok(()) => Some(number),
                Err(DispatchError::Held) => None,
                Err(error) => panic!("{error}"),
            }
        });
    }
    let mut here: Vec<u8> = tasks.join_all().await.into_iter().flatten().collect();
    here.sort_unstable();
    here
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_that_comes_at_once_is_met_each_as_it_is() {
    let backend = Arc::new(TestBackend::new().await);
    let mut servers = Vec::new();
    for number in 0..SERVERS {
        servers.push(backend.enroll(&format!("s{number}"), number).await.id);
    }
    let all: Vec<u8> = (0..SERVERS).collect();
    let count = async |action: &str| {
        let filter =
            LogFilter { action: Some(Pattern::Exactly(action.to_owned())), ..LogFilter::default() };
        backend.log(&filter).await.len()
    };
    let rows = async || (count("server.facts").await, count("server.clock").await);

    assert_eq!(arrive(&backend, "Debian 12", "its own", 1).await, all);
    let told = rows().await;
    assert_eq!(told, (usize::from(SERVERS), 0), "new labels are told once for each");
    assert_eq!(arrive(&backend, "Debian 12", "its own", 1).await, all);
    assert_eq!(rows().await, told, "who says the same writes nothing");

    let of_five =
        all.iter().copied().filter(|number| !number.is_multiple_of(5)).collect::<Vec<_>>();
    assert_eq!(
        arrive(&backend, "Debian 13", "another", 900).await,
        of_five,
        "somebody must decide"
    );
    let sevenths = all.iter().filter(|number| number.is_multiple_of(7)).count();
    assert_eq!(rows().await, (usize::from(SERVERS) + of_five.len(), sevenths));
    let mut db = backend.store.read().await.expect("a reader");
    for (number, server) in all.into_iter().zip(servers) {
        let labels = store::servers::labels(&mut db, server).await.expect("labels");
        let os = labels.iter().find(|(_, value)| value.contains("1")).map(|(_, value)| value);
        let expected = if of_five.contains(&number) { "13" } else { "12" };
        assert!(os.is_some_and(|os| os.contains(expected)), "{number}: {labels:?}");
    }
}
