//! Orders over the pipe: obeyed, refused, and remembered over a restart.

use bastio_protocol::{Draft, MessageId, Order, Payload, ServerId, SigningKey};

use super::*;
use crate::config::Signer;
use crate::pipe::Obeys;

/// PKCS#8 (RFC 8410) around a seed.
fn key(seed: u8) -> SigningKey {
    let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    SigningKey::from_pkcs8(&[&head[..], &[seed; 32]].concat()).unwrap()
}

fn payload(mid: u64, action: Action) -> Payload {
    let mut message = message(action);
    message.mid = MessageId::from_number(mid);
    Payload::Action(message)
}

fn order(seed: u8, sequence: u64, payload: &Payload) -> ToProcessor {
    let server = ServerId::parse("7").unwrap();
    ToProcessor::Order(Order::sign(&key(seed), server, sequence, i64::MAX, payload))
}

/// A processor that obeys the key of seed 1, and its first word.
fn start(folder: TempDir) -> (Connector, Running, Obeys) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = ServerId::parse("7").unwrap();
    let signer = Some(Signer { server, key: key(1).verifying_key() });
    let obedience = Obedience { signer, require_signed: true };
    let running = Running::start_with(SocketSource::Given(ours.into()), folder, obedience);
    let mut connector = Connector::new(theirs);
    let Some(ToConnector::Obeys(obeys)) = connector.receive() else { panic!("whom does it obey?") };
    (connector.greeted(), running, obeys)
}

fn restart(connector: Connector, running: Running) -> (Connector, Running, Obeys) {
    drop(connector);
    let Running { folder, stop, thread, .. } = running;
    assert_eq!(thread.join().unwrap().unwrap(), Ended::ConnectorGone);
    drop(stop);
    start(folder)
}

#[test]
fn what_an_order_has_left_is_signed_by_a_key_that_stays() {
    let (mut connector, running, obeys) = start(tempfile::tempdir().unwrap());
    let receipt_key = obeys.receipt_key.unwrap();
    connector.send(&order(1, 5, &payload(1, Action::RemoveUser { removal: None })));
    let Some(ToConnector::Feedback(feedback)) = connector.receive() else { panic!("no answer") };
    let receipt = feedback.receipt.unwrap();
    assert_eq!(receipt.verify(&receipt_key), Ok(()));
    let found = receipt.occasion();
    assert_eq!((found.sequence, found.mid), (5, MessageId::from_number(1)));
    assert!(receipt.ends_access(&message(ADD).username));
    connector.send(&ToProcessor::Delivered { count: 1 });
    let (_connector, _running, obeys) = restart(connector, running);
    assert_eq!(obeys.receipt_key, Some(receipt_key));
}

impl Connector {
    fn order(&mut self, message: &ToProcessor) -> (Status, String) {
        self.send(message);
        match self.receive() {
            Some(ToConnector::Feedback(feedback)) => {
                self.send(&ToProcessor::Delivered { count: 1 });
                (feedback.status, feedback.feedback)
            }
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn refuses(&mut self, message: &ToProcessor, words: &str) {
        let (status, text) = self.order(message);
        assert!(status == Status::Failed && text.contains(words), "{text}");
    }
}

#[test]
fn orders_are_obeyed_once_and_in_rising_numbers_also_after_a_restart() {
    let (mut connector, running, obeys) = start(tempfile::tempdir().unwrap());
    let fingerprint = key(1).verifying_key().fingerprint();
    let receipt_key = obeys.receipt_key;
    assert!(receipt_key.is_some());
    assert_eq!(obeys, Obeys { last_sequence: 0, signing_key: Some(fingerprint), receipt_key });
    let first = order(1, 5, &payload(1, ADD));
    assert_eq!(connector.order(&first).0, Status::Done);
    connector.refuses(&first, "5 was obeyed already");
    connector.refuses(
        &order(1, 4, &payload(2, Action::RemoveUser { removal: None })),
        "5 was obeyed already",
    );
    connector.refuses(&order(2, 6, &payload(2, Action::RemoveUser { removal: None })), "signature");
    connector
        .refuses(&ToProcessor::Action(message(Action::RemoveUser { removal: None })), "not signed");
    // What was refused has used up no number.
    assert_eq!(connector.order(&order(1, 6, &payload(3, ADD))).0, Status::Unchanged);

    let (mut connector, running, obeys) = restart(connector, running);
    assert_eq!(obeys.last_sequence, 6);
    for sequence in [5, 6] {
        connector.refuses(&order(1, sequence, &payload(4, ADD)), "6 was obeyed already");
    }
    assert_eq!(
        connector.order(&order(1, 7, &payload(4, ADD))).0,
        Status::Done,
        "a new account book"
    );
    let report = running.report();
    assert_eq!((report.actions.done, report.actions.failed), (1, 2));
}

#[test]
fn the_key_changes_on_the_word_of_the_old_one_and_stays_changed() {
    let (mut connector, running, first) = start(tempfile::tempdir().unwrap());
    let new = key(2).verifying_key();
    let rotate = Payload::RotateKey { mid: MessageId::from_number(9), key: new };
    connector.refuses(&order(2, 1, &rotate), "signature");
    connector.refuses(&order(3, 1, &rotate), "signature");
    assert_eq!(connector.order(&order(1, 3, &rotate)).0, Status::Done);
    let receipt_key = first.receipt_key;
    let obeys = Obeys { last_sequence: 3, signing_key: Some(new.fingerprint()), receipt_key };
    assert_eq!(connector.receive(), Some(ToConnector::Obeys(obeys.clone())));
    connector.refuses(&order(1, 4, &payload(1, ADD)), "signature");
    let (mut connector, _running, found) = restart(connector, running);
    assert_eq!(found, obeys);
    connector.refuses(&order(1, 4, &payload(1, ADD)), "signature");
    connector.refuses(&order(2, 3, &payload(1, ADD)), "3 was obeyed already");
    assert_eq!(connector.order(&order(2, 4, &payload(1, ADD))).0, Status::Done);
}

#[test]
fn whom_it_obeys_is_said_behind_each_change_of_the_link() {
    let (mut connector, _running, _) = start(tempfile::tempdir().unwrap());
    connector.order(&order(1, 5, &payload(1, ADD)));
    let link = LinkState::Disconnected { reason: "cut".into(), retry_in: 1 };
    connector.send(&ToProcessor::Link(link));
    let Some(ToConnector::Obeys(obeys)) = connector.receive() else { panic!("nothing was said") };
    assert_eq!(obeys.last_sequence, 5);
}

#[test]
fn where_nobody_knows_what_was_obeyed_only_what_closes_access_is() {
    let folder = tempfile::tempdir().unwrap();
    // No journal can be read or made where a folder has its name.
    std::fs::create_dir_all(folder.path().join("state/journal/x")).unwrap();
    let (mut connector, _running, _) = start(folder);
    connector.refuses(&order(1, 5, &payload(1, ADD)), "which orders were obeyed");
    connector.refuses(&order(2, 5, &payload(1, Action::LockUser)), "signature");
    let remove = order(1, 6, &payload(2, Action::RemoveUser { removal: None }));
    assert_eq!(connector.order(&remove).0, Status::Unchanged, "there is nobody to remove");
}

#[test]
fn orders_signed_together_cross_the_pipe_and_are_obeyed_each_by_itself() {
    let (mut connector, _running, _) = start(tempfile::tempdir().unwrap());
    let draft = |(to, number): (&str, u64)| {
        let mut message = message(Action::RemoveUser { removal: None });
        message.mid = MessageId::from_number(number);
        Draft::new(ServerId::parse(to).unwrap(), number, i64::MAX, &message)
    };
    let orders = [("7", 5), ("8", 6), ("7", 7)].map(draft);
    for order in Order::sign_together(&key(1), orders.into()) {
        let (mine, number) = (order.server().as_str() == "7", order.sequence());
        connector.send(&ToProcessor::Order(order));
        let Some(ToConnector::Feedback(answer)) = connector.receive() else { panic!("no answer") };
        assert_eq!(answer.mid, MessageId::from_number(number));
        assert_eq!(answer.status.is_success(), mine, "{}", answer.feedback);
        assert_eq!(answer.receipt.is_some(), mine);
        connector.send(&ToProcessor::Delivered { count: 1 });
    }
}
