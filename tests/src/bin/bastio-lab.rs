//! `bastio-lab`: the lab by hand. Knows only the lab library.
//!
//! `prepare` makes the root file system that all servers share. `up NAME...` starts servers, prints a line for each, and
//! keeps them until its standard input ends or it is interrupted. `keep NAME...` leaves them running.

use std::io::{Read, Write};
use std::process::ExitCode;

use bastio_tests::{Host, LabError, Rootfs, World};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["prepare"] => prepare(),
        ["up", names @ ..] if !names.is_empty() => up(names),
        ["keep", names @ ..] if !names.is_empty() => keep(names),
        _ => {
            say("usage: bastio-lab prepare | up NAME... | keep NAME...");
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

fn prepare() -> Result<(), LabError> {
    if Rootfs::find()?.is_none() {
        say("making the root file system of the isolated servers: once, about a minute");
    }
    Rootfs::ensure().map(drop)
}

fn up(names: &[&str]) -> Result<(), LabError> {
    let world = World::new()?;
    let _hosts = start(&world, names)?;
    say("ready; end with Ctrl-D or Ctrl-C");
    // An error here means the same as the end of the input: nobody is there any more.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    Ok(())
}

fn keep(names: &[&str]) -> Result<(), LabError> {
    let world = World::kept()?;
    let _hosts = start(&world, names)?;
    say(&format!("ready; end with: kill -9 {}", world.init_pid()));
    Ok(())
}

/// Prints for each place its name, its process 1 and its address. `nsenter --all --root --wd -t PID` looks around.
fn start(world: &World, names: &[&str]) -> Result<Vec<Host>, LabError> {
    say(&format!("world {} {}", world.init_pid(), world.ip()));
    names
        .iter()
        .map(|name| {
            let host = world.start_host(name)?;
            say(&format!("{name} {} {}", host.init_pid(), host.ip()));
            Ok(host)
        })
        .collect()
}

fn say(line: &str) {
    // Nobody reads it: nothing to be done about that.
    let _ = writeln!(std::io::stdout(), "{line}");
}
