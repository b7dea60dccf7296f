//! Enrolment against a small HTTP server that answers from a script.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bastio_transport::{KeyKind, PrivateKey};
use serde_json::{Value, json};

use super::{Api, ApiError, EnrollError, Enrolled, Enrolment, enroll, replace_key, upload};
use crate::config::{Layer, Secret, Settings};

const SIGNING_KEY: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

/// A backend's HTTP side: answers by path, and keeps what it was asked.
struct FakeBackend {
    url: String,
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl FakeBackend {
    /// `host_key` and `upload_key`: status and body of the two calls.
    fn start(host_key: (u16, Value), upload_key: (u16, Value)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (line, body) = read_request(&stream);
                let (status, answer) =
                    if line.contains("upload_key") { &upload_key } else { &host_key };
                kept.lock().unwrap().push((line, body));
                let text = answer.to_string();
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}", text.len());
                let extra = "\r\nlocation: http://127.0.0.1:1/\r\nconnection: close\r\n\r\n";
                stream.write_all(format!("{head}{extra}{text}").as_bytes()).unwrap();
            }
        });
        Self { url, asked }
    }

    /// One like ours, with this host key.
    fn ours(host_key: &PrivateKey) -> Self {
        let payload = host_key.public_line();
        Self::start(
            (200, json!({"payload": payload, "port": 4022})),
            (200, json!({"server": {"id": 1, "name": "web-1", "signing_key": SIGNING_KEY}})),
        )
    }

    fn asked(&self) -> Vec<(String, String)> {
        self.asked.lock().unwrap().clone()
    }

    fn uploads(&self) -> Vec<Value> {
        let uploads = self.asked().into_iter().filter(|(line, _)| line.contains("upload_key"));
        uploads.map(|(_, body)| serde_json::from_str(&body).unwrap()).collect()
    }
}

fn read_request(stream: &std::net::TcpStream) -> (String, String) {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (first.trim().to_owned(), String::from_utf8(body).unwrap())
}

fn ed25519() -> PrivateKey {
    PrivateKey::generate(KeyKind::Ed25519).unwrap()
}

struct Server {
    folder: tempfile::TempDir,
}

impl Server {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("etc/agent.toml")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("etc/agent.key")
    }

    fn settings(&self) -> Settings {
        Settings::load(&self.config(), Layer::default()).unwrap()
    }

    fn enroll(&self, url: &str, expected: Option<String>) -> Result<Enrolled, EnrollError> {
        self.enroll_as(Some("web-1"), url, expected)
    }

    fn enroll_as(
        &self,
        name: Option<&str>,
        url: &str,
        expected: Option<String>,
    ) -> Result<Enrolled, EnrollError> {
        let asked = Enrolment {
            backend: url.to_owned(),
            api_key: Secret::new("the-api-key"),
            expected,
            host: None,
            port: None,
            name: name.map(str::to_owned),
            host_name: Some("DB-1.example.org".to_owned()),
            key_kind: KeyKind::Ed25519,
            receipt_key: None,
        };
        enroll(&asked, &self.config(), &self.key(), self.settings().backend.as_ref())
    }
}

#[test]
fn enrols_at_our_backend_without_keeping_the_api_key() {
    let (server, host_key) = (Server::new(), ed25519());
    let backend = FakeBackend::ours(&host_key);
    let done = server.enroll(&backend.url, Some(host_key.fingerprint())).unwrap();
    assert_eq!(done.server.as_deref(), Some("web-1"));
    assert_eq!(done.address, "127.0.0.1:4022");
    assert!(done.key_made && done.checked);

    let key = PrivateKey::read(&server.key()).unwrap();
    let uploads = backend.uploads();
    let expected = json!({
        "api_key": "the-api-key", "public_key": key.public_line(), "old_public_key": "",
        "name": "web-1",
    });
    assert_eq!(uploads, [expected]);
    let line = &backend.asked()[0].0;
    assert!(line.starts_with("GET /api/external/backend/host_key?type=ed25519 "), "{line}");

    let text = fs::read_to_string(server.config()).unwrap();
    assert!(!text.contains("the-api-key"), "{text}");
    assert_eq!(fs::metadata(server.config()).unwrap().permissions().mode() & 0o777, 0o600);
    let settings = server.settings();
    let found = settings.backend().unwrap();
    assert_eq!(found.address(), "127.0.0.1:4022");
    let signer = settings.signer.as_ref().unwrap();
    assert_eq!((signer.server.as_str(), signer.key.to_string().as_str()), ("1", SIGNING_KEY));
    assert_eq!(done.signing_key.unwrap(), signer.key.fingerprint());
    assert!(settings.require_signed);
    assert_eq!(found.login(), "bastio-agent");
    assert_eq!(found.host_keys[0].fingerprint(), host_key.fingerprint());
}

#[test]
fn a_server_without_a_name_takes_that_of_its_host() {
    let backend = FakeBackend::ours(&ed25519());
    Server::new().enroll_as(None, &backend.url, None).unwrap();
    assert_eq!(backend.uploads()[0]["name"], "db-1");
    // No port is named: version 1, which knows no such field.
    let old =
        FakeBackend::start((200, json!({"payload": ed25519().public_line()})), (200, json!("ok")));
    Server::new().enroll_as(None, &old.url, None).unwrap();
    assert_eq!(old.uploads()[0].get("name"), None);
}

#[test]
fn host_names_become_server_names() {
    for (host_name, name) in [
        ("web-1", Some("web-1")),
        ("WEB-1.rack7.example.org", Some("web-1")),
        ("web_1", Some("web_1")),
        ("b\u{fc}ro server", Some("b-ro-server")),
        ("-odd-", Some("odd")),
        ("localhost", None),
        ("localhost.localdomain", None),
        ("", None),
        (".", None),
        ("---", None),
    ] {
        let found = super::server_name(host_name);
        assert_eq!(found.as_ref().map(bastio_protocol::ServerName::as_str), name, "{host_name}");
    }
}

#[test]
fn enrols_at_a_version_1_backend_and_keeps_the_api_key() {
    let (server, host_key) = (Server::new(), ed25519());
    // The original's answer to an upload is never read: here it is not even JSON of ours.
    let answer = (200, json!({"payload": host_key.public_line()}));
    let backend = FakeBackend::start(answer, (200, json!("ok")));
    let done = server.enroll(&format!("{}/v1/base/", backend.url), None).unwrap();
    assert!(!done.checked);
    assert!(done.address.ends_with(":2357"), "{}", done.address);
    assert_eq!(server.settings().backend().unwrap().login(), "the-api-key");
    assert!(!server.settings().require_signed && done.signing_key.is_none());
    let lines: Vec<String> = backend.asked().into_iter().map(|(line, _)| line).collect();
    assert!(lines[0].starts_with("GET /v1/base/backend/host_key"), "{lines:?}");
    assert!(lines[1].starts_with("POST /v1/base/server/upload_key"), "{lines:?}");
}

#[test]
fn enrolling_twice_uses_the_same_key() {
    let (server, host_key) = (Server::new(), ed25519());
    let backend = FakeBackend::ours(&host_key);
    let first = server.enroll(&backend.url, None).unwrap();
    let second = server.enroll(&backend.url, None).unwrap();
    assert_eq!(first.agent_key, second.agent_key);
    assert_eq!((first.key_made, second.key_made), (true, false));
    assert_eq!((first.checked, second.checked), (false, true), "pinned is checked");
    let uploads = backend.uploads();
    assert_eq!(uploads[0], uploads[1]);
}

#[test]
fn a_wrong_host_key_uploads_nothing_and_writes_nothing() {
    let (server, other) = (Server::new(), ed25519());
    let backend = FakeBackend::ours(&ed25519());
    let error = server.enroll(&backend.url, Some(other.fingerprint())).unwrap_err();
    assert!(matches!(error, EnrollError::WrongHostKey { .. }), "{error}");
    assert!(error.to_string().contains(&other.fingerprint()));
    assert!(backend.uploads().is_empty());
    assert!(!server.config().exists() && !server.key().exists());
}

#[test]
fn a_pin_changes_only_when_the_new_key_is_named() {
    let (server, new_key) = (Server::new(), ed25519());
    server.enroll(&FakeBackend::ours(&ed25519()).url, None).unwrap();
    let before = fs::read(server.config()).unwrap();
    let backend = FakeBackend::ours(&new_key);
    let error = server.enroll(&backend.url, None).unwrap_err();
    assert!(matches!(error, EnrollError::PinChanged { .. }), "{error}");
    assert!(backend.uploads().is_empty());
    assert_eq!(fs::read(server.config()).unwrap(), before);
    server.enroll(&backend.url, Some(new_key.fingerprint())).unwrap();
    let settings = server.settings();
    assert_eq!(settings.backend().unwrap().host_keys[0].fingerprint(), new_key.fingerprint());
}

#[test]
fn every_other_status_is_a_clear_error_without_the_api_key() {
    let good = || (200, json!({"payload": ed25519().public_line()}));
    let said = || json!({"error": "no such key\u{1b}[31m"});
    for (upload, words) in [
        ((400, said()), &["malformed", "no such key"][..]),
        ((401, said()), &["refused the API key", "hint:"]),
        ((403, said()), &["refused the API key: no such key[31m", "hint:"]),
        ((201, json!("")), &["HTTP status 201"]),
        ((302, json!("")), &["HTTP status 302", "final URL"]),
        ((404, json!("")), &["HTTP status 404", "no bastio API"]),
        ((500, json!("")), &["HTTP status 500", "log"]),
    ] {
        let server = Server::new();
        let backend = FakeBackend::start(good(), upload);
        let text = server.enroll(&backend.url, None).unwrap_err().to_string();
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(!text.contains("the-api-key"), "{text}");
        assert!(!server.config().exists(), "nothing is written before the backend agrees");
    }
}

#[test]
fn a_host_key_answer_must_be_one() {
    for answer in [
        (200, json!([])),
        (200, json!({"payload": "rubbish"})),
        (200, json!({"payload": 5})),
        (404, json!({})),
        (302, json!({})),
    ] {
        let backend = FakeBackend::start(answer.clone(), (200, json!({})));
        assert!(Server::new().enroll(&backend.url, None).is_err(), "{answer:?}");
        assert!(backend.uploads().is_empty());
    }
}

#[test]
fn a_signing_key_that_is_none_is_not_passed_over() {
    for server in [
        json!({"id": 1, "name": "web-1", "signing_key": "AAAA"}),
        json!({"name": "web-1", "signing_key": SIGNING_KEY}),
        json!({"id": "", "name": "web-1", "signing_key": SIGNING_KEY}),
    ] {
        let (here, payload) = (Server::new(), ed25519().public_line());
        let answer = (200, json!({"server": server}));
        let backend = FakeBackend::start((200, json!({"payload": payload, "port": 1})), answer);
        let error = here.enroll(&backend.url, None).unwrap_err();
        assert!(matches!(error, EnrollError::Api(ApiError::BadAnswer { .. })), "{error}");
        assert!(!here.config().exists(), "nothing is pinned");
    }
}

#[test]
fn urls_are_checked() {
    for url in ["", "backend", "ftp://x", "http://", "http://u:p@x", "http://x?y=z", "ssh://x:22"] {
        assert!(matches!(Api::new(url), Err(ApiError::Url { .. })), "{url}");
    }
    let backend = FakeBackend::ours(&ed25519());
    let loud = backend.url.replacen("http", "HTTP", 1);
    Api::new(&loud).unwrap().host_key().expect("a scheme in capitals is the same scheme");
    let unreachable = Api::new("http://127.0.0.1:1").unwrap().host_key().unwrap_err();
    assert!(unreachable.to_string().contains("hint:"), "{unreachable}");
}

#[test]
fn a_key_is_replaced_only_after_the_backend_agreed() {
    let (folder, host_key) = (tempfile::tempdir().unwrap(), ed25519());
    let (old, new) = (folder.path().join("agent.key"), folder.path().join("new.key"));
    ed25519().write_new(&old).unwrap();
    ed25519().write_new(&new).unwrap();
    let (old_key, new_key) = (PrivateKey::read(&old).unwrap(), PrivateKey::read(&new).unwrap());
    let secret = Secret::new("the-api-key");

    let answer = (200, json!({"payload": host_key.public_line()}));
    let refusing = FakeBackend::start(answer, (403, json!("")));
    let api = Api::new(&refusing.url).unwrap();
    assert!(replace_key(&api, &secret, &old, &new).is_err());
    assert_eq!(PrivateKey::read(&old).unwrap().fingerprint(), old_key.fingerprint());

    let backend = FakeBackend::ours(&host_key);
    let api = Api::new(&backend.url).unwrap();
    replace_key(&api, &secret, &old, &new).unwrap();
    assert_eq!(PrivateKey::read(&old).unwrap().fingerprint(), new_key.fingerprint());
    let mut uploads = backend.uploads();
    let proof = uploads[0].as_object_mut().unwrap().remove("proof").unwrap();
    let lines = format!("{}\n{}\n", old_key.public_line(), new_key.public_line());
    let signer = old_key.public();
    signer.verify("bastio-replace-key", lines.as_bytes(), proof.as_str().unwrap()).unwrap();
    let expected = json!({
        "api_key": "the-api-key", "public_key": new_key.public_line(),
        "old_public_key": old_key.public_line(),
    });
    assert_eq!(uploads, [expected]);
    let again = replace_key(&api, &secret, &old, &new).unwrap_err();
    assert!(matches!(again, EnrollError::SameKey(_)), "{again}");
}

#[test]
fn a_version_1_backend_gets_no_proof_which_it_does_not_know() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("agent.key"), folder.path().join("new.key"));
    ed25519().write_new(&old).unwrap();
    ed25519().write_new(&new).unwrap();
    let answer = (200, json!({"payload": ed25519().public_line()}));
    let backend = FakeBackend::start(answer, (200, json!(null)));
    let api = Api::new(&backend.url).unwrap();
    replace_key(&api, &Secret::new("k"), &old, &new).unwrap();
    let uploads = backend.uploads();
    assert!(uploads[0].get("proof").is_none(), "{uploads:?}");
}

#[test]
fn a_refusal_is_told_with_the_backends_own_hint() {
    let answer = (200, json!({"payload": ed25519().public_line()}));
    let own = json!({"error": "no proof", "hint": "sign it"});
    for (body, expected) in [
        (own, "the backend refused the API key: no proof\nhint: sign it"),
        (
            json!(""),
            "the backend refused the API key\nhint: make one with: bastio api-key add NAME --role enroll",
        ),
    ] {
        let backend = FakeBackend::start(answer.clone(), (403, body));
        let api = Api::new(&backend.url).unwrap();
        let refused = upload(&api, &Secret::new("k"), &ed25519()).unwrap_err();
        assert_eq!(refused.to_string(), expected);
    }
}

#[test]
fn a_plain_upload_names_no_old_key() {
    let backend = FakeBackend::ours(&ed25519());
    let key = ed25519();
    upload(&Api::new(&backend.url).unwrap(), &Secret::new("k"), &key).unwrap();
    let expected = json!({"api_key": "k", "public_key": key.public_line(), "old_public_key": ""});
    assert_eq!(backend.uploads(), [expected]);
}
