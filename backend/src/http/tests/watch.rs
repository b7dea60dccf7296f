//! What watchers read, and what the files for Grafana and Prometheus make of it.

use std::time::Duration;

use super::exposition::Scrape;
use super::*;
use crate::testing::feedback;

const DASHBOARD: &str = include_str!("../../../../packaging/monitoring/grafana-dashboard.json");
const ALERTS: &str = include_str!("../../../../packaging/monitoring/alerts.yaml");
const MANUAL: &str = include_str!("../../../../docs/monitoring.md");

impl TestSite {
    async fn open(&self, token: Option<&str>, path: &str) -> (u16, String, String) {
        let mut request = Request::builder().uri(path);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Body::empty()).expect("a request");
        let response = self.router.clone().oneshot(request).await.expect("an answer");
        let status = response.status().as_u16();
        let content = response.headers().get(CONTENT_TYPE).expect("a type").to_str().expect("text");
        let content = content.to_owned();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        (status, content, String::from_utf8(bytes.to_vec()).expect("text"))
    }

    async fn metrics_key(&self) -> String {
        let new = NewApiKey { name: "prometheus".into(), role: Role::Metrics, secret_sha256: None };
        let made = self.backend.keys.create(&self.backend.admin, &new).await.expect("made");
        made.1.expose().to_owned()
    }

    async fn scrape(&self) -> Scrape {
        let (status, content, text) = self.open(Some(&self.backend.token), "/metrics").await;
        assert_eq!((status, content.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
        Scrape::read(&text)
    }
}

#[tokio::test]
async fn metrics_are_for_their_role_and_admins_alone() {
    let site = TestSite::new().await;
    let key = site.metrics_key().await;
    for (token, expected) in [
        (None, 401),
        (Some("bst_made-up"), 401),
        (Some(site.enroll_secret.as_str()), 403),
        (Some(site.backend.token.as_str()), 200),
        (Some(key.as_str()), 200),
    ] {
        assert_eq!(site.open(token, "/metrics").await.0, expected, "{token:?}");
    }
    for path in ["/api/v1/status", "/api/v1/log", "/api/v1/api-keys"] {
        assert_eq!(site.open(Some(&key), path).await.0, 403, "{path}");
    }
    let (status, body) = site.upload(upload(&key, &crate::testing::key(1), "")).await;
    assert_eq!((status, &body["error"]), (403, &json!("this API key may only read metrics")));
}

#[tokio::test]
async fn figures_follow_what_happens() {
    let site = TestSite::new().await;
    let backend = &site.backend;
    backend.enroll("web-1", 1).await;
    backend.enroll("web-2", 2).await;
    let session = backend.connect(1).await;
    backend.add_user("alice", &[key(7)], "*", false).await;
    let scrape = site.scrape().await;
    for (name, expected) in [
        ("bastio_database_up", 1.0),
        ("bastio_agents_connected", 1.0),
        ("bastio_servers", 2.0),
        ("bastio_servers_behind", 2.0),
        ("bastio_actions_queued", 4.0),
        ("bastio_actions_sent", 0.0),
        ("bastio_actions_failed", 0.0),
        ("bastio_drifted_servers", 0.0),
        ("bastio_keep_drifting_servers", 0.0),
        ("bastio_model_revision", 3.0),
        ("bastio_action_answer_seconds_count", 0.0),
    ] {
        assert_eq!(scrape.value(name, &[]), expected, "{name}");
    }
    let ended = "bastio_action_duration_seconds_count";
    assert_eq!(scrape.value(ended, &[("result", "done")]), 0.0);

    let actions = session.next(10).await.expect("a queue");
    for (action, status) in actions.iter().zip([Status::Done, Status::Failed]) {
        session.feedback(&action.reply(status, "as told")).await.expect("taken");
    }
    // Answers that nobody waits for are no answers.
    session.feedback(&actions[0].reply(Status::Done, "again")).await.expect("taken");
    session.feedback(&feedback("none", Status::Done, "")).await.expect("taken");
    let scrape = site.scrape().await;
    assert_eq!(scrape.value("bastio_actions_failed", &[]), 1.0);
    assert_eq!(scrape.value("bastio_actions_queued", &[]), 2.0);
    assert_eq!(scrape.value("bastio_servers_behind", &[]), 2.0);
    for (result, count) in [("done", 1.0), ("failed", 1.0), ("unchanged", 0.0), ("refused", 0.0)] {
        assert_eq!(scrape.value(ended, &[("result", result)]), count, "{result}");
    }
    assert!(scrape.value("bastio_store_duration_seconds_count", &[("kind", "write")]) >= 5.0);
}

#[tokio::test]
async fn requests_are_counted_by_route_and_never_by_path() {
    let site = TestSite::new().await;
    for path in ["/api/v1/servers/a", "/api/v1/servers/b", "/no/where", "/x\u{7f}?q"] {
        let path = path.replace('\u{7f}', "%7f");
        site.open(Some(&site.backend.token), &path).await;
    }
    site.call(Actor::Admin, "BREW", "/healthz", Value::Null).await;
    let scrape = site.scrape().await;
    let count = |method, route, status| {
        let labels = [("method", method), ("route", route), ("status", status)];
        scrape.value("bastio_http_requests_total", &labels)
    };
    assert_eq!(count("GET", "/api/v1/servers/{name}", "404"), 2.0);
    assert_eq!(count("GET", "none", "404"), 2.0);
    assert_eq!(count("other", "/healthz", "405"), 1.0);
}

/// Somebody else has the database and does not let go.
#[tokio::test]
async fn a_database_that_hangs_costs_the_figures_and_not_the_scrape() {
    let site = TestSite::new().await;
    let key = site.metrics_key().await;
    assert_eq!(site.open(Some(&key), "/metrics").await.0, 200);
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(site.backend.store.read().await.expect("a reader"));
    }
    let begun = tokio::time::Instant::now();
    let (status, _, text) = site.open(Some(&key), "/metrics").await;
    assert_eq!(status, 200, "{text}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let scrape = Scrape::read(&text);
    assert_eq!(scrape.value("bastio_database_up", &[]), 0.0);
    assert!(!scrape.knows("bastio_servers") && scrape.knows("bastio_store_duration_seconds"));
    let (status, _, _) = site.open(Some("bst_made-up"), "/metrics").await;
    assert_eq!(status, 503, "a key that was never known opens nothing");
    let (status, _, body) = site.open(None, "/readyz").await;
    assert_eq!((status, body.as_str()), (503, r#"{"status":"database"}"#));
    assert_eq!(site.open(None, "/healthz").await.0, 200, "the process lives all the same");
    drop(held);
    assert_eq!(site.scrape().await.value("bastio_database_up", &[]), 1.0);
}

#[tokio::test]
async fn a_revoked_key_is_not_remembered() {
    let site = TestSite::new().await;
    let key = site.metrics_key().await;
    assert_eq!(site.open(Some(&key), "/metrics").await.0, 200);
    site.backend.keys.revoke(&site.backend.admin, "prometheus").await.expect("revoked");
    assert_eq!(site.open(Some(&key), "/metrics").await.0, 401);
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(site.backend.store.read().await.expect("a reader"));
    }
    assert_eq!(site.open(Some(&key), "/metrics").await.0, 503);
}

#[tokio::test]
async fn readiness_ends_with_the_drain_and_life_does_not() {
    let mut site = TestSite::new().await;
    let draining = CancellationToken::new();
    let state = site.state.clone().with_draining(draining.clone());
    site.router = router(state);
    let (status, _, body) = site.open(None, "/readyz").await;
    assert_eq!((status, body.as_str()), (200, r#"{"status":"ready"}"#));
    draining.cancel();
    let (status, _, body) = site.open(None, "/readyz").await;
    assert_eq!((status, body.as_str()), (503, r#"{"status":"draining"}"#));
    let (status, _, body) = site.open(None, "/healthz").await;
    assert_eq!((status, body.as_str()), (200, r#"{"status":"alive"}"#));
}

/// Every metric in a text, with the label matchers that follow it.
fn mentioned(text: &str) -> Vec<(String, Vec<(String, String)>)> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = ["bastio_", "process_"].iter().filter_map(|p| rest.find(p)).min() {
        let inside = rest[..start].ends_with(word);
        rest = &rest[start..];
        let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let matchers = after.strip_prefix('{').and_then(|text| text.split_once('}'));
        let matchers = matchers.map_or("", |(matchers, _)| matchers);
        let split = |matcher: &str| {
            let matcher = matcher.replace('\\', "");
            let at = matcher.find(['=', '!']).expect("a matcher");
            (matcher[..at].to_owned(), matcher[at..].to_owned())
        };
        let matchers = matchers.split(',').filter(|text| !text.is_empty()).map(split).collect();
        if !inside {
            found.push((name.to_owned(), matchers));
        }
        rest = after;
    }
    found
}

#[tokio::test]
async fn dashboard_alerts_and_manual_name_what_is_scraped() {
    let site = TestSite::new().await;
    site.open(None, "/no/where").await;
    let scrape = site.scrape().await;
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let targets = dashboard["panels"].as_array().expect("panels").iter().flat_map(|panel| {
        panel["targets"].as_array().expect("targets").iter().map(|target| &target["expr"])
    });
    let queries: Vec<&str> = targets.map(|expr| expr.as_str().expect("a query")).collect();
    assert!(queries.len() > 20);
    for text in queries.iter().chain(&[ALERTS]) {
        for (name, matchers) in mentioned(text) {
            scrape.family(&name);
            for (label, matcher) in matchers {
                // These two are Prometheus' own.
                if !["instance", "job"].contains(&label.as_str()) {
                    let value = matcher.strip_prefix("=\"").or(matcher.strip_prefix("!=\""));
                    let value = value.and_then(|value| value.strip_suffix('"'));
                    assert!(scrape.has(&name, &label, value), "{name}{{{label}{matcher}}}");
                }
            }
        }
    }
    // And all that is scraped is told and explained.
    let used: Vec<String> =
        mentioned(DASHBOARD).into_iter().map(|(name, _)| scrape.family(&name)).collect();
    for family in scrape.families() {
        assert!(used.iter().any(|name| name == family), "{family} is in no panel");
        assert!(MANUAL.contains(&format!("`{family}`")), "{family} is not in docs/monitoring.md");
    }
}
