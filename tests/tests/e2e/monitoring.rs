//! What Prometheus and a load balancer read of a real backend with a real agent.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use bastio_tests::{World, require_root};

use crate::faults::Site;

const LIMIT: Duration = Duration::from_secs(20);

impl Site<'_> {
    /// The answer to a GET: its status and its body.
    fn get(&self, path: &str, token: Option<&str>) -> (u16, String) {
        let mut line = self.world.connect(self.world.address(2358)).unwrap();
        line.set_read_timeout(Some(LIMIT)).unwrap();
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
        let token = token.unwrap_or_default();
        let request = format!("GET {path} HTTP/1.1\r\nHost: b\r\n{token}Connection: close\r\n\r\n");
        line.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        line.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer of HTTP");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (status.expect("a status"), body.to_owned())
    }

    /// The value of a series, as it stands in the scrape.
    fn figure(&self, token: &str, series: &str) -> f64 {
        let (status, scrape) = self.get("/metrics", Some(token));
        assert_eq!(status, 200, "{scrape}");
        let line = scrape.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        assert!(line.is_some(), "no {series} in:\n{scrape}");
        line.unwrap().parse().unwrap()
    }
}

#[test]
fn figures_follow_an_action_from_the_console_to_the_account() {
    require_root!();
    let world = World::new().unwrap();
    let mut site = Site::start(&world);
    for (path, body) in [("/healthz", "alive"), ("/readyz", "ready")] {
        assert_eq!(site.get(path, None), (200, format!("{{\"status\":\"{body}\"}}")));
    }
    let key = site.backend.ask(&["api-key", "add", "prometheus", "--role", "metrics"]).unwrap();
    let key = key["secret"].as_str().unwrap().to_owned();
    assert_eq!(site.get("/metrics", None).0, 401);
    assert_eq!(site.get("/api/v1/status", Some(&key)).0, 403);

    let opened = "bastio_handshakes_total{port=\"main\",result=\"opened\"}";
    let done = "bastio_action_duration_seconds_count{result=\"done\"}";
    let answered = "bastio_action_answer_seconds_count";
    for series in ["bastio_agents_connected", "bastio_servers", opened, done, answered] {
        assert_eq!(site.figure(&key, series), 0.0, "{series}");
    }
    let _server = site.enrol(site.host("web-1").without_sshd());
    site.done(&["user", "add", "alice", "--on", "web-1"]);
    for series in ["bastio_agents_connected", "bastio_servers", opened, done, answered] {
        assert_eq!(site.figure(&key, series), 1.0, "{series}");
    }
    for series in ["bastio_actions_queued", "bastio_actions_failed", "bastio_servers_behind"] {
        assert_eq!(site.figure(&key, series), 0.0, "{series}");
    }
    assert!(site.figure(&key, "process_resident_memory_bytes") > 1e6);
    assert!(!site.backend.log().unwrap().contains(&key), "the key is in the log");
    assert!(site.backend.process().stop(LIMIT).unwrap().success());
}
