//! A processor alone on a server, with the benchmark as its connector. Knows the pipe, not what is measured.

use std::time::{Duration, Instant};

use bastio_protocol::{Action, ActionMessage, HostMessage, HostRequest, MessageId, Username};
use bastio_tests::{Host, Pipe, Running, World, fleet};
use serde_json::Value;

use crate::{BenchError, agent_program};

/// Its journal is on the machine's disk: the server's `/home` is.
const STATE: &str = "/home/state";

/// One server with a processor that was just started.
pub struct Bench {
    /// Before the server: it ends first.
    _processor: Running,
    pipe: Pipe,
    pub host: Host,
    asked: u64,
}

impl Bench {
    pub fn start(world: &World, name: &str) -> Result<Self, BenchError> {
        let host = server(world, name)?;
        let (mut pipe, theirs) = Pipe::new().map_err(|e| BenchError::File("a socket pair", e))?;
        let command = fleet::as_its_unit_does(host.command("bastio-agent").arg("processor"));
        let processor = command.env("BASTIO_AGENT_STATE", STATE).stdin(theirs).spawn()?;
        while hear(&mut pipe)?.get("type") != Some(&"ready".into()) {}
        Ok(Self { _processor: processor, pipe, host, asked: 0 })
    }

    /// One action and how long it took until its answer was there. It must succeed.
    pub fn act(&mut self, user: &str, action: Action) -> Result<Duration, BenchError> {
        let username = Username::parse(user).map_err(|e| BenchError::Action(e.to_string()))?;
        let mid = self.next();
        let body = ActionMessage { mid, username, action }.to_json();
        self.ask(&body).map(|(took, _)| took)
    }

    /// A request about the whole server, which must succeed.
    pub fn request(&mut self, request: HostRequest) -> Result<(Duration, Value), BenchError> {
        let mid = self.next();
        let body = HostMessage { mid, request }.to_json();
        self.ask(&body)
    }

    fn next(&mut self) -> MessageId {
        self.asked += 1;
        MessageId::from_number(self.asked)
    }

    fn ask(&mut self, body: &[u8]) -> Result<(Duration, Value), BenchError> {
        let start = Instant::now();
        let broken = |error| BenchError::File("the pipe", error);
        self.pipe.say(&String::from_utf8_lossy(body)).map_err(broken)?;
        let answer = loop {
            let answer = hear(&mut self.pipe)?;
            if answer.get("type") == Some(&"feedback".into()) {
                break answer;
            }
        };
        let took = start.elapsed();
        self.pipe.delivered(1).map_err(broken)?;
        if matches!(answer.get("status").and_then(Value::as_u64), Some(200 | 300)) {
            return Ok((took, answer));
        }
        Err(BenchError::Action(answer.to_string()))
    }
}

/// A server with the agent's program, and with its homes and `/etc` on the machine's disk, as on a server they are: the
/// account tools wait for it, too.
pub fn server(world: &World, name: &str) -> Result<Host, BenchError> {
    let host = world.host(name).binary(agent_program()?);
    let host = host.home_on_disk().without_sshd().start()?;
    host.exec(&["cp", "--archive", "/etc", "/home/.etc"])?;
    host.exec(&["mount", "--bind", "/home/.etc", "/etc"])?;
    fleet::prepare_agent(&host)?;
    Ok(host)
}

fn hear(pipe: &mut Pipe) -> Result<Value, BenchError> {
    let word = pipe.hear().map_err(|error| BenchError::File("the pipe", error))?;
    word.ok_or_else(|| BenchError::Action("the processor has ended".to_owned()))
}
