//! What the tests of this crate share: keys that need no randomness, and a backend without ports.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bastio_protocol::api::{Change, NewUser, Terms};
use bastio_protocol::audit::{ChainedRow, LogFilter};
use bastio_protocol::{
    AccountSpec, ActionMessage, AgentHello, Facts, FeedbackMessage, KeyPolicy, MessageId,
    PublicKey, ServerName, SigningKey, Status, Username, V2,
};
use tempfile::TempDir;

use crate::access::{Admin, ApiKeys, Enroller, Intent, first_admin_token};
use crate::dispatch::{Dispatch, Session, SessionInfo};
use crate::fleet::{Enrolled, Enrolment, Fleet, MAX_LOG};
use crate::signing::Signer;
use crate::store::audit::Page;
use crate::store::{DatabaseUrl, Location, Store};

/// The time in tests: it stands still.
pub(crate) const NOW: i64 = 1_800_000_000;
/// A PostgreSQL server for tests: its URL. Without it they run on SQLite. `tests/with-postgres` sets it.
const TEST_STORE: &str = "BASTIO_TEST_STORE";
pub(crate) const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

fn string(bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).expect("short");
    [&len.to_be_bytes(), bytes].concat()
}

fn line(kind: &str, fields: &[&[u8]], comment: &str) -> PublicKey {
    let mut blob = string(kind.as_bytes());
    fields.iter().for_each(|field| blob.extend(string(field)));
    let text = format!("{kind} {} {comment}", STANDARD.encode(blob));
    PublicKey::parse(&text, &KeyPolicy::ANY).expect("a key line")
}

/// An Ed25519 key; another one for each number.
pub(crate) fn key(number: u8) -> PublicKey {
    line("ssh-ed25519", &[&[number; 32]], &format!("key{number}@test"))
}

/// As [`key`], where there are many.
pub(crate) fn numbered_key(number: usize) -> PublicKey {
    let mut bytes = [0xff; 32];
    bytes.iter_mut().zip(number.to_be_bytes()).for_each(|(place, byte)| *place = byte);
    line("ssh-ed25519", &[&bytes], &format!("key{number}@test"))
}

/// An RSA key of so many bytes.
pub(crate) fn rsa_key(number: u8, bytes: usize) -> PublicKey {
    let mut modulus = vec![0, 0x80 | number];
    modulus.resize(bytes + 1, 1);
    line("ssh-rsa", &[&[1, 0, 1], &modulus], &format!("rsa{number}@test"))
}

/// A key that a FIDO token holds.
pub(crate) fn token_key() -> PublicKey {
    line("sk-ssh-ed25519@openssh.com", &[&[9; 32], b"ssh:"], "token@test")
}

/// A key that signs orders or receipts, another one for each seed: PKCS#8 (RFC 8410) around it.
pub(crate) fn signing_key(seed: u8) -> SigningKey {
    let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    SigningKey::from_pkcs8(&[&head[..], &[seed; 32]].concat()).expect("a signing key")
}

/// Signs orders that are good for five minutes.
pub(crate) fn signer() -> Signer {
    Signer::new(Arc::new(signing_key(7)), Duration::from_secs(300))
}

/// What was handed over to that session.
pub(crate) fn handed(session: &Session) -> Vec<ActionMessage> {
    let handed = session.handed().expect("a session");
    handed.into_iter().map(|one| ActionMessage::clone(&one.message)).collect()
}

pub(crate) fn login(text: &str) -> Username {
    Username::parse(text).expect("a login name")
}

pub(crate) fn host(text: &str) -> ServerName {
    ServerName::parse(text).expect("a server name")
}

/// Whether the tests are run on PostgreSQL.
pub(crate) fn on_postgres() -> bool {
    std::env::var_os(TEST_STORE).is_some()
}

/// Where a test of that folder has its database: a schema of its own on the server of [`TEST_STORE`],
/// or a file.
pub(crate) async fn fresh_location(dir: &TempDir) -> Location {
    use sqlx::{Connection as _, Executor as _};
    let Ok(server) = std::env::var(TEST_STORE) else { return dir.path().join("bastio.db").into() };
    let folder = dir.path().file_name().and_then(|name| name.to_str()).expect("a folder's name");
    let schema: String = folder.chars().filter(char::is_ascii_alphanumeric).collect();
    let mut db = sqlx::PgConnection::connect(&server).await.expect("the PostgreSQL of the tests");
    let make = sqlx::AssertSqlSafe(format!("CREATE SCHEMA \"{schema}\""));
    db.execute(make).await.expect("a schema");
    db.close().await.expect("closed");
    let sign = if server.contains('?') { '&' } else { '?' };
    let url = format!("{server}{sign}options=-csearch_path%3D%22{schema}%22");
    Location::Postgres(Box::new(url.parse::<DatabaseUrl>().expect("a URL")))
}

/// A database of a role of its own, which a test may take rights from; and the role.
pub(crate) async fn own_role() -> (Location, String) {
    use sqlx::{Connection as _, Executor as _};
    let server =
        std::env::var(TEST_STORE).expect("this test needs PostgreSQL: tests/with-postgres");
    let role = format!("role{:032x}", rand::random::<u128>());
    let mut db = sqlx::PgConnection::connect(&server).await.expect("the PostgreSQL of the tests");
    let make = format!("CREATE ROLE {role} LOGIN; CREATE SCHEMA {role} AUTHORIZATION {role}");
    db.execute(sqlx::AssertSqlSafe(make)).await.expect("a role");
    db.close().await.expect("closed");
    // The schema of a role's name is the first that it looks into.
    let url = server.replacen("postgres://bastio@", &format!("postgres://{role}@"), 1);
    (Location::Postgres(Box::new(url.parse::<DatabaseUrl>().expect("a URL"))), role)
}

/// A fresh backend in a folder of its own.
pub(crate) struct TestBackend {
    pub(crate) dir: TempDir,
    pub(crate) location: Location,
    pub(crate) store: Store,
    pub(crate) dispatch: Dispatch,
    pub(crate) fleet: Fleet,
    pub(crate) keys: ApiKeys,
    pub(crate) admin: Admin,
    pub(crate) enroller: Enroller,
    pub(crate) token: String,
}

/// The agent of a session says the hello of version 2.
pub(crate) async fn meet(session: &mut Session) {
    let hello = AgentHello {
        protocol: V2,
        facts: Facts::default(),
        last_sequence: 0,
        signing_key: None,
        receipt_key: None,
        time: None,
        together: false,
    };
    session.met(&hello).await.expect("a store");
}

impl TestBackend {
    /// On the engine that the tests are run for.
    pub(crate) async fn new() -> Self {
        Self::with_clock(|| NOW).await
    }

    /// With a clock of the test's own.
    pub(crate) async fn with_clock(clock: fn() -> i64) -> Self {
        let dir = TempDir::new().expect("a folder");
        let location = fresh_location(&dir).await;
        Self::open(dir, location, clock).await
    }

    /// On SQLite, for what only a file can have.
    pub(crate) async fn on_file() -> Self {
        let dir = TempDir::new().expect("a folder");
        let location = dir.path().join("bastio.db").into();
        Self::open(dir, location, || NOW).await
    }

    /// On PostgreSQL, as a role of its own; the role.
    pub(crate) async fn of_own_role() -> (Self, String) {
        let (location, role) = own_role().await;
        (Self::open(TempDir::new().expect("a folder"), location, || NOW).await, role)
    }

    async fn open(dir: TempDir, location: Location, clock: fn() -> i64) -> Self {
        let store = Self::open_store(&location, clock).await;
        let secret = first_admin_token(&store).await.expect("a store").expect("a first token");
        Self::assemble(dir, location, store, secret.expose().to_owned()).await
    }

    /// The same database opened anew, the old one neither closed nor waited for: what a killed
    /// backend leaves behind.
    pub(crate) async fn after_kill(self) -> Self {
        let Self { dir, location, token, store: killed, .. } = self;
        let store = Self::open_store(&location, || NOW).await;
        std::mem::forget(killed);
        Self::assemble(dir, location, store, token).await
    }

    async fn open_store(location: &Location, clock: fn() -> i64) -> Store {
        Store::open_with_clock(location, clock).await.expect("a store")
    }

    async fn assemble(dir: TempDir, location: Location, store: Store, token: String) -> Self {
        let dispatch = Dispatch::new(store.clone());
        let keys = ApiKeys::new(store.clone());
        let fleet = Fleet::new(store.clone(), dispatch.clone());
        let admin = keys.admin(&token, Some(ADDRESS)).await.expect("an admin");
        // What stops an edit has tests of its own.
        let admin = admin.with_intent(Intent { confirmed: true, ..Intent::default() });
        let enroller = keys.enroller(&token, Some(ADDRESS)).await.expect("an enroller");
        Self { dir, location, store, dispatch, fleet, keys, admin, enroller, token }
    }

    /// Enrols a server whose agent has the key of that number.
    pub(crate) async fn enroll(&self, name: &str, number: u8) -> Enrolled {
        let name = Some(host(name));
        let request = Enrolment { name, ..Enrolment::of(key(number)) };
        self.fleet.enroll(&self.enroller, &request).await.expect("enrolled")
    }

    /// The agent with the key of that number logs in.
    pub(crate) async fn connect(&self, number: u8) -> Session {
        self.connect_as(number, false).await
    }

    pub(crate) async fn connect_as(&self, number: u8, legacy: bool) -> Session {
        let server = self.dispatch.identify(&key(number)).await.expect("a store");
        let ident = if legacy { "SSH-2.0-bastio-0.1.2" } else { "SSH-2.0-test" };
        let info = SessionInfo { address: ADDRESS, ident: ident.into(), legacy };
        self.dispatch.open(&server.expect("on record"), info).await.expect("opened")
    }

    /// The agent with the key of that number logs in and speaks version 2.
    pub(crate) async fn connect_v2(&self, number: u8) -> Session {
        let mut session = self.connect(number).await;
        meet(&mut session).await;
        session
    }

    /// `bastio user add NAME --key KEY... --on TARGET [--sudo]`
    pub(crate) async fn add_user(
        &self,
        name: &str,
        keys: &[PublicKey],
        on: &str,
        sudo: bool,
    ) -> Change {
        let new = new_user(name, keys, on, sudo);
        self.fleet.add_user(&self.admin, &new).await.expect("added")
    }

    /// The rows of the audit log that pass the filter.
    pub(crate) async fn log(&self, filter: &LogFilter) -> Vec<ChainedRow> {
        self.fleet.log(&self.admin, filter, Page::Last, MAX_LOG).await.expect("read")
    }

    /// Lets the agent answer everything with `status`, until nothing is left; what it was sent.
    pub(crate) async fn answer_all(&self, session: &Session, status: Status) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let actions = session.next(10).await.expect("a queue");
            if actions.is_empty() {
                return seen;
            }
            for action in actions {
                seen.push(format!("{} {}", action.action.name(), action.username));
                session.feedback(&action.reply(status, "as told")).await.expect("taken");
            }
        }
    }
}

pub(crate) fn new_user(name: &str, keys: &[PublicKey], on: &str, sudo: bool) -> NewUser {
    NewUser {
        name: login(name),
        full_name: String::new(),
        mail: String::new(),
        keys: keys.iter().map(ToString::to_string).collect(),
        on: (!on.is_empty()).then(|| on.parse().expect("a target")),
        sudo,
        terms: Terms::default(),
        spec: AccountSpec::default(),
        reason: String::new(),
    }
}

pub(crate) fn feedback(mid: &str, status: Status, text: &str) -> FeedbackMessage {
    FeedbackMessage::new(MessageId::from(mid), status, text)
}
