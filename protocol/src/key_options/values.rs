//! The values of single options: which ones sshd can make something of.
//!
//! Stricter than sshd where sshd takes a text and then never matches it, or reads it as something else.
//! This file must not know how values are quoted or put in order. Sources: sshd(8), ssh_config(5)
//! PATTERNS, and OpenSSH's `auth-options.c`, `addrmatch.c`, `misc.c`.

use std::net::IpAddr;

use super::{KeyOptionsError, fault};

/// Longest pattern that sshd matches, in bytes (`match_pattern_list` drops longer ones).
const MAX_PATTERN: usize = 1023;
/// Longest host name, in bytes.
const MAX_HOST: usize = 253;
/// Highest number of a tunnel device (`SSH_TUNID_MAX`).
const MAX_TUNNEL: u32 = 0x7fff_fffd;

/// A command: anything, but not nothing.
pub(super) fn command(value: String) -> Result<String, KeyOptionsError> {
    if value.trim().is_empty() {
        return Err(fault("an empty command; give /bin/false to allow none".to_owned()));
    }
    Ok(value)
}

/// Patterns of addresses and names, separated by commas, `!` in front of those that are not let in.
pub(super) fn from(value: String) -> Result<String, KeyOptionsError> {
    for entry in value.split(',') {
        let pattern = entry.strip_prefix('!').unwrap_or(entry);
        check_pattern(pattern)?;
    }
    if value.split(',').all(|entry| entry.starts_with('!')) {
        return Err(fault(format!("from={value:?} lets nobody in; add whom to let in, as \"*\"")));
    }
    Ok(value)
}

fn check_pattern(pattern: &str) -> Result<(), KeyOptionsError> {
    let wrong = |why: &str| Err(fault(format!("{pattern:?} in from=\"\": {why}")));
    if pattern.is_empty() || pattern.len() > MAX_PATTERN {
        return wrong("a pattern has 1 to 1023 characters, and one comma separates two");
    }
    if let Some((address, bits)) = pattern.split_once('/') {
        return match network(address, bits) {
            Network::Good => Ok(()),
            Network::HostBits => wrong("bits are set behind the mask; sshd takes the network only"),
            Network::Bad => wrong("no network; write ADDRESS/BITS as 192.0.2.0/24"),
        };
    }
    if pattern.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    if !pattern.chars().all(|c| c.is_ascii_alphanumeric() || "._-:*?".contains(c)) {
        return wrong("a pattern has letters, digits, and . _ - : * ? only");
    }
    // inet_aton(3), which sshd asks, takes "10.1" for 10.0.0.1 and "010.0.0.1" for 8.0.0.1.
    let last = pattern.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let numeric = last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit());
    if numeric && !pattern.contains(['*', '?']) {
        return wrong("no address; write all four numbers, without leading zeros");
    }
    Ok(())
}

enum Network {
    Good,
    HostBits,
    Bad,
}

fn network(address: &str, bits: &str) -> Network {
    let (Ok(address), Some(bits)) = (address.parse::<IpAddr>(), number(bits, 128)) else {
        return Network::Bad;
    };
    let (value, width): (u128, u32) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    match width.checked_sub(bits) {
        None => Network::Bad,
        Some(free) if value.trailing_zeros() < free && value != 0 => Network::HostBits,
        Some(_) => Network::Good,
    }
}

/// `NAME=value`; the name as shells have it, the value anything.
pub(super) fn environment(value: &str) -> Result<(String, String), KeyOptionsError> {
    let wrong = || {
        fault(format!("environment={value:?}; write NAME=VALUE, the name in letters, digits and _"))
    };
    let (name, content) = value.split_once('=').ok_or_else(wrong)?;
    let good = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if good { Ok((name.to_owned(), content.to_owned())) } else { Err(wrong()) }
}

/// `HOST:PORT`, to where a tunnel may lead; no names are looked up, no patterns matched.
pub(super) fn permit_open(value: String) -> Result<String, KeyOptionsError> {
    let good = value
        .rsplit_once(':')
        .is_some_and(|(host, port)| (host == "*" || is_host(host, "")) && is_port(port));
    if good {
        return Ok(value);
    }
    Err(fault(format!(
        "permitopen={value:?}; write HOST:PORT or [IPV6]:PORT, * for any host or any port"
    )))
}

/// `[HOST:]PORT`, where a tunnel may listen; the host may hold `*` and `?`.
pub(super) fn permit_listen(value: String) -> Result<String, KeyOptionsError> {
    let good = match value.rsplit_once(':') {
        Some((host, port)) => is_host(host, "*?") && is_port(port),
        None => is_port(&value),
    };
    if good {
        return Ok(value);
    }
    Err(fault(format!("permitlisten={value:?}; write PORT, HOST:PORT or [IPV6]:PORT, * for any")))
}

/// `any`, or the number of a tunnel device.
pub(super) fn tunnel(value: String) -> Result<String, KeyOptionsError> {
    if value.eq_ignore_ascii_case("any") {
        return Ok("any".to_owned());
    }
    match number(&value, MAX_TUNNEL) {
        Some(_) => Ok(value),
        None => Err(fault(format!("tunnel={value:?}; write the number of a device, or any"))),
    }
}

/// A name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(host: &str, patterns: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c) || patterns.contains(c);
    (1..=MAX_HOST).contains(&host.len()) && host.chars().all(good)
}

fn is_port(port: &str) -> bool {
    port == "*" || number(port, 65_535).is_some_and(|port| port > 0)
}

/// A decimal number up to `highest`, in its one spelling.
fn number(text: &str, highest: u32) -> Option<u32> {
    let value: u32 = text.parse().ok()?;
    (value <= highest && value.to_string() == text).then_some(value)
}
