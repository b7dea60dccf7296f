//! What is done about drift on a server, by the rules of operators, and how often.
//!
//! Of all rules that mean a server the most cautious one counts, whatever their order and however narrow they are: a
//! rule that says `show` for every server stops all healing. Pure: the time is passed in.

use std::collections::BTreeMap;

use bastio_protocol::api::{DriftAnswer, Labels};
use bastio_protocol::{ServerName, Target};

/// So often a server is brought back within [`HEAL_WINDOW`].
pub const HEALS: usize = 3;
/// In seconds. So long after the last try what is not put right is tried again.
pub const HEAL_WINDOW: i64 = 3600;

/// What is done about drift, by servers.
pub type DriftRules = BTreeMap<Target, DriftAnswer>;

/// What is done about drift on that server.
#[must_use]
pub fn drift_answer(rules: &DriftRules, server: &ServerName, labels: &Labels) -> DriftAnswer {
    let meant = rules.iter().filter(|(on, _)| on.includes(server, labels));
    meant.map(|(_, answer)| *answer).min().unwrap_or_default()
}

/// When a server was brought back, as far as it still counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heals(Vec<i64>);

impl Heals {
    /// From what was kept; times that are not over yet are those of a clock that was set back since.
    #[must_use]
    pub fn new(mut tries: Vec<i64>, now: i64) -> Self {
        tries.retain(|at| *at <= now);
        tries.sort_unstable();
        let old = tries.len().saturating_sub(HEALS);
        Self(tries.split_off(old))
    }

    /// The times, the oldest first; at most [`HEALS`].
    #[must_use]
    pub fn tries(&self) -> &[i64] {
        &self.0
    }

    /// How often within the window.
    #[must_use]
    pub fn recent(&self, now: i64) -> usize {
        self.0.iter().filter(|at| now.saturating_sub(**at) < HEAL_WINDOW).count()
    }

    /// Whether it may be brought back as soon as it reports drift.
    #[must_use]
    pub fn may_at_once(&self, now: i64) -> bool {
        self.recent(now) < HEALS
    }

    /// From when on it is tried without any news of it.
    #[must_use]
    pub fn again_at(&self) -> Option<i64> {
        self.0.last().map(|last| last.saturating_add(HEAL_WINDOW))
    }

    /// With one more.
    #[must_use]
    pub fn and(mut self, now: i64) -> Self {
        self.0.push(now);
        Self::new(self.0, now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(pairs: &[(&str, DriftAnswer)]) -> DriftRules {
        pairs.iter().map(|(on, answer)| (on.parse().expect("a target"), *answer)).collect()
    }

    #[test]
    fn the_most_cautious_rule_counts_however_narrow_the_others_are() {
        use DriftAnswer::{Heal, Leave, Show};
        let labels = Labels::from([("env".to_owned(), "prod".to_owned())]);
        let web = ServerName::parse("web-1").expect("a name");
        for (pairs, expected) in [
            (&[][..], Show),
            (&[("*", Heal)], Heal),
            (&[("env=test", Heal)], Show),
            (&[("env=prod", Heal), ("env=test", Leave)], Heal),
            (&[("*", Heal), ("env=prod", Leave)], Leave),
            (&[("*", Leave), ("web-1", Heal)], Leave),
            (&[("*", Show), ("env=prod", Heal), ("web-1", Heal)], Show),
            (&[("*", Heal), ("env=prod", Leave), ("web-1", Show)], Show),
        ] {
            assert_eq!(drift_answer(&rules(pairs), &web, &labels), expected, "{pairs:?}");
        }
    }

    proptest! {
        #[test]
        fn no_rule_more_makes_anything_less_cautious(
            answers in prop::collection::vec(0_usize..3, 0..6), more in 0_usize..3,
        ) {
            let names = ["*", "web-1", "env=prod", "env=*", "web-1,web-2", "env!=test", "env=prod|x"];
            let labels = Labels::from([("env".to_owned(), "prod".to_owned())]);
            let web = ServerName::parse("web-1").expect("a name");
            let pair = |(on, number): (&str, usize)| {
                (on.parse().expect("a target"), DriftAnswer::ALL[number])
            };
            let before: DriftRules = names.into_iter().zip(answers.clone()).map(pair).collect();
            let mut after = before.clone();
            let (on, answer) = pair((names[answers.len()], more));
            after.insert(on, answer);
            let (before, after) =
                (drift_answer(&before, &web, &labels), drift_answer(&after, &web, &labels));
            prop_assert!(answers.is_empty() || after <= before);
            prop_assert!(after <= answer);
        }

        #[test]
        fn within_any_window_there_are_at_most_so_many(
            gaps in prop::collection::vec(0_i64..2000, 1..200),
        ) {
            let (mut now, mut heals, mut done) = (1_800_000_000, Heals::default(), Vec::new());
            for gap in gaps {
                now += gap;
                heals = Heals::new(heals.tries().to_vec(), now);
                if heals.may_at_once(now) {
                    heals = heals.and(now);
                    done.push(now);
                }
            }
            for (number, from) in done.iter().enumerate() {
                let inside = done[number..].iter().filter(|at| *at - from < HEAL_WINDOW).count();
                prop_assert!(inside <= HEALS, "{inside} from {from} on");
            }
        }
    }

    #[test]
    fn a_clock_that_was_set_back_forbids_nothing_for_long() {
        let heals = Heals::new(vec![5_000_000, 5_000_001, 5_000_002], 1000);
        assert_eq!(heals, Heals::default());
        assert!(heals.may_at_once(1000) && heals.again_at().is_none());
        let heals = Heals::default().and(1000).and(1001).and(1002);
        assert!(!heals.may_at_once(1003) && heals.recent(1003) == HEALS);
        assert_eq!(heals.again_at(), Some(1002 + HEAL_WINDOW));
        assert!(heals.may_at_once(1000 + HEAL_WINDOW));
    }
}
