//! Orders that are obeyed, and every kind that is not.

use bastio_protocol::{Action, ActionMessage, Draft, SigningKey, Username};

use super::*;

const NOW: i64 = 1_800_000_000;

/// A signing key for each number: PKCS#8 (RFC 8410) around a seed.
fn key(seed: u8) -> SigningKey {
    let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    SigningKey::from_pkcs8(&[&head[..], &[seed; 32]].concat()).unwrap()
}

fn server(text: &str) -> ServerId {
    ServerId::parse(text).unwrap()
}

fn message() -> ActionMessage {
    ActionMessage {
        mid: MessageId::from_number(7),
        username: Username::parse("alice").unwrap(),
        action: Action::AddUser { sudo: true },
    }
}

fn payload() -> Payload {
    Payload::Action(message())
}

fn order(seed: u8, to: &str, sequence: u64, not_after: i64) -> Order {
    Order::sign(&key(seed), server(to), sequence, not_after, &payload())
}

fn verifier(state: &Path) -> Verifier {
    let signer = Some(Signer { server: server("7"), key: key(1).verifying_key() });
    Verifier::new(Obedience { signer, require_signed: true }, state).unwrap()
}

/// The order with one text in its JSON put in place of another.
fn altered(order: &Order, from: &str, to: &str) -> Order {
    let text = String::from_utf8(order.to_json()).unwrap();
    assert!(text.contains(from), "{text}");
    Order::parse(text.replacen(from, to, 1).as_bytes()).unwrap().unwrap()
}

#[test]
fn a_good_order_is_obeyed() {
    let state = tempfile::tempdir().unwrap();
    let mut verifier = verifier(state.path());
    for not_after in [NOW + 600, NOW, NOW - SKEW, i64::MAX] {
        let found = verifier.check(&order(1, "7", 5, not_after), 4, NOW).unwrap();
        assert_eq!(found, payload());
    }
    assert!(verifier.check(&order(1, "7", u64::MAX, NOW), u64::MAX - 1, NOW).is_ok());
}

#[test]
fn every_other_order_is_refused_by_its_own_name() {
    let state = tempfile::tempdir().unwrap();
    let mut verifier = verifier(state.path());
    let good = order(1, "7", 5, NOW + 600);
    let mut check = |order: &Order| {
        verifier.new_line();
        verifier.check(order, 4, NOW).unwrap_err()
    };
    for forged in [
        order(2, "7", 5, NOW + 600),
        altered(&good, "alice", "alicf"),
        altered(&good, "\"sequence\":5", "\"sequence\":6"),
        altered(&good, "\"not_after\":1800000600", "\"not_after\":1900000000"),
        altered(&order(1, "8", 5, NOW + 600), "\"server\":\"8\"", "\"server\":\"7\""),
    ] {
        assert!(matches!(check(&forged), Refusal::BadSignature { .. }), "{forged:?}");
    }
    assert!(matches!(check(&order(1, "8", 5, NOW + 600)), Refusal::OtherServer { .. }));
    for not_after in [NOW - SKEW - 1, 0, i64::MIN] {
        assert!(matches!(check(&order(1, "7", 5, not_after)), Refusal::Expired(_)));
    }
    for sequence in [4, 3, 0] {
        let refusal = check(&order(1, "7", sequence, NOW + 600));
        assert!(matches!(refusal, Refusal::Replayed { highest: 4, .. }), "{refusal}");
    }
    verifier.new_line();
    // Signed, but with more in it than is understood.
    let refusal = verifier.check(&payload_with_more(), 0, NOW).unwrap_err();
    assert!(matches!(refusal, Refusal::Unreadable(PayloadError::Spelling)), "{refusal}");
}

/// What leads an order to the root, as it is written.
fn member(order: &Order) -> String {
    let text = String::from_utf8(order.to_json()).unwrap();
    let (_, path) = text.split_once("\"inclusion_path\":").unwrap();
    let (path, _) = path.split_once(',').unwrap();
    format!("\"inclusion_path\":{path},")
}

#[test]
fn of_orders_signed_together_each_is_obeyed_by_its_server_and_by_no_other() {
    let state = tempfile::tempdir().unwrap();
    let mut verifier = verifier(state.path());
    let draft = |(to, sequence, not_after)| Draft::new(server(to), sequence, not_after, &message());
    let together = |seed: u8| {
        let drafts = [("7", 5, NOW), ("8", 5, NOW), ("7", 4, NOW), ("7", 6, NOW - SKEW - 1)];
        Order::sign_together(&key(seed), drafts.map(draft).into())
    };
    let orders = together(1);
    let mut check = |order: &Order| {
        verifier.new_line();
        verifier.check(order, 4, NOW)
    };
    assert_eq!(check(&orders[0]).unwrap(), payload());
    assert!(matches!(check(&orders[1]), Err(Refusal::OtherServer { .. })));
    assert!(matches!(check(&orders[2]), Err(Refusal::Replayed { highest: 4, .. })));
    assert!(matches!(check(&orders[3]), Err(Refusal::Expired(_))));
    for forged in [
        together(2).remove(0),
        altered(&orders[1], "\"server\":\"8\"", "\"server\":\"7\""),
        altered(&orders[2], "\"sequence\":4", "\"sequence\":5"),
        altered(&orders[3], "\"not_after\":1799999939", "\"not_after\":1800000000"),
        altered(&orders[0], "alice", "alicf"),
        altered(&orders[0], &member(&orders[0]), &member(&orders[1])),
        altered(&orders[0], &member(&orders[0]), ""),
    ] {
        assert!(matches!(check(&forged), Err(Refusal::BadSignature { .. })), "{forged:?}");
    }
}

#[test]
fn behind_an_order_that_came_too_late_nothing_is_obeyed_before_it_comes_again() {
    let state = tempfile::tempdir().unwrap();
    let mut verifier = verifier(state.path());
    let grant = order(1, "7", 5, NOW - SKEW - 1);
    let revocation = order(1, "7", 6, NOW + 600);
    let forged = order(2, "7", 5, NOW - SKEW - 1);
    assert!(matches!(verifier.check(&forged, 4, NOW), Err(Refusal::BadSignature { .. })));
    assert!(
        verifier.check(&order(1, "7", 5, NOW), 4, NOW).is_ok(),
        "what is forged holds up nothing"
    );
    for order in [&grant, &revocation, &revocation] {
        let refusal = verifier.check(order, 4, NOW).unwrap_err();
        let Refusal::Expired(late) = &refusal else { panic!("{refusal}") };
        assert_eq!((late.not_after, late.now), (NOW - SKEW - 1, NOW), "the first one is why");
        assert_eq!(Late::parse(&refusal.to_string()), Some(*late), "the backend can tell");
    }
    verifier.new_line();
    for sequence in [7, 8] {
        assert!(verifier.check(&order(1, "7", sequence, NOW + 600), 4, NOW).is_ok());
    }
}

/// From docs/vectors/orders.json, signed by the key of seed 1.
fn payload_with_more() -> Order {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../../../docs/vectors/orders.json")).unwrap();
    let mut vectors = vectors["orders"].as_array().unwrap().iter();
    let vector = vectors.find(|it| it["name"] == "a member that nobody knows").unwrap();
    Order::parse(vector["body"].as_str().unwrap().as_bytes()).unwrap().unwrap()
}

#[test]
fn the_answer_to_a_refused_order_has_the_id_of_its_payload() {
    let good = order(1, "7", 5, NOW);
    let refusal = Refusal::NoKey;
    assert_eq!(refuse(&good, &refusal).mid, MessageId::from_number(7));
    let nonsense = altered(&good, "\\\"mid\\\":\\\"7\\\",", "");
    let answer = refuse(&nonsense, &refusal);
    assert!(answer.mid.text().parse::<u64>().is_ok() && answer.status == Status::Failed);
}

#[test]
fn without_a_key_no_order_is_obeyed_and_plain_actions_are() {
    let state = tempfile::tempdir().unwrap();
    let mut without = Verifier::new(Obedience::default(), state.path()).unwrap();
    assert!(without.plain().is_ok() && without.key().is_none());
    let refusal = without.check(&order(1, "7", 5, NOW), 0, NOW).unwrap_err();
    assert!(matches!(refusal, Refusal::NoKey));
    assert!(matches!(verifier(state.path()).plain(), Err(Refusal::NotSigned)));
}

#[test]
fn a_key_that_took_over_is_obeyed_after_a_restart_and_the_old_one_is_not() {
    let state = tempfile::tempdir().unwrap();
    let mut first = verifier(state.path());
    first.obey_instead(key(2).verifying_key(), 9).unwrap();
    for mut verifier in [first, verifier(state.path())] {
        assert_eq!(verifier.key(), Some(key(2).verifying_key().fingerprint()));
        assert_eq!((verifier.at_least(3), verifier.at_least(12)), (9, 12));
        let mut check = |order: Order| verifier.check(&order, 0, NOW);
        assert!(check(order(2, "7", 10, NOW)).is_ok());
        assert!(matches!(check(order(1, "7", 10, NOW)), Err(Refusal::BadSignature { .. })));
        assert!(matches!(check(order(2, "7", 9, NOW)), Err(Refusal::Replayed { .. })));
    }
    // Another enrolment: the file is of the past.
    for (to, seed) in [("7", 3), ("8", 1)] {
        let signer = Some(Signer { server: server(to), key: key(seed).verifying_key() });
        let anew = Obedience { signer, require_signed: true };
        let mut anew = Verifier::new(anew, state.path()).unwrap();
        assert!(anew.check(&order(seed, to, 1, NOW), 0, NOW).is_ok());
    }
}

#[test]
fn an_enrolment_brings_the_pinned_key_back() {
    let state = tempfile::tempdir().unwrap();
    verifier(state.path()).obey_instead(key(2).verifying_key(), 9).unwrap();
    for _ in 0..2 {
        forget_succession(state.path()).unwrap();
        assert_eq!(verifier(state.path()).key(), Some(key(1).verifying_key().fingerprint()));
    }
}

#[test]
fn a_file_that_cannot_be_read_is_no_reason_to_obey_the_old_key() {
    let state = tempfile::tempdir().unwrap();
    std::fs::write(state.path().join(FILE), "torn").unwrap();
    let signer = Some(Signer { server: server("7"), key: key(1).verifying_key() });
    let error = Verifier::new(Obedience { signer, require_signed: true }, state.path());
    assert!(error.unwrap_err().to_string().contains("hint:"));
}

#[test]
fn a_key_that_cannot_be_kept_does_not_take_over() {
    let state = tempfile::tempdir().unwrap();
    let mut verifier = verifier(state.path());
    // A folder stands where the file would be written.
    std::fs::create_dir(state.path().join("signing_key.new")).unwrap();
    assert!(verifier.obey_instead(key(2).verifying_key(), 9).is_err());
    assert!(verifier.check(&order(1, "7", 5, NOW), 4, NOW).is_ok());
}
