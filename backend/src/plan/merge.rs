//! Several grants of one login on one server become one account.
//!
//! Pure. Where grants contradict each other, the account gets less, never more, and the conflict
//! is named: edits that lead to one are refused.

use std::collections::{BTreeMap, BTreeSet};

use bastio_protocol::{
    AccountSpec, KeyGrant, KeyOptions, PublicKey, ServerName, Sudo, SudoPolicy, Target, Username,
    WantedAccount,
};
use thiserror::Error;

use super::{Accounts, Host};

/// A grant with what its person brings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    /// Sudo rights.
    pub sudo: Sudo,
    /// When they end, in seconds since the Unix epoch.
    pub until: Option<i64>,
    /// Options in front of every key.
    pub key_options: KeyOptions,
    /// The person's keys, with options and ends of their own.
    pub keys: Vec<KeyGrant>,
    /// What the account database must say.
    pub spec: AccountSpec,
    /// The numeric id of the login name, where it has one and `spec` says none. An account that
    /// others made keeps its own.
    pub uid: Option<u32>,
    /// Whether the person is locked out.
    pub locked: bool,
    /// Whether an account that bastio did not make may be managed.
    pub take_over: bool,
}

/// A grant as the plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entitlement {
    /// The servers.
    pub on: Target,
    /// The account there.
    pub login: Username,
    /// What it gives.
    pub rights: Rights,
}

/// Grants that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{login} on {server}: {why}")]
pub struct Conflict {
    /// The server.
    pub server: ServerName,
    /// The account.
    pub login: Username,
    /// What contradicts what.
    pub why: Clash,
}

/// What contradicts what.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Clash {
    /// Two sudo policies.
    #[error("the grants give two different sudo policies")]
    Sudo,
    /// A key with two different restrictions.
    #[error("the grants give the key {0} different options")]
    Options(String),
}

/// The accounts that `host` must have, and what could not be put together.
#[must_use]
pub fn merge(model: &[Entitlement], host: &Host) -> (Accounts, Vec<Conflict>) {
    let about = model.iter().filter(|grant| grant.on.includes(&host.name, &host.labels));
    merge_of(about, &host.name)
}

/// As [`merge`], of the grants that are about that server.
pub(super) fn merge_of<'a>(
    about: impl Iterator<Item = &'a Entitlement>,
    server: &ServerName,
) -> (Accounts, Vec<Conflict>) {
    let mut of = BTreeMap::<&Username, Vec<&Rights>>::new();
    for grant in about {
        of.entry(&grant.login).or_default().push(&grant.rights);
    }
    let mut conflicts = Vec::new();
    let mut accounts = Accounts::new();
    for (login, rights) in of {
        let (wanted, clashes) = account(&rights);
        accounts.insert(login.clone(), wanted.into());
        conflicts.extend(clashes.into_iter().map(|why| Conflict {
            server: server.clone(),
            login: login.clone(),
            why,
        }));
    }
    (accounts, conflicts)
}

/// One account of all rights to it. People who are locked out bring nothing, unless there are no
/// others: then the account is locked with everything that it has.
fn account(all: &[&Rights]) -> (WantedAccount, Vec<Clash>) {
    let locked = all.iter().all(|rights| rights.locked);
    let active: Vec<&Rights> =
        all.iter().copied().filter(|rights| locked || !rights.locked).collect();
    let until = latest(active.iter().map(|rights| rights.until));
    let mut clashes = Vec::new();
    let take_over = active.iter().any(|rights| rights.take_over);
    let said = active.iter().map(|rights| &rights.spec).find(|spec| !spec.is_empty());
    let mut spec = said.cloned().unwrap_or_default();
    let uid = active.iter().find_map(|rights| rights.uid).filter(|_| !take_over);
    spec.uid = spec.uid.or(uid);
    let wanted = WantedAccount {
        spec,
        sudo: sudo(&active, until, &mut clashes),
        keys: keys(&active, until, &mut clashes),
        until,
        locked,
        take_over,
        release: None,
    };
    (wanted, clashes)
}

/// Plain rights beat a policy; rights that end before the account does say so themselves.
fn sudo(active: &[&Rights], account_until: Option<i64>, clashes: &mut Vec<Clash>) -> Sudo {
    let until_of = |fits: &dyn Fn(&Sudo) -> bool| {
        latest(active.iter().filter(|rights| fits(&rights.sudo)).map(|rights| rights.until))
    };
    if active.iter().any(|rights| rights.sudo == Sudo::Plain) {
        let until = until_of(&|sudo| *sudo == Sudo::Plain);
        return if until == account_until { Sudo::Plain } else { ending(everything(), until) };
    }
    let policies: BTreeSet<&SudoPolicy> = active
        .iter()
        .filter_map(|rights| match &rights.sudo {
            Sudo::Policy(policy) => Some(&**policy),
            Sudo::None | Sudo::Plain => None,
        })
        .collect();
    let mut policies = policies.into_iter();
    match (policies.next(), policies.next()) {
        (None, _) => Sudo::None,
        (Some(policy), None) => {
            let until = until_of(&|sudo| matches!(sudo, Sudo::Policy(_)));
            let until = until.filter(|_| until != account_until);
            ending(policy.clone(), until)
        }
        (Some(_), Some(_)) => {
            clashes.push(Clash::Sudo);
            Sudo::None
        }
    }
}

fn ending(mut policy: SudoPolicy, until: Option<i64>) -> Sudo {
    policy.not_after = earliest([policy.not_after, until]);
    Sudo::Policy(Box::new(policy))
}

/// What plain sudo rights are when they must end before the account: version 2 knows no other way
/// to say so.
fn everything() -> SudoPolicy {
    SudoPolicy {
        commands: Vec::new(),
        run_as: Vec::new(),
        password: false,
        not_before: None,
        not_after: None,
    }
}

/// Every key once: without options if any grant gives it so, and as long as those grants that
/// give it with these options.
fn keys(
    active: &[&Rights],
    account_until: Option<i64>,
    clashes: &mut Vec<Clash>,
) -> BTreeSet<KeyGrant> {
    let mut ways = BTreeMap::<&PublicKey, Vec<(Option<KeyOptions>, Option<i64>)>>::new();
    for rights in active {
        for key in &rights.keys {
            let options = join(&key.options, &rights.key_options);
            let until = earliest([key.until, rights.until]);
            ways.entry(&key.public_key).or_default().push((options, until));
        }
    }
    let mut keys = BTreeSet::new();
    for (key, ways) in ways {
        let Some(options) = widest(&ways) else {
            clashes.push(Clash::Options(key.fingerprint()));
            continue;
        };
        let same = ways.iter().filter(|(found, _)| found.as_ref() == Some(&options));
        let until = latest(same.map(|(_, until)| *until))
            .filter(|until| account_until.is_none_or(|account_until| *until < account_until));
        keys.insert(KeyGrant { public_key: key.clone(), options, until });
    }
    keys
}

/// The least restricted of several ways, if there is one.
fn widest(ways: &[(Option<KeyOptions>, Option<i64>)]) -> Option<KeyOptions> {
    let mut found = ways.iter().map(|(options, _)| options.as_ref());
    if ways.iter().any(|(options, _)| options.as_ref().is_some_and(KeyOptions::is_empty)) {
        return Some(KeyOptions::default());
    }
    let first = found.next()??;
    found.all(|options| options == Some(first)).then(|| first.clone())
}

/// The options of a key and those of a grant together; `None` when they cannot stand side by side, or would allow
/// what one of them alone does not.
pub fn join(key: &KeyOptions, grant: &KeyOptions) -> Option<KeyOptions> {
    if key.is_empty() || key == grant {
        return Some(grant.clone());
    }
    if grant.is_empty() {
        return Some(key.clone());
    }
    if widens(key, grant) {
        return None;
    }
    KeyOptions::parse(&format!("{key},{grant}")).ok()
}

/// Whether sshd would add up what two lists give back behind `restrict`, or the places that they open.
fn widens(one: &KeyOptions, other: &KeyOptions) -> bool {
    let flags = |options: &KeyOptions| -> BTreeSet<String> {
        let words = options.as_str().split(',').take_while(|word| !word.contains('='));
        words.filter(|word| !word.ends_with("-required")).map(str::to_owned).collect()
    };
    let (some, others) = (flags(one), flags(other));
    let both_restrict = [&some, &others].iter().all(|flags| flags.contains("restrict"));
    // A quote inside a value stands behind a backslash.
    let both_open = |name: &str| [one, other].iter().all(|it| it.as_str().contains(name));
    (both_restrict && some != others) || both_open("permitopen=\"") || both_open("permitlisten=\"")
}

/// The latest of several ends, where absent means never.
fn latest(ends: impl Iterator<Item = Option<i64>>) -> Option<i64> {
    let ends: Option<Vec<i64>> = ends.collect();
    ends?.into_iter().max()
}

/// The earlier of two ends, where absent means never.
fn earliest(ends: [Option<i64>; 2]) -> Option<i64> {
    ends.into_iter().flatten().min()
}
