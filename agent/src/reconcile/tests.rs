//! Every rule of the plan as a case, and as properties over random hosts and wishes.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use bastio_protocol::{
    AbsolutePath, AccountSpec, GroupName, KeyGrant, KeyOptions, KeyPolicy, PublicKey, Removal,
    Sudo, SudoPolicy, Username, WantedAccount, WantedState,
};
use proptest::prelude::*;

use super::fake::{FakeHost, account, go_on, name, rules};
use super::host::{AccountState, DAY, FoundKeys, SudoState};
use super::*;

const NOW: i64 = 1_000 * DAY + 5;
const KEYS: [&str; 3] = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f a",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFhmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZm b",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea c",
];

fn grant(number: usize) -> KeyGrant {
    KeyGrant::plain(PublicKey::parse(KEYS[number], &KeyPolicy::ANY).unwrap())
}

fn admin() -> WantedAccount {
    WantedAccount { sudo: Sudo::Plain, keys: [grant(0)].into(), ..WantedAccount::default() }
}

fn state(accounts: &[(&str, WantedAccount)]) -> WantedState {
    let accounts = accounts.iter().map(|(text, wanted)| (name(text), wanted.clone())).collect();
    WantedState { accounts, ..WantedState::default() }
}

fn ours(text: &str, uid: u32, keys: &[usize], sudo: SudoState) -> AccountState {
    let keys = Ok(FoundKeys { ours: keys.iter().map(|it| grant(*it)).collect(), foreign: vec![] });
    AccountState { keys, sudo, ..account(&name(text), uid) }
}

fn plan_with(host: &FakeHost, wanted: &WantedState, rules: &Rules) -> Plan {
    let aims = Aims::whole(wanted, rules);
    plan(&aims, &observe(host, &aims, rules).unwrap(), rules)
}

fn plan_of(host: &FakeHost, wanted: &WantedState) -> Plan {
    plan_with(host, wanted, &rules(NOW))
}

fn sync(host: &FakeHost, wanted: &WantedState) -> Applied {
    let plan = plan_of(host, wanted);
    let applied = apply(&plan, host, &mut go_on);
    if applied.failed.is_empty() {
        assert_eq!(applied.detail.changes, plan.notes(), "plan equals effect");
    }
    applied
}

/// What is done, as `NAME: KIND`, in order.
fn kinds(plan: &Plan) -> Vec<String> {
    let kind = |note: &bastio_protocol::ChangeNote| {
        let kind = serde_json::to_string(&note.kind).unwrap();
        format!("{}: {}", note.username.as_ref().unwrap(), kind.trim_matches('"'))
    };
    plan.notes().iter().map(kind).collect()
}

#[track_caller]
fn refuses(host: &FakeHost, wanted: &WantedState, words: &str) {
    let before = host.accounts.borrow().clone();
    let plan = plan_of(host, wanted);
    let texts: Vec<_> = plan.refusals.iter().map(|it| it.text.as_str()).collect();
    assert!(texts.iter().any(|text| text.contains(words)), "{words}: {texts:?}");
    assert_eq!(kinds(&plan), [""; 0], "nothing is done");
    apply(&plan, host, &mut go_on);
    assert_eq!(*host.accounts.borrow(), before, "untouched");
}

#[test]
fn a_new_account_is_made_in_one_go() {
    let host = FakeHost::default();
    let group = GroupName::parse("docker").unwrap();
    let mut wanted = admin();
    wanted.keys.insert(grant(1));
    wanted.spec.groups = Some([group].into());
    let wanted = state(&[("ann", wanted)]);
    let plan = plan_of(&host, &wanted);
    assert_eq!(kinds(&plan), ["ann: create-user", "ann: add-key", "ann: add-key"]);
    assert_eq!(plan.warnings, ["ann joins docker: its members can make themselves root"]);
    assert_eq!(sync(&host, &wanted).detail.failures, []);
    assert_eq!(*host.calls.borrow(), ["create ann", "set_keys ann"]);
    assert_eq!(host.get("ann").unwrap().sudo, SudoState::Group);
    assert_eq!(plan_of(&host, &wanted), Plan::default());
}

#[test]
fn what_only_loses_comes_first_and_the_leaving_admin_last() {
    let host = FakeHost::default();
    host.insert(ours("boss", 1001, &[0], SudoState::Group));
    host.insert(ours("zoe", 1002, &[0, 1], SudoState::None));
    host.insert(ours("yves", 1003, &[], SudoState::None));
    let fewer = WantedAccount { keys: [grant(0)].into(), ..WantedAccount::default() };
    let mut wanted = state(&[("ann", admin()), ("zoe", fewer)]);
    let first = ["yves: remove-user", "zoe: remove-key", "ann: create-user", "ann: add-key"];
    let plan = plan_of(&host, &wanted);
    assert_eq!(kinds(&plan), [&first[..], &["boss: remove-user"]].concat());
    wanted.allow_no_admin = true;
    assert_eq!(kinds(&plan_of(&host, &wanted))[0], "boss: remove-user", "nothing to wait for");
    wanted.allow_no_admin = false;
    host.fail("set_keys ann");
    let applied = sync(&host, &wanted);
    assert!(host.get("boss").is_some(), "ann is no admin, so boss stays one");
    let failed: Vec<_> = applied.failed.iter().map(Username::as_str).collect();
    assert_eq!(failed, ["ann", "boss"]);
    host.fails.take();
    assert_eq!(sync(&host, &wanted).detail.failures, []);
    assert!(host.get("boss").is_none());
}

#[test]
fn the_last_admin_is_not_lost() {
    let host = FakeHost::default();
    host.insert(ours("boss", 1001, &[0], SudoState::Group));
    host.insert(ours("zoe", 1002, &[0], SudoState::None));
    let without = |edit: &dyn Fn(&mut WantedAccount)| {
        let mut wanted = admin();
        edit(&mut wanted);
        state(&[("boss", wanted)])
    };
    for wanted in [
        WantedState::default(),
        without(&|it| it.sudo = Sudo::None),
        without(&|it| it.keys.clear()),
        without(&|it| it.locked = true),
        without(&|it| it.until = Some(NOW)),
        state(&[("eve", WantedAccount { keys: [grant(1)].into(), ..WantedAccount::default() })]),
    ] {
        refuses(&host, &wanted, "no account with sudo rights and a key would be left");
        let allowed = WantedState { allow_no_admin: true, ..wanted };
        assert!(plan_of(&host, &allowed).refusals.is_empty());
        assert!(!plan_of(&host, &allowed).is_empty());
    }
}

#[test]
fn who_may_run_one_command_is_no_admin() {
    let host = FakeHost::default();
    host.insert(ours("boss", 1000, &[0], SudoState::Group));
    let with = |policy: SudoPolicy| {
        state(&[("boss", WantedAccount { sudo: Sudo::Policy(Box::new(policy)), ..admin() })])
    };
    let all = SudoPolicy { password: true, not_after: Some(NOW + 9), ..SudoPolicy::default() };
    assert!(!plan_of(&host, &with(all.clone())).is_refused);
    for text in ["/usr/bin/less", "/bin/x (ALL:ALL) PASSWD: ALL"] {
        let one = SudoPolicy { commands: vec![text.parse().unwrap()], ..all.clone() };
        refuses(&host, &with(one), "admin");
    }
    let as_other = SudoPolicy { run_as: vec![name("www")], ..all };
    refuses(&host, &with(as_other), "admin");
}

#[test]
fn strangers_and_the_system_are_left_alone() {
    let host = FakeHost::default();
    let mut stranger = ours("carl", 1001, &[], SudoState::Group);
    stranger.facts.account.is_managed = false;
    stranger.keys = Ok(FoundKeys { ours: vec![], foreign: vec![grant(2).public_key] });
    host.insert(stranger);
    host.insert(ours("daemon", 1, &[], SudoState::None));
    refuses(&host, &state(&[("carl", admin()), ("daemon", admin())]), "not managed by bastio");
    let take_over = WantedAccount { take_over: true, ..admin() };
    refuses(&host, &state(&[("daemon", take_over.clone())]), "account of the system itself");
    let wanted = state(&[("carl", take_over)]);
    let plan = plan_of(&host, &wanted);
    assert_eq!(kinds(&plan), ["carl: take-over", "carl: add-key"]);
    assert_eq!(plan.warnings, ["carl has 1 keys that others wrote; they stay"]);
    sync(&host, &wanted);
    let carl = host.get("carl").unwrap();
    assert_eq!(carl.keys.unwrap().foreign, [grant(2).public_key]);
    assert!(plan_of(&host, &wanted).is_empty());
}

#[test]
fn what_was_taken_over_is_given_back_as_it_was() {
    let host = FakeHost::default();
    let mut carl = ours("carl", 1001, &[], SudoState::Group);
    carl.facts.account.is_managed = false;
    carl.keys =
        Ok(FoundKeys { ours: vec![], foreign: vec![grant(0).public_key, grant(2).public_key] });
    host.insert(carl.clone());
    let wanted = |account: WantedAccount| WantedState {
        allow_no_admin: true,
        ..state(&[("carl", account)])
    };
    let shell = Some(AbsolutePath::parse("/bin/zsh").unwrap());
    let spec = AccountSpec { shell, ..AccountSpec::default() };
    sync(&host, &wanted(WantedAccount { take_over: true, spec, ..admin() }));
    assert_eq!(host.get("carl").unwrap().keys.unwrap().foreign, [grant(2).public_key]);
    let shell = Some(AbsolutePath::parse(&carl.facts.shell).unwrap());
    let release = wanted(WantedAccount {
        spec: AccountSpec { shell, ..AccountSpec::default() },
        sudo: Sudo::Plain,
        release: Some(vec![KEYS[0].to_owned()]),
        ..WantedAccount::default()
    });
    let plan = plan_of(&host, &release);
    let last = kinds(&plan).last().cloned();
    assert_eq!(last.as_deref(), Some("carl: give-back"), "{plan:?}");
    sync(&host, &release);
    let mut after = host.get("carl").unwrap();
    after.keys.as_mut().unwrap().foreign.sort();
    carl.keys.as_mut().unwrap().foreign.sort();
    assert_eq!(after, carl);
    assert!(plan_of(&host, &release).is_empty(), "once is enough");
    assert!(plan_of(&host, &wanted_of_nobody()).is_empty(), "it is nobody's business");
}

fn wanted_of_nobody() -> WantedState {
    WantedState { allow_no_admin: true, ..WantedState::default() }
}

#[test]
fn who_is_in_another_group_for_sudo_is_taken_out_and_groups_that_stay_are_named() {
    let host = FakeHost::default();
    let mut ann = ours("ann", 1001, &[0], SudoState::OtherGroup);
    ann.facts.groups = ["docker", "developers"].map(str::to_owned).into();
    host.insert(ann.clone());
    let plain = WantedAccount { keys: [grant(0)].into(), ..WantedAccount::default() };
    let plan = plan_of(&host, &state(&[("ann", plain.clone())]));
    assert_eq!(kinds(&plan), ["ann: revoke-sudo"]);
    assert_eq!(plan.warnings, [""; 0], "known already");
    let plan = plan_of(&host, &state(&[("ann", admin())]));
    assert_eq!(kinds(&plan), ["ann: grant-sudo"]);
    ann.facts.account.is_managed = false;
    host.insert(ann);
    let taken = WantedAccount { take_over: true, ..plain };
    let plan = plan_of(&host, &state(&[("ann", taken)]));
    assert_eq!(plan.warnings, ["ann is a member of developers, docker; it stays so"]);
    let group = GroupName::parse("wheel").unwrap();
    let spec = AccountSpec { groups: Some([group].into()), ..AccountSpec::default() };
    let asked = WantedAccount { spec, ..WantedAccount::default() };
    refuses(&host, &state(&[("bob", asked)]), "membership of wheel is not given by groups");
}

#[test]
fn numeric_ids_are_asked_for_reserved_and_never_changed() {
    let host = FakeHost::default();
    host.insert(ours("ann", 1001, &[], SudoState::None));
    let with = |uid| {
        let spec = AccountSpec { uid: Some(uid), ..AccountSpec::default() };
        WantedAccount { spec, ..WantedAccount::default() }
    };
    let plain = WantedAccount::default();
    refuses(&host, &state(&[("ann", with(1002))]), "ann has the uid 1001, not 1002");
    let beside = |uid| state(&[("ann", plain.clone()), ("bob", with(uid))]);
    refuses(&host, &beside(1001), "the uid 1001 belongs to ann here");
    for uid in [0, 999, 65_534, u32::MAX] {
        refuses(&host, &beside(uid), "is for accounts of the system");
    }
    let both = state(&[("ann", plain.clone()), ("bob", with(1005)), ("cid", with(1005))]);
    refuses(&host, &both, "the uid 1005 belongs to");
    let mut wanted = beside(1007);
    wanted.reserved_uids = [(name("dora"), 1007)].into();
    refuses(&host, &wanted, "the uid 1007 belongs to dora here");
    let mut wanted = state(&[("ann", plain.clone()), ("bob", plain.clone()), ("dora", plain)]);
    wanted.reserved_uids = [(name("dora"), 1000), (name("eve"), 1002)].into();
    sync(&host, &wanted);
    let uid = |text| host.get(text).unwrap().facts.account.owner.uid.as_raw();
    assert_eq!((uid("dora"), uid("bob")), (1000, 1003), "1000 and 1002 are reserved");
}

#[test]
fn a_kept_home_is_taken_again_by_its_own_uid_alone() {
    let host = FakeHost::default();
    host.insert(ours("ann", 1001, &[], SudoState::None));
    sync(&host, &WantedState::default());
    assert!(host.get("ann").is_none());
    let mut wanted = state(&[("ann", WantedAccount::default())]);
    refuses(&host, &wanted, "/home/ann is there already and belongs to the uid 1001");
    wanted.reserved_uids = [(name("ann"), 1001)].into();
    let plan = plan_of(&host, &wanted);
    assert!(matches!(&plan.accounts[0].steps[..], [Step::Create(new)] if new.keep_home));
    sync(&host, &wanted);
    assert_eq!(host.get("ann").unwrap().facts.account.owner.uid.as_raw(), 1001);
}

#[test]
fn a_reserved_uid_that_a_stranger_took_is_no_longer_asked_for() {
    let host = FakeHost::default();
    let mut stranger = ours("eve", 1001, &[], SudoState::None);
    stranger.facts.account.is_managed = false;
    host.insert(stranger);
    let mut wanted = state(&[("ann", WantedAccount::default())]);
    wanted.reserved_uids = [(name("ann"), 1001)].into();
    let plan = plan_of(&host, &wanted);
    assert!(matches!(&plan.accounts[0].steps[..], [Step::Create(new)] if new.uid.is_none()));
    sync(&host, &wanted);
    assert_ne!(host.get("ann").unwrap().facts.account.owner.uid.as_raw(), 1001);
    let mut asked = WantedAccount::default();
    asked.spec.uid = Some(1001);
    let beside = |other, it| state(&[("ann", WantedAccount::default()), (other, it)]);
    refuses(&host, &beside("bob", asked), "the uid 1001 belongs to eve here");
    // What the stranger now owns is not the account's home.
    host.homes.borrow_mut().insert(name("cid"), 1001);
    let mut wanted = beside("cid", WantedAccount::default());
    wanted.reserved_uids = [(name("cid"), 1001)].into();
    refuses(&host, &wanted, "/home/cid is there already and belongs to the uid 1001");
}

#[test]
fn fields_that_the_host_cannot_have_are_refused() {
    let host = FakeHost::default();
    let with = |edit: &dyn Fn(&mut AccountSpec)| {
        let mut wanted = WantedAccount::default();
        edit(&mut wanted.spec);
        state(&[("ann", wanted)])
    };
    let groups = |text: &str| Some([GroupName::parse(text).unwrap()].into());
    let shell = AbsolutePath::parse("/opt/fish").unwrap();
    refuses(&host, &with(&|it| it.groups = groups("nobody-has-it")), "there is no group nobody");
    refuses(&host, &with(&|it| it.groups = groups("sudo")), "membership of sudo is not given");
    refuses(&host, &with(&|it| it.groups = groups("bastio-managed")), "membership of bastio-man");
    refuses(&host, &with(&|it| it.shell = Some(shell.clone())), "/opt/fish is no program");
    refuses(&host, &state(&[("docker", WantedAccount::default())]), "a group docker exists");
    let host = FakeHost { sudo_group: None, ..FakeHost::default() };
    refuses(&host, &state(&[("ann", admin())]), "no sudo group");
}

#[test]
fn fields_are_brought_in_line_and_the_rest_is_left() {
    let host = FakeHost::default();
    let mut there = ours("ann", 1001, &[], SudoState::None);
    there.facts.groups = ["old".to_owned()].into();
    host.insert(there);
    let mut wanted = WantedAccount::default();
    assert!(plan_of(&host, &state(&[("ann", wanted.clone())])).is_empty(), "absent is as it is");
    wanted.spec.groups = Some([GroupName::parse("developers").unwrap()].into());
    wanted.spec.shell = Some(AbsolutePath::parse("/bin/sh").unwrap());
    wanted.spec.home = Some(AbsolutePath::parse("/srv/ann").unwrap());
    wanted.until = Some(NOW + DAY);
    let wanted = state(&[("ann", wanted)]);
    let plan = plan_of(&host, &wanted);
    let text = "joins developers, leaves old, shell /bin/sh, ends 1972-09-29 00:00:00 UTC";
    assert_eq!(plan.notes()[0].text, text);
    assert_eq!(plan.warnings, ["ann keeps its home /home/ann, not /srv/ann"]);
    sync(&host, &wanted);
    assert_eq!(*host.calls.borrow(), ["modify ann"]);
    assert!(plan_of(&host, &wanted).is_empty());
}

#[test]
fn keys_are_made_exactly_these() {
    let host = FakeHost::default();
    let mut there = ours("ann", 1001, &[0, 1], SudoState::None);
    there.keys.as_mut().unwrap().foreign = vec![grant(2).public_key, grant(0).public_key];
    host.insert(there);
    let limited = KeyGrant { until: Some(NOW + 60), ..grant(2) };
    let over = KeyGrant { until: Some(NOW), ..grant(1) };
    let options = KeyOptions::parse("restrict").unwrap();
    let restricted = KeyGrant { options, ..grant(0) };
    let keys = [restricted.clone(), limited.clone(), over].into();
    let wanted = state(&[("ann", WantedAccount { keys, ..WantedAccount::default() })]);
    let plan = plan_of(&host, &wanted);
    assert_eq!(kinds(&plan), ["ann: add-key", "ann: change-key", "ann: remove-key"]);
    sync(&host, &wanted);
    let found = host.get("ann").unwrap().keys.unwrap();
    let expected: BTreeSet<_> = [restricted, limited].into();
    assert_eq!(found.ours.into_iter().collect::<BTreeSet<_>>(), expected);
    assert_eq!(found.foreign, []);
    assert!(plan_of(&host, &wanted).is_empty());
}

#[test]
fn keys_that_cannot_be_read_leave_the_rest_to_do() {
    let host = FakeHost::default();
    let mut there = ours("ann", 1001, &[], SudoState::Group);
    there.keys = Err("the home is missing".to_owned());
    host.insert(there);
    let keys = [grant(0)].into();
    let plan = plan_of(&host, &state(&[("ann", WantedAccount { keys, ..Default::default() })]));
    assert_eq!(kinds(&plan), ["ann: revoke-sudo"]);
    let text = &plan.refusals[0].text;
    assert!(text.starts_with("keys: ") && text.contains("the home is missing"), "{text}");
}

#[test]
fn a_lock_comes_first_and_an_unlock_last() {
    let host = FakeHost::default();
    host.insert(ours("boss", 1000, &[0], SudoState::Group));
    host.insert(ours("ann", 1001, &[0], SudoState::Group));
    let mut wanted = WantedAccount { keys: [grant(1)].into(), ..WantedAccount::default() };
    wanted.locked = true;
    let with = |ann: &WantedAccount| state(&[("boss", admin()), ("ann", ann.clone())]);
    let locked = with(&wanted);
    let rest = ["ann: add-key", "ann: remove-key", "ann: revoke-sudo"];
    assert_eq!(kinds(&plan_of(&host, &locked)), [&["ann: lock-user"], &rest[..]].concat());
    sync(&host, &locked);
    assert!(plan_of(&host, &locked).is_empty());
    wanted.locked = false;
    wanted.keys = [grant(2)].into();
    let open = with(&wanted);
    let steps = ["ann: add-key", "ann: remove-key", "ann: unlock-user"];
    assert_eq!(kinds(&plan_of(&host, &open)), steps);
    wanted.until = Some(NOW - 1);
    sync(&host, &open);
    let ended = with(&wanted);
    let steps = ["ann: lock-user", "ann: remove-key", "ann: end-sessions"];
    assert_eq!(kinds(&plan_of(&host, &ended)), steps);
    sync(&host, &ended);
    assert!(plan_of(&host, &ended).is_empty());
}

#[test]
fn what_runs_on_after_a_crash_is_ended_by_the_next_plan() {
    let host = FakeHost::default();
    let over = WantedAccount { until: Some(NOW - 1), ..WantedAccount::default() };
    let mut ann = ours("ann", 1001, &[], SudoState::None);
    ann.facts.locked = true;
    host.insert(ann.clone());
    host.running.borrow_mut().insert(name("ann"));
    let wanted = state(&[("ann", over)]);
    let plan = plan_of(&host, &wanted);
    assert_eq!(kinds(&plan), ["ann: end-sessions"]);
    assert_eq!(plan.clone().closing().accounts, plan.accounts);
    sync(&host, &wanted);
    assert!(host.running.borrow().is_empty() && plan_of(&host, &wanted).is_empty());
    // Not wanted: access was closed, and what ran was not ended.
    host.running.borrow_mut().insert(name("ann"));
    let wanted = WantedState { removal: Some(Removal::Lock), ..WantedState::default() };
    assert_eq!(kinds(&plan_of(&host, &wanted)), ["ann: remove-user"]);
    sync(&host, &wanted);
    assert!(host.running.borrow().is_empty() && plan_of(&host, &wanted).is_empty());
}

#[test]
fn a_key_that_is_wanted_no_more_goes_from_lines_of_others_too() {
    let host = FakeHost::default();
    let mut ann = ours("ann", 1001, &[], SudoState::None);
    let theirs = [grant(1).public_key, grant(2).public_key];
    ann.keys.as_mut().unwrap().foreign = theirs.to_vec();
    host.insert(ann);
    let keys = [grant(1)].into();
    let before = [(name("ann"), WantedAccount { keys, ..WantedAccount::default() })].into();
    let aims = Aims::one(&name("ann"), &WantedAccount::default(), &rules(NOW)).instead_of(&before);
    let plan_now = || plan(&aims, &observe(&host, &aims, &rules(NOW)).unwrap(), &rules(NOW));
    assert_eq!(kinds(&plan_now()), ["ann: remove-key"]);
    assert_eq!(plan_now().closing().notes(), plan_now().notes());
    let applied = apply(&plan_now(), &host, &mut go_on);
    assert_eq!(applied.detail.changes.len(), 1);
    let left = host.get("ann").unwrap().keys.unwrap().foreign;
    assert_eq!(left, [grant(2).public_key], "what was never wanted is nobody's business");
    assert!(plan_now().is_empty());
}

#[test]
fn whose_time_is_over_is_not_made() {
    let wanted = state(&[("ann", WantedAccount { until: Some(NOW), ..admin() })]);
    let plan = plan_of(&FakeHost::default(), &wanted);
    assert!(plan.is_empty() && plan.refusals.is_empty());
    assert_eq!(plan.warnings, ["ann was not created: its time is over"]);
}

#[test]
fn removal_that_locks_is_done_once() {
    let host = FakeHost::default();
    host.insert(ours("ann", 1001, &[0], SudoState::Group));
    let wanted = WantedState {
        removal: Some(Removal::Lock),
        allow_no_admin: true,
        ..WantedState::default()
    };
    assert_eq!(kinds(&plan_of(&host, &wanted)), ["ann: remove-user"]);
    sync(&host, &wanted);
    assert!(host.get("ann").unwrap().facts.locked);
    assert!(plan_of(&host, &wanted).is_empty());
    // A group can be worth as much as sudo.
    let mut ann = host.get("ann").unwrap();
    ann.facts.groups.insert("docker".to_owned());
    host.insert(ann);
    assert_eq!(kinds(&plan_of(&host, &wanted)), ["ann: remove-user"]);
    sync(&host, &wanted);
    assert!(host.get("ann").unwrap().facts.groups.is_empty());
    assert!(plan_of(&host, &wanted).is_empty());
}

#[test]
fn break_glass_is_never_locked_ended_or_removed() {
    let host = FakeHost::default();
    host.insert(ours("glass", 1001, &[0], SudoState::Group));
    let rules = Rules { break_glass: Some(name("glass")), ..rules(NOW) };
    let before = host.get("glass");
    let bad = [
        WantedAccount { locked: true, ..admin() },
        WantedAccount { until: Some(1), ..admin() },
        WantedAccount { until: Some(NOW + 1), ..admin() },
    ];
    let bad = bad.map(|wanted| state(&[("glass", wanted), ("bob", admin())]));
    for mut wanted in bad.into_iter().chain([state(&[("bob", admin())])]) {
        wanted.allow_no_admin = true;
        wanted.removal = Some(Removal::Delete);
        let plan = plan_with(&host, &wanted, &rules);
        assert_eq!(plan.refusals.len(), 1, "{plan:?}");
        assert_eq!(plan.refusals[0].username, Some(name("glass")));
        assert!(plan.refusals[0].text.contains("never locks, ends or removes"), "{plan:?}");
        assert_eq!(plan.refused, [name("glass")].into());
        let applied = apply(&plan, &host, &mut go_on);
        assert!(applied.failed.is_empty() && host.get("bob").is_some(), "the rest goes on");
        assert_eq!(host.get("glass"), before, "nothing of it is touched");
        let one = Aims::one(&name("glass"), &WantedAccount { locked: true, ..admin() }, &rules);
        let plan = super::plan(&one, &observe(&host, &one, &rules).unwrap(), &rules);
        assert!(plan.is_empty() && plan.refused.contains(&name("glass")));
        host.accounts.borrow_mut().remove(&name("bob"));
    }
    // Of keys and rights, what is wanted is done: the guard has the way back.
    let bare =
        WantedState { allow_no_admin: true, ..state(&[("glass", WantedAccount::default())]) };
    let kinds = kinds(&plan_with(&host, &bare, &rules));
    assert_eq!(kinds, ["glass: remove-key", "glass: revoke-sudo"]);
}

#[test]
fn what_an_account_cannot_have_keeps_nothing_from_being_taken() {
    let shell = AbsolutePath::parse("/opt/fish").unwrap();
    let edits: [&dyn Fn(&mut AccountSpec); 3] = [
        &|it| it.groups = Some([GroupName::parse("nobody-has-it").unwrap()].into()),
        &|it| it.shell = Some(shell.clone()),
        &|it| it.uid = Some(1077),
    ];
    for edit in edits {
        let host = FakeHost::default();
        host.insert(ours("boss", 1000, &[0], SudoState::Group));
        host.insert(ours("ann", 1001, &[0], SudoState::Group));
        host.insert(ours("bob", 1002, &[0], SudoState::Group));
        let keys = [grant(1)].into();
        let mut ann = WantedAccount { keys, ..WantedAccount::default() };
        edit(&mut ann.spec);
        let applied = sync(&host, &state(&[("ann", ann.clone()), ("boss", admin())]));
        assert_eq!(applied.detail.failures.len(), 1, "{:?}", applied.detail.failures);
        assert_eq!(applied.detail.failures[0].username, Some(name("ann")));
        assert!(host.get("bob").is_none(), "the others go on");
        let found = host.get("ann").unwrap();
        assert_eq!((found.keys.unwrap().ours, found.sudo), (vec![], SudoState::None));
        // Of a stranger nothing is taken before it is ours.
        let mut stranger = ours("ann", 1001, &[0], SudoState::Group);
        stranger.facts.account.is_managed = false;
        host.insert(stranger);
        ann.take_over = true;
        refuses(&host, &state(&[("ann", ann), ("boss", admin())]), "");
    }
}

#[test]
fn who_only_loses_is_not_counted_as_the_admin_that_it_should_become() {
    let host = FakeHost::default();
    host.insert(ours("boss", 1000, &[0], SudoState::Group));
    host.insert(ours("ann", 1001, &[], SudoState::None));
    let mut ann = admin();
    ann.spec.groups = Some([GroupName::parse("nobody-has-it").unwrap()].into());
    refuses(&host, &state(&[("ann", ann)]), "would be left");
}

#[test]
fn a_uid_asked_for_later_is_not_given_to_somebody_before() {
    let host = FakeHost::default();
    let mut zoe = WantedAccount::default();
    zoe.spec.uid = Some(1000);
    let wanted = state(&[("ann", WantedAccount::default()), ("zoe", zoe)]);
    assert_eq!(sync(&host, &wanted).detail.failures, []);
    let uid = |text| host.get(text).unwrap().facts.account.owner.uid.as_raw();
    assert_eq!((uid("ann"), uid("zoe")), (1001, 1000));
}

#[test]
fn a_weak_key_is_not_let_in_but_not_thrown_out_either() {
    let weak = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAwEAAQ==";
    let key = PublicKey::parse(weak, &KeyPolicy::ANY).unwrap();
    let host = FakeHost::default();
    let keys = [KeyGrant::plain(key.clone()), grant(0)].into();
    let wanted = state(&[("ann", WantedAccount { keys, ..WantedAccount::default() })]);
    let applied = sync(&host, &wanted);
    assert!(applied.detail.failures[0].text.contains("bits"), "{:?}", applied.detail.failures);
    assert_eq!(host.get("ann").unwrap().keys.unwrap().ours, [grant(0)]);
    let mut ann = host.get("ann").unwrap();
    ann.keys.as_mut().unwrap().ours.push(KeyGrant::plain(key));
    host.insert(ann);
    let plan = plan_of(&host, &wanted);
    assert!(plan.is_empty() && plan.warnings[0].contains("it stays"), "{plan:?}");
}

#[test]
fn a_step_that_fails_stops_giving_to_that_account_alone() {
    let host = FakeHost::default();
    host.insert(ours("boss", 1000, &[0], SudoState::Group));
    host.insert(ours("ann", 1001, &[0], SudoState::Group));
    let ann = WantedAccount { keys: [grant(0), grant(1)].into(), ..WantedAccount::default() };
    let wanted = state(&[("boss", admin()), ("ann", ann), ("zoe", admin())]);
    host.fail("set_keys ann");
    let mut beats = 0;
    let applied = apply(&plan_of(&host, &wanted), &host, &mut || {
        beats += 1;
        ControlFlow::Continue(())
    });
    assert_eq!(beats, 2, "one for each account that changes");
    assert_eq!(applied.failed, [name("ann")].into());
    assert_eq!(host.get("ann").unwrap().sudo, SudoState::None, "what takes is done all the same");
    assert!(host.get("zoe").is_some());
    host.fail("facts ann");
    let plan = plan_of(&host, &wanted);
    assert!(plan.is_empty() && plan.refusals[0].text.contains("cannot look up"));
}

#[test]
fn a_stop_comes_between_two_accounts() {
    let wanted = state(&[("ann", admin()), ("bob", admin()), ("cid", admin())]);
    for (stop_after, made) in [(1, 1), (2, 2), (3, 3)] {
        let host = FakeHost::default();
        let mut beats = 0;
        let applied = apply(&plan_of(&host, &wanted), &host, &mut || {
            beats += 1;
            if beats == stop_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let accounts = host.accounts.borrow();
        assert_eq!((accounts.len(), applied.is_stopped), (made, made < 3));
        let has_key = |it: &AccountState| it.keys.as_ref().is_ok_and(|keys| keys.ours.len() == 1);
        assert!(accounts.values().all(has_key), "each has all of its own");
    }
}

#[test]
fn what_was_begun_when_the_stop_came_is_made_and_told_with_its_keys() {
    let user = || WantedAccount { keys: [grant(0)].into(), ..WantedAccount::default() };
    let names = ["ann", "bob", "cid", "dan", "eve"];
    let wanted = state(&names.map(|name| (name, user())));
    for stop_after in 1..=names.len() {
        // Looks after one account while it makes the next, as the real one does.
        let host = FakeHost { tells_late: true, ..FakeHost::default() };
        let mut beats = 0;
        let applied = apply(&plan_of(&host, &wanted), &host, &mut || {
            beats += 1;
            if beats == stop_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let made = names.len().min(stop_after + 1);
        assert_eq!((host.accounts.borrow().len(), applied.made.len()), (made, made));
        assert_eq!(applied.is_stopped, made < names.len());
        assert_eq!(applied.detail.changes.len(), 2 * made, "{:?}", applied.detail);
        let accounts = host.accounts.borrow();
        let has_key = |it: &AccountState| it.keys.as_ref().is_ok_and(|keys| keys.ours.len() == 1);
        assert!(accounts.values().all(has_key), "each has all of its own");
        let uid = |it: &AccountState| it.facts.account.owner.uid.as_raw();
        assert!(accounts.iter().all(|(name, it)| applied.made.get(name) == Some(&uid(it))));
    }
}

#[test]
fn one_of_a_row_that_cannot_be_made_is_told_in_its_place() {
    let user = || WantedAccount { keys: [grant(0)].into(), ..WantedAccount::default() };
    let wanted = state(&["ann", "bob", "cid"].map(|name| (name, user())));
    for (call, failed, left) in [("create bob", "bob", 2), ("set_keys cid", "cid", 3)] {
        let host = FakeHost::default();
        host.fail(call);
        let applied = apply(&plan_of(&host, &wanted), &host, &mut go_on);
        assert_eq!(applied.failed, [name(failed)].into());
        assert_eq!((applied.made.len(), applied.detail.failures.len()), (left, 1));
        let told: Vec<_> =
            applied.detail.changes.iter().filter_map(|it| it.username.clone()).collect();
        assert!(told.is_sorted(), "in the order of the plan: {told:?}");
        assert_eq!(host.accounts.borrow().len(), left);
    }
}

#[test]
fn where_only_closing_is_allowed_nothing_else_is_done() {
    let host = FakeHost::default();
    host.insert(ours("boss", 1000, &[0], SudoState::Group));
    host.insert(ours("ann", 1001, &[0], SudoState::Group));
    host.insert(ours("eve", 1002, &[0], SudoState::Group));
    let ann = WantedAccount { keys: [grant(1)].into(), ..WantedAccount::default() };
    let wanted = state(&[("boss", admin()), ("ann", ann), ("zoe", admin())]);
    let plan = plan_of(&host, &wanted).closing();
    assert_eq!(kinds(&plan), ["eve: remove-user", "ann: remove-key", "ann: revoke-sudo"]);
    apply(&plan, &host, &mut go_on);
    assert_eq!(host.get("ann").unwrap().keys.unwrap().ours, []);
    assert!(host.get("zoe").is_none());
}

fn wanted_account() -> impl Strategy<Value = WantedAccount> {
    let until = prop_oneof![3 => Just(None), 1 => Just(Some(NOW - 9)), 1 => Just(Some(NOW + 99))];
    let sudo = prop_oneof![
        Just(Sudo::None),
        Just(Sudo::Plain),
        Just(Sudo::Policy(Box::new(SudoPolicy {
            commands: vec![],
            run_as: vec![name("postgres")],
            password: false,
            not_before: None,
            not_after: None,
        }))),
    ];
    let keys = proptest::collection::btree_map(0..3_usize, until.clone(), 0..3);
    let spec = (proptest::option::of(1000..1006_u32), any::<bool>(), any::<bool>());
    (spec, sudo, keys, until, any::<bool>(), any::<bool>()).prop_map(
        |((uid, group, shell), sudo, keys, until, locked, take_over)| WantedAccount {
            spec: AccountSpec {
                uid,
                groups: group.then(|| [GroupName::parse("developers").unwrap()].into()),
                shell: shell.then(|| AbsolutePath::parse("/bin/sh").unwrap()),
                ..AccountSpec::default()
            },
            sudo,
            keys: keys.into_iter().map(|(it, until)| KeyGrant { until, ..grant(it) }).collect(),
            until,
            locked: locked && take_over,
            release: None,
            take_over,
        },
    )
}

fn found_account() -> impl Strategy<Value = (u32, bool, bool, SudoState, Vec<usize>, Vec<usize>)> {
    let sudo = prop_oneof![
        Just(SudoState::None),
        Just(SudoState::Group),
        Just(SudoState::Both("x".to_owned()))
    ];
    let keys = || proptest::collection::vec(0..3_usize, 0..3);
    (998..1010_u32, any::<bool>(), any::<bool>(), sudo, keys(), keys())
}

const NAMES: [&str; 4] = ["ann", "bob", "cid", "glass"];

prop_compose! {
    fn host_and_wish()(
        found in proptest::collection::vec(proptest::option::of(found_account()), 4),
        wanted in proptest::collection::vec(proptest::option::of(wanted_account()), 4),
        removal in prop_oneof![
            Just(Removal::Lock), Just(Removal::Keep), Just(Removal::Delete)
        ],
        allow_no_admin in any::<bool>(),
    ) -> (FakeHost, WantedState) {
        let host = FakeHost::default();
        for (text, found) in NAMES.iter().zip(found) {
            let Some((uid, managed, locked, sudo, keys, foreign)) = found else { continue };
            let mut state = ours(text, uid, &keys, sudo);
            state.keys.as_mut().unwrap().foreign =
                foreign.iter().map(|it| grant(*it).public_key).collect();
            (state.facts.account.is_managed, state.facts.locked) = (managed, locked);
            host.insert(state);
        }
        let accounts = NAMES.iter().zip(wanted).filter_map(|(it, wanted)| Some((name(it), wanted?)));
        let accounts = accounts.collect();
        (host, WantedState { accounts, removal: Some(removal), allow_no_admin, ..WantedState::default() })
    }
}

fn is_admin(state: &AccountState) -> bool {
    let keys = state.keys.as_ref().unwrap();
    let facts = &state.facts;
    facts.account.is_managed
        && !facts.locked
        && state.sudo.is_admins()
        && (!keys.ours.is_empty() || !keys.foreign.is_empty())
}

/// Whether nothing was given: the same, or locked, with fewer keys, or without rights.
fn is_no_more_than(after: &AccountState, before: &AccountState) -> bool {
    let (left, had) = (after.keys.as_ref().unwrap(), before.keys.as_ref().unwrap());
    let mut facts = after.facts.clone();
    (facts.locked, facts.expires) = (before.facts.locked, before.facts.expires);
    facts == before.facts
        && (after.facts.locked || !before.facts.locked)
        && left.ours.iter().all(|grant| had.ours.contains(grant))
        && left.foreign.iter().all(|key| had.foreign.contains(key))
        && (after.sudo == before.sudo || after.sudo.is_none())
}

proptest! {
    #[test]
    fn the_result_is_as_wanted_and_nothing_else_was_touched((host, wanted) in host_and_wish()) {
        let before = host.accounts.borrow().clone();
        let uid = |it: &AccountState| it.facts.account.owner.uid.as_raw();
        let managed = before.iter().filter(|(_, it)| it.facts.account.is_managed);
        let reserved = managed.map(|(name, it)| (name.clone(), uid(it))).collect();
        let reserved = Arc::new(reserved);
        let rules = Rules { break_glass: Some(name("glass")), reserved, ..rules(NOW) };
        let plan = plan_with(&host, &wanted, &rules);
        let applied = apply(&plan, &host, &mut go_on);
        prop_assert_eq!(&applied.detail.changes, &plan.notes());
        prop_assert!(applied.failed.is_empty());
        let after = host.accounts.borrow().clone();
        let is_admin = |it: &AccountState| {
            is_admin(it) || it.facts.account.name == name("glass") && {
                let mut it = it.clone();
                it.facts.account.is_managed = true;
                is_admin(&it)
            }
        };
        if !wanted.allow_no_admin && before.values().any(is_admin) {
            prop_assert!(after.values().any(is_admin), "the last admin was locked out");
        }
        let touched: BTreeSet<&Username> = plan.accounts.iter().map(|it| &it.name).collect();
        for (name, state) in &before {
            let account = &state.facts.account;
            let may_be_touched = !account.is_system && (account.is_managed
                || wanted.accounts.get(name).is_some_and(|it| it.take_over));
            if !may_be_touched || !touched.contains(name) {
                prop_assert_eq!(after.get(name), Some(state), "{}", name);
            }
            let had_refusal = plan.refusals.iter().any(|it| it.username.as_ref() == Some(name));
            if had_refusal {
                let left = after.get(name).expect("wanted, so not removed");
                prop_assert!(is_no_more_than(left, state), "{} was given what is refused", name);
            }
        }
        if let (Some(before), Some(glass)) = (before.get(&name("glass")), after.get(&name("glass"))) {
            prop_assert!(before.facts.locked || !glass.facts.locked, "break-glass is locked");
        }
        prop_assert!(!before.contains_key(&name("glass")) || after.contains_key(&name("glass")));
        if !plan.refusals.iter().any(|it| it.username.is_none()) {
            prop_assert!(plan_with(&host, &wanted, &rules).is_empty(), "the plan of the result");
            for (who, wanted) in wanted.accounts.iter().filter(|(who, _)| who.as_str() != "glass") {
                let over = wanted.until.is_some_and(|until| until <= NOW);
                if let Some(state) = after.get(who).filter(|_| over && touched.contains(who)) {
                    let keys = state.keys.as_ref().unwrap();
                    prop_assert!(state.facts.locked && keys.ours.is_empty() && state.sudo.is_none());
                }
            }
        }
    }
}
