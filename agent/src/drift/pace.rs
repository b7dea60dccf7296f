//! When a change is looked at: soon, once for a burst, and not again and again for somebody who changes his files in a
//! loop. Pure; the time is passed in.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Topic;

/// How long after a change it is looked at: a burst is one look.
const SETTLE: Duration = Duration::from_millis(200);
/// The shortest time between two looks at the same: what has changed is told within a second also right behind one.
pub(super) const BETWEEN: Duration = Duration::from_millis(800);

/// How long nobody listens after a change while no look is soon: of thousands of changes in a row, some twenty a second
/// are heard, and none of them is missed.
const GATHER: Duration = Duration::from_millis(50);

/// So many looks in a row may follow each other that fast. Then each comes twice as late as the one before it:
/// whoever changes his files (or, by chfn(1), those of all) in a loop must not have everybody told of it for ever.
const EAGER: u32 = 16;
/// The longest time between two looks at what never rests.
const LONGEST: Duration = Duration::from_secs(30);
/// A look later than this after the time when it could have been is a new beginning.
const REST: Duration = Duration::from_secs(2);

/// What is to be looked at, and when. At most one entry a topic.
#[derive(Debug, Default)]
pub(super) struct Pace {
    due: BTreeMap<Topic, Instant>,
    last: BTreeMap<Topic, Look>,
    /// When something was heard last.
    heard: Option<Instant>,
}

/// What there is to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    /// Whether changes are to be heard at once. Else they wait in the kernel, and are read at the end.
    pub(super) listens: bool,
    /// Until when.
    pub(super) until: Option<Instant>,
}

/// The last look at something.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    /// How many there were before it without a rest.
    in_a_row: u32,
}

impl Look {
    /// When the next one may be.
    fn next(self) -> Instant {
        let doubled = self.in_a_row.saturating_sub(EAGER).min(16);
        self.at + (BETWEEN * (1 << doubled)).min(LONGEST)
    }
}

impl Pace {
    /// Something changed.
    pub(super) fn changed(&mut self, topic: &Topic, now: Instant) {
        if self.due.contains_key(topic) {
            return;
        }
        let earliest = self.last.get(topic).map(|last| last.next());
        let due = earliest.into_iter().chain([now + SETTLE]).max().unwrap_or(now);
        self.due.insert(topic.clone(), due);
    }

    /// When the next look is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    /// Changes were heard, whatever they are about.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = Some(now);
    }

    /// What to wait for now.
    pub(super) fn wait(&self, now: Instant) -> Wait {
        let due = self.next();
        // Soon they will be read anyhow: a burst wakes us twice and not a hundred times.
        if due.is_some_and(|due| due <= now + SETTLE) {
            return Wait { listens: false, until: due };
        }
        match self.heard.map(|heard| heard + GATHER).filter(|end| due.is_some() && *end > now) {
            Some(end) => Wait { listens: false, until: Some(end) },
            None => Wait { listens: true, until: due },
        }
    }

    /// Takes what is due.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Topic> {
        let due: Vec<Topic> = self
            .due
            .iter()
            .filter(|(_, due)| **due <= now)
            .map(|(topic, _)| topic.clone())
            .collect();
        for topic in &due {
            self.due.remove(topic);
            let before = self.last.get(topic).filter(|last| now <= last.next() + REST);
            let in_a_row = before.map_or(0, |last| last.in_a_row.saturating_add(1));
            self.last.insert(topic.clone(), Look { at: now, in_a_row });
        }
        due
    }

    /// Forgets what is no longer watched.
    pub(super) fn keep_only(&mut self, is_watched: impl Fn(&Topic) -> bool) {
        self.due.retain(|topic, _| is_watched(topic));
        self.last.retain(|topic, _| is_watched(topic));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bastio_protocol::Username;

    #[test]
    fn a_burst_is_one_look_and_a_loop_is_one_now_and_then() {
        let begun = Instant::now();
        let at = |millis: u64| begun + Duration::from_millis(millis);
        let mut pace = Pace::default();
        let mut looks = Vec::new();
        // A change every 10 ms, for five seconds.
        for millis in (0..5000).step_by(10) {
            pace.changed(&Topic::Sudo, at(millis));
            if pace.next().is_some_and(|next| next <= at(millis)) {
                looks.extend(pace.take(at(millis)).iter().map(|_| millis));
            }
        }
        assert_eq!(looks, [200, 1000, 1800, 2600, 3400, 4200]);
        // The last change is looked at, too; then there is rest.
        assert_eq!(pace.next(), Some(at(5000)));
        assert_eq!(pace.take(at(5000)), [Topic::Sudo]);
        assert_eq!(pace.next(), None);
        pace.changed(&Topic::Sudo, at(60_000));
        assert_eq!(pace.next(), Some(at(60_200)));
    }

    #[test]
    fn who_never_rests_is_looked_at_less_and_less_and_soon_again_after_a_rest() {
        let begun = Instant::now();
        let at = |second: u64| begun + Duration::from_secs(second);
        let mut pace = Pace::default();
        let mut looks = 0;
        // A whole day of changes, one a second.
        for second in 0..86_400 {
            pace.changed(&Topic::Accounts, at(second));
            looks += pace.take(at(second)).len();
        }
        assert!((2_800..3_000).contains(&looks), "{looks}");
        // An hour later it is told as fast as ever.
        let later = at(90_000);
        pace.take(later);
        pace.changed(&Topic::Accounts, later + LONGEST);
        assert_eq!(pace.next(), Some(later + LONGEST + SETTLE));
        pace.take(later + LONGEST + SETTLE);
        pace.changed(&Topic::Accounts, later + LONGEST + SETTLE);
        assert_eq!(pace.next(), Some(later + LONGEST + SETTLE + BETWEEN));
    }

    #[test]
    fn a_loop_between_two_looks_wakes_nobody_for_each_change() {
        let begun = Instant::now();
        let at = |millis: u64| begun + Duration::from_millis(millis);
        let mut pace = Pace::default();
        assert_eq!(pace.wait(at(0)), Wait { listens: true, until: None });
        // A change each millisecond, heard when somebody listens or wakes up.
        let (mut wakes, mut looks) = (0, 0);
        for millis in 0..4000 {
            let wait = pace.wait(at(millis));
            if !wait.listens && wait.until.is_some_and(|until| until > at(millis)) {
                continue;
            }
            wakes += 1;
            pace.changed(&Topic::Accounts, at(millis));
            pace.heard(at(millis));
            looks += pace.take(at(millis)).len();
        }
        assert_eq!(looks, 5, "as without a rest");
        assert!((5..100).contains(&wakes), "{wakes}");
        // Nothing is due: nobody wakes up for nothing.
        let end = at(10_000);
        pace.take(end);
        pace.heard(end);
        assert_eq!(pace.wait(end), Wait { listens: true, until: None });
    }

    #[test]
    fn one_does_not_hold_up_another() {
        let begun = Instant::now();
        let alice = Topic::Account(Username::parse("alice").unwrap());
        let mut pace = Pace::default();
        pace.changed(&alice, begun);
        pace.take(begun + SETTLE);
        pace.changed(&alice, begun + SETTLE);
        pace.changed(&Topic::Accounts, begun + SETTLE);
        assert_eq!(pace.take(begun + 2 * SETTLE), [Topic::Accounts]);
        assert_eq!(pace.next(), Some(begun + SETTLE + BETWEEN));
        pace.keep_only(|topic| *topic != alice);
        assert_eq!(pace.next(), None);
    }
}
