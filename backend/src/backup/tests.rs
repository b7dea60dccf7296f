//! Backups are taken and restored, with agents that were told things in between.

use std::os::unix::fs::PermissionsExt;

use bastio_protocol::Status;
use bastio_protocol::api::{NewRequest, RequestKind};

use super::*;
use crate::access::{ApiKeys, Intent};
use crate::dispatch::Dispatch;
use crate::fleet::Fleet;
use crate::store::Store;
use crate::testing::{ADDRESS, NOW, TestBackend, host, key, login};

/// A folder as a backend keeps it, and a file name for its backup.
async fn state() -> (TestBackend, tempfile::TempDir, PathBuf) {
    let backend = TestBackend::on_file().await;
    let path = backend.dir.path();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
    for (name, text) in [("signing_key", "secret 1"), ("ssh_host_ed25519_key", "secret 2")] {
        std::fs::write(path.join(name), text).unwrap();
    }
    std::fs::write(path.join("listen.json"), "{}").unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("b.tar");
    (backend, elsewhere, file)
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn what_is_restored_is_what_was_and_knows_that_time_went_on() {
    let (backend, elsewhere, file) = state().await;
    backend.enroll("web-1", 1).await;
    let session = backend.connect_v2(1).await;
    backend.add_user("ann", &[key(10)], "*", true).await;
    backend.answer_all(&session, Status::Done).await;
    let on_its_way = backend.add_user("bob", &[key(11)], "*", false).await.revision;
    let made = super::backup(backend.dir.path(), &file).await.unwrap();
    assert_eq!(made.entries, ["bastio.db", "signing_key", "ssh_host_ed25519_key"]);
    assert_eq!(mode(&file), 0o600);
    let left = std::fs::read_dir(elsewhere.path()).unwrap().count();
    assert_eq!(left, 1, "nothing beside it");
    // Decided behind the backup.
    backend.add_user("eve", &[key(12)], "*", false).await;

    let to = elsewhere.path().join("state");
    let restored = super::restore(&file, &to, NOW + 600).await.unwrap();
    assert_eq!((restored.aftermath.revision, restored.aftermath.servers), (on_its_way, 1));
    assert_eq!(restored.aftermath.dropped, 1, "bob's account with its key");
    assert_eq!(std::fs::read_to_string(to.join("signing_key")).unwrap(), "secret 1");
    assert_eq!((mode(&to), mode(&to.join("signing_key"))), (0o700, 0o600));
    assert!(!to.join("listen.json").exists());

    let store = Store::open_with_clock(&to.join(DATABASE), || NOW + 600).await.unwrap();
    let dispatch = Dispatch::new(store.clone());
    let fleet = Fleet::new(store.clone(), dispatch.clone());
    let admin = ApiKeys::new(store.clone()).admin(&backend.token, Some(ADDRESS)).await.unwrap();
    let admin = admin.with_intent(Intent { confirmed: true, ..Intent::default() });
    let status = fleet.status(&admin, String::new()).await.unwrap();
    assert!(status.revision > on_its_way + 600, "{status:?}");
    assert_eq!((status.users, status.undecided, status.in_sync), (2, 1, 0));
    let identity = dispatch.identify(&key(1)).await.unwrap().unwrap();
    let info = crate::dispatch::SessionInfo { address: ADDRESS, ident: "x".into(), legacy: false };
    let mut session = dispatch.open(&identity, info).await.unwrap();
    session.met(&hello(7)).await.unwrap();
    assert!(session.next_payloads(9).await.unwrap().is_empty(), "nothing by itself");
    // What is asked for is said as a whole, with numbers above all that the agent knows.
    fleet.remove_key(&admin, &login("ann"), &key(10).fingerprint()).await.unwrap();
    let told = session.next_payloads(9).await.unwrap();
    let [bastio_protocol::Payload::Action(message)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(message.action.name(), "set-user");
    assert!(session.number().await.unwrap() > 7);
    let asked = NewRequest { kind: RequestKind::Sync, allow_no_admin: false };
    fleet.request(&admin, &host("web-1"), asked).await.unwrap();
    for payload in session.next_payloads(9).await.unwrap() {
        if let bastio_protocol::Payload::Host(message) = payload {
            session.feedback(&message.reply(Status::Done, "")).await.unwrap();
        }
    }
    assert_eq!(fleet.status(&admin, String::new()).await.unwrap().undecided, 0);
    let again = super::restore(&file, &to, NOW).await.unwrap_err();
    assert!(matches!(again, BackupError::Occupied(_)), "{again}");
}

fn hello(last_sequence: u64) -> bastio_protocol::AgentHello {
    let facts = bastio_protocol::Facts::default();
    bastio_protocol::AgentHello {
        protocol: bastio_protocol::V2,
        facts,
        last_sequence,
        signing_key: None,
        time: None,
        receipt_key: None,
        together: false,
    }
}

#[tokio::test]
async fn nothing_is_overwritten_and_nothing_damaged_is_taken() {
    let (backend, elsewhere, file) = state().await;
    let made = super::backup(backend.dir.path(), &file).await.unwrap();
    let twice = super::backup(backend.dir.path(), &file).await.unwrap_err();
    assert!(matches!(twice, BackupError::Exists(_)), "{twice}");
    let nowhere = super::backup(&elsewhere.path().join("none"), &file).await.unwrap_err();
    assert!(matches!(nowhere, BackupError::NoDatabase(_)), "{nowhere}");
    let in_use = super::restore(&file, backend.dir.path(), NOW).await.unwrap_err();
    assert!(matches!(in_use, BackupError::Occupied(_)), "{in_use}");

    let whole = std::fs::read(&file).unwrap();
    assert_eq!(whole.len() as u64, made.length);
    let bad = elsewhere.path().join("bad.tar");
    let secret = whole.windows(8).position(|it| it == b"secret 1").unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    for (damage, bytes) in [
        ("a secret is another", flipped(secret)),
        ("the database is another", flipped(4096)),
        ("it was cut", whole[..whole.len() / 2].to_vec()),
        ("it is empty", Vec::new()),
        ("it is no archive", b"once upon a time".repeat(100)),
    ] {
        std::fs::write(&bad, bytes).unwrap();
        let to = elsewhere.path().join("new");
        let error = super::restore(&bad, &to, NOW).await.unwrap_err();
        assert!(matches!(error, BackupError::Damaged { .. }), "{damage}: {error}");
        assert!(!to.join(DATABASE).exists() && !to.join("signing_key").exists(), "{damage}");
    }
    super::restore(&file, &elsewhere.path().join("new"), NOW).await.unwrap();
}
