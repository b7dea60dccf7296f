//! Version 1 of the wire against peers that are not ours: the scripted agent and backend of `tests/v1`, which run on
//! paramiko. This file runs them; it must not know what is tested.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use bastio_tests::{PlacedCommand, Running, World, binary};
use serde_json::Value;

mod agent;
mod backend;
mod states;
mod wire;

/// Longer than any one step of a peer takes.
const LIMIT: Duration = Duration::from_secs(40);

/// A command that runs one of the scripts.
fn script<'world>(world: &'world World, name: &str) -> PlacedCommand<'world> {
    let target = binary("bastio").unwrap().ancestors().nth(2).map(PathBuf::from).unwrap();
    let python = target.join("venv/bin/python");
    assert!(python.exists(), "{} is missing; make it: tests/install-tools test", python.display());
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("v1");
    world.command(python).env("PYTHONDONTWRITEBYTECODE", "1").arg(scripts.join(name))
}

/// A running script: events come out, steps go in.
struct Peer {
    process: Running,
    steps: Option<ChildStdin>,
    events: mpsc::Receiver<Value>,
}

impl Peer {
    fn start(command: PlacedCommand<'_>) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.stderr(Stdio::inherit()).spawn().unwrap();
        let output = BufReader::new(process.take_stdout().unwrap());
        let (sender, events) = mpsc::channel();
        // Ends with the script, whose output it reads.
        std::thread::spawn(move || {
            for line in output.lines() {
                let event = serde_json::from_str(&line.unwrap()).unwrap();
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        let steps = process.take_stdin();
        Self { process, steps, events }
    }

    /// The next event.
    fn event(&mut self) -> Value {
        self.events.recv_timeout(LIMIT).expect("the script said nothing in time")
    }

    /// The next event of that name, and those before it.
    fn until(&mut self, name: &str) -> (Value, Vec<Value>) {
        let mut before = Vec::new();
        loop {
            let event = self.event();
            if event["event"] == name {
                return (event, before);
            }
            assert_ne!(event["event"], "failed", "{event}, after {before:?}");
            before.push(event);
        }
    }

    fn begin(&mut self, steps: &Value) {
        writeln!(self.steps.as_mut().unwrap(), "{steps}").unwrap();
    }

    /// Has steps carried out; what happened meanwhile.
    fn run(&mut self, steps: &Value) -> Vec<Value> {
        self.begin(steps);
        self.until("done").1
    }

    /// The feedbacks to one line of steps.
    fn feedbacks(&mut self, steps: &Value) -> Vec<Feedback> {
        let events = self.run(steps);
        let connections = events.iter().filter(|event| event["event"] != "feedback");
        assert_eq!(connections.count(), 0, "{events:?}");
        events.iter().map(Feedback::of).collect()
    }

    /// The one feedback to one step.
    fn feedback(&mut self, step: &Value) -> Feedback {
        let mut feedbacks = self.feedbacks(step);
        assert_eq!(feedbacks.len(), 1, "{step}: {feedbacks:?}");
        feedbacks.remove(0)
    }

    /// Ends the scripted backend; every step must have gone as told.
    fn finish(mut self) {
        drop(self.steps.take());
        assert!(self.process.wait(LIMIT).unwrap().success());
    }
}

/// A feedback as it came over the wire.
#[derive(Debug)]
struct Feedback {
    /// JSON, to the letter.
    mid: String,
    status: u64,
    text: String,
}

impl Feedback {
    fn of(event: &Value) -> Self {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Wire {
            r#type: String,
            mid: Box<serde_json::value::RawValue>,
            status: u64,
            feedback: String,
        }
        let wire: Wire = serde_json::from_str(event["text"].as_str().unwrap()).unwrap();
        assert_eq!(wire.r#type, "feedback");
        Self { mid: wire.mid.get().to_owned(), status: wire.status, text: wire.feedback }
    }
}
