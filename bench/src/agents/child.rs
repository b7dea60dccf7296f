//! A child process of the benchmark: started, asked, and ended with its owner. Must not know what it is asked.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::talk::{Ask, Tell};
use crate::BenchError;

/// The longest that anything asked may take.
pub const LIMIT: Duration = Duration::from_secs(600);

/// A running child; killed when dropped.
pub struct Talker {
    child: Child,
    input: ChildStdin,
    told: Receiver<Tell>,
}

impl Talker {
    /// Starts this program once more, as that part of the benchmark.
    pub fn start(part: &str) -> Result<Self, BenchError> {
        let program = std::env::current_exe().map_err(|e| BenchError::File("this program", e))?;
        let mut command = Command::new(program);
        let command = command.args(["agents", part]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| BenchError::File("a child", error))?;
        let lost = || BenchError::Child("a child without input or output".to_owned());
        let input = child.stdin.take().ok_or_else(lost)?;
        let output = BufReader::new(child.stdout.take().ok_or_else(lost)?);
        let (sender, told) = sync_channel(4);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let Ok(tell) = serde_json::from_str(&line) else { break };
                if sender.send(tell).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, input, told })
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(0)
    }

    /// Asks without waiting for an answer.
    pub fn ask(&mut self, ask: &Ask) -> Result<(), BenchError> {
        let mut line = serde_json::to_vec(ask).expect("numbers and texts always serialise");
        line.push(b'\n');
        self.input.write_all(&line).map_err(|error| BenchError::File("a child's input", error))
    }

    /// What it tells next.
    pub fn told(&self) -> Result<Tell, BenchError> {
        self.told_within(LIMIT)
    }

    /// What it tells next, in that time.
    pub fn told_within(&self, limit: Duration) -> Result<Tell, BenchError> {
        match self.told.recv_timeout(limit) {
            Ok(Tell::Failed { why }) => Err(BenchError::Child(why)),
            Ok(tell) => Ok(tell),
            Err(RecvTimeoutError::Timeout) => {
                Err(BenchError::Child(format!("a child told nothing for {} s", limit.as_secs())))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(BenchError::Child("a child has ended".to_owned()))
            }
        }
    }

    /// Asks and takes the answer.
    pub fn answer(&mut self, ask: &Ask) -> Result<Tell, BenchError> {
        self.ask(ask)?;
        self.told()
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
