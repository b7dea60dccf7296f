//! Orders against docs/vectors/orders.json, which another implementation has signed.

use proptest::prelude::*;

use super::*;

#[derive(Deserialize)]
struct Vectors {
    signing_key_pkcs8: String,
    verifying_key: VerifyingKey,
    orders: Vec<Vector>,
    malformed: Vec<Malformed>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    body: String,
    signed_hex: Option<String>,
    verified: bool,
    mid: Option<String>,
    action: Option<String>,
    new_key: Option<VerifyingKey>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Malformed {
    name: String,
    body: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../../docs/vectors/orders.json"))
        .expect("the vectors are valid JSON")
}

fn unhex(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect()
}

fn key() -> SigningKey {
    SigningKey::from_pkcs8(&unhex(&vectors().signing_key_pkcs8)).expect("a key")
}

fn read(vector: &Vector) -> Order {
    Order::parse(vector.body.as_bytes()).expect("an order").expect(&vector.name)
}

#[test]
fn signatures_are_believed_as_the_vectors_say() {
    let Vectors { verifying_key, orders, .. } = vectors();
    assert_eq!(key().verifying_key(), verifying_key);
    for vector in &orders {
        let order = read(vector);
        assert_eq!(order.verify(&verifying_key), vector.verified, "{}", vector.name);
        assert_eq!(order.to_json(), vector.body.as_bytes(), "{}", vector.name);
        if let Some(signed) = &vector.signed_hex {
            let Order { server, sequence, not_after, payload, inclusion_path, .. } = &order;
            let alone = signed_bytes(server, *sequence, *not_after, payload);
            assert_eq!(inclusion_path.signed(alone), unhex(signed), "{}", vector.name);
        }
    }
    assert!(orders.iter().filter(|vector| !vector.verified).count() >= 19);
}

#[test]
fn payloads_are_understood_whole_or_not_at_all() {
    for vector in vectors().orders.iter().filter(|vector| vector.verified) {
        let order = read(vector);
        let name = &vector.name;
        assert_eq!(order.mid().map(|mid| mid.to_string()), vector.mid, "{name}");
        let error = match order.payload() {
            Ok(Payload::Action(action)) => {
                assert_eq!(Some(action.action.name()), vector.action.as_deref(), "{name}");
                None
            }
            Ok(Payload::Host(host)) => {
                assert_eq!(Some(host.request.name()), vector.action.as_deref(), "{name}");
                None
            }
            Ok(Payload::RotateKey { key, .. }) => {
                assert_eq!(Some(key), vector.new_key, "{name}");
                None
            }
            Err(PayloadError::Message(_)) => Some("message"),
            Err(PayloadError::NoAction) => Some("no-action"),
            Err(PayloadError::Spelling) => Some("spelling"),
        };
        assert_eq!(error, vector.error.as_deref(), "{name}");
    }
}

#[test]
fn what_is_signed_here_is_what_the_vectors_hold() {
    for vector in vectors().orders.iter().filter(|vector| vector.verified) {
        let order = read(vector);
        if let (Ok(payload), true) = (order.payload(), order.inclusion_path.is_empty()) {
            let server = order.server().clone();
            let again = Order::sign(&key(), server, order.sequence(), order.not_after(), &payload);
            assert_eq!(again, order, "{}", vector.name);
        }
    }
}

/// The order as it was before it was signed.
fn draft(order: &Order) -> Draft {
    let Order { server, sequence, not_after, payload, .. } = order.clone();
    Draft { server, sequence, not_after, payload }
}

#[test]
fn what_is_signed_together_here_is_what_the_vectors_hold() {
    let all = vectors().orders;
    let five = all.iter().filter(|vector| vector.name.starts_with("one of five"));
    let five: Vec<Order> = five.map(read).collect();
    assert_eq!(five.len(), 5);
    let again = Order::sign_together(&key(), five.iter().map(draft).collect());
    assert_eq!(again, five);
    let alone = Order::sign_together(&key(), vec![draft(&five[0])]);
    let an_action = all.iter().find(|vector| vector.name == "an action").map(read);
    assert_eq!(alone, Vec::from_iter(an_action), "one of one is signed alone");
    assert_eq!(Order::sign_together(&key(), Vec::new()), []);
}

#[test]
fn malformed_envelopes_are_errors() {
    let vectors = vectors();
    assert!(vectors.malformed.len() >= 22);
    for vector in vectors.malformed {
        let parsed = Order::parse(vector.body.as_bytes()).expect("of the type");
        assert!(parsed.is_err(), "{}", vector.name);
    }
    for other in ["", "{}", "order", r#"{"type":"action"}"#] {
        assert!(Order::parse(other.as_bytes()).is_none(), "{other}");
    }
}

#[test]
fn an_order_that_came_late_is_told_from_other_refusals() {
    let late = Late { not_after: 1_800_000_600, now: 1_800_086_400 };
    let text = late.to_string();
    let expected = "the order was good until 1800000600 and it is 1800086400 here (seconds since \
                    1970); nothing was done";
    assert_eq!(text, expected, "agents before this one say so, too");
    assert_eq!(Late::parse(&text), Some(late));
    assert_eq!(Late::parse(&format!("{text}, and more")), Some(late));
    for other in [
        "",
        "alice was created",
        "the order was good until",
        "the order was good until x and it is 1 here",
    ] {
        assert_eq!(Late::parse(other), None, "{other}");
    }
}

proptest! {
    /// No two different orders are signed by the same bytes.
    #[test]
    fn signed_bytes_tell_all_parts_apart(
        one in ("[ -~&&[^ ]]{1,6}", 0..3_u64, -1..2_i64, ".{0,6}"),
        other in ("[ -~&&[^ ]]{1,6}", 0..3_u64, -1..2_i64, ".{0,6}"),
    ) {
        let bytes = |(server, sequence, not_after, payload): &(String, u64, i64, String)| {
            let server = ServerId::parse(server).expect("an id");
            signed_bytes(&server, *sequence, *not_after, payload)
        };
        prop_assert_eq!(bytes(&one) == bytes(&other), one == other);
    }

    /// However many are signed together, each is good by itself, and nothing but it is.
    #[test]
    fn each_of_those_signed_together_is_good_and_nothing_else_is(
        count in 1..40_usize,
        which in any::<prop::sample::Index>(),
        other in any::<prop::sample::Index>(),
        bit in 0..2048_usize,
    ) {
        let order = |number: usize| Draft {
            server: ServerId::from_number(i64::try_from(number / 2).expect("small")),
            sequence: u64::try_from(number).expect("small"),
            not_after: 1_800_000_600,
            payload: format!("{{\"{number}\"}}"),
        };
        let orders = Order::sign_together(&key(), (0..count).map(order).collect());
        let public = key().verifying_key();
        prop_assert_eq!(orders.len(), count);
        for (number, signed) in orders.iter().enumerate() {
            prop_assert!(signed.verify(&public));
            prop_assert_eq!(draft(signed), order(number));
            let text = String::from(signed.inclusion_path.clone());
            let hashes = text.len() / 4 * 3 / 32;
            prop_assert!(hashes <= usize::try_from(count.next_power_of_two().ilog2()).expect("small"));
            prop_assert_eq!(&Order::parse(&signed.to_json()).expect("an order").expect("whole"), signed);
        }
        let (one, another) = (which.get(&orders), other.get(&orders));
        let swapped = Order { payload: another.payload.clone(), ..one.clone() };
        prop_assert_eq!(swapped.verify(&public), one.payload == another.payload);
        let mut text = String::from(one.inclusion_path.clone()).into_bytes();
        if !text.is_empty() {
            let at = bit / 6 % text.len();
            text[at] = if text[at] == b'A' { b'B' } else { b'A' };
            let text = String::from_utf8(text).expect("ASCII");
            if let Ok(inclusion_path) = InclusionPath::try_from(text) {
                let changed = Order { inclusion_path, ..one.clone() };
                prop_assert!(!changed.verify(&public));
            }
        }
    }

    #[test]
    fn noise_is_never_a_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Some(Ok(order)) = Order::parse(&body) {
            let _ = (order.mid(), order.payload());
        }
    }
}
