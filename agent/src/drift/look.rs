//! The look itself: what the accounts are meant to be against what they are, and what there is to say about it.
//!
//! What was said once is not said again until it changes. This file must not know when a look is due, nor how what is
//! said travels.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bastio_protocol::{Detail, DriftMessage, FailureNote, Username, WantedAccount};

use super::Policy;
use crate::reconcile::host::Host;
use crate::reconcile::{Aims, Beat, Plan, Rules, Seen as Account, apply, observe, plan};

/// Largest message, in bytes: half of what a frame of version 2 may have.
const LIMIT: usize = 512 * 1024;
/// So many keys of others are named for each account: whoever adds thousands must not crowd out what there is to say
/// of everybody else.
const NAMED_KEYS: usize = 32;
/// What is said of an account that lets nobody in though it should.
const SHUT: &str = "locked by hand on the server; it stays so until the backend unlocks it (unlock-user, or the account \
    set anew)";

/// What differs from what is meant, account by account.
#[derive(Debug, Default)]
pub struct Drift {
    policy: Policy,
    found: BTreeMap<Username, Detail>,
    /// What else people should know: changes that were rolled back.
    notes: Vec<FailureNote>,
    /// What is over and could not be taken.
    overdue: Vec<FailureNote>,
    /// What is not watched.
    blind: Option<String>,
    told: Detail,
}

impl Drift {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// Looks at these accounts, and puts them right where that is the policy; what was put right, if anything was.
    /// Names that are not meant to be are nobody's business. `beat` is called after each of them.
    pub fn look(
        &mut self,
        host: &impl Host,
        wanted: &BTreeMap<Username, WantedAccount>,
        names: &BTreeSet<Username>,
        rules: &Rules,
        beat: &mut Beat<'_>,
    ) -> Option<Detail> {
        self.found.retain(|name, _| wanted.contains_key(name));
        let mut healed = Detail::default();
        for (name, wanted) in wanted.iter().filter(|(name, _)| names.contains(name)) {
            let (found, mut detail) = find(host, name, wanted, rules);
            if self.policy == Policy::Heal && !found.is_empty() {
                let applied = apply(&found, host, &mut || ControlFlow::Continue(()));
                healed.changes.extend(applied.detail.changes);
                (_, detail) = find(host, name, wanted, rules);
                detail.failures.extend(applied.detail.failures);
                detail.failures.dedup();
            }
            if detail == Detail::default() {
                self.found.remove(name);
            } else {
                self.found.insert(name.clone(), detail);
            }
            if beat().is_break() {
                break;
            }
        }
        (!healed.changes.is_empty()).then(|| fit(healed))
    }

    /// What cannot be watched, as long as it is so.
    pub fn set_blind(&mut self, blind: Option<String>) {
        self.blind = blind;
    }

    /// What is over and could not be taken, as long as it is so.
    pub fn set_overdue(&mut self, overdue: Vec<FailureNote>) {
        self.overdue = overdue;
    }

    /// Something was rolled back; said until the account is changed again.
    pub fn note(&mut self, note: FailureNote) {
        self.notes.retain(|known| known.username != note.username);
        self.notes.push(note);
    }

    /// What was noted about an account counts no more.
    pub fn forget_note(&mut self, name: &Username) {
        self.notes.retain(|note| note.username.as_ref() != Some(name));
    }

    /// What is to be said, if it was not said yet.
    pub fn news(&mut self) -> Option<Detail> {
        let now = self.all();
        if now == self.told {
            return None;
        }
        self.told = now.clone();
        Some(now)
    }

    /// Everything that is to be said, for who may know nothing yet.
    pub fn tell_all(&mut self) -> Detail {
        self.told = self.all();
        self.told.clone()
    }

    fn all(&self) -> Detail {
        let mut all = Detail::default();
        for detail in self.found.values() {
            all.changes.extend(detail.changes.iter().cloned());
            all.warnings.extend(detail.warnings.iter().cloned());
            all.failures.extend(detail.failures.iter().cloned());
        }
        all.failures.extend(self.overdue.iter().chain(&self.notes).cloned());
        let blind =
            self.blind.iter().map(|text| FailureNote { username: None, text: text.clone() });
        all.failures.extend(blind);
        fit(all)
    }
}

/// What may be done by itself so that an account is as it is meant, and what there is to say about it.
fn find(
    host: &impl Host,
    name: &Username,
    wanted: &WantedAccount,
    rules: &Rules,
) -> (Plan, Detail) {
    let aims = Aims::one(name, wanted, rules);
    let observed = match observe(host, &aims, rules) {
        Ok(observed) => observed,
        Err(error) => {
            let failure = FailureNote { username: Some(name.clone()), text: error.to_string() };
            let failures = vec![failure];
            return (Plan::default(), Detail { failures, ..Detail::default() });
        }
    };
    let plan = plan(&aims, &observed, rules);
    let mut detail = plan.detail();
    if detail.changes.is_empty() {
        detail.warnings.clear();
    }
    let Some(Ok(seen)) = observed.accounts.get(name) else { return (plan, detail) };
    detail.warnings.extend(foreign_keys(name, seen));
    let Some(state) = &seen.state else { return (plan, detail) };
    let (plan, is_shut) = plan.leaving_shut(&state.facts);
    if is_shut {
        let failure = FailureNote { username: Some(name.clone()), text: SHUT.to_owned() };
        detail.failures.push(failure);
    }
    (plan, detail)
}

/// Keys that log in as the account and are others'.
fn foreign_keys(name: &Username, seen: &Account) -> Vec<String> {
    let keys = seen.state.as_ref().and_then(|state| state.keys.as_ref().ok());
    let mut foreign: Vec<String> =
        keys.into_iter().flat_map(|keys| &keys.foreign).map(|key| key.fingerprint()).collect();
    foreign.sort();
    foreign.dedup();
    let text = |fingerprint| format!("{name}: a key that others added logs in: {fingerprint}");
    let more = foreign.len().saturating_sub(NAMED_KEYS);
    foreign.truncate(NAMED_KEYS);
    let more = (more > 0).then(|| format!("{name}: and {more} more keys that others added log in"));
    foreign.into_iter().map(text).chain(more).collect()
}

/// Leaves out what does not fit a message, of what there is most of, and says so.
fn fit(mut detail: Detail) -> Detail {
    let len = |detail: &Detail| {
        let message = DriftMessage { at: i64::MAX, healed: false, detail: detail.clone() };
        message.to_json().len()
    };
    let mut is_cut = false;
    while len(&detail) > LIMIT {
        is_cut = true;
        let Detail { changes, warnings, failures, .. } = &mut detail;
        let most = changes.len().max(warnings.len()).max(failures.len());
        if warnings.len() == most {
            warnings.truncate(most / 2);
        } else if changes.len() == most {
            changes.truncate(most / 2);
        } else {
            failures.truncate(most / 2);
        }
    }
    if is_cut {
        detail.warnings.push("there is more than fits a message".to_owned());
    }
    detail
}

#[cfg(test)]
mod tests {
    use bastio_protocol::{AbsolutePath, KeyGrant, KeyPolicy, PublicKey, Sudo};

    use super::*;
    use crate::reconcile::fake::{FakeHost, account, go_on, name, rules};
    use crate::reconcile::host::{AccountFacts, DAY, SudoState};

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

    fn key() -> PublicKey {
        PublicKey::parse(KEY, &KeyPolicy::ANY).unwrap()
    }

    /// Alice with a key and sudo, as she is meant to be.
    fn alice() -> (FakeHost, BTreeMap<Username, WantedAccount>, BTreeSet<Username>) {
        let host = FakeHost::default();
        let mut state = account(&name("alice"), 1001);
        state.sudo = SudoState::Group;
        state.keys.as_mut().unwrap().ours.push(KeyGrant::plain(key()));
        host.insert(state);
        let keys = [KeyGrant::plain(key())].into();
        let wanted = WantedAccount { sudo: Sudo::Plain, keys, ..WantedAccount::default() };
        (host, [(name("alice"), wanted)].into(), [name("alice")].into())
    }

    fn change(host: &FakeHost, change: impl FnOnce(&mut crate::reconcile::host::AccountState)) {
        let mut state = host.get("alice").unwrap();
        change(&mut state);
        host.insert(state);
    }

    #[test]
    fn what_is_as_it_is_meant_to_be_is_no_news() {
        let (host, wanted, names) = alice();
        for policy in [Policy::Report, Policy::Heal] {
            let mut drift = Drift::new(policy);
            assert_eq!(drift.look(&host, &wanted, &names, &rules(1000), &mut go_on), None);
            assert_eq!(drift.news(), None);
            assert_eq!(drift.tell_all(), Detail::default());
        }
        assert!(host.calls.borrow().is_empty());
    }

    #[test]
    fn drift_is_said_once_and_so_is_its_end() {
        let (host, wanted, names) = alice();
        let mut drift = Drift::new(Policy::Report);
        change(&host, |state| state.keys.as_mut().unwrap().ours.clear());
        for round in 0..3 {
            assert_eq!(drift.look(&host, &wanted, &names, &rules(1000), &mut go_on), None);
            let news = drift.news();
            assert_eq!(news.is_some(), round == 0, "{news:?}");
            if let Some(news) = news {
                assert!(news.changes[0].text.contains(&key().fingerprint()), "{news:?}");
            }
        }
        assert_eq!(drift.tell_all().changes.len(), 1, "a new connection hears of it");
        assert!(host.calls.borrow().is_empty(), "only reported");
        // More of it is news.
        change(&host, |state| state.sudo = SudoState::None);
        drift.look(&host, &wanted, &names, &rules(1000), &mut go_on);
        assert_eq!(drift.news().unwrap().changes.len(), 2);
        // Put right by hand: an empty word, once.
        host.insert(alice().0.get("alice").unwrap());
        drift.look(&host, &wanted, &names, &rules(1000), &mut go_on);
        assert_eq!(drift.news(), Some(Detail::default()));
        assert_eq!(drift.news(), None);
    }

    #[test]
    fn what_can_be_put_right_is() {
        let (host, wanted, names) = alice();
        let mut drift = Drift::new(Policy::Heal);
        change(&host, |state| {
            state.keys.as_mut().unwrap().ours.clear();
            state.sudo = SudoState::None;
        });
        let healed = drift.look(&host, &wanted, &names, &rules(1000), &mut go_on).unwrap();
        assert_eq!(healed.changes.len(), 2, "{healed:?}");
        assert_eq!(drift.news(), None);
        assert_eq!(host.get("alice"), alice().0.get("alice"));
        // What cannot stays said.
        change(&host, |state| state.sudo = SudoState::None);
        host.fails.borrow_mut().insert("set_sudo alice".to_owned());
        assert_eq!(drift.look(&host, &wanted, &names, &rules(1000), &mut go_on), None);
        let news = drift.news().unwrap();
        assert_eq!((news.changes.len(), news.failures.len()), (1, 1), "{news:?}");
        drift.look(&host, &wanted, &names, &rules(1000), &mut go_on);
        assert_eq!(drift.news(), None);
    }

    #[test]
    fn what_was_locked_by_hand_is_told_and_never_opened() {
        let locks: [fn(&mut AccountFacts); 5] = [
            |facts| facts.locked = true,
            |facts| facts.barred = true,
            |facts| facts.expires = Some(0),
            |facts| facts.expires = Some(900),
            |facts| facts.shell = "/usr/sbin/nologin".to_owned(),
        ];
        for lock in locks {
            let (host, mut wanted, names) = alice();
            let wish = wanted.get_mut(&name("alice")).unwrap();
            wish.spec.shell = Some(AbsolutePath::parse("/bin/bash").unwrap());
            let mut drift = Drift::new(Policy::Heal);
            change(&host, |state| {
                lock(&mut state.facts);
                state.sudo = SudoState::None;
            });
            let locked = host.get("alice").unwrap().facts;
            let healed = drift.look(&host, &wanted, &names, &rules(1000), &mut go_on).unwrap();
            assert_eq!(healed.changes.len(), 1, "everything else is healed: {healed:?}");
            assert_eq!(host.get("alice").unwrap().facts, locked);
            let news = drift.news().unwrap();
            assert!(news.failures[0].text.starts_with("locked by hand"), "{news:?}");
            assert_eq!(news.changes.len(), 1, "what an order would do: {news:?}");
            // The order itself does it.
            let aims = Aims::one(&name("alice"), &wanted[&name("alice")], &rules(1000));
            let whole = plan(&aims, &observe(&host, &aims, &rules(1000)).unwrap(), &rules(1000));
            apply(&whole, &host, &mut go_on);
            drift.look(&host, &wanted, &names, &rules(1000), &mut go_on);
            assert_eq!(drift.news(), Some(Detail::default()));
        }
    }

    #[test]
    fn an_end_that_was_put_off_by_hand_is_healed() {
        let (host, mut wanted, names) = alice();
        wanted.get_mut(&name("alice")).unwrap().until = Some(5 * DAY);
        let mut drift = Drift::new(Policy::Heal);
        for expires in [None, Some(6 * DAY)] {
            change(&host, |state| state.facts.expires = expires);
            drift.look(&host, &wanted, &names, &rules(1000), &mut go_on).unwrap();
            assert_eq!(host.get("alice").unwrap().facts.expires, Some(5 * DAY));
        }
        assert_eq!(drift.news(), None);
    }

    #[test]
    fn keys_of_others_are_a_warning_and_stay() {
        let (host, wanted, names) = alice();
        let mut drift = Drift::new(Policy::Heal);
        let foreign = PublicKey::parse(&KEY.replace("HR4f", "HR4e"), &KeyPolicy::ANY).unwrap();
        change(&host, |state| state.keys.as_mut().unwrap().foreign.push(foreign.clone()));
        assert_eq!(drift.look(&host, &wanted, &names, &rules(1000), &mut go_on), None);
        let news = drift.news().unwrap();
        let text = format!("alice: a key that others added logs in: {}", foreign.fingerprint());
        assert_eq!(news, Detail { warnings: vec![text], ..Detail::default() });
        assert!(host.calls.borrow().is_empty());
    }

    #[test]
    fn thousands_of_keys_of_one_crowd_out_nobody_else() {
        let (host, mut wanted, mut names) = alice();
        let mut bob = account(&name("bob"), 1003);
        bob.sudo = SudoState::Group;
        host.insert(bob);
        wanted.insert(name("bob"), WantedAccount::default());
        names.insert(name("bob"));
        let blob = |number: u32| {
            let mut blob = b"\0\0\0\x0bssh-ed25519\0\0\0 ".to_vec();
            blob.extend([[7; 28].as_slice(), &number.to_be_bytes()].concat());
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, blob)
        };
        let key = |number| {
            let line = format!("ssh-ed25519 {}", blob(number));
            PublicKey::parse(&line, &KeyPolicy::ANY).unwrap()
        };
        change(&host, |state| {
            state.keys.as_mut().unwrap().foreign.extend((0..10_000).map(key));
        });
        let mut drift = Drift::new(Policy::Report);
        drift.look(&host, &wanted, &names, &rules(1000), &mut go_on);
        let news = drift.news().unwrap();
        assert_eq!(news.warnings.len(), NAMED_KEYS + 1);
        assert_eq!(
            news.warnings.last().unwrap(),
            "alice: and 9968 more keys that others added log in"
        );
        assert!(news.changes.iter().any(|it| it.username == Some(name("bob"))), "{news:?}");
    }

    #[test]
    fn what_does_not_fit_costs_what_there_is_most_of() {
        let warnings = (0..20_000).map(|number| format!("{number}{}", "x".repeat(100))).collect();
        let failure = FailureNote { username: None, text: "rolled back".to_owned() };
        let detail = fit(Detail { warnings, failures: vec![failure.clone()], ..Detail::default() });
        assert_eq!(detail.failures, [failure]);
    }

    #[test]
    fn accounts_of_others_and_those_not_asked_for_are_not_looked_at() {
        let (host, wanted, names) = alice();
        let mut drift = Drift::new(Policy::Report);
        host.insert(account(&name("mallory"), 1002));
        change(&host, |state| state.sudo = SudoState::None);
        drift.look(&host, &wanted, &[name("mallory")].into(), &rules(1000), &mut go_on);
        assert_eq!(drift.news(), None);
        drift.look(&host, &wanted, &names, &rules(1000), &mut go_on);
        assert!(drift.news().is_some());
        drift.look(&host, &BTreeMap::new(), &BTreeSet::new(), &rules(1000), &mut go_on);
        assert_eq!(drift.news(), Some(Detail::default()), "not meant to be any more");
    }

    #[test]
    fn notes_are_said_until_the_account_is_changed() {
        let mut drift = Drift::new(Policy::Report);
        let note = FailureNote { username: Some(name("admin")), text: "rolled back".to_owned() };
        drift.note(note.clone());
        drift.note(note.clone());
        assert_eq!(drift.news().unwrap().failures, [note]);
        drift.forget_note(&name("admin"));
        assert_eq!(drift.news(), Some(Detail::default()));
    }

    #[test]
    fn a_message_always_fits() {
        let warnings = (0..20_000).map(|number| format!("{number}{}", "x".repeat(100))).collect();
        let detail = fit(Detail { warnings, ..Detail::default() });
        assert!(detail.warnings.len() > 1000);
        assert!(serde_json::to_vec(&detail).unwrap().len() <= LIMIT + 100);
        assert_eq!(detail.warnings.last().unwrap(), "there is more than fits a message");
    }
}
