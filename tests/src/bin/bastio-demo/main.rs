//! `bastio-demo`: the main job on three isolated servers, told step by step. Run by `make demo`.
//!
//! [`story`] is what happens, [`paper`] how it is printed, [`kept`] what is known about a demo that was left running.
//! Knows the lab library and nothing of bastio's code.

mod kept;
mod paper;
mod story;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::thread;

use nix::sys::signal::{SigSet, Signal};

use crate::kept::Kept;
use crate::paper::Paper;

/// What a shell reports for a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut paper =
        Paper::new(std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    let done = match words.as_slice() {
        ["run"] => run(&mut paper, false),
        ["run", "--keep"] => run(&mut paper, true),
        ["stop"] => Kept::stop().map(|()| paper.line("The demo has ended; nothing of it is left.")),
        ["shell", host] => Kept::shell(host),
        _ => {
            paper.line("usage: bastio-demo run [--keep] | stop | shell HOST");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            paper.problem(&problem.to_string());
            ExitCode::FAILURE
        }
    }
}

fn run(paper: &mut Paper, keep: bool) -> Result<(), story::Problem> {
    end_on_signals(keep)?;
    let told = story::tell(paper, keep);
    if told.is_err() && keep && Kept::is_running() {
        paper.line("\nIt was left running as it is: make demo-shell HOST=..., make demo-stop");
    }
    told
}

/// Ctrl-C and SIGTERM end this process at once; with it, the kernel ends all servers of a demo that is not kept.
fn end_on_signals(keep: bool) -> Result<(), story::Problem> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    // New threads inherit this; programs that are started do not.
    signals
        .thread_block()
        .map_err(|errno| story::Problem::Here(format!("block signals: {errno}")))?;
    thread::spawn(move || {
        if signals.wait().is_ok() {
            if keep {
                // Fails when nothing had been started yet.
                let _ = Kept::stop();
            }
            Paper::new(false).line("\nInterrupted; the servers are gone.");
            std::process::exit(INTERRUPTED);
        }
    });
    Ok(())
}
