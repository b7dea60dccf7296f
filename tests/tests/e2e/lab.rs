//! The lab itself: servers are apart from the machine and from each other, and nothing of them is ever left behind.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bastio_tests::{Direction, Proxy, SshClient, SshKey, World, binary, require_root};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};

fn machine_mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

#[test]
fn a_server_has_its_own_accounts_name_processes_and_files() {
    require_root!();
    let machine = (fs::read("/etc/passwd").unwrap(), machine_mounts());
    let world = World::new().unwrap();
    let (one, two) = (world.start_host("web-1").unwrap(), world.start_host("web-2").unwrap());
    one.exec(&["useradd", "-m", "-U", "labperson"]).unwrap();
    one.write_file("/tmp/note", "mine").unwrap();

    assert_eq!(one.exec(&["id", "-un", "labperson"]).unwrap().stdout, "labperson\n");
    assert_eq!(two.try_exec(&["id", "labperson"]).unwrap().code(), Some(1));
    assert_eq!(one.exec(&["hostname"]).unwrap().stdout, "web-1\n");
    assert!(one.exists("/home/labperson").unwrap());
    assert!(!two.exists("/tmp/note").unwrap());
    let processes = one.exec(&["ps", "-eo", "comm="]).unwrap().stdout;
    let mut processes: Vec<&str> = processes.lines().collect();
    processes.sort_unstable();
    assert_eq!(processes, ["cat", "ps", "sshd"]);
    for device in ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts"] {
        assert!(one.exists(Path::new("/dev").join(device)).unwrap(), "{device}");
    }
    assert!(!one.exists("/dev/vda").unwrap());
    assert!(!Path::new("/home/labperson").exists());
    assert!(!Path::new("/tmp/note").exists());
    assert_eq!((fs::read("/etc/passwd").unwrap(), machine_mounts()), machine);
}

#[test]
fn a_planted_key_logs_in_through_sshd_and_no_other() {
    require_root!();
    let world = World::new().unwrap();
    let host = world.host("web-1").sudo_without_password().start().unwrap();
    let right = SshKey::generate(&world, "right", &["ed25519"]).unwrap();
    let wrong = SshKey::generate(&world, "wrong", &["ed25519"]).unwrap();
    host.exec(&["useradd", "-m", "-U", "-p", "*", "-s", "/bin/bash", "-G", "sudo", "alice"])
        .unwrap();
    host.exec(&["install", "-d", "-o", "alice", "-g", "alice", "-m", "700", "/home/alice/.ssh"])
        .unwrap();
    host.write_file("/home/alice/.ssh/authorized_keys", format!("{}\n", right.public())).unwrap();

    let alice = SshClient::new(&world, &right);
    let login = alice.run("alice", host.ip(), "hostname; id -un; sudo id -u").unwrap();
    assert_eq!(login.stdout, "web-1\nalice\n0\n", "{}\n{}", login.stderr, host.sshd_log().unwrap());
    assert!(alice.can_log_in("alice", host.ip()).unwrap());
    assert!(!SshClient::new(&world, &wrong).can_log_in("alice", host.ip()).unwrap());
    assert!(host.sshd_log().unwrap().contains("Accepted publickey for alice"));
}

#[test]
fn a_full_home_is_full() {
    require_root!();
    let world = World::new().unwrap();
    let host = world.host("full").home_tmpfs_size(1 << 20).without_sshd().start().unwrap();
    let error = host.write_file("/home/big", vec![b'x'; 2 << 20]).unwrap_err();
    assert!(error.to_string().contains("No space left on device"), "{error}");
}

#[test]
fn a_home_on_disk_is_gone_with_its_server_and_left_overs_go_with_the_next() {
    require_root!();
    let world = World::new().unwrap();
    let lab = bastio_tests::Rootfs::ensure().unwrap().lab_folder().to_owned();
    let left = lab.join("homes/left-by-a-killed-process");
    fs::create_dir_all(&left).unwrap();
    let note = format!("home/note-{}", std::process::id());
    let host = world.host("disk").home_on_disk().without_sshd().start().unwrap();
    host.write_file(Path::new("/").join(&note), "on disk").unwrap();
    let kind = host.exec(&["stat", "-f", "-c", "%T", "/home"]).unwrap().stdout;
    assert!(!kind.contains("tmpfs") && !kind.contains("overlay"), "{kind}");
    assert!(!left.exists());
    let name = Path::new(&note).file_name().unwrap();
    let kept = || {
        fs::read_dir(lab.join("homes"))
            .unwrap()
            .any(|home| home.unwrap().path().join(name).exists())
    };
    assert!(kept());
    drop(host);
    assert!(!kept());
}

#[test]
fn a_program_is_shown_or_copied_into_a_server() {
    require_root!();
    let world = World::new().unwrap();
    let program = binary("bastio-lab").unwrap();
    let host = world.host("one").binary(&program).without_sshd().start().unwrap();
    let other = world.host("two").without_sshd().start().unwrap();
    other.put_binary(&program).unwrap();
    for place in [&host, &other] {
        let usage = place.try_exec(&["bastio-lab"]).unwrap();
        assert_eq!(usage.code(), Some(2), "{}", usage.stderr);
    }
    assert!(host.write_file("/usr/bin/bastio-lab", "").is_err(), "a shown program is read-only");
}

#[test]
fn a_running_program_is_signalled_waited_for_and_ended_with_its_guard() {
    require_root!();
    let world = World::new().unwrap();
    let host = world.host("one").without_sshd().start().unwrap();
    let mut sleeping = host.command("sleep").arg("1000").spawn().unwrap();
    assert_eq!(sleeping.ended().unwrap(), None);
    assert!(sleeping.wait(Duration::from_millis(20)).is_err());
    assert!(!sleeping.stop(Duration::from_secs(5)).unwrap().success());

    let guarded = host.command("sleep").arg("1000").spawn().unwrap();
    let pid = guarded.pid();
    drop(guarded);
    assert!(kill(pid, None).is_err());
    let too_slow = host.command("sleep").arg("1000").limit(Duration::from_millis(50)).run();
    assert!(too_slow.unwrap_err().to_string().contains("not done"));
    assert_eq!(host.try_exec(&["pgrep", "sleep"]).unwrap().stdout, "");
}

#[test]
fn a_dropped_server_leaves_no_process() {
    require_root!();
    let world = World::new().unwrap();
    let host = world.start_host("one").unwrap();
    let (init, address) = (host.init_pid(), (host.ip(), 22));
    assert!(world.connect(address.into()).is_ok());
    drop(host);
    assert!(!Path::new(&format!("/proc/{init}")).exists());
    assert_eq!(processes_in_world(&world), ["cat", "ps"]);
}

fn processes_in_world(world: &World) -> Vec<String> {
    let list = world.command("ps").args(["-eo", "comm="]).check().unwrap();
    let mut list: Vec<String> = list.stdout.lines().map(str::to_owned).collect();
    list.sort_unstable();
    list
}

#[test]
fn guards_may_be_dropped_in_any_order() {
    require_root!();
    let world = World::new().unwrap();
    let host = world.start_host("one").unwrap();
    let program = host.command("sleep").arg("1000").spawn().unwrap();
    let (init, pid) = (world.init_pid(), program.pid());
    drop(world);
    drop(host);
    assert!(kill(pid, None).is_ok(), "a program keeps its server");
    drop(program);
    assert!(kill(pid, None).is_err());
    assert!(kill(init, None).is_err());
}

#[test]
fn after_kill_9_of_the_maker_nothing_is_left() {
    require_root!();
    let mounts = machine_mounts();
    let (mut maker, networks) = start_lab("up");
    let inside = processes_in(&networks);
    assert!(inside.len() >= 5, "three first processes and two sshd run now");
    let handles = handles(&inside);
    maker.kill().unwrap();
    maker.wait().unwrap();
    handles.iter().for_each(ended);
    assert_eq!(processes_in(&networks), []);
    assert_eq!(machine_mounts(), mounts);
}

#[test]
fn a_kept_world_outlives_its_maker_until_it_is_killed() {
    require_root!();
    let mounts = machine_mounts();
    let (mut maker, networks) = start_lab("keep");
    assert!(maker.wait().unwrap().success());
    let inside = processes_in(&networks);
    assert!(inside.len() >= 5, "three first processes and two sshd run on");
    let handles = handles(&inside);
    let world = inside.iter().find(|pid| is_init_in(**pid, &networks[0])).unwrap();
    kill(Pid::from_raw(world.as_raw_nonzero().get()), Signal::SIGKILL).unwrap();
    handles.iter().for_each(ended);
    // Whatever they had just started is ended with the world, too, and takes its time for that.
    let until = Instant::now() + Duration::from_secs(10);
    while !processes_in(&networks).is_empty() {
        assert!(Instant::now() < until, "{:?} outlived their world", processes_in(&networks));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(machine_mounts(), mounts);
}

/// Starts a lab with two servers in another process; returns it with the networks of the world and of the servers.
fn start_lab(how: &str) -> (Child, Vec<PathBuf>) {
    let program = binary("bastio-lab").unwrap();
    let mut command = Command::new(program);
    command.args([how, "web-1", "web-2"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut maker = command.spawn().unwrap();
    let lines = BufReader::new(maker.stdout.take().unwrap()).lines().map(Result::unwrap);
    let lines: Vec<String> = lines.take_while(|line| !line.starts_with("ready")).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    let init = |line: &String| line.split(' ').nth(1).unwrap().to_owned();
    let network = |pid: String| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    (maker, lines.iter().map(init).map(network).collect())
}

/// Whether a process is process 1 of its process namespace and in this network.
fn is_init_in(pid: rustix::process::Pid, network: &Path) -> bool {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let status = fs::read_to_string(process.join("status")).unwrap();
    let ids = status.lines().find(|line| line.starts_with("NSpid:")).unwrap();
    ids.ends_with("\t1") && fs::read_link(process.join("ns/net")).unwrap() == network
}

fn handles(processes: &[rustix::process::Pid]) -> Vec<OwnedFd> {
    processes.iter().map(|pid| pidfd_open(*pid, PidfdFlags::empty()).unwrap()).collect()
}

fn ended(handle: &OwnedFd) {
    let mut ended = [PollFd::from_borrowed_fd(handle.as_fd(), PollFlags::IN)];
    let limit = Timespec::try_from(Duration::from_secs(10)).unwrap();
    assert_eq!(poll(&mut ended, Some(&limit)).unwrap(), 1, "a process outlived its world");
}

/// The machine's processes that are in one of these networks.
fn processes_in(networks: &[PathBuf]) -> Vec<rustix::process::Pid> {
    let network = |process: &PathBuf| fs::read_link(process.join("ns/net"));
    let is_inside = |process: &PathBuf| network(process).is_ok_and(|net| networks.contains(&net));
    fs::read_dir("/proc")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(is_inside)
        .map(|process| process.file_name().unwrap().to_str().unwrap().parse().unwrap())
        .map(|pid| rustix::process::Pid::from_raw(pid).unwrap())
        .collect()
}

#[test]
fn a_pulled_cable_loses_packets_and_a_plugged_one_carries_again() {
    require_root!();
    let world = World::new().unwrap();
    let host = world.start_host("one").unwrap();
    let scan = || {
        world.command("ssh-keyscan").args(["-T", "1", &host.ip().to_string()]).run().unwrap().stdout
    };
    assert!(scan().contains("ssh-ed25519"));
    host.set_cable(false).unwrap();
    assert_eq!(scan(), "");
    host.set_cable(true).unwrap();
    // Whoever was looked for in vain meanwhile has to be found again first, which takes the kernel a second.
    assert!((0..10).any(|_| scan().contains("ssh-ed25519")));
}

#[test]
fn the_proxy_carries_dribbles_and_cuts_at_the_byte() {
    require_root!();
    let world = World::new().unwrap();
    let server = world.listen(world.address(0)).unwrap();
    let proxy = Proxy::start(&world, server.local_addr().unwrap()).unwrap();
    let limit = Duration::from_secs(5);

    let mut client = world.connect(proxy.address()).unwrap();
    let (mut accepted, _) = server.accept().unwrap();
    accepted.set_read_timeout(Some(limit)).unwrap();
    let mut buffer = [0; 5];
    proxy.one_byte_pieces();
    client.write_all(b"hello").unwrap();
    accepted.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"hello");

    proxy.cut_after(Direction::ToServer, 3);
    client.write_all(b"world").unwrap();
    let mut rest = Vec::new();
    accepted.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"wor");
    proxy.wait_for_cuts(1, limit).unwrap();
    assert_eq!((proxy.accepted(), proxy.carried(Direction::ToServer)), (1, 8));
}

#[test]
fn the_proxy_holds_everything_back_until_told_otherwise() {
    require_root!();
    let world = World::new().unwrap();
    let server = world.listen(world.address(0)).unwrap();
    let proxy = Proxy::start(&world, server.local_addr().unwrap()).unwrap();
    proxy.black_hole();
    let mut client = world.connect(proxy.address()).unwrap();
    let (mut accepted, _) = server.accept().unwrap();
    client.write_all(b"late").unwrap();
    accepted.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut buffer = [0; 4];
    assert!(accepted.read_exact(&mut buffer).is_err());
    proxy.resume();
    accepted.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    accepted.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"late");
}
