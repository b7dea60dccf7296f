//! `bastio-lab`: the lab by hand. Knows only the lab library.
//!
//! `bastio-lab prepare` makes the root file system that all servers share; `bastio-lab up NAME...` starts servers,
//! prints one line for each, and keeps them until its standard input ends or it is interrupted.

use std::io::{Read, Write};
use std::process::ExitCode;

use bastio_tests::{Host, LabError, Rootfs, World};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["prepare"] => Rootfs::ensure().map(drop),
        ["up", names @ ..] if !names.is_empty() => up(names),
        _ => {
            say("usage: bastio-lab prepare | bastio-lab up NAME...");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("bastio-lab: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn up(names: &[&str]) -> Result<(), LabError> {
    let world = World::new()?;
    let mut hosts: Vec<Host> = Vec::new();
    say(&format!("world {} {}", world.init_pid(), world.ip()));
    for name in names {
        let host = world.start_host(name)?;
        say(&format!("{name} {} {}", host.init_pid(), host.ip()));
        hosts.push(host);
    }
    say("ready; to look around: nsenter --all --root --wd -t PID; end with Ctrl-D or Ctrl-C");
    // An error here means the same as the end of the input: nobody is there any more.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    Ok(())
}

fn say(line: &str) {
    // Nobody reads it: nothing to be done about that.
    let _ = writeln!(std::io::stdout(), "{line}");
}
