//! Notices servers whose sessions push each other out: two machines with one key, or an agent
//! that comes back again and again.
//!
//! Pure: the time is passed in. Who is connected and who takes over is dispatch's business; here
//! it is only counted.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Arrivals and take-overs are counted per this time.
const PERIOD: Duration = Duration::from_secs(60);
/// More take-overs than this in a period are no accident. The original agent makes one when it
/// is stopped.
const TAKE_OVERS: usize = 5;
/// How long a server that arrives too often waits.
const PAUSE: Duration = Duration::from_secs(5);

/// What one key may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PerKey {
    /// A server that arrives more often than this in a period is made to wait. The original agent comes
    /// back without any pause after each loss.
    pub(super) arrivals: usize,
    /// Sessions that one server may have at a time: one that works, and some that are ending or made to
    /// wait. Each costs a connection, which a stolen key could else open without end.
    pub(super) live: usize,
}

/// The sessions of all servers, by server.
#[derive(Debug)]
pub(super) struct Rivals<S> {
    limits: PerKey,
    servers: HashMap<S, Record>,
    /// When records without a session were last looked through.
    swept: Option<Instant>,
}

#[derive(Debug, Default)]
struct Record {
    live: Vec<(u64, IpAddr)>,
    next_ticket: u64,
    /// Newest last; never longer than the limits need.
    arrivals: VecDeque<Instant>,
    take_overs: VecDeque<Instant>,
    warned: Option<Instant>,
}

/// What an arriving session means.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    /// For [`Rivals::left`].
    pub(super) ticket: u64,
    /// Why it looks like a second machine.
    pub(super) fight: Option<Fight>,
    /// Whether that is to be told now: at most once a minute for one server.
    pub(super) tell: bool,
    /// How long this session must wait before it starts.
    pub(super) pause: Duration,
    /// Whether it must not start at all: there are too many.
    pub(super) crowded: bool,
}

/// Why take-overs look like two machines with one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fight {
    /// The older session, still open, is from another address.
    OtherAddress(IpAddr),
    /// The same, and that session is at another node.
    OtherNode(IpAddr),
    /// More than five take-overs within a minute.
    TooOften,
}

impl<S: Eq + Hash + Clone> Rivals<S> {
    pub(super) fn new(limits: PerKey) -> Self {
        Self { limits, servers: HashMap::new(), swept: None }
    }

    /// A session of `server` has logged in; another node has one from `elsewhere`.
    pub(super) fn arrived(
        &mut self,
        server: &S,
        from: IpAddr,
        elsewhere: Option<IpAddr>,
        now: Instant,
    ) -> Arrival {
        self.sweep(now);
        let record = self.servers.entry(server.clone()).or_default();
        let ticket = record.next_ticket;
        record.next_ticket += 1;
        let limits = self.limits;
        let arrivals = count(&mut record.arrivals, limits.arrivals, now);
        let pause = if arrivals > limits.arrivals { PAUSE } else { Duration::ZERO };
        let fight = record.fight(from, elsewhere, now);
        let tell = fight.is_some() && record.may_warn(now);
        let crowded = record.live.len() >= limits.live;
        record.live.push((ticket, from));
        Arrival { ticket, fight, tell, pause, crowded }
    }

    /// The session with this ticket has ended.
    pub(super) fn left(&mut self, server: &S, ticket: u64) {
        if let Some(record) = self.servers.get_mut(server) {
            record.live.retain(|(live, _)| *live != ticket);
        }
    }

    /// Forgets servers that have not been here for a while.
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_none_or(|swept| now.duration_since(swept) >= PERIOD) {
            self.swept = Some(now);
            self.servers.retain(|_, record| {
                !record.live.is_empty()
                    || record.arrivals.back().is_some_and(|at| now.duration_since(*at) < PERIOD)
            });
        }
    }
}

impl Record {
    fn fight(&mut self, from: IpAddr, elsewhere: Option<IpAddr>, now: Instant) -> Option<Fight> {
        let here = self.live.last().map(|&(_, older)| older);
        here.or(elsewhere)?;
        if count(&mut self.take_overs, TAKE_OVERS, now) > TAKE_OVERS {
            return Some(Fight::TooOften);
        }
        let another = |older: &IpAddr| *older != from;
        let here = here.filter(another).map(Fight::OtherAddress);
        here.or(elsewhere.filter(another).map(Fight::OtherNode))
    }

    fn may_warn(&mut self, now: Instant) -> bool {
        let quiet = self.warned.is_none_or(|at| now.duration_since(at) >= PERIOD);
        if quiet {
            self.warned = Some(now);
        }
        quiet
    }
}

/// Adds an event and returns how many there were within the period, `limit + 1` at most.
fn count(events: &mut VecDeque<Instant>, limit: usize, now: Instant) -> usize {
    events.retain(|at| now.duration_since(*at) < PERIOD);
    events.push_back(now);
    while events.len() > limit + 1 {
        events.pop_front();
    }
    events.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PerKey = PerKey { arrivals: 10, live: 8 };
    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn one_session_after_the_other_is_peace() {
        let now = Instant::now();
        let mut rivals = Rivals::new(LIMITS);
        for from in [HERE, THERE, HERE] {
            let arrival = rivals.arrived(&"web-1", from, None, now);
            assert_eq!((arrival.fight, arrival.pause), (None, Duration::ZERO));
            rivals.left(&"web-1", arrival.ticket);
        }
    }

    #[test]
    fn short_second_session_from_the_same_address_is_normal() {
        let now = Instant::now();
        let mut rivals = Rivals::new(LIMITS);
        let first = rivals.arrived(&"web-1", HERE, None, now);
        assert_eq!(rivals.arrived(&"web-1", HERE, None, now).fight, None);
        rivals.left(&"web-1", first.ticket);
    }

    #[test]
    fn take_over_from_another_address_is_warned_about_once_a_minute() {
        let now = Instant::now();
        let mut rivals = Rivals::new(LIMITS);
        let first = rivals.arrived(&"web-1", HERE, None, now);
        let second = rivals.arrived(&"web-1", THERE, None, now);
        assert_eq!(second.fight, Some(Fight::OtherAddress(HERE)));
        rivals.left(&"web-1", first.ticket);
        let third = rivals.arrived(&"web-1", HERE, None, now);
        assert_eq!((third.fight, third.tell), (Some(Fight::OtherAddress(THERE)), false));
        rivals.left(&"web-1", third.ticket);
        rivals.left(&"web-1", second.ticket);
        let later = rivals.arrived(&"web-1", THERE, None, now + PERIOD);
        assert_eq!((later.fight, later.tell), (None, false), "alone again");
        let again = rivals.arrived(&"web-1", HERE, None, now + PERIOD);
        assert_eq!((again.fight, again.tell), (Some(Fight::OtherAddress(THERE)), true));
        assert_eq!(rivals.arrived(&"web-2", THERE, None, now).fight, None, "another server");
    }

    #[test]
    fn many_take_overs_from_one_address_are_a_fight() {
        let now = Instant::now();
        let mut rivals = Rivals::new(LIMITS);
        let fights: Vec<_> = (0..10)
            .map(|_| rivals.arrived(&"web-1", HERE, None, now))
            .filter(|it| it.tell)
            .collect();
        assert_eq!(fights.len(), 1);
        assert_eq!(fights[0].fight, Some(Fight::TooOften));
    }

    #[test]
    fn a_session_at_another_node_counts_as_one_here() {
        let now = Instant::now();
        let mut rivals = Rivals::new(LIMITS);
        let arrival = rivals.arrived(&"web-1", HERE, Some(HERE), now);
        assert_eq!(arrival.fight, None, "it has gone from one node to the other");
        rivals.left(&"web-1", arrival.ticket);
        let arrival = rivals.arrived(&"web-1", HERE, Some(THERE), now);
        assert_eq!((arrival.fight, arrival.tell), (Some(Fight::OtherNode(THERE)), true));
        let second = rivals.arrived(&"web-1", HERE, Some(THERE), now);
        assert_eq!(second.fight, Some(Fight::OtherNode(THERE)));
        for ticket in [arrival.ticket, second.ticket] {
            rivals.left(&"web-1", ticket);
        }
        let fights = (0..TAKE_OVERS).map(|_| {
            let arrival = rivals.arrived(&"web-1", HERE, Some(HERE), now);
            rivals.left(&"web-1", arrival.ticket);
            arrival.fight
        });
        assert_eq!(fights.last(), Some(Some(Fight::TooOften)), "from one address, to and fro");
    }

    #[test]
    fn who_comes_back_without_pause_is_made_to_wait() {
        let now = Instant::now();
        let mut rivals = Rivals::new(LIMITS);
        let mut pauses = Vec::new();
        for _ in 0..=LIMITS.arrivals {
            let arrival = rivals.arrived(&"web-1", HERE, None, now);
            rivals.left(&"web-1", arrival.ticket);
            pauses.push(arrival.pause);
        }
        assert_eq!(pauses.pop(), Some(PAUSE));
        assert!(pauses.iter().all(Duration::is_zero));
        assert_eq!(rivals.arrived(&"web-1", HERE, None, now + PERIOD).pause, Duration::ZERO);
    }

    #[test]
    fn a_crowd_of_sessions_is_sent_away() {
        let now = Instant::now();
        let mut rivals = Rivals::new(LIMITS);
        let live: Vec<_> =
            (0..=LIMITS.live).map(|_| rivals.arrived(&"web-1", HERE, None, now)).collect();
        assert_eq!(live.iter().filter(|arrival| arrival.crowded).count(), 1);
        assert!(!rivals.arrived(&"web-2", HERE, None, now).crowded, "another server");
        live.iter().for_each(|arrival| rivals.left(&"web-1", arrival.ticket));
        assert!(!rivals.arrived(&"web-1", HERE, None, now).crowded);
    }

    #[test]
    fn both_limits_are_those_that_were_given() {
        let now = Instant::now();
        let mut rivals = Rivals::new(PerKey { arrivals: 2, live: 3 });
        let seen: Vec<_> = (0..4).map(|_| rivals.arrived(&"web-1", HERE, None, now)).collect();
        let paused: Vec<bool> = seen.iter().map(|arrival| !arrival.pause.is_zero()).collect();
        let crowded: Vec<bool> = seen.iter().map(|arrival| arrival.crowded).collect();
        assert_eq!(paused, [false, false, true, true]);
        assert_eq!(crowded, [false, false, false, true]);
    }

    #[test]
    fn servers_long_gone_take_no_memory() {
        let now = Instant::now();
        let mut rivals = Rivals::new(LIMITS);
        for server in 0..100 {
            let arrival = rivals.arrived(&server, HERE, None, now);
            rivals.left(&server, arrival.ticket);
        }
        rivals.arrived(&0, HERE, None, now + PERIOD);
        assert_eq!(rivals.servers.len(), 1);
    }
}
