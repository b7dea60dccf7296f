//! The floor of a fleet's figures: a bare SSH server with as many emulated agents, beside the backend that is measured.
//! Must not know what it is the floor of.

use std::time::Duration;

use super::child::Talker;
use super::figures::Times;
use super::process::pss_mib;
use super::talk::{Ask, Tell};
use super::{Options, connect, emulator, told_rate, unexpected};
use crate::BenchError;

/// Time for the server to become idle after its clients have connected.
const SETTLE: Duration = Duration::from_secs(2);

/// A bare server with its clients; both end when this is dropped.
pub struct Floor {
    bare: Talker,
    /// Its agents live as long as this.
    _emulator: Talker,
    /// How long they took to connect, in seconds.
    pub connected: f64,
    /// What the server holds then, in MiB.
    pub pss: f64,
}

impl Floor {
    /// Starts both processes and lets all agents connect.
    pub fn start(options: &Options) -> Result<Self, BenchError> {
        let bare = Talker::start("bare")?;
        let (target, host_key) = match bare.told()? {
            Tell::Listening { ssh, host_key } => (ssh, host_key),
            told => return Err(unexpected(&told)),
        };
        let mut emulator = emulator(options, options.count, vec![target], host_key)?;
        let connected = connect(&mut emulator, options.parallel)?;
        told_rate("bare", options.count, connected);
        std::thread::sleep(SETTLE);
        let pss = pss_mib(bare.pid())?;
        println!("bare: {pss:.1} MiB PSS");
        Ok(Self { bare, _emulator: emulator, connected, pss })
    }

    /// Sends these bodies to so many agents, and awaits as many answers of each.
    pub fn echo(&mut self, agents: usize, bodies: &[String]) -> Result<Times, BenchError> {
        match self.bare.answer(&Ask::FanOut { agents, bodies: bodies.to_vec() })? {
            Tell::Echoed { begun, at } => {
                let times = Times::since(begun, at);
                println!("bare echo on {agents}: p50 {:.3} s, last {:.3} s", times.p50, times.max);
                Ok(times)
            }
            told => Err(unexpected(&told)),
        }
    }
}
