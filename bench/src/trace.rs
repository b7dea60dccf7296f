//! Which code of the agent runs on every server: both processes under callgrind (valgrind), from their start to their stop, with
//! an order in between. `bench/link-order` makes the linker's list of it. No benchmark: it measures nothing.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bastio_tests::{Host, Running, World, fleet};

use crate::{Backend, BenchError, CONNECT_LIMIT, agent_program};

/// What valgrind needs of this machine, besides its first argument: that goes for Debian's package.
const PARTS: [&str; 4] = [
    "/usr/bin/valgrind.bin",
    "/usr/libexec/valgrind/callgrind-amd64-linux",
    "/usr/libexec/valgrind/vgpreload_core-amd64-linux.so",
    "/usr/libexec/valgrind/default.supp",
];
const SOCKET: &str = "/run/trace.sock";
/// Where the traces are, on the server; the connector writes its own after it has given up its rights.
const TRACES: &str = "/var/traces";
/// All is some fifty times slower than usual.
const SLOWER: u32 = 6;
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Writes `processor.trace` and `connector.trace` beside the agent's program.
pub fn run() -> Result<(), BenchError> {
    let program = agent_program()?;
    let world = World::new()?;
    let backend = Backend::start(&world)?;
    let host = world.host("web-1").binary(&program).home_on_disk().start()?;
    fleet::prepare_agent(&host)?;
    fleet::enroll_command(&host, &backend.enroll_key("trace")?).check()?;
    host.exec(&["mkdir", "--parents", "/usr/libexec/valgrind"])?;
    host.exec(&["mkdir", TRACES])?;
    for part in PARTS {
        host.copy_in(part, part)?;
    }
    let mut processor = traced(&host, "processor", "--listen")?;
    while !host.exists(SOCKET)? {
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut connector = traced(&host, "connector", "--connect")?;
    backend.wait_connected(1, CONNECT_LIMIT * SLOWER)?;
    // Refused by the server: valgrind (3.19) lacks the system call that the account tools are started with.
    backend.console(&["user", "add", "alice", "--on", "web-1"])?.run()?;
    for process in [&mut connector, &mut processor] {
        process.stop(STOP_LIMIT)?;
    }
    let folder = program.parent().unwrap_or(Path::new("."));
    for name in ["processor", "connector"] {
        let target = folder.join(name).with_extension("trace");
        fs::write(&target, host.read_file(format!("{TRACES}/{name}"))?)
            .map_err(|error| BenchError::File("a trace", error))?;
        println!("{}", target.display());
    }
    Ok(())
}

fn traced(host: &Host, name: &str, socket: &str) -> Result<Running, BenchError> {
    let target = format!("{TRACES}/{name}");
    host.exec(&["install", "--mode=0666", "/dev/null", &target])?;
    let command = host.command("/usr/bin/valgrind.bin");
    let command = command.args(["--tool=callgrind", "--dump-instr=yes"]);
    let command = command.arg(format!("--callgrind-out-file={target}"));
    let command = command.args(["/usr/bin/bastio-agent", name, socket, SOCKET]);
    Ok(command.log_to(format!("/var/log/{name}.log")).spawn()?)
}
