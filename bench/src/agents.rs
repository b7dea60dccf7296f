//! A fleet of emulated agents against one backend, beside a bare SSH server with as many connections: memory, idle
//! time, fan-out and coming back after a restart. Or against several nodes, one of which is killed: [`nodes`]. The
//! emulator, the backends and the bare server are processes of their own. Must not know what the others do inside.

mod agent;
mod backend;
mod bare;
mod child;
mod cluster;
mod document;
mod emulator;
mod figures;
mod floor;
mod nodes;
mod process;
mod stranger;
mod svg;
mod talk;

use std::path::PathBuf;
use std::time::Duration;

use bastio_agent::link::PROVEN;
use clap::{Parser, ValueEnum};

use self::backend::Backend;
use self::child::Talker;
use self::cluster::Cluster;
use self::figures::{Figures, Point, Times};
use self::floor::Floor;
use self::process::{cpu_seconds, idle_percent, pss_mib};
use self::talk::{Ask, Faults, Setup, Tell, micros};
use crate::BenchError;

/// Time for a server to become idle after its clients have connected.
const SETTLE: Duration = Duration::from_secs(2);

/// A server that takes less than so much of a core is idle, but for its signs of life.
const QUIET: f64 = 15.0;
/// Longest wait for that.
const SETTLE_LIMIT: Duration = Duration::from_secs(120);

/// Bare servers, one after the other: how fast one is also depends on where the system has put it.
const FLOORS: usize = 3;
/// Fan-outs on all servers beside each of them, the backend's and the bare server's in turn, so that both see the machine
/// as it is at that time. Of all the middle one counts.
const ROUNDS: usize = 3;

/// Restarts of the backend.
const RESTARTS: usize = 3;

/// Time for half-open connections to be there.
const CROWD_GATHERS: Duration = Duration::from_secs(5);

/// `bastio-bench agents`: emulated agents against one backend, and against a bare SSH server.
#[derive(Debug, Parser)]
#[command(name = "bastio-bench agents")]
struct Options {
    /// Agents.
    #[arg(long, default_value_t = 1000)]
    count: usize,
    /// What the backend keeps its state in.
    #[arg(long, value_enum, default_value = "sqlite")]
    store: Engine,
    /// Backend nodes, on one PostgreSQL. With more than one: a grant on all, and the first node is killed when a third
    /// of it is confirmed.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// Servers of the smaller fan-outs, or fleets of several nodes, for the curve.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100,1000")]
    curve: Vec<usize>,
    /// Attempts to connect at a time, at first.
    #[arg(long, default_value_t = 64)]
    parallel: usize,
    /// How long the idle servers are watched, in seconds.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    idle: u64,
    /// Half-open connections beside one more fan-out.
    #[arg(long, default_value_t = 5000)]
    half_open: usize,
    /// No bare server: no ratios.
    #[arg(long)]
    no_floor: bool,
    /// No restart of the backend.
    #[arg(long)]
    no_restart: bool,
    /// Write the figures and curves of this run into that folder's benchmarks.md and beside it.
    #[arg(long, value_name = "FOLDER")]
    docs: Option<PathBuf>,
    #[command(flatten)]
    faults: Faults,
}

/// What a backend keeps its state in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// A file.
    #[default]
    Sqlite,
    /// A server of its own, with default settings.
    Postgres,
}

/// Runs it with the arguments behind `agents`.
pub fn run(arguments: &[String]) -> Result<(), BenchError> {
    match arguments.first().map(String::as_str) {
        Some("emulate") => return emulator::run(),
        Some("bare") => return bare::run(),
        _ => {}
    }
    let name = std::iter::once("agents".to_owned());
    let options = match Options::try_parse_from(name.chain(arguments.iter().cloned())) {
        Ok(options) => options,
        Err(error) => error.exit(),
    };
    if options.nodes > 1 {
        return nodes::run(&options);
    }
    let figures = measure(&options)?;
    if let Some(docs) = &options.docs {
        document::write(docs, &figures)?;
    }
    let broken = figures.promises().into_iter().filter(|promise| !promise.holds()).count();
    if broken == 0 || options.no_floor {
        return Ok(());
    }
    Err(BenchError::OverLimit(format!("{broken} of the promises above")))
}

fn measure(options: &Options) -> Result<Figures, BenchError> {
    let (count, engine) = (options.count, options.store);
    let mut figures = Figures { count, engine, ..Figures::default() };
    against_backend(options, &mut figures)?;
    print_points(&figures);
    println!("\n{:<58} {:>9} {:>9}      holds", "promise", "limit", "figure");
    figures.promises().iter().for_each(|promise| println!("{promise}"));
    Ok(figures)
}

/// The emulator, connected to nothing yet.
fn emulator(
    options: &Options,
    count: usize,
    targets: Vec<std::net::SocketAddr>,
    host_key: String,
) -> Result<Talker, BenchError> {
    let mut emulator = Talker::start("emulate")?;
    let faults = options.faults;
    emulator.answer(&Ask::Setup(Setup { count, targets, host_key, faults }))?;
    Ok(emulator)
}

/// Enrols all agents; how long that took.
fn enroll(emulator: &mut Talker, backend: &Backend, count: usize) -> Result<f64, BenchError> {
    let (url, api_key) = (backend.url(), backend.enroll_key()?);
    match emulator.answer(&Ask::Enroll { url, api_key })? {
        Tell::Enrolled { seconds } => {
            println!("{count} servers enrolled in {seconds:.1} s");
            Ok(seconds)
        }
        told => Err(unexpected(&told)),
    }
}

/// A key that nobody has.
fn new_key() -> Result<String, BenchError> {
    let key = bastio_transport::PrivateKey::generate(bastio_transport::KeyKind::Ed25519);
    key.map(|key| key.public_line()).map_err(|error| BenchError::Child(error.to_string()))
}

fn unexpected(told: &Tell) -> BenchError {
    BenchError::Child(format!("told something else: {told:?}"))
}

fn connect(emulator: &mut Talker, parallel: usize) -> Result<f64, BenchError> {
    let begun = micros();
    match emulator.answer(&Ask::Connect { parallel })? {
        Tell::Up { at } => Ok(Times::since(begun, at).max),
        told => Err(unexpected(&told)),
    }
}

/// Everything that is measured.
fn against_backend(options: &Options, figures: &mut Figures) -> Result<(), BenchError> {
    let cluster = match options.store {
        Engine::Sqlite => None,
        Engine::Postgres => Some(Cluster::start()?),
    };
    let store = cluster.as_ref().map_or_else(String::new, Cluster::configuration);
    let mut backend = Backend::start(&store)?;
    let (count, target) = (options.count, vec![backend.listening.ssh]);
    let mut emulator = emulator(options, count, target, backend.host_key()?)?;
    figures.enrolled = enroll(&mut emulator, &backend, count)?;
    figures.connected = connect(&mut emulator, options.parallel)?;
    told_rate("backend", count, figures.connected);
    figures.settled = settle(backend.pid())?;
    println!("backend: quiet {:.0} s later", figures.settled);
    figures.pss = pss_mib(backend.pid())?;
    figures.idle_cpu = idle_percent(backend.pid(), Duration::from_secs(options.idle))?;
    println!("backend: {:.1} MiB PSS, {:.2} % of a core idle", figures.pss, figures.idle_cpu);
    // Idle beside what follows, as the backend was while it connected.
    let _floor = fan_outs(options, &backend, &mut emulator, figures)?;
    figures.pss_after = pss_mib(backend.pid())?;
    println!("backend: {:.1} MiB PSS after all grants", figures.pss_after);
    let number = figures.points.len();
    figures.enqueued = enqueue(&backend, &mut emulator, number - 1, count)?;
    if options.half_open > 0 {
        emulator.answer(&Ask::HalfOpen { count: options.half_open })?;
        std::thread::sleep(CROWD_GATHERS);
        let (point, _) = fan_out(&backend, &mut emulator, &person(number, 0), count, count)?;
        figures.crowded = Some((options.half_open, point));
        emulator.answer(&Ask::HalfOpen { count: 0 })?;
    }
    if !options.no_restart {
        restarts(&mut backend, &mut emulator, figures)?;
    }
    if let Tell::Counts(counts) = emulator.answer(&Ask::Count)? {
        println!("emulator: {counts:?}");
    }
    Ok(())
}

/// The grants, each followed by the same messages from a bare server; the last of these servers.
fn fan_outs(
    options: &Options,
    backend: &Backend,
    emulator: &mut Talker,
    figures: &mut Figures,
) -> Result<Option<Floor>, BenchError> {
    let count = options.count;
    let smaller = options.curve.iter().copied().filter(|size| *size < count);
    let smaller: Vec<usize> = smaller.collect();
    let (mut floors, mut rounds, mut echoes) = (Vec::new(), Vec::new(), Vec::new());
    let mut floor: Option<Floor> = None;
    for turn in 0..FLOORS {
        drop(floor.take());
        floor = (!options.no_floor).then(|| Floor::start(options)).transpose()?;
        floors.extend(floor.as_ref().map(|floor| (floor.connected, floor.pss)));
        for (number, servers) in smaller.iter().copied().enumerate().filter(|_| turn == 0) {
            let user = person(number, 0);
            let (mut point, sample) = fan_out(backend, emulator, &user, servers, count)?;
            point.floor = echo(floor.as_mut(), &point, &sample)?;
            figures.points.push(point);
        }
        for round in turn * ROUNDS..(turn + 1) * ROUNDS {
            let user = person(smaller.len(), round);
            let (point, sample) = fan_out(backend, emulator, &user, count, count)?;
            echoes.push(echo(floor.as_mut(), &point, &sample)?);
            rounds.push(point);
        }
    }
    let mut point = middle(rounds, |point| point.confirmed);
    point.floor = middle(echoes, |times| times.max);
    figures.points.push(point);
    if floor.is_some() {
        figures.floor_connected = middle(floors.clone(), |(connected, _)| *connected).0;
        figures.floor_pss = middle(floors, |(_, pss)| *pss).1;
    }
    Ok(floor)
}

fn echo(floor: Option<&mut Floor>, point: &Point, sample: &[String]) -> Result<Times, BenchError> {
    let Some(floor) = floor else { return Ok(Times::default()) };
    let bodies: Vec<String> = sample.iter().take(point.orders).cloned().collect();
    floor.echo(point.servers, &bodies)
}

/// Waits until a server has worked off what came with its clients; how long that took, in seconds.
fn settle(pid: i32) -> Result<f64, BenchError> {
    let begin = std::time::Instant::now();
    while idle_percent(pid, SETTLE)? > QUIET {
        if begin.elapsed() > SETTLE_LIMIT {
            return Err(BenchError::Child("a server with idle clients stays busy".to_owned()));
        }
    }
    Ok(begin.elapsed().as_secs_f64())
}

fn told_rate(name: &str, count: usize, seconds: f64) {
    #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^53 agents")]
    let rate = count as f64 / seconds;
    println!("{name}: {count} agents connected in {seconds:.2} s, {rate:.0}/s");
}

/// A grant for one new user on so many servers.
fn fan_out(
    backend: &Backend,
    emulator: &mut Talker,
    user: &str,
    servers: usize,
    count: usize,
) -> Result<(Point, Vec<String>), BenchError> {
    // The account with its one key.
    let orders = 1;
    backend.add_user(user, &new_key()?)?;
    let names = || (0..servers).map(|n| format!("srv-{n:05}")).collect::<Vec<_>>().join(",");
    let on = if servers == count { "*".to_owned() } else { names() };
    emulator.answer(&Ask::Expect { agents: servers, orders })?;
    let before = cpu_seconds(backend.pid())?;
    let (begun, request) = backend.grant(user, &on)?;
    let (at, sample) = match emulator.told()? {
        Tell::Answered { at, sample } => (at, sample),
        told => return Err(unexpected(&told)),
    };
    // Asked for only now: looking at how everything stands costs time, too.
    let settled = backend.settled(servers)?;
    let cpu = cpu_seconds(backend.pid())? - before;
    let times = Times::since(begun, at);
    let confirmed = Times::since(begun, vec![settled]).max;
    println!(
        "grant on {servers}: asked {request:.3} s, p50 {:.3} s, p99 {:.3} s, last {:.3} s, confirmed {confirmed:.3} s, \
         {cpu:.2} s of CPU",
        times.p50, times.p99, times.max
    );
    let floor = Times::default();
    Ok((Point { servers, orders, times, confirmed, request, floor }, sample))
}

/// One more key for the person of that number, who is everywhere: one action a server. How long it took until all were
/// queued.
fn enqueue(
    backend: &Backend,
    emulator: &mut Talker,
    number: usize,
    count: usize,
) -> Result<f64, BenchError> {
    let key = new_key()?;
    emulator.answer(&Ask::Expect { agents: count, orders: 1 })?;
    let request = backend.add_key(&person(number, 0), &key)?;
    emulator.told()?;
    backend.settled(count)?;
    println!("a key on {count}: {count} actions planned and queued in {request:.3} s");
    Ok(request)
}

/// Stops the backend and starts it again, with all agents there, some times. Of all the middle one counts.
fn restarts(
    backend: &mut Backend,
    emulator: &mut Talker,
    figures: &mut Figures,
) -> Result<(), BenchError> {
    let mut all = Vec::with_capacity(RESTARTS);
    for number in 0..RESTARTS {
        if number > 0 {
            // After a shorter connection agents wait longer until they come back.
            std::thread::sleep(PROVEN);
        }
        all.push(restart(backend, emulator)?);
    }
    (figures.stopped, figures.back) = middle(all, |(_, back)| *back);
    Ok(())
}

/// How long the backend takes to stop, and until all agents are back from when it listens again, in seconds.
fn restart(backend: &mut Backend, emulator: &mut Talker) -> Result<(f64, f64), BenchError> {
    emulator.answer(&Ask::AwaitUp)?;
    let stopped = backend.stop()?;
    backend.start_again()?;
    let begun = micros();
    match emulator.told()? {
        Tell::Up { at } => {
            let times = Times::since(begun, at);
            println!(
                "restart: stopped in {stopped:.2} s, half back {:.2} s, 99 % {:.2} s, all {:.2} s after it listens again",
                times.p50, times.p99, times.max
            );
            Ok((stopped, times.max))
        }
        told => Err(unexpected(&told)),
    }
}

/// The middle one of some.
fn middle<T>(mut rounds: Vec<T>, by: impl Fn(&T) -> f64) -> T {
    rounds.sort_by(|one, other| by(one).total_cmp(&by(other)));
    rounds.swap_remove(rounds.len() / 2)
}

/// The person of a fan-out.
fn person(number: usize, round: usize) -> String {
    format!("person{number}-{round}")
}

fn print_points(figures: &Figures) {
    println!(
        "\n{:>8} {:>9} {:>9} {:>9} {:>9} {:>10} {:>9} {:>9} {:>7}",
        "servers",
        "request s",
        "p50 s",
        "p99 s",
        "max s",
        "confirmed",
        "bare p99",
        "bare max",
        "ratio"
    );
    for point in &figures.points {
        println!(
            "{:>8} {:>9.3} {:>9.3} {:>9.3} {:>9.3} {:>10.3} {:>9.3} {:>9.3} {:>7.2}",
            point.servers,
            point.request,
            point.times.p50,
            point.times.p99,
            point.times.max,
            point.confirmed,
            point.floor.p99,
            point.floor.max,
            point.confirmed / point.floor.max
        );
    }
}
