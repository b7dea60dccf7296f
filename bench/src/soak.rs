//! A day of traffic in a row: 100,000 actions through one processor, and what its memory does meanwhile. A line is laid
//! through the second half of the samples (least squares); its slope must be 0 within what the samples allow to tell.

use bastio_protocol::{Action, KeyPolicy, PublicKey};
use bastio_tests::World;

use crate::footprint::pss;
use crate::processor::Bench;
use crate::round_trip::line;
use crate::{BenchError, over};

/// Actions, half of them keys that come, half keys that go.
const ACTIONS: u32 = 100_000;
/// Actions between two looks at the memory.
const LOOK_EVERY: u32 = 500;
/// Keys that are there at once, at most.
const KEYS: u32 = 20;
/// What all actions together may add at most, in KiB: less than a page for each thousand.
const GROWTH_LIMIT: f64 = 256.0;

/// Runs it and prints the table.
pub fn run() -> Result<(), BenchError> {
    let world = World::new()?;
    let mut bench = Bench::start(&world, "web-1")?;
    bench.act("alice", Action::AddUser { sudo: false })?;
    let pid = bench.processor.pid().as_raw();
    let mut samples = Vec::new();
    for number in 0..ACTIONS {
        // Each key comes, and goes when 20 others have come.
        let (turn, key) = (number / KEYS, number % KEYS);
        let public_key = PublicKey::parse(&line(turn / 2 * KEYS + key), &KeyPolicy::ANY);
        let public_key = public_key.map_err(|error| BenchError::Action(error.to_string()))?;
        let action = match turn % 2 {
            0 => Action::AddKey { public_key },
            _ => Action::RemoveKey { public_key },
        };
        bench.act("alice", action)?;
        if number % LOOK_EVERY == 0 {
            samples.push((f64::from(number), pss(pid)? as f64));
        }
    }
    let (_, half) = samples.split_at(samples.len() / 2);
    let (slope, error) = slope(half);
    let value = |at: Option<&(f64, f64)>| at.map_or(f64::NAN, |(_, value)| *value);
    println!("\nsoak, the processor alone: {ACTIONS} actions, PSS every {LOOK_EVERY}\n");
    println!("{:<44} {:>10.0} KiB", "at the start", value(samples.first()));
    println!("{:<44} {:>10.0} KiB", "half-way", value(half.first()));
    println!("{:<44} {:>10.0} KiB", "at the end", value(half.last()));
    let growth = (slope + 2.0 * error) * f64::from(ACTIONS);
    println!(
        "\nslope of the second half: {:.4} ± {:.4} KiB in 1000 actions (95 %); at most {growth:.0} KiB in {ACTIONS} \
         (promised: {GROWTH_LIMIT})",
        slope * 1e3,
        error * 2e3
    );
    over(growth > GROWTH_LIMIT, || format!("memory may grow by {growth:.0} KiB a day"))
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
