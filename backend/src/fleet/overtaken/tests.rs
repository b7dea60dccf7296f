//! Two operators edit the same grant: the second is told who was first.

use bastio_protocol::api::{NewApiKey, Role};

use super::*;
use crate::access::Intent;
use crate::testing::{TestBackend, key, new_user};

#[tokio::test]
async fn whoever_comes_second_is_told_who_changed_what_and_may_decide_anew() {
    let backend = TestBackend::new().await;
    backend.enroll("web-1", 1).await;
    backend.add_user("alice", &[key(10)], "web-1", false).await;
    let (fleet, admin) = (&backend.fleet, &backend.admin);
    let seen = fleet.status(admin, String::new()).await.expect("read").revision;
    let grant = fleet.grants(admin, None).await.expect("read")[0].id;
    let at = |revision| {
        let intent = Intent { if_revision: Some(revision), ..admin.intent() };
        admin.clone().with_intent(intent)
    };
    // Bob has looked as well, and is faster.
    let new = NewApiKey { name: "bob".into(), role: Role::Admin, secret_sha256: None };
    let (_, secret) = backend.keys.create(admin, &new).await.expect("made");
    let bob = backend.keys.admin(secret.expose(), None).await.expect("bob");
    let bobs = bob.with_intent(Intent { if_revision: Some(seen), ..admin.intent() });
    fleet.remove_grant(&bobs, grant).await.expect("nobody was in between");

    let sudo = new_user("alice", &[], "web-1", true);
    let refused = fleet.add_user(&at(seen), &sudo).await.expect_err("overtaken");
    let words = refused.to_string();
    assert_eq!(
        words,
        format!(
            "the model is at revision {}, no longer at {seen}: {} by key:bob at 2027-01-15 \
             08:00:00 UTC: user alice: grant {grant} on web-1 removed",
            seen + 1,
            seen + 1
        )
    );
    assert!(refused.hint().is_some_and(|hint| hint.contains("--if-revision")));
    assert!(fleet.grants(admin, None).await.expect("read").is_empty(), "nothing was changed");
    fleet.add_user(&at(seen + 1), &sudo).await.expect("decided anew");

    let early = fleet.remove_grant(&at(99), 1).await;
    assert!(matches!(early, Err(FleetError::NoSuchRevision(99))), "{early:?}");
    for number in 20..30 {
        backend.add_user(&format!("user{number}"), &[], "", false).await;
    }
    let many = fleet.add_user(&at(seen), &sudo).await.expect_err("overtaken").to_string();
    assert!(many.ends_with("; and 7 more"), "{many}");
}
