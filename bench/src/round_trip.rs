//! How long an added key takes from the request to the confirmed answer, against the least that any
//! program must do on the server: write the same file aside, flush it, rename it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bastio_tests::World;
use serde_json::json;

use crate::client::Client;
use crate::{BenchError, Fleet};

/// Keys added and removed again.
const ROUNDS: u32 = 300;
/// Rounds before counting begins.
const WARM_UP: u32 = 20;

/// Runs it and prints the table.
pub fn run() -> Result<(), BenchError> {
    let world = World::new()?;
    let fleet = Fleet::start(&world)?;
    let client = Client::new(fleet.backend.url(), fleet.backend.token());
    fleet.backend.ask(&["user", "add", "alice", "--on", "web-1"])?;
    let add = world.within(|| add_keys(&client))??;
    let size = fleet.host.read_file("/home/alice/.ssh/authorized_keys")?.len() + line(0).len();
    let floor =
        fleet.host.within(|| write_floor(size))?.map_err(|e| BenchError::File("/home", e))?;
    println!("\nadd-key, request to confirmed answer ({ROUNDS} rounds, one after another)\n");
    println!("{:<44} {:>10} {:>10}", "", "p50 ms", "p99 ms");
    row("floor: write, fsync, rename of that file", &floor);
    row("whole path: HTTP, store, SSH, agent and back", &add);
    let ratio = percentile(&add, 50).as_secs_f64() / percentile(&floor, 50).as_secs_f64();
    println!("\nratio of the medians: {ratio:.1}");
    Ok(())
}

fn add_keys(client: &Client) -> Result<Vec<Duration>, BenchError> {
    let mut times = Vec::new();
    for number in 0..WARM_UP + ROUNDS {
        let start = Instant::now();
        client.settle(client.post("/users/alice/keys", &json!({ "keys": [line(number)] }))?)?;
        let took = start.elapsed();
        if number >= WARM_UP {
            times.push(took);
        }
        client.settle(client.delete(&key_path("alice", number))?)?;
    }
    times.sort();
    Ok(times)
}

/// The same file written as often, and nothing else.
fn write_floor(size: usize) -> std::io::Result<Vec<Duration>> {
    let folder = Path::new("/home/floor");
    fs::create_dir_all(folder)?;
    let (aside, file) = (folder.join("aside"), folder.join("authorized_keys"));
    let bytes = vec![b'x'; size];
    let mut times = Vec::new();
    for round in 0..WARM_UP + ROUNDS {
        let start = Instant::now();
        let mut writing = File::create(&aside)?;
        writing.write_all(&bytes)?;
        writing.sync_all()?;
        fs::rename(&aside, &file)?;
        if round >= WARM_UP {
            times.push(start.elapsed());
        }
    }
    times.sort();
    Ok(times)
}

/// A key line; the point need not be on the curve for sshd to read it.
pub fn line(number: u32) -> String {
    let mut blob = Vec::new();
    for field in [&b"ssh-ed25519"[..], &[number.to_be_bytes(); 8].concat()] {
        blob.extend(u32::try_from(field.len()).unwrap_or(0).to_be_bytes());
        blob.extend(field);
    }
    format!("ssh-ed25519 {} bench-{number}", STANDARD.encode(blob))
}

/// Where the API has such a key of a user.
pub fn key_path(user: &str, number: u32) -> String {
    let key = bastio_protocol::PublicKey::parse(&line(number), &bastio_protocol::KeyPolicy::ANY);
    let text = key.expect("the line is a well-formed key").fingerprint();
    let text = text.replace('+', "%2B").replace('/', "%2F").replace(':', "%3A");
    format!("/users/{user}/keys/{text}")
}

/// Prints one line of a table.
pub fn row(name: &str, times: &[Duration]) {
    let ms = |percent| percentile(times, percent).as_secs_f64() * 1e3;
    println!("{name:<44} {:>10.2} {:>10.2}", ms(50), ms(99));
}

/// Of sorted times.
pub fn percentile(times: &[Duration], percent: usize) -> Duration {
    times.get(times.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
}
