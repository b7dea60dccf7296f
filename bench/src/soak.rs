//! A day of traffic in a row: 100,000 actions through the whole product, from the backend over SSH to the agent and
//! back, and what the memory of the agent's processes does meanwhile. A line is laid through the samples of the second
//! half (least squares); its slope must be 0 within what the samples allow to tell.
//!
//! The memory is what a process has written to itself. Its proportional set size says more of others: it goes up by
//! hundreds of KiB when a program ends anywhere on the machine that had the same library.
//!
//! Mostly keys that come and go; now and then sudo rights, accounts, and the server as a whole. Who comes for a while has
//! been there before: a name that is new on a server costs some 90 bytes for good, since its numeric id stays its own.
//! `BASTIO_SOAK_ACTIONS` asks for fewer actions.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bastio_protocol::api::Change;
use bastio_tests::World;
use serde_json::json;

use crate::client::Client;
use crate::footprint::{anonymous, child_of};
use crate::round_trip::{key_path, line};
use crate::{BenchError, Fleet, over};

const ACTIONS: u32 = 100_000;
/// People whose accounts change at the same time: so many changes are under way, at most.
const PEOPLE: u32 = 16;
/// Keys that one change adds; each is removed by one of its own.
const KEYS: u32 = 5;
/// Actions between two looks at the memory.
const LOOK_EVERY: u32 = 250;
/// Actions between two lines about how far it is.
const TELL_EVERY: u32 = 10_000;
/// What a day's actions may add to a process at most, in KiB: eight pages. Of what each action leaves behind, a third of a
/// byte would show.
const GROWTH_LIMIT: f64 = 32.0;

/// What is looked at, and what was seen: memory in KiB by actions done.
struct Watched {
    name: &'static str,
    pid: i32,
    samples: Vec<(f64, f64)>,
}

/// Runs it and prints the table.
pub fn run() -> Result<(), BenchError> {
    let actions = std::env::var("BASTIO_SOAK_ACTIONS").ok();
    let actions = actions.and_then(|text| text.parse().ok()).unwrap_or(ACTIONS);
    let world = World::new()?;
    let mut fleet = Fleet::start(&world)?;
    let processor = fleet.agent.pid().as_raw();
    let connector = child_of(processor)?;
    let backend = fleet.backend.process().pid().as_raw();
    let named = [("processor", processor), ("connector", connector), ("backend", backend)];
    let mut watched = named.map(|(name, pid)| Watched { name, pid, samples: Vec::new() });
    let (url, token) = (fleet.backend.url(), fleet.backend.token().to_owned());
    let client = || Client::new(url.clone(), &token);
    let asked = &AtomicU32::new(0);
    let done = std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(PEOPLE as usize);
        // The network is another in there, and so is /proc.
        let day = scope.spawn(|| world.within(|| traffic(client, actions, asked, sender)));
        let done = watch(receiver, asked, actions, &mut watched);
        day.join().map_err(|_| BenchError::Action("the day ended by a panic".to_owned()))??;
        done
    })?;
    println!("\nsoak, the whole product: {done} actions, anonymous memory every {LOOK_EVERY}\n");
    println!(
        "{:<12} {:>8} {:>8} {:>8} {:>14}   KiB",
        "process", "start", "half", "end", "never more since"
    );
    let broken = watched.iter().filter_map(|it| judge(it).err()).collect::<Vec<_>>();
    broken.into_iter().next().map_or(Ok(()), Err)
}

/// Everybody's changes until there were so many actions.
fn traffic(
    client: impl Fn() -> Client,
    actions: u32,
    asked: &AtomicU32,
    sender: SyncSender<Result<u32, BenchError>>,
) {
    std::thread::scope(|scope| {
        for person in 0..PEOPLE {
            let (client, sender) = (client(), sender.clone());
            scope.spawn(move || Person { client, number: person, sender, asked }.live(actions));
        }
    });
}

/// Looks at the memory along the way; how many actions there were.
fn watch(
    turns: Receiver<Result<u32, BenchError>>,
    asked: &AtomicU32,
    actions: u32,
    watched: &mut [Watched],
) -> Result<u32, BenchError> {
    let (mut done, mut looked, mut told) = (0, 0, 0);
    for turn in turns {
        done += turn.inspect_err(|_| asked.store(actions, Ordering::Relaxed))?;
        if done / LOOK_EVERY > looked {
            looked = done / LOOK_EVERY;
            for it in &mut *watched {
                it.samples.push((f64::from(done), anonymous(it.pid)? as f64));
            }
        }
        if done / TELL_EVERY > told {
            told = done / TELL_EVERY;
            println!("{done} actions are done");
        }
    }
    Ok(done)
}

/// One whose account changes all day.
struct Person<'a> {
    client: Client,
    number: u32,
    sender: SyncSender<Result<u32, BenchError>>,
    /// Actions of all, as far as they are done.
    asked: &'a AtomicU32,
}

impl Person<'_> {
    fn live(self, actions: u32) {
        let name = format!("person{}", self.number);
        let mut turn = self.number * 7;
        let mut did = self.come(&name, false);
        loop {
            let count = did.as_ref().copied().unwrap_or(0);
            let asked = self.asked.fetch_add(count, Ordering::Relaxed) + count;
            let is_over = did.is_err() || asked >= actions;
            // Nobody listens any more only when another failed.
            if self.sender.send(did).is_err() || is_over {
                return;
            }
            turn += 1;
            did = self.take_turn(&name, turn);
        }
    }

    fn take_turn(&self, name: &str, turn: u32) -> Result<u32, BenchError> {
        match turn % 100 {
            5 | 55 => Ok(self.sudo(name, true)? + self.sudo(name, false)?),
            25 | 75 => {
                let guest = format!("guest{}x{}", self.number, turn % 100);
                Ok(self.come(&guest, turn % 100 == 25)? + self.go(&guest)?)
            }
            45 => Ok(self.whole("check")? + self.whole("report")? + self.whole("sync")?),
            _ => self.keys(name, turn),
        }
    }

    fn come(&self, name: &str, sudo: bool) -> Result<u32, BenchError> {
        let user = json!({ "name": name, "on": "web-1", "sudo": sudo });
        self.settle(self.client.post("/users", &user)?)
    }

    fn go(&self, name: &str) -> Result<u32, BenchError> {
        self.settle(self.client.delete(&format!("/users/{name}?home=delete"))?)
    }

    fn sudo(&self, name: &str, sudo: bool) -> Result<u32, BenchError> {
        self.settle(self.client.patch(&format!("/users/{name}"), &json!({ "sudo": sudo }))?)
    }

    fn whole(&self, kind: &str) -> Result<u32, BenchError> {
        let report = self.client.post("/servers/web-1/requests", &json!({ "kind": kind }))?;
        self.client.settle_request(report).map(number)
    }

    /// Some keys come together and go one by one; nobody ever has the same again.
    fn keys(&self, name: &str, turn: u32) -> Result<u32, BenchError> {
        let first = (turn * PEOPLE + self.number) * KEYS;
        let lines: Vec<_> = (first..first + KEYS).map(line).collect();
        let path = format!("/users/{name}/keys");
        let mut did = self.settle(self.client.post(&path, &json!({ "keys": lines }))?)?;
        let changes = (first..first + KEYS).map(|key| self.client.delete(&key_path(name, key)));
        for change in changes.collect::<Result<Vec<_>, _>>()? {
            did += self.settle(change)?;
        }
        Ok(did)
    }

    fn settle(&self, change: Change) -> Result<u32, BenchError> {
        self.client.settle(change).map(number)
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Prints a line of the table. The backend keeps all that was ever done, so nothing is promised of it.
fn judge(watched: &Watched) -> Result<(), BenchError> {
    let Watched { name, samples, .. } = watched;
    // Until then everything that is seldom has come together once: a sync, a compacted journal, and many who wait.
    let (_, warm) = samples.split_at(samples.len() / 2);
    let value = |at: Option<&(f64, f64)>| at.map_or(f64::NAN, |(_, value)| *value);
    let (start, middle, end) = (value(samples.first()), value(warm.first()), value(warm.last()));
    let (slope, error) = slope(warm);
    let day = f64::from(ACTIONS);
    let most = samples.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let since = samples.iter().find(|(_, value)| *value >= most).map_or(0.0, |(done, _)| *done);
    println!(
        "{name:<12} {start:>8.0} {middle:>8.0} {end:>8.0} {since:>14.0}   {:+.0} ± {:.0} KiB in {ACTIONS} actions (95 %)",
        slope * day,
        2.0 * error * day
    );
    let growth = (slope + 2.0 * error) * day;
    over(*name != "backend" && growth > GROWTH_LIMIT, || {
        format!("memory of the {name} may grow by {growth:.0} KiB a day (promised: {GROWTH_LIMIT})")
    })
}

/// Slope of the line of least squares, and its standard error.
fn slope(samples: &[(f64, f64)]) -> (f64, f64) {
    let count = samples.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|sample| sample.0), mean(|sample| sample.1));
    let spread: f64 = samples.iter().map(|sample| (sample.0 - x).powi(2)).sum();
    let both: f64 = samples.iter().map(|sample| (sample.0 - x) * (sample.1 - y)).sum();
    let slope = both / spread;
    let rest: f64 = samples.iter().map(|s| (s.1 - y - slope * (s.0 - x)).powi(2)).sum();
    (slope, (rest / (count - 2.0) / spread).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_with_its_error() {
        let exact: Vec<_> = (0..10).map(|x| (f64::from(x), 3.0 + 0.5 * f64::from(x))).collect();
        let (found, error) = slope(&exact);
        assert!((found - 0.5).abs() < 1e-12 && error < 1e-9);
        let flat: Vec<_> = (0..100).map(|x| (f64::from(x), f64::from(x % 2))).collect();
        let (found, error) = slope(&flat);
        assert!(found.abs() < 2.0 * error && error > 0.0, "{found} {error}");
    }
}
