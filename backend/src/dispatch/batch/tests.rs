//! Many sessions at once come to the same as each alone.

use bastio_protocol::audit::LogFilter;
use bastio_protocol::{Payload, Status};
use tokio::task::JoinSet;

use crate::dispatch::Session;
use crate::store;
use crate::testing::{TestBackend, feedback, key, login};

const SERVERS: u8 = 40;

/// Every agent takes all it is sent and answers: some with a failure, some with nothing that was asked, some twice.
async fn work(number: u8, session: Session) -> (u8, Session, Vec<u64>) {
    let mut sequences = Vec::new();
    loop {
        let payloads = session.next_payloads(1, true).await.expect("a queue");
        if payloads.is_empty() {
            return (number, session, sequences);
        }
        for (payload, sequence) in payloads {
            sequences.push(sequence);
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
