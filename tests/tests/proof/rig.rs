//! A server with a processor that is started for each run anew, perhaps under a tracer. Knows how the pipe is spoken, not
//! what is proved.

use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bastio_protocol::{
    Action, ActionMessage, HostMessage, HostRequest, MessageId, Username, WantedState,
};
use bastio_tests::{Host, Pipe, World, binary};
use serde_json::Value;

const LOG: &str = "/var/log/processor.log";
/// How long a processor may take to end.
const END_LIMIT: Duration = Duration::from_secs(20);
/// How often something is asked again that was refused or cut short.
const ATTEMPTS: u64 = 5;

/// One server.
pub struct Rig {
    pub host: Host,
    _world: World,
}

/// What a processor is asked for.
#[derive(Debug, Clone)]
pub enum Wish {
    /// Something for this account.
    Action(&'static str, Action),
    /// The whole server.
    State(Box<WantedState>),
}

impl Wish {
    /// As the pipe spells it.
    pub fn body(&self, number: u64) -> String {
        match self {
            Self::Action(user, action) => body(number, user, action),
            Self::State(wanted) => {
                let request = HostRequest::Sync { wanted: wanted.clone(), dry_run: false };
                let message = HostMessage { mid: MessageId::from_number(number), request };
                String::from_utf8(message.to_json()).unwrap()
            }
        }
    }
}

/// What one run of a processor said.
#[derive(Debug, Default)]
pub struct Said {
    /// Answers of an earlier run, before the first word.
    pub left: Vec<Value>,
    /// The answer to each body, as far as it came.
    pub answers: Vec<Value>,
    /// When the first body was sent, in seconds since 1970.
    pub sent_at: f64,
}

impl Rig {
    pub fn new() -> Self {
        let world = World::new().unwrap();
        let host = world.host("web-1").binary(binary("bastio-agent").unwrap()).without_sshd();
        let host = host.start().unwrap();
        host.exec(&["useradd", "--system", "bastio"]).unwrap();
        Self { host, _world: world }
    }

    /// Runs a processor to its end; each body is sent when the one before was answered and delivered.
    pub fn run(&self, wrapper: &[&str], bodies: &[String]) -> Said {
        let (mut pipe, theirs) = Pipe::new().unwrap();
        let words = [wrapper, &["/usr/bin/bastio-agent", "processor"]].concat();
        let command = self.host.command(words[0]).args(&words[1..]).stdin(Stdio::from(theirs));
        let mut processor = command.log_to(LOG).spawn().unwrap();
        let mut said = Said::default();
        // Where it was killed, the pipe is closed.
        let _ = talk(&mut pipe, bodies, &mut said);
        drop(pipe);
        processor.wait(END_LIMIT).unwrap();
        said
    }

    /// Asks until it is done, as a backend and `start` would after whatever happened; the last answer. The wish was
    /// number 1 in the first run.
    pub fn insist(&self, first: &Said, wish: &Wish) -> Value {
        let mut last = first.answers.first().cloned();
        for number in 2..=ATTEMPTS {
            let bodies = match &last {
                // Once more also when it is done: what the run before left over is seen to.
                Some(answer) if succeeded(answer) => Vec::new(),
                Some(_) => vec![wish.body(number)],
                None => vec![wish.body(1)],
            };
            let said = self.run(&[], &bodies);
            let fresh = said.answers.into_iter().rfind(|answer| answer["type"] == "feedback");
            last = fresh.or(said.left.last().cloned()).or(last);
            if last.as_ref().is_some_and(succeeded) {
                break;
            }
        }
        last.expect("an answer, at the latest to the last attempt")
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.host.read_file(LOG).unwrap()).into_owned()
    }
}

pub fn succeeded(answer: &Value) -> bool {
    answer["status"] == 200 || answer["status"] == 300
}

/// An action as the pipe spells it.
pub fn body(number: u64, user: &str, action: &Action) -> String {
    let (mid, username) = (MessageId::from_number(number), Username::parse(user).unwrap());
    let message = ActionMessage { mid, username, action: action.clone() };
    String::from_utf8(message.to_json()).unwrap()
}

fn talk(pipe: &mut Pipe, bodies: &[String], said: &mut Said) -> std::io::Result<()> {
    while let Some(word) = pipe.hear()? {
        if word["type"] == "ready" {
            break;
        }
        said.left.push(word);
    }
    pipe.connected()?;
    pipe.delivered(said.left.len())?;
    said.sent_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    for body in bodies {
        pipe.say(body)?;
        let Some(answer) = pipe.hear_answer()? else { break };
        if answer["type"] == "feedback" {
            pipe.delivered(1)?;
        }
        said.answers.push(answer);
    }
    pipe.hang_up()?;
    while pipe.hear()?.is_some() {}
    Ok(())
}
