//! How much is tried, and how it is told. Knows nothing of what is proved.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

/// Whether all is to be tried.
pub fn is_full() -> bool {
    std::env::var("BASTIO_PROOF").is_ok_and(|value| value == "full")
}

/// One of two counts.
pub fn rounds(small: usize, full: usize) -> usize {
    if is_full() { full } else { small }
}

/// The seed of this run: `BASTIO_SEED`, or one from the clock. It is printed, so that a run can be repeated.
pub fn seed() -> u64 {
    let given = std::env::var("BASTIO_SEED").ok().map(|text| text.parse().unwrap());
    let seed = given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_secs() ^ u64::from(now.subsec_nanos()) << 20
    });
    eprintln!("BASTIO_SEED={seed}");
    seed
}

/// The line that `make proof` collects. Where all is to be tried, fewer than promised are a failure.
#[track_caller]
pub fn tell(name: &str, count: usize, promised: usize, what: &str) {
    eprintln!("PROOF | {name} | {count} | {what}");
    assert!(!is_full() || count >= promised, "{name}: {count} of {promised} that were promised");
}

/// How often each kind came.
#[derive(Debug, Default)]
pub struct Tally(BTreeMap<String, usize>);

impl Tally {
    pub fn count(&mut self, kind: impl Into<String>) {
        *self.0.entry(kind.into()).or_default() += 1;
    }

    pub fn of(&self, kind: &str) -> usize {
        self.0.get(kind).copied().unwrap_or_default()
    }

    pub fn kinds(&self) -> usize {
        self.0.len()
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        for (kind, count) in &self.0 {
            writeln!(text, "{count:>9}  {kind}")?;
        }
        f.write_str(&text)
    }
}
