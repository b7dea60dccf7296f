//! `bastio-attacker HOME CANARIES SEED`: the owner of a home who swaps what is in it as fast as possible, against a root
//! program that works there.
//!
//! It runs under an account of its own and uses only what an account may. It swaps until its standard input ends, and then
//! says how often it did what, as one JSON object. Knows how key files are written (names, not code), and where the
//! canaries are: files outside the home that nobody may touch.

use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

mod attacks;
mod shapes;

use attacks::Attacker;

/// Swaps between two looks at standard input.
const BATCH: u32 = 64;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.as_slice() {
        [home, canaries, seed] => attack(home, canaries, seed),
        _ => Err(io::Error::other("usage: bastio-attacker HOME CANARIES SEED")),
    };
    if let Err(error) = result {
        let _ = writeln!(io::stderr(), "bastio-attacker: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn attack(home: &str, canaries: &str, seed: &str) -> io::Result<()> {
    let seed = seed.parse().map_err(io::Error::other)?;
    std::env::set_current_dir(home)?;
    let mut attacker = Attacker::prepare(canaries, seed)?;
    writeln!(io::stdout(), "ready")?;
    io::stdout().flush()?;
    while !has_ended(&io::stdin())? {
        for _ in 0..BATCH {
            attacker.strike();
        }
    }
    let counts = serde_json::to_string(attacker.counts()).map_err(io::Error::other)?;
    writeln!(io::stdout(), "{counts}")
}

/// Whether the other side has closed the pipe.
fn has_ended(input: &impl AsFd) -> io::Result<bool> {
    let mut watched = [PollFd::new(input, PollFlags::IN)];
    Ok(poll(&mut watched, Some(&Timespec::default()))? > 0)
}
