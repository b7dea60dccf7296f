//! What version 2 adds, against docs/vectors/version_2.json: read as it says, and written back to the letter.

use std::collections::{BTreeMap, BTreeSet};

use super::variant;
use super::*;
use crate::{
    AbsolutePath, AccountSpec, Comment, DriftMessage, GroupName, KeyGrant, KeyOptions, Order,
    Payload, ServerId, SigningKey, Sudo, SudoCommand, SudoPolicy, V2_LIMIT, WANTED_LIMIT,
};

#[derive(Deserialize)]
struct Vector {
    name: String,
    kind: String,
    body: String,
    error: Option<String>,
    mid: Option<String>,
    action: Option<String>,
    username: Option<String>,
    status: Option<u16>,
    #[serde(default = "yes")]
    canonical: bool,
}

fn yes() -> bool {
    true
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("../../../../docs/vectors/version_2.json"))
        .expect("the vectors are valid JSON")
}

fn written(message: &Message) -> Vec<u8> {
    match message {
        Message::Action(action) => action.to_json(),
        Message::Host(host) => host.to_json(),
        Message::Feedback(feedback) => feedback.to_json(),
    }
}

/// Kind, name of the action, account, status.
fn told(message: &Message) -> (&'static str, Option<&str>, Option<&str>, Option<u16>) {
    match message {
        Message::Action(it) => ("action", Some(it.action.name()), Some(it.username.as_str()), None),
        Message::Host(it) => ("host", Some(it.request.name()), None, None),
        Message::Feedback(it) => ("feedback", None, None, Some(it.status.code())),
    }
}

#[test]
fn vectors_are_read_as_they_say_and_written_to_the_letter() {
    let messages: Vec<_> = vectors().into_iter().filter(|vector| vector.kind != "drift").collect();
    assert!(messages.len() > 60);
    for vector in messages {
        let name = &vector.name;
        let message = match Message::parse(vector.body.as_bytes(), &KeyPolicy::default()) {
            Ok(message) => message,
            Err(error) => {
                assert_eq!(Some(variant(&error.fault)), vector.error.as_deref(), "{name}: {error}");
                assert_eq!(error.mid.map(|mid| mid.to_string()), vector.mid, "{name}");
                continue;
            }
        };
        assert_eq!(vector.error, None, "{name}");
        let (action, username) = (vector.action.as_deref(), vector.username.as_deref());
        assert_eq!(
            told(&message),
            (vector.kind.as_str(), action, username, vector.status),
            "{name}"
        );
        let bytes = written(&message);
        assert_eq!(bytes == vector.body.as_bytes(), vector.canonical, "{name}");
        let again = Message::parse(&bytes, &KeyPolicy::default()).expect("what we wrote");
        assert_eq!((written(&again), again), (bytes, message), "{name}");
    }
}

#[test]
fn drift_is_read_as_the_vectors_say_and_written_to_the_letter() {
    let all: Vec<_> = vectors().into_iter().filter(|vector| vector.kind == "drift").collect();
    assert!(all.len() >= 3);
    for vector in all {
        let drift = DriftMessage::parse(vector.body.as_bytes()).expect("a drift");
        assert_eq!(drift.is_err(), vector.error.is_some(), "{}", vector.name);
        if let Ok(drift) = drift {
            let same = drift.to_json() == vector.body.as_bytes();
            assert_eq!(same, vector.canonical, "{}", vector.name);
        }
    }
    assert!(
        vectors()
            .iter()
            .filter(|it| it.kind != "drift")
            .all(|it| DriftMessage::parse(it.body.as_bytes()).is_none())
    );
}

fn key(seed: u8, comment: &str) -> PublicKey {
    use base64::Engine as _;
    let mut blob = Vec::new();
    crate::ssh_blob::write_string(&mut blob, b"ssh-ed25519");
    crate::ssh_blob::write_string(&mut blob, &[seed; 32]);
    let line =
        format!("ssh-ed25519 {} {comment}", base64::engine::general_purpose::STANDARD.encode(blob));
    PublicKey::parse(&line, &KeyPolicy::ANY).expect("a key")
}

fn order(request: HostRequest) -> Vec<u8> {
    let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let signer = SigningKey::from_pkcs8(&[&head[..], &[1; 32]].concat()).expect("a key");
    let server = ServerId::parse(&"s".repeat(64)).expect("an id");
    let mid = MessageId::from("\\".repeat(126).as_str());
    let payload = Payload::Host(HostMessage { mid, request });
    Order::sign(&signer, server, u64::MAX, i64::MIN, &payload).to_json()
}

fn sync(accounts: BTreeMap<Username, WantedAccount>) -> (WantedState, Vec<u8>) {
    let wanted = WantedState { accounts, ..WantedState::default() };
    let body = order(HostRequest::Sync { wanted: Box::new(wanted.clone()), dry_run: true });
    (wanted, body)
}

#[test]
fn a_thousand_accounts_with_two_keys_each_go_at_once() {
    let options = KeyOptions::parse("restrict,pty,from=\"192.0.2.0/24\"").expect("options");
    let grant = |seed| KeyGrant {
        public_key: key(seed, "somebody@example.org"),
        options: options.clone(),
        until: None,
    };
    let account = WantedAccount {
        sudo: Sudo::Plain,
        keys: [grant(1), grant(2)].into(),
        until: Some(1_795_315_849),
        ..WantedAccount::default()
    };
    let names =
        (0..1000).map(|number| Username::parse(&format!("somebody{number}")).expect("a name"));
    let (wanted, body) = sync(names.map(|name| (name, account.clone())).collect());
    assert_eq!(wanted.check(&KeyPolicy::default()), Ok(()));
    assert!(body.len() <= V2_LIMIT, "{}", body.len());
}

#[test]
fn what_may_be_sent_fits_a_frame_whatever_is_in_it() {
    // A backslash takes two bytes in JSON and four in an order: the worst there is.
    let comment = Comment::parse(&"\\".repeat(256)).expect("a comment");
    let spec = AccountSpec { comment: Some(comment), ..AccountSpec::default() };
    let account = WantedAccount { spec, ..WantedAccount::default() };
    let names = (0..).map(|number| Username::parse(&format!("a{number}")).expect("a name"));
    let mut wanted = WantedState::default();
    for name in names {
        let more = wanted.accounts.len() >= 900;
        wanted.accounts.insert(name.clone(), account.clone());
        if more && wanted.check(&KeyPolicy::ANY).is_err() {
            wanted.accounts.remove(&name);
            break;
        }
    }
    let length = serde_json::to_vec(&wanted).expect("JSON").len();
    assert!(length <= WANTED_LIMIT && length > WANTED_LIMIT - 1000, "{length}");
    let (wanted, body) = sync(wanted.accounts);
    assert_eq!(wanted.check(&KeyPolicy::ANY), Ok(()));
    assert!(body.len() <= V2_LIMIT && body.len() > 2 * length - 50_000, "{}", body.len());
}

fn options() -> impl Strategy<Value = KeyOptions> {
    prop::sample::select(vec![
        "",
        "restrict,pty",
        "from=\"10.0.0.0/8\",command=\"a \\\"b\\\" \\\\c\"",
        "environment=\"Ä=é\\\\x\"",
    ])
    .prop_filter_map("options", |text| KeyOptions::parse(text).ok())
}

fn accounts() -> impl Strategy<Value = WantedAccount> {
    let sudo = prop_oneof![
        Just(Sudo::None),
        Just(Sudo::Plain),
        (any::<bool>(), prop::option::of(any::<i64>()), any::<bool>()).prop_map(
            |(password, not_after, all)| {
                let command = SudoCommand::parse("/bin/x \\* a,b").expect("a command");
                Sudo::Policy(Box::new(SudoPolicy {
                    commands: if all { Vec::new() } else { vec![command] },
                    password,
                    not_after,
                    ..SudoPolicy::default()
                }))
            }
        ),
    ];
    let text = "[ -9;-~äß]{0,20}";
    let spec = (
        1..60_000_u32,
        prop::option::of(prop::collection::btree_set("[A-Z][a-z]{0,5}", 0..3)),
        text,
        "(/[a-z ]{1,5}){1,3}",
    )
        .prop_map(|(uid, groups, comment, home)| AccountSpec {
            uid: Some(uid),
            group: None,
            shell: None,
            skel: None,
            groups: groups.map(|names| {
                names.iter().map(|name| GroupName::parse(name).expect("a group")).collect()
            }),
            comment: Comment::parse(&comment).ok(),
            home: AbsolutePath::parse(&home).ok(),
        });
    let grant = (any::<u8>(), options(), prop::option::of(any::<i64>()), "[ -~ä]{0,10}").prop_map(
        |(seed, options, until, comment)| {
            (seed, KeyGrant { public_key: key(seed, &comment), options, until })
        },
    );
    let keys = prop::collection::btree_map(any::<u8>(), grant, 0..4).prop_map(|keys| {
        keys.into_values().collect::<BTreeMap<_, _>>().into_values().collect::<BTreeSet<_>>()
    });
    (
        prop::option::of(spec),
        sudo,
        keys,
        prop::option::of(any::<i64>()),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(spec, sudo, keys, until, locked, take_over)| WantedAccount {
            spec: spec.unwrap_or_default(),
            sudo,
            keys,
            until,
            locked,
            take_over,
            release: None,
        })
}

proptest! {
    #[test]
    fn a_wanted_account_is_read_as_it_was_written_to_the_letter(wanted in accounts()) {
        prop_assert_eq!(wanted.check(&KeyPolicy::ANY), Ok(()));
        let action = Action::SetUser { wanted: Box::new(wanted) };
        let message = ActionMessage { mid: MessageId::from_number(1), username: Username::parse("a").expect("a name"), action };
        let json = message.to_json();
        let Ok(Message::Action(again)) = Message::parse(&json, &KeyPolicy::ANY) else { panic!("not read") };
        prop_assert_eq!(again.to_json(), json);
        prop_assert_eq!(again, message);
    }

    #[test]
    fn an_order_with_a_whole_state_is_obeyed_to_the_letter(
        accounts in prop::collection::btree_map("[a-z]{1,8}", accounts(), 0..4), dry_run: bool
    ) {
        let mut wanted = WantedState::default();
        for (number, (name, mut account)) in (1000..).zip(accounts) {
            account.spec.uid = Some(number);
            wanted.accounts.insert(Username::parse(&name).expect("a name"), account);
        }
        prop_assert_eq!(wanted.check(&KeyPolicy::ANY), Ok(()));
        let request = HostRequest::Sync { wanted: Box::new(wanted), dry_run };
        let order = Order::parse(&order(request.clone())).expect("an order").expect("well formed");
        let Ok(Payload::Host(host)) = order.payload() else { panic!("{:?}", order.payload()) };
        prop_assert_eq!(host.request, request);
    }
}
