//! Two backend processes on one PostgreSQL, with scripted agents that go to either. Runs with
//! `tests/with-postgres` only.

// Clippy's exemption for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::panic)]

mod on_postgres {
    use std::collections::BTreeMap;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use base64::Engine as _;
    use bastio_protocol::{KeyPolicy, Message, Netstring, Status, V1_LIMIT};
    use bastio_transport::{ClientConfig, HostKeyPin, KeyKind, PrivateKey, Subsystem, connect};
    use serde_json::{Value, json};
    use sqlx::{Connection as _, Executor as _};
    use tokio::task::JoinSet;

    const AGENTS: usize = 12;
    const PEOPLE: usize = 12;
    /// How long agents of a killed node may be without one.
    const SERVED_WITHIN: Duration = Duration::from_secs(15);

    struct Node {
        child: Child,
        http: SocketAddr,
        ssh: SocketAddr,
    }

    impl Node {
        fn start(folder: &Path, name: &str, url: &str) -> Self {
            Self::start_with(folder, name, url, "newest")
        }

        fn start_with(folder: &Path, name: &str, url: &str, rivals: &str) -> Self {
            let state = folder.join(name);
            let mut child = Command::new(env!("CARGO_BIN_EXE_bastio-backend"))
                .env_clear()
                .env("BASTIO_BACKEND_LOG", "warn")
                .env("BASTIO_BACKEND_STORE_URL", url)
                .env("BASTIO_BACKEND_LIMITS_RIVALS", rivals)
                .env("BASTIO_BACKEND_STORE_CLUSTER_KEY_FILE", folder.join("cluster.key"))
                .args(["serve", "--ssh-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"])
                .arg("--state")
                .arg(&state)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let end = Instant::now() + Duration::from_secs(60);
            let ports = loop {
                if let Ok(ports) = std::fs::read_to_string(state.join("listen.json")) {
                    break serde_json::from_str::<Value>(&ports).unwrap();
                }
                let ended = child.try_wait().unwrap();
                assert!(Instant::now() < end && ended.is_none(), "no node {name}: {ended:?}");
                std::thread::sleep(Duration::from_millis(20));
            };
            let port = |name: &str| ports[name].as_str().unwrap().parse().unwrap();
            Self { child, http: port("http"), ssh: port("ssh") }
        }

        fn token(&mut self) -> String {
            let said = BufReader::new(self.child.stdout.take().unwrap());
            let token = |line: std::io::Result<String>| {
                line.unwrap().strip_prefix("admin token: ").map(str::to_owned)
            };
            said.lines().find_map(token).expect("a token on the first start")
        }
    }

    impl Drop for Node {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn ask(node: SocketAddr, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let mut stream = TcpStream::connect(node).unwrap();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: b\r\nConnection: close\r\nContent-Length: {}\r\n\
             Content-Type: application/json\r\nAuthorization: Bearer {token}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer[9..12].parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    /// A schema of this test's own.
    async fn database() -> String {
        let server = std::env::var("BASTIO_TEST_STORE").expect("tests/with-postgres runs this");
        let schema = format!("nodes{}", std::process::id());
        let mut db = sqlx::PgConnection::connect(&server).await.unwrap();
        let make = format!("CREATE SCHEMA {schema}");
        db.execute(sqlx::AssertSqlSafe(make)).await.unwrap();
        db.close().await.unwrap();
        format!("{server}&options=-csearch_path%3D{schema}")
    }

    /// What an agent has done: how often for each action, whoever sent it.
    type Journal = Arc<Mutex<BTreeMap<String, (String, u32)>>>;

    /// One agent: connects to the nodes in turn, does what is asked once, and answers each time.
    async fn agent(key: PrivateKey, nodes: Vec<SocketAddr>, pin: HostKeyPin, journal: Journal) {
        for node in nodes.iter().cycle() {
            let mut config = ClientConfig::new(
                node.ip().to_string(),
                node.port(),
                "agent",
                "test",
                vec![pin.clone()],
            );
            config.protocol = None;
            if let Ok(connection) = connect(&config, &key).await
                && let Ok(channel) = connection.open_subsystem("bastio-agent").await
            {
                let (mut reader, writer, _link) = channel.split();
                while let Some(packet) = reader.recv().await {
                    let Ok(body) = Netstring::parse(&packet, V1_LIMIT) else { break };
                    let parsed = Message::parse(&body, &KeyPolicy::default());
                    let Ok(Message::Action(action)) = parsed else { panic!("{parsed:?}") };
                    {
                        let mut journal = journal.lock().unwrap();
                        let what = format!("{} {}", action.action.name(), action.username);
                        journal.entry(action.mid.text()).or_insert((what, 0)).1 += 1;
                    }
                    // Time in which a node can die between an action and its answer.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    let answer = Netstring::compose(&action.reply(Status::Done, "done").to_json());
                    if writer.send(answer).await.is_err() {
                        break;
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn until(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
        let end = Instant::now() + limit;
        while !done() {
            assert!(Instant::now() < end, "not in time: {what}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn make_cluster_key(folder: &Path) {
        let random: [u8; 32] = rand::random();
        let cluster = base64::engine::general_purpose::STANDARD.encode(random);
        let path = folder.join("cluster.key");
        std::fs::write(&path, cluster).unwrap();
        let closed = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, closed).unwrap();
    }

    /// Enrols agents at the last node; each goes to another node first. What each has done.
    fn agents(
        nodes: &[&Node],
        token: &str,
        pin: &HostKeyPin,
        tasks: &mut JoinSet<()>,
    ) -> Vec<Journal> {
        let mut journals = Vec::new();
        for number in 0..AGENTS {
            let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
            let upload = json!({ "api_key": token, "public_key": key.public_line(),
                "old_public_key": "", "name": format!("web-{number}") });
            let path = "/api/external/server/upload_key";
            let enrols_at = nodes.last().unwrap();
            let (status, body) = ask(enrols_at.http, token, "POST", path, &upload);
            assert_eq!(status, 200, "{body}");
            let mut ports: Vec<_> = nodes.iter().map(|node| node.ssh).collect();
            ports.rotate_left(number % nodes.len());
            let journal = Journal::default();
            journals.push(Arc::clone(&journal));
            tasks.spawn(agent(key, ports, pin.clone(), journal));
        }
        journals
    }

    /// Two nodes that serve one enrolled agent key, and what knows them.
    struct Pair {
        first: Node,
        second: Node,
        token: String,
        pin: HostKeyPin,
        key: PrivateKey,
        _folder: tempfile::TempDir,
    }

    impl Pair {
        async fn start(rivals: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            make_cluster_key(folder.path());
            let url = database().await;
            let mut first = Node::start_with(folder.path(), "first", &url, rivals);
            let second = Node::start_with(folder.path(), "second", &url, rivals);
            let token = first.token();
            let path = "/api/external/backend/host_key?type=ed25519";
            let line = ask(first.http, &token, "GET", path, &Value::Null).1["payload"].clone();
            let pin = line.as_str().unwrap().parse().unwrap();
            let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
            let upload = json!({ "api_key": token, "public_key": key.public_line(),
                "old_public_key": "", "name": "web" });
            let path = "/api/external/server/upload_key";
            assert_eq!(ask(first.http, &token, "POST", path, &upload).0, 200);
            Self { first, second, token, pin, key, _folder: folder }
        }

        /// A machine at that address with the agent's key, at that node.
        async fn machine(&self, node: &Node, last_byte: u8) -> Subsystem {
            let (host, pins) = (node.ssh.ip().to_string(), vec![self.pin.clone()]);
            let mut config = ClientConfig::new(host, node.ssh.port(), "agent", "test", pins);
            config.protocol = None;
            config.source = Some([127, 0, 0, last_byte].into());
            let connection = connect(&config, &self.key).await.unwrap();
            connection.open_subsystem("bastio-agent").await.unwrap()
        }

        /// What the node says of the server.
        fn server(&self, node: &Node) -> Value {
            ask(node.http, &self.token, "GET", "/api/v1/servers/web", &Value::Null).1
        }

        /// Waits until both nodes say that much of the server.
        fn both_say(&self, limit: u64, what: &str) {
            for node in [&self.first, &self.second] {
                let said = || self.server(node).to_string();
                let limit = Duration::from_secs(limit);
                until(limit, &format!("{what} in {}", said()), || said().contains(what));
            }
        }

        fn reports(&self) -> usize {
            let log = ask(self.first.http, &self.token, "GET", "/api/v1/log", &Value::Null).1;
            log.to_string().matches("server.rivals").count()
        }
    }

    async fn ended(machine: Subsystem) {
        let (mut reader, _writer, _link) = machine.split();
        let end = async { while reader.recv().await.is_some() {} };
        tokio::time::timeout(Duration::from_secs(10), end).await.expect("it is ended");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_key_used_at_two_nodes_is_told_with_both_addresses() {
        let pair = Pair::start("newest").await;
        let right = pair.machine(&pair.first, 11).await;
        pair.both_say(10, "\"presence\":\"connected\"");
        assert_eq!(pair.reports(), 0);
        let stolen = pair.machine(&pair.second, 12).await;
        pair.both_say(
            10,
            "a session from 127.0.0.12 while one from 127.0.0.11 was open at another node",
        );
        ended(right).await;
        assert_eq!(pair.reports(), 1);
        // The same machine may go from one node to the other.
        drop(stolen);
        let again = pair.machine(&pair.first, 12).await;
        pair.both_say(10, "\"presence\":\"connected\"");
        drop(again);
        assert_eq!(pair.reports(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_key_used_at_two_nodes_is_cut_at_both_where_that_is_the_policy() {
        let pair = Pair::start("cut").await;
        let right = pair.machine(&pair.first, 11).await;
        pair.both_say(10, "\"presence\":\"connected\"");
        let stolen = pair.machine(&pair.second, 12).await;
        ended(stolen).await;
        ended(right).await;
        pair.both_say(10, "both were cut: a session from 127.0.0.12 while one from 127.0.0.11");
        for node in [&pair.first, &pair.second] {
            ended(pair.machine(node, 11).await).await;
        }
        let path = "/api/v1/servers/web/accept";
        let (status, body) = ask(pair.second.http, &pair.token, "POST", path, &json!({}));
        assert_eq!(status, 200, "{body}");
        let _served = pair.machine(&pair.first, 11).await;
        pair.both_say(10, "\"presence\":\"connected\"");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_first_stays_whichever_node_the_second_tries() {
        let pair = Pair::start("first").await;
        let (mut right, _writer, _link) = pair.machine(&pair.first, 11).await.split();
        pair.both_say(10, "\"presence\":\"connected\"");
        ended(pair.machine(&pair.second, 12).await).await;
        pair.both_say(10, "the second was refused: a session from 127.0.0.12");
        pair.both_say(10, "\"presence\":\"connected\"");
        let end = tokio::time::timeout(Duration::from_millis(100), right.recv()).await;
        assert!(end.is_err(), "the first goes on");
    }

    fn each_did_everything_once(journals: &[Journal]) {
        let mut expected: Vec<String> = (0..PEOPLE)
            .flat_map(|user| [format!("add-key user{user}"), format!("add-user user{user}")])
            .collect();
        expected.sort();
        for journal in journals {
            let mut done: Vec<String> =
                journal.lock().unwrap().values().map(|(what, _)| what.clone()).collect();
            done.sort();
            assert_eq!(done, expected, "each under one id, whichever node sent it how often");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_killed_under_load_loses_nothing_and_its_agents_are_served_by_the_other() {
        let folder = tempfile::tempdir().unwrap();
        make_cluster_key(folder.path());
        let url = database().await;
        let mut first = Node::start(folder.path(), "first", &url);
        let token = first.token();
        let second = Node::start(folder.path(), "second", &url);

        // The second has joined: same keys, same token.
        let host_key = |node: &Node| {
            let path = "/api/external/backend/host_key?type=ed25519";
            ask(node.http, &token, "GET", path, &Value::Null).1["payload"].clone()
        };
        assert_eq!(host_key(&first), host_key(&second));
        let line = host_key(&first);
        let pin: HostKeyPin = line.as_str().unwrap().parse().unwrap();

        let mut tasks = JoinSet::new();
        let journals = agents(&[&first, &second], &token, &pin, &mut tasks);
        let connected = |node: &Node| {
            ask(node.http, &token, "GET", "/api/v1/status", &Value::Null).1["connected"].clone()
        };
        for node in [&first, &second] {
            until(Duration::from_secs(20), "both nodes see all agents", || {
                connected(node) == json!(AGENTS)
            });
        }

        // The edits are made at the second node; half of the agents are at the first.
        let mut killed = Instant::now();
        for number in 0..PEOPLE {
            let key = PrivateKey::generate(KeyKind::Ed25519).unwrap().public_line();
            let user = json!({ "name": format!("user{number}"), "keys": [key], "on": "*" });
            let (status, body) = ask(second.http, &token, "POST", "/api/v1/users", &user);
            assert_eq!(status, 200, "{body}");
            if number == PEOPLE / 2 {
                first.child.kill().unwrap();
                first.child.wait().unwrap();
                killed = Instant::now();
            }
        }
        // Only an agent that has come to the second node can have confirmed the last edit.
        until(SERVED_WITHIN, "everything is confirmed", || {
            let status = ask(second.http, &token, "GET", "/api/v1/status", &Value::Null).1;
            assert_eq!(status["failed"], 0, "{status}");
            status["queued"] == 0 && status["sent"] == 0
        });
        println!("all was confirmed {:?} after the first node was killed", killed.elapsed());
        assert_eq!(connected(&second), json!(AGENTS));
        tasks.shutdown().await;
        each_did_everything_once(&journals);
        let path = "/api/v1/log?limit=1000";
        let (status, rows) = ask(second.http, &token, "GET", path, &Value::Null);
        assert_eq!(status, 200, "{rows}");
        let text = rows.to_string();
        let confirmed = text.matches("action.done").count();
        assert_eq!(confirmed, AGENTS * PEOPLE * 2, "each is confirmed once");
    }
}
