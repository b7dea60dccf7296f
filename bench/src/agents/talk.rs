//! What the benchmark and its child processes say to each other: one JSON object a line, asked on the
//! child's input and told on its output. Must not know what is done with it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// What a child is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Ask {
    /// The emulator's first line.
    Setup(Setup),
    /// Give every agent's key to the backend: [`Tell::Enrolled`].
    Enroll {
        /// Base URL of the API.
        url: String,
        /// An API key of role enroll; a secret.
        api_key: String,
    },
    /// Connect all agents, so many at a time: [`Tell::Up`] when all are.
    Connect {
        /// Attempts at a time.
        parallel: usize,
    },
    /// Tell [`Tell::Up`] once every agent has connected anew from now on.
    AwaitUp,
    /// Tell [`Tell::Answered`] once so many agents have answered so many orders each from now on.
    Expect {
        /// Agents that answer.
        agents: usize,
        /// Orders of each.
        orders: usize,
    },
    /// Tell [`Tell::Ready`] at once, and [`Tell::Moved`] once all agents that this node serves now are
    /// served by another.
    AwaitMoved {
        /// The number of the node.
        node: usize,
    },
    /// Tell [`Tell::Counts`].
    Count,
    /// Keep so many half-open connections to the server from now on: [`Tell::Ready`].
    HalfOpen {
        /// Connections; 0 ends them.
        count: usize,
    },
    /// Bare server: send these bodies to so many agents and await as many echoes:
    /// [`Tell::Echoed`].
    FanOut {
        /// Agents.
        agents: usize,
        /// What each is sent, one frame each.
        bodies: Vec<String>,
    },
}

/// What the emulator is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setup {
    /// Agents.
    pub count: usize,
    /// Where they connect to: nodes of one fleet, or one server.
    pub targets: Vec<SocketAddr>,
    /// The host key that they pin.
    pub host_key: String,
    /// What goes wrong.
    pub faults: Faults,
}

/// What goes wrong with the emulated agents and their network.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, clap::Args)]
pub struct Faults {
    /// Percentage of answers that are held up as by lost packets (200 ms, doubled at each further
    /// loss).
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT")]
    pub lose: f64,
    /// Percentage of orders at which an agent crashes (before or after its answer) and comes back.
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT")]
    pub crash: f64,
    /// How long each order takes an agent, in milliseconds.
    #[arg(long, default_value_t = 0, value_name = "MS")]
    pub slow: u64,
}

/// What a child tells. Times are microseconds since the Unix epoch.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "snake_case")]
pub enum Tell {
    /// Ready for the next question.
    Ready,
    /// The bare server listens.
    Listening {
        /// Where.
        ssh: SocketAddr,
        /// Its host key.
        host_key: String,
    },
    /// All keys are enrolled.
    Enrolled {
        /// How long it took.
        seconds: f64,
    },
    /// All agents are connected.
    Up {
        /// When each was.
        at: Vec<u64>,
    },
    /// The expected answers are given.
    Answered {
        /// When each agent gave its last.
        at: Vec<u64>,
        /// What one of them was asked.
        sample: Vec<String>,
    },
    /// All echoes came back.
    Echoed {
        /// When the first was sent.
        begun: u64,
        /// When each agent's last came.
        at: Vec<u64>,
    },
    /// Agents have gone over to another node.
    Moved {
        /// When each was greeted there.
        at: Vec<u64>,
    },
    /// How the agents fared.
    Counts(Counts),
    /// It cannot go on.
    Failed {
        /// Why.
        why: String,
    },
}

/// How the agents fared so far.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Connected now.
    pub connected: usize,
    /// Attempts that failed, and connections that were lost.
    pub downs: usize,
    /// Attempts that the server asked to come back later.
    pub paced: usize,
    /// Orders obeyed.
    pub obeyed: u64,
    /// Orders that came again under the same id.
    pub repeated: u64,
    /// Orders that asked under another id for what the agent had done already.
    pub doubled: u64,
    /// Crashes played.
    pub crashes: u64,
}

/// Now, in microseconds since the Unix epoch.
pub fn micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Every agent has an address of its own, as servers have: 127.1.0.0 and on.
pub fn source(agent: usize) -> IpAddr {
    let number = u32::try_from(agent).unwrap_or(0) & 0x007f_ffff;
    IpAddr::V4(Ipv4Addr::from_bits(0x7f01_0000 + number))
}

/// Lets one more process of this machine have as many open files as it may.
pub fn raise_open_files() -> Result<u64, nix::Error> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}
