//! A backend whose signing key is sealed: what it says, and how it is opened.

use super::*;
use crate::sealed::Passphrase;
use crate::signing::{KeyFiles, NotNow, Signing};

const PASSPHRASE: &str = "correct horse battery";

impl TestSite {
    /// With a sealed signing key of its own.
    async fn sealed() -> (Self, Signing) {
        let mut site = Self::new().await;
        let folder = site.backend.dir.path().join("keys");
        std::fs::create_dir(&folder).expect("a folder");
        KeyFiles::load_or_make(&folder).expect("made");
        let with = Passphrase::parse(PASSPHRASE).expect("a passphrase");
        let files = KeyFiles::seal_cheaply(&folder, &with).expect("sealed");
        let (signing, _) = Signing::new(files, None);
        let (store, dispatch) = (site.backend.store.clone(), site.backend.dispatch.clone());
        site.state = site.state.with_signing(Unsealing::new(signing.clone(), store, dispatch));
        site.router = router(site.state.clone());
        (site, signing)
    }

    async fn unseal(&self, actor: Actor, passphrase: &str) -> (u16, Value) {
        let body = json!({ "passphrase": passphrase });
        self.call(actor, "POST", "/api/v1/unseal", body).await
    }

    /// The rows about it: who did what.
    async fn told(&self) -> Vec<(String, String)> {
        let (_, rows) = self.get("/api/v1/log?action=signing-key.*").await;
        let rows = rows.as_array().expect("rows").iter();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        rows.map(|row| (text(&row["actor"]), text(&row["action"]))).collect()
    }
}

#[tokio::test]
async fn a_sealed_key_is_told_everywhere_until_it_is_opened() {
    let (site, signing) = TestSite::sealed().await;
    let (status, ready) = site.call(Actor::Nobody, "GET", "/readyz", Value::Null).await;
    assert_eq!((status, &ready["status"]), (200, &json!("degraded")));
    let reason = ready["reason"].as_str().expect("a reason").to_owned();
    assert!(reason.contains("bastio unseal"), "{reason}");
    assert_eq!(site.get("/api/v1/status").await.1["sealed"], json!(reason));
    let gauge = "bastio_signing_key_sealed 1";
    assert!(site.state.metrics.scrape().await.contains(gauge));
    // Edits are taken.
    let user = json!({ "name": "alice" });
    let (status, _) = site.call(Actor::Admin, "POST", "/api/v1/users", user).await;
    assert_eq!(status, 200);

    let (status, answer) = site.unseal(Actor::Admin, "correct horse battery\n").await;
    let fingerprint = signing.verifying_key().fingerprint();
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer, json!({ "signing_key": fingerprint, "already": false, "waiting": 0 }));
    assert!(signing.keys().is_some());
    let (_, ready) = site.call(Actor::Nobody, "GET", "/readyz", Value::Null).await;
    assert_eq!(ready, json!({ "status": "ready" }));
    assert_eq!(site.get("/api/v1/status").await.1.get("sealed"), None);
    assert!(site.state.metrics.scrape().await.contains("bastio_signing_key_sealed 0"));
    let (_, answer) = site.unseal(Actor::Admin, "whatever").await;
    assert_eq!(answer["already"], json!(true));
    assert_eq!(site.told().await, [("key:admin".into(), "signing-key.unseal".into())]);
}

#[tokio::test]
async fn only_admins_may_guess_and_not_often() {
    let (site, signing) = TestSite::sealed().await;
    for (actor, expected) in [(Actor::Nobody, 401), (Actor::Stranger, 401), (Actor::Enroller, 403)]
    {
        assert_eq!(site.unseal(actor, PASSPHRASE).await.0, expected);
    }
    assert_eq!(site.unseal(Actor::Admin, "").await.0, 400);
    for _ in 0..3 {
        let (status, answer) = site.unseal(Actor::Admin, "a wrong one").await;
        assert_eq!((status, &answer["error"]), (403, &json!("wrong passphrase")));
    }
    // Now even the right one has to wait.
    let (status, answer) = site.unseal(Actor::Admin, PASSPHRASE).await;
    assert_eq!(status, 429, "{answer}");
    assert!(signing.keys().is_none());
    let refused = ("key:admin".to_owned(), "signing-key.unseal-refused".to_owned());
    assert_eq!(site.told().await, vec![refused; 3]);
    let (_, rows) = site.get("/api/v1/log").await;
    assert!(!rows.to_string().contains("a wrong one"), "never logged");
}

#[tokio::test]
async fn one_guess_at_a_time() {
    let (site, signing) = TestSite::sealed().await;
    let held = signing.attempt(Instant::now()).expect("the first");
    let (status, answer) = site.unseal(Actor::Admin, PASSPHRASE).await;
    assert_eq!((status, &answer["error"]), (429, &json!("another passphrase is being tried")));
    drop(held);
    assert_eq!(site.unseal(Actor::Admin, PASSPHRASE).await.0, 200);
}

/// Whoever goes away before the answer has guessed all the same.
#[tokio::test]
async fn a_guess_counts_whoever_waits_for_it() {
    let (site, signing) = TestSite::sealed().await;
    let unsealing = site.state.signing.clone().expect("it signs");
    let begin = async |passphrase: &str| {
        let opening = unsealing.unseal(&site.backend.admin, passphrase);
        // Polled once, and dropped.
        drop(tokio::time::timeout(Duration::ZERO, opening).await);
        let busy = |attempt: &Result<_, NotNow>| matches!(attempt, Err(NotNow::Busy));
        let mut next = signing.attempt(Instant::now());
        while busy(&next) {
            tokio::task::yield_now().await;
            next = signing.attempt(Instant::now());
        }
        next.map(drop)
    };
    for _ in 0..2 {
        assert_eq!(begin("a wrong one").await, Ok(()));
    }
    assert!(matches!(begin("a wrong one").await, Err(NotNow::TooMany(_))));

    let (site, signing) = TestSite::sealed().await;
    let unsealing = site.state.signing.clone().expect("it signs");
    let opening = unsealing.unseal(&site.backend.admin, PASSPHRASE);
    drop(tokio::time::timeout(Duration::ZERO, opening).await);
    while signing.keys().is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(site.told().await, [("key:admin".into(), "signing-key.unseal".into())]);
}

#[tokio::test]
async fn opening_is_not_tried_without_being_done() {
    let (site, signing) = TestSite::sealed().await;
    let body = Body::from(json!({ "passphrase": PASSPHRASE }).to_string());
    let token = format!("Bearer {}", site.backend.token);
    let request = Request::builder().method("POST").uri("/api/v1/unseal");
    let request = request.header(AUTHORIZATION, token).header(CONTENT_TYPE, "application/json");
    let request = request.header(bastio_protocol::api::DRY_RUN_HEADER, "yes").body(body);
    let answer = site.router.clone().oneshot(request.expect("a request")).await.expect("answered");
    assert_eq!(answer.status(), 400);
    assert!(signing.keys().is_none());
}
