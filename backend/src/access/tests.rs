//! Secrets, roles, and who may not be locked out.

use super::*;
use crate::testing::{NOW, TestBackend};

fn new(name: &str, role: Role) -> NewApiKey {
    NewApiKey { name: name.to_owned(), role, secret_sha256: None }
}

#[tokio::test]
async fn the_first_token_is_made_once() {
    let backend = TestBackend::new().await;
    assert!(first_admin_token(&backend.store).await.expect("a store").is_none());
    let backend = backend.after_kill().await;
    assert!(first_admin_token(&backend.store).await.expect("a store").is_none());
}

#[tokio::test]
async fn a_lost_token_is_replaced_under_the_first_free_name() {
    let backend = TestBackend::new().await;
    let keys = &backend.keys;
    for name in ["admin-2", "admin-3"] {
        let (key, secret) = another_admin_token(&backend.store).await.expect("made");
        assert_eq!((key.name.as_str(), key.role), (name, Role::Admin));
        assert!(keys.admin(secret.expose(), None).await.is_ok());
    }
    assert!(keys.admin(&backend.token, None).await.is_ok(), "the others stay as they are");
    keys.revoke(&backend.admin, "admin").await.expect("not the last one");
    let (key, _) = another_admin_token(&backend.store).await.expect("made");
    assert_eq!(key.name, "admin");
}

#[tokio::test]
async fn secrets_are_long_random_and_stored_as_hashes_alone() {
    let backend = TestBackend::new().await;
    let (_, one) =
        backend.keys.create(&backend.admin, &new("one", Role::Admin)).await.expect("made");
    let (_, two) =
        backend.keys.create(&backend.admin, &new("two", Role::Admin)).await.expect("made");
    assert_ne!(one.expose(), two.expose());
    assert!(one.expose().starts_with("bst_"));
    assert_eq!(one.expose().len(), 4 + 43, "256 bits in base64url");
    assert_eq!(format!("{one:?}"), "Secret(...)");
    backend.store.close().await;
    for file in std::fs::read_dir(backend.dir.path()).expect("a folder") {
        let bytes = std::fs::read(file.expect("a file").path()).expect("readable");
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(&one.expose()[4..]), "the secret is in the database");
    }
}

#[tokio::test]
async fn each_role_opens_its_own_doors() {
    let backend = TestBackend::new().await;
    let keys = &backend.keys;
    let (_, secret) = keys.create(&backend.admin, &new("site", Role::Enroll)).await.expect("made");
    assert!(keys.enroller(secret.expose(), None).await.is_ok());
    assert!(matches!(keys.admin(secret.expose(), None).await, Err(AccessError::EnrolsOnly)));
    assert!(keys.enroller(&backend.token, None).await.is_ok());
    for wrong in ["", "bst_", &secret.expose()[..40], &format!("{} ", secret.expose())] {
        assert!(matches!(keys.admin(wrong, None).await, Err(AccessError::Unknown)), "{wrong}");
        assert!(matches!(keys.enroller(wrong, None).await, Err(AccessError::Unknown)), "{wrong}");
    }
}

#[tokio::test]
async fn a_watcher_opens_no_other_door() {
    let backend = TestBackend::new().await;
    let keys = &backend.keys;
    let made = keys.create(&backend.admin, &new("prometheus", Role::Metrics)).await;
    let (key, secret) = made.expect("made");
    assert_eq!(key.role, Role::Metrics);
    let secret = secret.expose();
    assert!(keys.watcher(secret).await.is_ok() && keys.watcher(&backend.token).await.is_ok());
    assert!(matches!(keys.admin(secret, None).await, Err(AccessError::WatchesOnly)));
    assert!(matches!(keys.enroller(secret, None).await, Err(AccessError::WatchesOnly)));
    let (_, site) = keys.create(&backend.admin, &new("site", Role::Enroll)).await.expect("made");
    assert!(matches!(keys.watcher(site.expose()).await, Err(AccessError::EnrolsOnly)));
    let last = keys.revoke(&backend.admin, "admin").await;
    assert!(matches!(last, Err(AccessError::LastAdmin(_))), "a watcher is no admin");
}

#[tokio::test]
async fn a_revoked_key_opens_nothing() {
    let backend = TestBackend::new().await;
    let keys = &backend.keys;
    let (_, secret) = keys.create(&backend.admin, &new("ops", Role::Admin)).await.expect("made");
    let admin = keys.admin(secret.expose(), None).await.expect("an admin");
    keys.revoke(&admin, "admin").await.expect("not the last one");
    assert!(matches!(keys.admin(&backend.token, None).await, Err(AccessError::Unknown)));
    let last = keys.revoke(&admin, "ops").await;
    assert!(matches!(last, Err(AccessError::LastAdmin(name)) if name == "ops"));
    let gone = keys.revoke(&admin, "admin").await;
    assert!(matches!(gone, Err(AccessError::NoSuchKey(name)) if name == "admin"));
}

#[tokio::test]
async fn names_are_unique_and_plain() {
    let backend = TestBackend::new().await;
    let taken = backend.keys.create(&backend.admin, &new("admin", Role::Enroll)).await;
    assert!(matches!(taken, Err(AccessError::NameTaken(name)) if name == "admin"));
    for name in ["", "a b", "a\n", "a/b", &"a".repeat(65)] {
        let refused = backend.keys.create(&backend.admin, &new(name, Role::Admin)).await;
        assert!(matches!(refused, Err(AccessError::BadName)), "{name:?}");
    }
}

#[tokio::test]
async fn use_is_noted() {
    let backend = TestBackend::new().await;
    let listed = backend.keys.list(&backend.admin).await.expect("listed");
    let expected =
        ApiKey { name: "admin".into(), role: Role::Admin, created: NOW, last_used: Some(NOW) };
    assert_eq!(listed, [expected]);
}
