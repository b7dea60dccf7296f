//! How long the processor takes for an added key, journal and all, against the least that any program must do for it:
//! write the same file aside, flush it, rename it, flush the folder, and flush one record of a journal.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use bastio_protocol::{Netstring, NetstringDecoder};
use bastio_tests::{World, fleet};
use serde_json::Value;

use crate::round_trip::{line, percentile, row};
use crate::{BenchError, CONNECT_LIMIT, agent_program};

/// Keys added and removed again, with the floor measured in between.
const ROUNDS: u32 = 400;
/// Rounds before counting begins.
const WARM_UP: u32 = 40;
/// The whole path may take so much longer than the floor.
const LIMIT: f64 = 1.5;
/// Both on the machine's disk: the server's `/home` is.
const STATE: &str = "/home/state";
const FLOOR: &str = "/home/floor";
/// Bytes that the journal holds of one added key, about.
const RECORD: usize = 400;

/// Runs it and prints the table.
pub fn run() -> Result<(), BenchError> {
    let world = World::new()?;
    let host = world.host("web-1").binary(agent_program()?);
    let host = host.home_on_disk().without_sshd().start()?;
    fleet::prepare_agent(&host)?;
    let (ours, theirs) = UnixStream::pair().map_err(|e| BenchError::File("a socket pair", e))?;
    ours.set_read_timeout(Some(CONNECT_LIMIT)).map_err(|e| BenchError::File("a socket", e))?;
    let command = host.command("bastio-agent").arg("processor").env("BASTIO_AGENT_STATE", STATE);
    let _processor = command.stdin(OwnedFd::from(theirs)).spawn()?;
    let mut processor = Processor { socket: ours, decoder: NetstringDecoder::new(1 << 20) };
    let (mut path, mut floor) = host.within(|| measure(&mut processor))??;
    path.sort();
    floor.sort();
    println!("\nadd-key, the processor alone ({ROUNDS} rounds, in turn with the floor)\n");
    println!("{:<44} {:>10} {:>10}", "", "p50 ms", "p99 ms");
    row("floor: that file and one journal record", &floor);
    row("processor: journal, accounts, key file", &path);
    let ratio = percentile(&path, 50).as_secs_f64() / percentile(&floor, 50).as_secs_f64();
    println!("\nratio of the medians: {ratio:.2} (promised: at most {LIMIT})");
    if ratio > LIMIT {
        let text = format!("add-key takes {ratio:.2} times the floor, promised is {LIMIT}");
        return Err(BenchError::OverLimit(text));
    }
    Ok(())
}

/// The connector's end of the pipe.
struct Processor {
    socket: UnixStream,
    decoder: NetstringDecoder,
}

fn measure(processor: &mut Processor) -> Result<(Vec<Duration>, Vec<Duration>), BenchError> {
    let system = |error| BenchError::File("the pipe or the floor's files", error);
    while processor.receive().map_err(system)?.get("type") != Some(&"ready".into()) {}
    processor.ask("0", "add-user", r#","sudo":false"#)?;
    fs::create_dir_all(FLOOR).map_err(system)?;
    let journal = Path::new(FLOOR).join("journal");
    let mut journal = OpenOptions::new().create(true).append(true).open(journal).map_err(system)?;
    let (mut path, mut floor) = (Vec::new(), Vec::new());
    for number in 0..WARM_UP + ROUNDS {
        let key = format!(r#","public_key":"{}""#, line(number));
        let start = Instant::now();
        processor.send(&format!("a{number}"), "add-key", &key).map_err(system)?;
        processor.succeed()?;
        let took = start.elapsed();
        processor.delivered().map_err(system)?;
        let bytes = fs::read("/home/alice/.ssh/authorized_keys").map_err(system)?;
        processor.ask(&format!("r{number}"), "remove-key", &key)?;
        let start = Instant::now();
        write_floor(&mut journal, &bytes).map_err(system)?;
        if number >= WARM_UP {
            path.push(took);
            floor.push(start.elapsed());
        }
    }
    Ok((path, floor))
}

fn write_floor(journal: &mut File, bytes: &[u8]) -> std::io::Result<()> {
    let (aside, file) = (Path::new(FLOOR).join("aside"), Path::new(FLOOR).join("keys"));
    let mut writing = File::create(&aside)?;
    writing.write_all(bytes)?;
    writing.sync_all()?;
    fs::rename(&aside, &file)?;
    File::open(FLOOR)?.sync_all()?;
    journal.write_all(&[b'x'; RECORD])?;
    journal.sync_data()
}

impl Processor {
    fn send(&mut self, mid: &str, action: &str, rest: &str) -> std::io::Result<()> {
        let body = format!(
            r#"{{"type":"action","mid":"{mid}","action":"{action}","username":"alice"{rest}}}"#
        );
        self.socket.write_all(&Netstring::compose(body.as_bytes()))
    }

    fn delivered(&mut self) -> std::io::Result<()> {
        self.socket.write_all(&Netstring::compose(br#"{"type":"delivered","count":1}"#))
    }

    /// An action that is not measured.
    fn ask(&mut self, mid: &str, action: &str, rest: &str) -> Result<(), BenchError> {
        let pipe = |error| BenchError::File("the pipe", error);
        self.send(mid, action, rest).map_err(pipe)?;
        self.succeed()?;
        self.delivered().map_err(pipe)
    }

    fn succeed(&mut self) -> Result<(), BenchError> {
        let answer = self.receive().map_err(|error| BenchError::File("the pipe", error))?;
        if answer.get("status") == Some(&200.into()) {
            return Ok(());
        }
        Err(BenchError::Action(answer.to_string()))
    }

    fn receive(&mut self) -> std::io::Result<Value> {
        loop {
            if let Some(body) = self.decoder.next_body().map_err(std::io::Error::other)? {
                return Ok(serde_json::from_slice(&body)?);
            }
            let mut piece = [0; 4096];
            let len = self.socket.read(&mut piece)?;
            if len == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            self.decoder.push(piece.get(..len).unwrap_or_default());
        }
    }
}
