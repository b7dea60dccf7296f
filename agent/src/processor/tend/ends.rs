//! What has come to its end: taken when its time is over, whatever the policy for drift is, and tried again when that
//! fails. This file must not know when it is asked, nor who hears of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bastio_protocol::{FailureNote, Username, WantedAccount};

use crate::reconcile::host::Host;
use crate::reconcile::{Aims, Beat, Rules, apply, observe, plan};

/// How long what failed rests at first; each time twice as long.
const FIRST_REST: Duration = Duration::from_secs(10);
/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(10 * 60);

/// What became of what is over.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// The accounts of which something was to be taken.
    pub(super) names: BTreeSet<Username>,
    /// What was not done.
    pub(super) failures: Vec<FailureNote>,
}

/// When what could not be taken is tried again.
#[derive(Debug, Default)]
pub(super) struct Retry {
    failed: BTreeSet<Username>,
    next: Option<(Instant, Duration)>,
}

impl Retry {
    /// When it is due, if anything failed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next.map(|(at, _)| at)
    }

    #[cfg(test)]
    pub(super) fn make_due(&mut self) {
        self.next = self.next.map(|(_, rest)| (Instant::now(), rest));
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|at| at <= now)
    }

    /// It was tried. What failed for the first time is not to wait for what fails for long.
    pub(super) fn tried(&mut self, failures: &[FailureNote], now: Instant) {
        let failed: BTreeSet<Username> =
            failures.iter().filter_map(|failure| failure.username.clone()).collect();
        let is_known = failed.is_subset(&self.failed);
        self.next = match self.next {
            _ if failed.is_empty() => None,
            Some((at, rest)) if is_known && at > now => Some((at, rest)),
            Some((_, rest)) if is_known => {
                let rest = (rest * 2).min(LONGEST_REST);
                Some((now + rest, rest))
            }
            _ => Some((now + FIRST_REST, FIRST_REST)),
        };
        self.failed = failed;
    }
}

/// Takes what is over.
pub(super) fn take(
    host: &impl Host,
    wanted: &BTreeMap<Username, WantedAccount>,
    rules: &Rules,
    beat: &mut Beat<'_>,
) -> Taken {
    let is_over = |wanted: &WantedAccount| ends(wanted).any(|end| end <= rules.now);
    let mut taken = Taken::default();
    for (name, wanted) in wanted.iter().filter(|(_, wanted)| is_over(wanted)) {
        take_one(name, wanted, host, rules, &mut taken);
        if beat().is_break() {
            break;
        }
    }
    taken
}

fn take_one(
    name: &Username,
    wanted: &WantedAccount,
    host: &impl Host,
    rules: &Rules,
    taken: &mut Taken,
) {
    let mut fail = |why: &str| {
        tracing::error!(%name, why, "its time is over, and this was not done");
        let text = format!("its time is over, and this was not done: {why}; it is tried again");
        taken.failures.push(FailureNote { username: Some(name.clone()), text });
    };
    let aims = Aims::one(name, wanted, rules);
    let observed = match observe(host, &aims, rules) {
        Ok(observed) => observed,
        Err(error) => return fail(&error.to_string()),
    };
    let closing = plan(&aims, &observed, rules).closing();
    if closing.is_empty() {
        return;
    }
    let applied = apply(&closing, host, &mut || std::ops::ControlFlow::Continue(()));
    for change in &applied.detail.changes {
        tracing::info!(%name, change = change.text, "its time is over");
    }
    applied.detail.failures.iter().for_each(|failure| fail(&failure.text));
    taken.names.insert(name.clone());
}

/// The ends of everything that an account has, in seconds since the Unix epoch.
fn ends(wanted: &WantedAccount) -> impl Iterator<Item = i64> {
    let keys = wanted.keys.iter().filter_map(|key| wanted.key_until(key));
    keys.chain(wanted.until).chain(wanted.sudo_until())
}

/// What ends next.
pub(super) fn next(wanted: &BTreeMap<Username, WantedAccount>, now: i64) -> Option<i64> {
    wanted.values().flat_map(ends).filter(|end| *end > now).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_next_is_the_earliest_that_is_not_over() {
        let account = |until| WantedAccount { until, ..WantedAccount::default() };
        let name = |text| Username::parse(text).unwrap();
        let wanted: BTreeMap<Username, WantedAccount> = [
            (name("a"), account(Some(50))),
            (name("b"), account(Some(30))),
            (name("c"), account(None)),
        ]
        .into();
        for (now, expected) in [(0, Some(30)), (29, Some(30)), (30, Some(50)), (50, None)] {
            assert_eq!(next(&wanted, now), expected, "{now}");
        }
    }

    #[test]
    fn what_fails_again_and_again_rests_longer_and_longer() {
        let failure = |text| FailureNote {
            username: Some(Username::parse(text).unwrap()),
            text: "x".to_owned(),
        };
        let begun = Instant::now();
        let (mut retry, mut now, mut rests) = (Retry::default(), begun, Vec::new());
        for _ in 0..9 {
            retry.tried(&[failure("a")], now);
            rests.push((retry.deadline().unwrap() - now).as_secs());
            now = retry.deadline().unwrap();
            assert!(retry.is_due(now) && !retry.is_due(now - Duration::from_millis(1)));
        }
        assert_eq!(rests, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
        // Looked at for another reason: the rest is not longer for it.
        retry.tried(&[failure("a")], now);
        let due = retry.deadline();
        retry.tried(&[failure("a")], now + Duration::from_secs(1));
        assert_eq!(retry.deadline(), due);
        // Another one fails for the first time.
        retry.tried(&[failure("a"), failure("b")], now);
        assert_eq!(retry.deadline(), Some(now + FIRST_REST));
        retry.tried(&[], now);
        assert_eq!(retry.deadline(), None);
    }
}
