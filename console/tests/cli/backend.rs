//! A backend that answers as scripted, one connection a request, and remembers what it was asked.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

/// What a request meets.
pub enum Answer {
    /// A status, and JSON.
    Json(u16, Value),
    /// The same as 200, after a while.
    Late(Duration, Value),
    /// A redirect.
    Redirect(String),
    /// A status and a text that is no JSON.
    Text(u16, &'static str),
    /// A closed connection.
    Hangup,
}

/// A request as it arrived.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    /// Method and target: `GET /api/v1/status`.
    pub line: String,
    /// The header `Authorization`.
    pub authorization: String,
    /// The body; null when there was none.
    pub body: Value,
}

/// The thread, which ends after its last answer.
pub struct Backend {
    /// Its base URL.
    pub url: String,
    thread: JoinHandle<Vec<Seen>>,
}

impl Backend {
    /// Starts one that gives these answers in turn and is gone afterwards.
    pub fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let thread = thread::spawn(move || {
            let serve = |answer| serve(&listener.accept().expect("a connection").0, answer);
            answers.into_iter().map(serve).collect()
        });
        Self { url, thread }
    }

    /// Waits until all answers were given; the requests.
    pub fn requests(self) -> Vec<Seen> {
        self.thread.join().expect("the backend's thread is well")
    }

    /// Waits likewise; method and target of each request.
    pub fn lines(self) -> Vec<String> {
        self.requests().into_iter().map(|seen| seen.line).collect()
    }
}

/// An address where nobody listens.
pub fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("http://{}", listener.local_addr().expect("an address"))
}

fn serve(stream: &TcpStream, answer: Answer) -> Seen {
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time limit");
    let seen = read(stream);
    let (status, header, body) = match answer {
        Answer::Json(status, body) => (status, String::new(), body.to_string()),
        Answer::Late(after, body) => {
            thread::sleep(after);
            (200, String::new(), body.to_string())
        }
        Answer::Redirect(to) => (302, format!("Location: {to}\r\n"), String::new()),
        Answer::Text(status, text) => (status, String::new(), text.to_owned()),
        Answer::Hangup => return seen,
    };
    let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n{header}");
    let text = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let mut stream = stream;
    stream.write_all(text.as_bytes()).expect("answered");
    seen
}

fn read(stream: &TcpStream) -> Seen {
    let mut reader = BufReader::new(stream);
    let mut next = || {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    };
    let line = next().trim_end_matches(" HTTP/1.1").to_owned();
    let headers: Vec<String> =
        std::iter::from_fn(|| Some(next()).filter(|l| !l.is_empty())).collect();
    let header = |wanted: &str| {
        let pairs = headers.iter().filter_map(|line| line.split_once(": "));
        pairs
            .filter(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, v)| v.to_owned())
            .next()
    };
    let len = header("content-length").map_or(0, |len| len.parse().expect("a length"));
    let mut body = vec![0; len];
    reader.read_exact(&mut body).expect("a body");
    let body = if len == 0 { Value::Null } else { serde_json::from_slice(&body).expect("JSON") };
    Seen { line, authorization: header("authorization").unwrap_or_default(), body }
}

/// A change with servers, each with a name, its presence, and the states of its actions.
pub fn change(progress: u64, complete: bool, servers: &[(&str, &str, &[&str])]) -> Value {
    let servers: Vec<Value> = servers
        .iter()
        .map(|(name, presence, states)| {
            let actions: Vec<Value> = states.iter().map(|state| action(name, state)).collect();
            json!({"server": name, "presence": presence, "actions": actions})
        })
        .collect();
    json!({"revision": 7, "summary": "alice was added", "progress": progress,
           "complete": complete, "servers": servers})
}

fn action(server: &str, state: &str) -> Value {
    let (status, feedback) = match state {
        "done" => (json!(200), json!("added")),
        "failed" => (json!(500), json!(format!("{server}: disk\n\u{1b}[31mfull"))),
        _ => (Value::Null, Value::Null),
    };
    json!({"action": "add-user", "username": "alice", "state": state, "tries": 1,
           "status": status, "feedback": feedback, "mid": "m1"})
}

/// The answer to `GET /status`.
pub fn status() -> Value {
    json!({"version": "0.2.0", "revision": 7, "host_key": "SHA256:abc", "servers": 3,
           "connected": 2, "users": 1, "grants": 1, "queued": 0, "sent": 0,
           "failed": 2, "drifted": 0, "keep_drifting": 0,
           "in_sync": 1, "pending_servers": 0, "failed_servers": 2, "undecided": 0, "clocks_off": 0})
}
