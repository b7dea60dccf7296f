//! What is wanted, worked out for this moment: ends that have come. This file must not know what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bastio_protocol::{
    AccountSpec, FailureNote, KeyGrant, KeyPolicy, PublicKey, Removal, Sudo, Username,
    WantedAccount, WantedState,
};

use super::host::expiry_of;

/// What the server itself says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The time, in seconds since the Unix epoch.
    pub now: i64,
    /// What becomes of accounts that are not wanted, when nobody says.
    pub removal: Removal,
    /// The account that is never locked, ended or removed.
    pub break_glass: Option<Username>,
    /// Which keys are good enough.
    pub key_policy: KeyPolicy,
    /// The first numeric id of people's accounts (`UID_MIN`, login.defs(5)).
    pub uid_min: u32,
    /// Numeric ids that belong to names, whether there is an account or not.
    pub reserved: Arc<BTreeMap<Username, u32>>,
}

/// What is wanted of a server or of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aims {
    /// The accounts.
    pub accounts: BTreeMap<Username, Aim>,
    /// What becomes of managed accounts that are not among them; none when they are nobody's
    /// business.
    pub removal: Option<Removal>,
    /// Numeric ids that belong to names.
    pub reserved: Arc<BTreeMap<Username, u32>>,
    /// Whether the last account with sudo rights and a key may go.
    pub allow_no_admin: bool,
}

/// One account as it must be now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aim {
    /// What the account database says.
    pub spec: AccountSpec,
    /// Its rights.
    pub sudo: Sudo,
    /// When they end.
    pub sudo_until: Option<i64>,
    /// Its keys, with their final ends.
    pub keys: BTreeMap<PublicKey, KeyGrant>,
    /// Keys that were wanted before and are not any more: no line lets them in, whoever wrote it.
    pub gone: BTreeSet<PublicKey>,
    /// When the account database has it end.
    pub expires: Option<i64>,
    /// Whether it lets nobody in.
    pub locked: bool,
    /// Whether its end has come.
    pub ended: bool,
    /// Whether it may be somebody else's until now.
    pub take_over: bool,
    /// How it is given back to whom it was taken over from, if it is.
    pub release: Option<GivenBack>,
    /// What people should know.
    pub warnings: Vec<String>,
    /// Keys that are wanted and not let in anew: why.
    pub weak: BTreeMap<PublicKey, FailureNote>,
}

/// What an account that is given back gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GivenBack {
    /// Lines for its key file.
    pub key_lines: Vec<String>,
    /// Whether it is a member of the group for sudo.
    pub sudo_group: bool,
}

impl Aims {
    /// The whole server.
    #[must_use]
    pub fn whole(wanted: &WantedState, rules: &Rules) -> Self {
        let mut reserved = Arc::clone(&rules.reserved);
        for (name, uid) in &wanted.reserved_uids {
            // What this server has promised before stands.
            if !reserved.contains_key(name) && !reserved.values().any(|taken| taken == uid) {
                Arc::make_mut(&mut reserved).insert(name.clone(), *uid);
            }
        }
        let aim = |(name, wanted): (&Username, &WantedAccount)| {
            (name.clone(), Aim::of(name, wanted, rules))
        };
        Self {
            accounts: wanted.accounts.iter().map(aim).collect(),
            removal: Some(wanted.removal.unwrap_or(rules.removal)),
            reserved,
            allow_no_admin: wanted.allow_no_admin,
        }
    }

    /// One account; all others stay as they are, and it may be the last one with rights.
    #[must_use]
    pub fn one(name: &Username, wanted: &WantedAccount, rules: &Rules) -> Self {
        Self {
            accounts: BTreeMap::from([(name.clone(), Aim::of(name, wanted, rules))]),
            removal: None,
            reserved: Arc::clone(&rules.reserved),
            allow_no_admin: true,
        }
    }

    /// The same, where this was wanted until now.
    #[must_use]
    pub fn instead_of(mut self, before: &BTreeMap<Username, WantedAccount>) -> Self {
        for (name, aim) in &mut self.accounts {
            let keys = before.get(name).into_iter().flat_map(|before| &before.keys);
            let gone = keys.map(|grant| &grant.public_key);
            aim.gone = gone.filter(|key| !aim.keys.contains_key(*key)).cloned().collect();
        }
        self
    }
}

impl Aim {
    /// What `wanted` means now.
    #[must_use]
    pub fn of(name: &Username, wanted: &WantedAccount, rules: &Rules) -> Self {
        let mut warnings = Vec::new();
        let over = |until: Option<i64>| until.is_some_and(|until| until <= rules.now);
        let ended = over(wanted.until);
        let sudo_until = wanted.sudo_until();
        // What is given back gets its own rights at the very end.
        let no_sudo =
            ended || wanted.sudo.is_none() || over(sudo_until) || wanted.release.is_some();
        if let Sudo::Policy(policy) = &wanted.sudo {
            let told = policy.warnings().into_iter();
            warnings.extend(told.map(|warning| format!("{name}: sudo: {warning}")));
        }
        let (keys, weak) = keys_of(name, wanted, rules);
        Self {
            keys,
            gone: BTreeSet::new(),
            weak,
            expires: wanted.until.map(expiry_of).filter(|_| !ended),
            locked: wanted.locked || ended,
            ended,
            take_over: wanted.take_over,
            release: wanted
                .release
                .clone()
                .map(|key_lines| GivenBack { key_lines, sudo_group: !wanted.sudo.is_none() }),
            sudo_until: sudo_until.filter(|_| !no_sudo),
            sudo: if no_sudo { Sudo::None } else { wanted.sudo.clone() },
            spec: wanted.spec.clone(),
            warnings,
        }
    }
}

/// The keys that log in now, and which of them the policy forbids.
fn keys_of(
    name: &Username,
    wanted: &WantedAccount,
    rules: &Rules,
) -> (BTreeMap<PublicKey, KeyGrant>, BTreeMap<PublicKey, FailureNote>) {
    let (mut keys, mut weak) = (BTreeMap::new(), BTreeMap::new());
    for grant in &wanted.keys {
        let until = wanted.key_until(grant);
        if until.is_some_and(|until| until <= rules.now) {
            continue;
        }
        let key = &grant.public_key;
        if let Err(error) = PublicKey::parse(&key.to_string(), &rules.key_policy) {
            let text = format!("the key {}: {error}", key.fingerprint());
            weak.insert(key.clone(), FailureNote { username: Some(name.clone()), text });
        }
        keys.insert(key.clone(), KeyGrant { until, ..grant.clone() });
    }
    (keys, weak)
}
