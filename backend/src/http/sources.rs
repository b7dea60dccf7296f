//! How many connections one source may have, so that one machine cannot keep all others out.
//!
//! This file must not know what a connection is for.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts connections by source.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    each: usize,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection of a source; no more when dropped.
#[derive(Debug)]
pub(super) struct Counted {
    source: IpAddr,
    sources: Sources,
}

impl Sources {
    /// At most `each` connections of one source.
    pub(super) fn new(each: usize) -> Self {
        Self { each, counts: Arc::default() }
    }

    /// Counts one more; `None` when there are enough. This machine itself may have any number:
    /// there may be a proxy on it that everybody comes through.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Counted> {
        let source = source_of(address);
        let mut counts = self.lock();
        let count = counts.entry(source).or_default();
        if *count >= self.each && !source.is_loopback() {
            return None;
        }
        *count += 1;
        Some(Counted { source, sources: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.sources.lock();
        match counts.get_mut(&self.source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(&self.source)),
        }
    }
}

/// One IPv4 address, or the /64 that a single IPv6 host usually has to itself.
fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_its_share() {
        let sources = Sources::new(1);
        let enter = |text: &str| sources.enter(text.parse().unwrap());
        let first = enter("192.0.2.1").unwrap();
        assert!(enter("::ffff:192.0.2.1").is_none(), "the same host");
        let other = enter("192.0.2.2").unwrap();
        let six = enter("2001:db8::1").unwrap();
        assert!(enter("2001:db8::2").is_none(), "the same network");
        let local = [enter("::1").unwrap(), enter("::1").unwrap(), enter("127.0.0.1").unwrap()];
        drop(first);
        drop((enter("192.0.2.1").unwrap(), other, six, local));
        assert!(sources.lock().is_empty());
    }
}
