//! The work loop over a pipe, with accounts in memory.

use std::io::{Read, Write};
use std::sync::mpsc;
use std::thread::JoinHandle;

use bastio_protocol::{Action, NetstringDecoder, Status};
use tempfile::TempDir;

use super::super::StopHandle;
use super::super::tests::{Fake, message};
use super::*;
use crate::pipe::PIPE_LIMIT;
use crate::status::StatusReport;

mod orders;

struct Running {
    folder: TempDir,
    stop: Option<StopHandle>,
    ready: mpsc::Receiver<()>,
    thread: JoinHandle<Result<Ended, ProcessorError>>,
}

impl Running {
    fn start(source: SocketSource, folder: TempDir) -> Self {
        Self::start_with(source, folder, Obedience::default())
    }

    fn start_with(source: SocketSource, folder: TempDir, obedience: Obedience) -> Self {
        let (handle, stop) = Stop::new().unwrap();
        let (say_ready, ready) = mpsc::channel();
        let settings = ProcessorSettings {
            connector_user: None,
            status_file: folder.path().join("status.json"),
            state: folder.path().join("state"),
            obedience,
            key_policy: KeyPolicy::default(),
            keys: crate::sshd::KeyMode::Home,
            removal: Removal::default(),
            quarantine_days: 30,
            plain_sudo: PlainSudo::default(),
            break_glass: None,
            confirm_within: Duration::from_secs(60),
            drift: crate::drift::Policy::Report,
            ready: Some(Box::new(move || say_ready.send(()).unwrap())),
            heartbeat: None,
        };
        let thread = std::thread::spawn(move || run(source, settings, Fake::default(), stop, None));
        Self { folder, stop: Some(handle), ready, thread }
    }

    fn given() -> (Connector, Self) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let running = Self::start(SocketSource::Given(ours.into()), tempfile::tempdir().unwrap());
        (Connector::new(theirs).greeted(), running)
    }

    fn wait_ready(&self) {
        self.ready.recv_timeout(Duration::from_secs(10)).unwrap();
    }

    fn end(self) -> Ended {
        self.thread.join().unwrap().unwrap()
    }

    fn report(&self) -> StatusReport {
        StatusReport::read(&self.folder.path().join("status.json")).unwrap()
    }
}

struct Connector {
    socket: UnixStream,
    decoder: NetstringDecoder,
}

impl Connector {
    fn new(socket: UnixStream) -> Self {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { socket, decoder: NetstringDecoder::new(PIPE_LIMIT) }
    }

    /// After the processor's first word.
    fn greeted(mut self) -> Self {
        assert_eq!(self.receive(), Some(ToConnector::Ready));
        self
    }

    fn send(&mut self, message: &ToProcessor) {
        self.socket.write_all(&message.to_frame()).unwrap();
    }

    fn ask(&mut self, action: Action) -> Status {
        self.send(&ToProcessor::Action(message(action)));
        match self.receive() {
            Some(ToConnector::Feedback(feedback)) => {
                self.send(&ToProcessor::Delivered { count: 1 });
                feedback.status
            }
            other => panic!("{other:?}"),
        }
    }

    /// `None` at the end of the stream.
    fn receive(&mut self) -> Option<ToConnector> {
        loop {
            if let Some(body) = self.decoder.next_body().unwrap() {
                return Some(ToConnector::parse(&body).unwrap());
            }
            let mut piece = [0; 4096];
            match self.socket.read(&mut piece) {
                Ok(0) => return None,
                Ok(len) => self.decoder.push(&piece[..len]),
                // A socket closed with something unread in it ends with a reset.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

const ADD: Action = Action::AddUser { sudo: false };

#[test]
fn answers_each_action_and_ends_with_the_connector() {
    let (mut connector, running) = Running::given();
    assert_eq!(connector.ask(ADD), Status::Done);
    assert_eq!(connector.ask(ADD), Status::Unchanged);
    assert_eq!(connector.ask(Action::RemoveUser { removal: None }), Status::Done);
    drop(connector);
    assert_eq!(running.end(), Ended::ConnectorGone);
}

#[test]
fn a_stop_is_announced_and_ends_it() {
    let (mut connector, mut running) = Running::given();
    assert_eq!(connector.ask(ADD), Status::Done);
    running.stop = None;
    assert_eq!(connector.receive(), Some(ToConnector::Stopping));
    assert_eq!(connector.receive(), None);
    assert_eq!(running.end(), Ended::Stopped);
}

#[test]
fn the_state_of_the_link_and_counts_are_written() {
    let (mut connector, running) = Running::given();
    let link = LinkState::Connected { backend: "b:1".into(), since: 9 };
    connector.send(&ToProcessor::Link(link.clone()));
    connector.ask(ADD);
    connector.ask(ADD);
    let report = running.report();
    assert_eq!(report.link, Some(link));
    assert_eq!((report.actions.done, report.actions.unchanged), (1, 1));
}

#[test]
fn forbidden_messages_end_the_connector() {
    let (mut connector, running) = Running::given();
    connector.socket.write_all(&ToConnector::Stopping.to_frame()).unwrap();
    assert_eq!(connector.receive(), None);
    assert_eq!(running.end(), Ended::ConnectorGone);
}

#[test]
fn listening_serves_one_connector_after_another_until_the_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("processor.sock");
    // A socket left over by a crash is replaced.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut running = Running::start(SocketSource::Listen(path.clone()), folder);
    running.wait_ready();
    for expected in [Status::Done, Status::Unchanged] {
        let mut connector = Connector::new(UnixStream::connect(&path).unwrap()).greeted();
        assert_eq!(connector.ask(ADD), expected);
    }
    running.stop = None;
    assert_eq!(running.thread.join().unwrap().unwrap(), Ended::Stopped);
    assert!(!path.exists());
}

#[test]
fn a_second_connector_waits_for_the_end_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("processor.sock");
    let running = Running::start(SocketSource::Listen(path.clone()), folder);
    running.wait_ready();
    let mut first = Connector::new(UnixStream::connect(&path).unwrap()).greeted();
    assert_eq!(first.ask(ADD), Status::Done);
    let mut second = Connector::new(UnixStream::connect(&path).unwrap());
    second.send(&ToProcessor::Action(message(ADD)));
    assert_eq!(first.ask(Action::RemoveUser { removal: None }), Status::Done);
    drop(first);
    // Done, not Unchanged: it was carried out after the removal.
    let mut second = second.greeted();
    let answer = second.receive();
    assert!(
        matches!(&answer, Some(ToConnector::Feedback(f)) if f.status == Status::Done),
        "{answer:?}"
    );
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("processor.sock");
    std::fs::write(&path, "precious").unwrap();
    let running = Running::start(SocketSource::Listen(path.clone()), folder);
    let error = running.thread.join().unwrap().unwrap_err().to_string();
    assert!(error.contains("is no socket, and is left alone"), "{error}");
    assert_eq!(std::fs::read_to_string(path).unwrap(), "precious");
}

#[test]
fn a_path_where_another_processor_listens_is_not_taken_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("processor.sock");
    let first = Running::start(SocketSource::Listen(path.clone()), folder);
    first.wait_ready();
    let second = Running::start(SocketSource::Listen(path.clone()), tempfile::tempdir().unwrap());
    let error = second.thread.join().unwrap().unwrap_err().to_string();
    assert!(error.contains("another processor listens at"), "{error}");
    let mut connector = Connector::new(UnixStream::connect(&path).unwrap()).greeted();
    assert_eq!(connector.ask(ADD), Status::Done);
}

#[test]
fn a_missing_connector_account_is_told() {
    let error = Peers::with(Some("no-such-account")).unwrap_err().to_string();
    assert!(error.contains("make it: useradd --system no-such-account"), "{error}");
}

#[test]
fn the_heartbeat_follows_progress() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (handle, stop) = Stop::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (beat, beats) = mpsc::channel();
    let settings = ProcessorSettings {
        connector_user: None,
        status_file: folder.path().join("status.json"),
        state: folder.path().join("state"),
        obedience: Obedience::default(),
        key_policy: KeyPolicy::default(),
        keys: crate::sshd::KeyMode::Home,
        removal: Removal::default(),
        quarantine_days: 30,
        plain_sudo: PlainSudo::default(),
        break_glass: None,
        confirm_within: Duration::from_secs(60),
        drift: crate::drift::Policy::Report,
        ready: None,
        heartbeat: Some(Heartbeat {
            every: Duration::from_millis(1),
            beat: Box::new(move || beat.send(()).unwrap()),
        }),
    };
    let thread = std::thread::spawn(move || {
        run(SocketSource::Given(ours.into()), settings, Fake::default(), stop, None)
    });
    let mut connector = Connector::new(theirs).greeted();
    for _ in 0..3 {
        connector.ask(ADD);
        // One for the action, one for the word that its answer was delivered.
        for _ in 0..2 {
            beats.recv_timeout(Duration::from_secs(10)).unwrap();
        }
    }
    drop(handle);
    assert_eq!(thread.join().unwrap().unwrap(), Ended::Stopped);
    // Asked for every millisecond, but an idle processor keeps to 15 s.
    assert_eq!(beats.try_iter().count(), 0);
}

/// A service whose heart beats as often as a test likes, and its beats.
fn beating(stop: Stop, folder: &TempDir) -> (Service<Fake>, mpsc::Receiver<()>) {
    let (beat, beats) = mpsc::channel();
    let beat = Box::new(move || beat.send(()).unwrap());
    let service = Service {
        pause: Some(Duration::from_millis(5)),
        once: Once::new(
            Processor::new(Fake::default(), KeyPolicy::default()),
            Journal::open(&folder.path().join("state")).unwrap(),
        ),
        verifier: Verifier::new(Obedience::default(), folder.path()).unwrap(),
        status: StatusFile::new(folder.path().join("status.json")),
        heartbeat: Some(Heartbeat { every: Duration::from_secs(60), beat }),
        stop,
        tender: None,
        words: Vec::new(),
    };
    (service, beats)
}

fn three_beats(beats: &mpsc::Receiver<()>) {
    for _ in 0..3 {
        beats.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}

#[test]
fn an_idle_processor_beats_with_a_connector_and_without() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("processor.sock");
    let (handle, stop) = Stop::new().unwrap();
    let (mut service, beats) = beating(stop, &folder);
    let peers = Peers::with(None).unwrap();
    let listener = Listener::bind(&path, peers).unwrap();
    let thread = std::thread::spawn(move || service.serve_all(&listener, peers).unwrap());
    three_beats(&beats);
    let mut connector = Connector::new(UnixStream::connect(&path).unwrap()).greeted();
    assert_eq!(connector.ask(ADD), Status::Done);
    beats.try_iter().for_each(drop);
    three_beats(&beats);
    drop(handle);
    assert_eq!(thread.join().unwrap(), Ended::Stopped);
}

#[test]
fn an_answer_that_no_connector_delivered_is_the_first_that_the_next_one_gets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("processor.sock");
    let running = Running::start(SocketSource::Listen(path.clone()), folder);
    running.wait_ready();
    let mut first = Connector::new(UnixStream::connect(&path).unwrap()).greeted();
    first.send(&ToProcessor::Action(message(ADD)));
    let answer = first.receive();
    assert!(matches!(&answer, Some(ToConnector::Feedback(f)) if f.status == Status::Done));
    drop(first);
    let mut second = Connector::new(UnixStream::connect(&path).unwrap());
    assert_eq!(second.receive(), answer);
    let mut second = second.greeted();
    // A new connection to the backend, which asks again and delivers.
    let link = LinkState::Connected { backend: "b:1".into(), since: 9 };
    second.send(&ToProcessor::Link(link));
    second.send(&ToProcessor::Action(message(ADD)));
    assert_eq!(second.receive(), Some(ToConnector::Answered));
    second.send(&ToProcessor::Delivered { count: 1 });
    assert_eq!(second.ask(ADD), Status::Unchanged, "asked once more on purpose");
    assert_eq!(running.report().actions.done, 1);
}

#[test]
fn a_connector_with_more_in_flight_than_it_may_have_is_ended() {
    let (mut connector, running) = Running::given();
    let mut sender = connector.socket.try_clone().unwrap();
    let thread = std::thread::spawn(move || {
        for mid in 0..=IN_FLIGHT as u64 {
            let mut message = message(Action::RemoveUser { removal: None });
            message.mid = bastio_protocol::MessageId::from_number(mid);
            // The last may meet a closed socket.
            let _ = sender.write_all(&ToProcessor::Action(message).to_frame());
        }
    });
    let mut answers = 0;
    while connector.receive().is_some() {
        answers += 1;
    }
    assert_eq!(answers, IN_FLIGHT);
    thread.join().unwrap();
    assert_eq!(running.end(), Ended::ConnectorGone);
}

#[test]
fn a_second_processor_on_the_same_journal_is_refused() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let _journal = Journal::open(&folder.path().join("state")).unwrap();
    let running = Running::start(SocketSource::Given(ours.into()), folder);
    let error = running.thread.join().unwrap().unwrap_err().to_string();
    assert!(error.contains("another processor keeps the journal"), "{error}");
}
