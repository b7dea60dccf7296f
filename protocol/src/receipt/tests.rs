//! Receipts against docs/vectors/receipts.json, which another implementation has signed.

use serde_json::Value;

use super::*;

#[derive(Deserialize)]
struct Vectors {
    receipt_key_pkcs8: String,
    receipt_key: VerifyingKey,
    states: Vec<StateVector>,
    receipts: Vec<ReceiptVector>,
}

#[derive(Deserialize)]
struct StateVector {
    name: String,
    login: Username,
    standing: String,
    sessions_ended: bool,
    wanted: Option<WantedAccount>,
    text: String,
    sha256: StateHash,
}

#[derive(Deserialize)]
struct ReceiptVector {
    name: String,
    body: String,
    signed_hex: Option<String>,
    fault: Option<String>,
    ends: Vec<Username>,
    leaves: Vec<Username>,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../../docs/vectors/receipts.json"))
        .expect("the vectors are valid JSON")
}

fn unhex(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect()
}

fn read(vector: &ReceiptVector) -> Receipt {
    serde_json::from_str(&vector.body).expect(&vector.name)
}

#[test]
fn states_have_the_text_and_the_hash_of_the_vectors() {
    let states = vectors().states;
    assert!(states.len() >= 6);
    for vector in &states {
        let standing = match vector.standing.as_str() {
            "absent" => Standing::Absent,
            "locked" => Standing::Locked,
            _ => Standing::Present(vector.wanted.as_ref().expect("what it is")),
        };
        let sessions_ended = vector.sessions_ended;
        let state = StateOfAccount { login: &vector.login, standing, sessions_ended };
        assert_eq!(state.text(), vector.text, "{}", vector.name);
        assert_eq!(state.hash(), vector.sha256, "{}", vector.name);
    }
}

#[test]
fn receipts_are_believed_as_the_vectors_say() {
    let Vectors { receipt_key_pkcs8, receipt_key, receipts, .. } = vectors();
    let key = SigningKey::from_pkcs8(&unhex(&receipt_key_pkcs8)).expect("a key");
    assert_eq!(key.verifying_key(), receipt_key);
    assert!(receipts.len() >= 14);
    for vector in &receipts {
        let receipt = read(vector);
        let name = &vector.name;
        assert_eq!(serde_json::to_string(&receipt).expect("JSON"), vector.body, "{name}");
        let fault = match receipt.verify(&receipt_key) {
            Ok(()) => None,
            Err(ReceiptFault::Signature) => Some("signature"),
            Err(ReceiptFault::Accounts) => Some("accounts"),
        };
        assert_eq!(fault, vector.fault.as_deref(), "{name}");
        if let Some(signed) = &vector.signed_hex {
            let bytes = signed_bytes(&receipt.occasion(), receipt.extent(), &receipt.digest);
            assert_eq!(hex(&bytes), *signed, "{name}");
        }
        for login in &vector.ends {
            assert!(receipt.ends_access(login), "{name}: {login}");
        }
        for login in &vector.leaves {
            assert!(!receipt.ends_access(login), "{name}: {login}");
        }
    }
}

#[test]
fn what_is_signed_here_is_what_the_vectors_have() {
    let Vectors { receipt_key_pkcs8, receipts, .. } = vectors();
    let key = SigningKey::from_pkcs8(&unhex(&receipt_key_pkcs8)).expect("a key");
    let mut again = 0;
    for vector in receipts.iter().filter(|vector| vector.fault.is_none()) {
        let receipt = read(vector);
        let Some(accounts) = receipt.accounts.clone() else { continue };
        let states = States { accounts, complete: receipt.complete };
        assert_eq!(Receipt::sign(&key, receipt.occasion(), states), receipt, "{}", vector.name);
        again += 1;
    }
    assert_eq!(again, 5);
}

#[test]
fn every_single_changed_byte_is_noticed() {
    let Vectors { receipt_key, receipts, .. } = vectors();
    let whole = receipts.first().expect("one").body.clone();
    let good: Value = serde_json::from_str(&whole).expect("JSON");
    for at in 0..whole.len() {
        let mut bytes = whole.clone().into_bytes();
        bytes[at] ^= 1;
        // What is no receipt any more is noticed by that.
        let Ok(changed) = serde_json::from_slice::<Receipt>(&bytes) else { continue };
        assert_ne!(serde_json::to_value(&changed).expect("JSON"), good, "byte {at}");
        assert!(changed.verify(&receipt_key).is_err(), "byte {at}");
    }
}

#[test]
fn another_key_proves_nothing() {
    let Vectors { receipts, .. } = vectors();
    let other = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=".parse().expect("a key");
    let receipt = read(receipts.first().expect("one"));
    assert_eq!(receipt.verify(&other), Err(ReceiptFault::Signature));
}

#[test]
fn a_long_list_is_left_out_and_its_hash_is_signed() {
    let Vectors { receipt_key_pkcs8, receipt_key, receipts, .. } = vectors();
    let key = SigningKey::from_pkcs8(&unhex(&receipt_key_pkcs8)).expect("a key");
    for (count, is_listed) in [(LISTED_LIMIT, true), (LISTED_LIMIT + 1, false)] {
        let mut states = States { complete: true, ..States::default() };
        for number in 0..count {
            let login = Username::parse(&format!("u{number}")).expect("a name");
            let standing = Standing::Absent;
            states.add(&StateOfAccount { login: &login, standing, sessions_ended: true });
        }
        let occasion = read(receipts.first().expect("one")).occasion();
        let receipt = Receipt::sign(&key, occasion, states);
        assert_eq!(receipt.verify(&receipt_key), Ok(()));
        let login = Username::parse("u7").expect("a name");
        assert_eq!(
            (receipt.accounts.is_some(), receipt.ends_access(&login)),
            (is_listed, is_listed)
        );
        let size = serde_json::to_string(&receipt).expect("JSON").len();
        assert!(size < 60 * 1024, "{size}");
    }
}
