//! What happens in the demo, in order. Each step shows the command that does it and checks what came of it.

use std::time::{Duration, Instant};

use bastio_tests::fleet::{self, Backend, EnrollKey};
use bastio_tests::{
    Finished, Host, LabError, PlacedCommand, Running, SshClient, SshKey, World, binary,
};

use crate::kept::{Kept, WORLD};
use crate::paper::{Paper, milliseconds};

const NAMES: [&str; 3] = ["web-1", "web-2", "db-1"];
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
const READY_LIMIT: Duration = Duration::from_secs(20);
/// Log lines shown when the demo fails.
const LAST_LINES: usize = 12;
const CHECK: &str = "sudo id";

/// Why the demo could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The lab or a command in it failed.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// Something did not come out as it must.
    #[error("{0}")]
    Unexpected(String),
    /// Something of the demo's own.
    #[error("{0}")]
    Here(String),
}

/// The servers and their agents.
struct Servers {
    hosts: Vec<Host>,
    agents: Vec<Running>,
}

/// Tells the whole story. A demo to be kept stays, also when it fails half-way: then there is something to look at.
pub fn tell(paper: &mut Paper, keep: bool) -> Result<(), Problem> {
    if !bastio_tests::is_root() {
        return Err(Problem::Here("isolated servers need root; try: sudo make demo".into()));
    }
    if keep && Kept::is_running() {
        return Err(Problem::Here("a demo was left running; end it first: make demo-stop".into()));
    }
    paper.line("bastio: who may log in to which server, decided in one place.");
    paper.line(
        "Three isolated servers on this machine. Its own accounts and sshd are never touched.",
    );
    let world = if keep { World::kept()? } else { World::new()? };
    let mut kept = keep.then(Kept::default);
    if let Some(kept) = &mut kept {
        kept.add_place(WORLD, world.init_pid())?;
    }
    let mut servers = start_servers(paper, &world)?;
    let backend = start_backend(paper, &world)?;
    if let Some(kept) = &mut kept {
        servers.hosts.iter().try_for_each(|host| kept.add_place(host.name(), host.init_pid()))?;
        kept.set_console(&[("BASTIO_URL", &backend.url()), ("BASTIO_TOKEN", backend.token())])?;
    }
    let told = servers
        .enroll(paper, &backend)
        .and_then(|()| manage(paper, &world, &backend, &servers.hosts));
    if told.is_err() {
        show_logs(paper, &backend, &servers.hosts);
    }
    if keep {
        backend.leave_running();
        servers.agents.into_iter().for_each(Running::leave_running);
    }
    told?;
    finish(paper, keep);
    Ok(())
}

/// The last words of every program, for whoever has to find out why it failed.
fn show_logs(paper: &Paper, backend: &Backend, hosts: &[Host]) {
    let logs = std::iter::once(("backend", backend.log()));
    let logs = logs.chain(hosts.iter().map(|host| (host.name(), fleet::agent_log(host))));
    for (name, log) in logs {
        let log = log.unwrap_or_else(|error| error.to_string());
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("admin token")).collect();
        paper.line(&format!("\nlast lines of the log of {name}:"));
        paper.answer(
            &lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default().join("\n"),
        );
    }
}

fn start_servers(paper: &mut Paper, world: &World) -> Result<Servers, Problem> {
    paper.step("Three servers start, each with its own accounts and sshd");
    let agent = binary("bastio-agent")?;
    let mut hosts = Vec::new();
    for name in NAMES {
        let host = world.host(name).binary(&agent).sudo_without_password().start()?;
        fleet::prepare_agent(&host)?;
        paper.answer(&format!("{name:<6} {}", host.ip()));
        hosts.push(host);
    }
    paper
        .remark("Their owner lets the group sudo work without a password: our accounts have none.");
    paper.done();
    Ok(Servers { hosts, agents: Vec::new() })
}

fn start_backend<'world>(
    paper: &mut Paper,
    world: &'world World,
) -> Result<Backend<'world>, Problem> {
    paper.step("The backend starts with a store in a temporary folder");
    paper.command("$", &Backend::command(world)?.line());
    let backend = Backend::start(world)?;
    paper.answer(&format!("ready; API at {}", backend.url()));
    paper.done();
    Ok(backend)
}

impl Servers {
    fn enroll(&mut self, paper: &mut Paper, backend: &Backend) -> Result<(), Problem> {
        paper.step("Each server's agent enrols and dials out to the backend");
        paper.command("$", "bastio api-key add demo --role enroll");
        let key: EnrollKey = backend.enroll_key("demo")?;
        for host in &self.hosts {
            let prompt = format!("{}#", host.name());
            show(paper, &prompt, fleet::enroll_command(host, &key))?;
            let start = fleet::agent_command(host);
            paper.command(&prompt, &start.line());
            self.agents.push(start.spawn_ready(READY_LIMIT)?);
        }
        backend.wait_connected(NAMES.len() as u64, CONNECT_LIMIT)?;
        for (host, role) in self.hosts.iter().zip(["web", "web", "db"]) {
            show(
                paper,
                "$",
                backend.console(&["server", "label", host.name(), &format!("role={role}")])?,
            )?;
        }
        show_answer(paper, backend.console(&["server", "ls"])?)?;
        paper.done();
        Ok(())
    }
}

/// The main job: a person comes, logs in where they may and nowhere else, and goes.
fn manage(
    paper: &mut Paper,
    world: &World,
    backend: &Backend,
    hosts: &[Host],
) -> Result<(), Problem> {
    let key = SshKey::generate(world, "alice", &["ed25519"])?;
    let alice = SshClient::new(world, &key);
    let (web, db): (Vec<&Host>, Vec<&Host>) =
        hosts.iter().partition(|host| host.name().starts_with("web"));

    paper.step("One command: alice, her key, and sudo on every web server");
    let file = key.public_file().display().to_string();
    show_answer(
        paper,
        backend.console(&["user", "add", "alice", "--key", &file, "--on", "role=web", "--sudo"])?,
    )?;
    paper.done();

    paper.step("alice logs in with the stock ssh client and uses sudo");
    web.iter().try_for_each(|host| log_in(paper, &alice, host, true))?;
    paper.done();

    paper.step("db-1 was not granted: it does not know her");
    db.iter().try_for_each(|host| log_in(paper, &alice, host, false))?;
    paper.done();

    paper.step("What would it do to remove her? Nothing is done yet");
    show_answer(paper, backend.console(&["user", "rm", "alice", "--dry-run"])?)?;
    paper.done();

    paper.step(
        "She is the last admin there; that must be meant. One command takes every way in away",
    );
    show_answer(paper, backend.console(&["user", "rm", "alice", "--yes-really"])?)?;
    paper.done();

    paper.step("Her login is refused everywhere, and her account is gone");
    hosts.iter().try_for_each(|host| log_in(paper, &alice, host, false))?;
    let left =
        hosts.iter().map(|host| host.try_exec(&["id", "alice"])).collect::<Result<Vec<_>, _>>()?;
    if left.iter().any(Finished::success) {
        return Err(Problem::Unexpected("a server still has the account alice".into()));
    }
    paper.done();
    Ok(())
}

fn log_in(paper: &Paper, alice: &SshClient, host: &Host, welcome: bool) -> Result<(), Problem> {
    paper.command("$", &format!("ssh -i alice.key alice@{} {CHECK}", host.ip()));
    let start = Instant::now();
    let finished = alice.run("alice", host.ip(), CHECK)?;
    let took = milliseconds(start.elapsed());
    let (said, as_expected) = if welcome {
        (&finished.stdout, finished.success() && finished.stdout.starts_with("uid=0(root)"))
    } else {
        (
            &finished.stderr,
            finished.code() == Some(255) && finished.stderr.contains("Permission denied"),
        )
    };
    paper.answer(&format!("{:<63} {took:>8}", said.trim()));
    if as_expected {
        return Ok(());
    }
    let expected = if welcome { "let alice in as root" } else { "refuse alice" };
    Err(Problem::Unexpected(format!(
        "{} had to {expected}, but ssh ended with {} and said: {}{}",
        host.name(),
        finished.status,
        finished.stdout,
        finished.stderr
    )))
}

fn show(paper: &Paper, prompt: &str, command: PlacedCommand) -> Result<Finished, Problem> {
    paper.command(prompt, &command.line());
    Ok(command.check()?)
}

fn show_answer(paper: &Paper, command: PlacedCommand) -> Result<(), Problem> {
    let finished = show(paper, "$", command)?;
    paper.answer(&finished.stdout);
    Ok(())
}

fn finish(paper: &Paper, keep: bool) {
    paper.summary();
    paper.line("");
    if keep {
        paper
            .line("The servers run on. To look around, as root on a server or beside the backend:");
        paper.line("   make demo-shell HOST=web-1        (or web-2, db-1)");
        paper.line("   make demo-shell HOST=backend      (with the console `bastio`, logged in)");
        paper.line("To end it:  make demo-stop");
    } else {
        paper.line(
            "Everything worked, and everything is gone. To keep the servers and look around:",
        );
        paper.line("   make demo KEEP=1");
    }
}
