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

struct Running {
    folder: TempDir,
    stop: Option<StopHandle>,
    ready: mpsc::Receiver<()>,
    thread: JoinHandle<Result<Ended, ProcessorError>>,
}

impl Running {
    fn start(source: SocketSource, folder: TempDir) -> Self {
        let (handle, stop) = Stop::new().unwrap();
        let (say_ready, ready) = mpsc::channel();
        let settings = ProcessorSettings {
            connector_user: None,
            status_file: folder.path().join("status.json"),
            key_policy: KeyPolicy::default(),
            ready: Some(Box::new(move || say_ready.send(()).unwrap())),
            heartbeat: None,
        };
        let thread = std::thread::spawn(move || run(source, settings, Fake::default(), stop));
        Self { folder, stop: Some(handle), ready, thread }
    }

    fn given() -> (Connector, Self) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let running = Self::start(SocketSource::Given(ours.into()), tempfile::tempdir().unwrap());
        (Connector::new(theirs), running)
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

    fn send(&mut self, message: &ToProcessor) {
        self.socket.write_all(&message.to_frame()).unwrap();
    }

    fn ask(&mut self, action: Action) -> Status {
        self.send(&ToProcessor::Action(message(action)));
        match self.receive() {
            Some(ToConnector::Feedback(feedback)) => feedback.status,
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
            match self.socket.read(&mut piece).unwrap() {
                0 => return None,
                len => self.decoder.push(&piece[..len]),
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
    assert_eq!(connector.ask(Action::RemoveUser), Status::Done);
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
        let mut connector = Connector::new(UnixStream::connect(&path).unwrap());
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
    let mut first = Connector::new(UnixStream::connect(&path).unwrap());
    assert_eq!(first.ask(ADD), Status::Done);
    let mut second = Connector::new(UnixStream::connect(&path).unwrap());
    second.send(&ToProcessor::Action(message(ADD)));
    assert_eq!(first.ask(Action::RemoveUser), Status::Done);
    drop(first);
    // Done, not Unchanged: it was carried out after the removal.
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
    let mut connector = Connector::new(UnixStream::connect(&path).unwrap());
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
        key_policy: KeyPolicy::default(),
        ready: None,
        heartbeat: Some(Heartbeat {
            every: Duration::from_millis(1),
            beat: Box::new(move || beat.send(()).unwrap()),
        }),
    };
    let thread = std::thread::spawn(move || {
        run(SocketSource::Given(ours.into()), settings, Fake::default(), stop)
    });
    let mut connector = Connector::new(theirs);
    for _ in 0..3 {
        connector.ask(ADD);
        beats.recv_timeout(Duration::from_secs(10)).unwrap();
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
        processor: Processor::new(Fake::default(), KeyPolicy::default()),
        status: StatusFile::new(folder.path().join("status.json")),
        heartbeat: Some(Heartbeat { every: Duration::from_secs(60), beat }),
        stop,
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
    let mut connector = Connector::new(UnixStream::connect(&path).unwrap());
    assert_eq!(connector.ask(ADD), Status::Done);
    beats.try_iter().for_each(drop);
    three_beats(&beats);
    drop(handle);
    assert_eq!(thread.join().unwrap(), Ended::Stopped);
}
