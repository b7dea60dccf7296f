//! A host in memory, for tests: what the traits promise, and failures on demand.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use bastio_protocol::{
    AbsolutePath, Change, KeyGrant, KeyPolicy, PublicKey, Removal, Sudo, SudoPolicy, Username,
};
use nix::errno::Errno;
use nix::unistd::{Gid, Uid};

use super::Rules;
use super::host::{
    AccountChange, AccountFacts, AccountHost, AccountState, Asked, FoundHome, FoundKeys, KeyHost,
    NewAccount, SudoHost, SudoState, Told,
};
use crate::accounts::{Account, AccountsError, HomeFate};
use crate::keys_on_disk::Owner;
use crate::sudoers::SudoersError;

/// Accounts in memory.
#[derive(Debug)]
pub(crate) struct FakeHost {
    pub(crate) accounts: RefCell<BTreeMap<Username, AccountState>>,
    pub(crate) groups: BTreeSet<String>,
    /// Homes that were left over, and whose they are.
    pub(crate) homes: RefCell<BTreeMap<Username, u32>>,
    pub(crate) sudo_group: Option<String>,
    /// The accounts with processes.
    pub(crate) running: RefCell<BTreeSet<Username>>,
    /// Verbs that changed something, as `VERB NAME`.
    pub(crate) calls: RefCell<Vec<String>>,
    /// `VERB NAME` that fails.
    pub(crate) fails: RefCell<BTreeSet<String>>,
    pub(crate) next_uid: Cell<u32>,
    /// Whether each of a row is told when the next one has been made.
    pub(crate) tells_late: bool,
}

impl Default for FakeHost {
    fn default() -> Self {
        Self {
            accounts: RefCell::default(),
            groups: ["developers", "docker", "sudo"].map(str::to_owned).into(),
            homes: RefCell::default(),
            sudo_group: Some("sudo".to_owned()),
            running: RefCell::default(),
            calls: RefCell::default(),
            fails: RefCell::default(),
            next_uid: Cell::new(1000),
            tells_late: false,
        }
    }
}

/// A beat that never stops.
/// Rules that forbid nothing, at that time.
pub(crate) fn rules(now: i64) -> Rules {
    Rules {
        now,
        removal: Removal::Keep,
        break_glass: None,
        key_policy: KeyPolicy::default(),
        uid_min: 1000,
        reserved: Arc::default(),
    }
}

pub(crate) fn go_on() -> ControlFlow<()> {
    ControlFlow::Continue(())
}

pub(crate) fn name(text: &str) -> Username {
    Username::parse(text).unwrap()
}

/// A managed account with nothing.
pub(crate) fn account(name: &Username, uid: u32) -> AccountState {
    AccountState {
        facts: AccountFacts {
            account: Account {
                name: name.clone(),
                owner: Owner { uid: Uid::from_raw(uid), gid: Gid::from_raw(uid) },
                home: PathBuf::from("/home").join(name.as_str()),
                is_system: uid < 1000,
                is_managed: true,
            },
            group: name.to_string(),
            groups: BTreeSet::new(),
            shell: "/bin/bash".to_owned(),
            comment: String::new(),
            expires: None,
            locked: false,
            barred: false,
        },
        keys: Ok(FoundKeys::default()),
        sudo: SudoState::None,
    }
}

impl FakeHost {
    pub(crate) fn insert(&self, state: AccountState) {
        self.accounts.borrow_mut().insert(state.facts.account.name.clone(), state);
    }

    pub(crate) fn get(&self, text: &str) -> Option<AccountState> {
        self.accounts.borrow().get(&name(text)).cloned()
    }

    pub(crate) fn fail(&self, call: &str) {
        self.fails.borrow_mut().insert(call.to_owned());
    }

    fn verb(&self, verb: &str, name: &Username) -> Result<(), AccountsError> {
        let call = format!("{verb} {name}");
        let fails = self.fails.borrow().contains(&call);
        self.calls.borrow_mut().push(call.clone());
        if fails { Err(AccountsError::LookUp { what: call, errno: Errno::EIO }) } else { Ok(()) }
    }

    fn edit(&self, name: &Username, edit: impl FnOnce(&mut AccountState)) {
        edit(self.accounts.borrow_mut().get_mut(name).expect("a test's account"));
    }

    fn free_uid(&self, avoid: &BTreeSet<u32>) -> u32 {
        loop {
            let uid = self.next_uid.get();
            self.next_uid.set(uid + 1);
            let is_taken = |it: &AccountState| it.facts.account.owner.uid.as_raw() == uid;
            if !avoid.contains(&uid) && !self.accounts.borrow().values().any(is_taken) {
                return uid;
            }
        }
    }
}

impl AccountHost for FakeHost {
    fn managed(&self) -> Result<Vec<Username>, AccountsError> {
        let accounts = self.accounts.borrow();
        let managed = accounts.values().filter(|it| it.facts.account.is_managed);
        Ok(managed.map(|it| it.facts.account.name.clone()).collect())
    }

    fn facts(&self, name: &Username) -> Result<Option<AccountFacts>, AccountsError> {
        if self.fails.borrow().contains(&format!("facts {name}")) {
            return Err(AccountsError::LookUp { what: name.to_string(), errno: Errno::EIO });
        }
        Ok(self.accounts.borrow().get(name).map(|it| it.facts.clone()))
    }

    fn has_group(&self, name: &str) -> Result<bool, AccountsError> {
        let accounts = self.accounts.borrow();
        Ok(self.groups.contains(name) || accounts.values().any(|it| it.facts.group == name))
    }

    fn has_program(&self, path: &AbsolutePath) -> Result<bool, AccountsError> {
        Ok(path.as_str().starts_with("/bin/"))
    }

    fn holder_of_uid(&self, uid: u32) -> Result<Option<String>, AccountsError> {
        let accounts = self.accounts.borrow();
        let holder = accounts.values().find(|it| it.facts.account.owner.uid.as_raw() == uid);
        Ok(holder.map(|it| it.facts.account.name.to_string()))
    }

    fn found_home(
        &self,
        name: &Username,
        _: Option<&AbsolutePath>,
    ) -> Result<Option<FoundHome>, AccountsError> {
        let path = PathBuf::from("/home").join(name.as_str());
        let homes = self.homes.borrow();
        Ok(homes.get(name).map(|uid| FoundHome { path, uid: *uid, is_folder: true }))
    }

    fn create(&self, name: &Username, new: &NewAccount) -> Result<Account, AccountsError> {
        self.verb("create", name)?;
        let uid = new.uid.unwrap_or_else(|| self.free_uid(&new.avoid));
        let mut state = account(name, uid);
        let spec = new.spec.clone();
        let facts = &mut state.facts;
        facts.expires = new.expires.filter(|_| !new.locked);
        facts.locked = new.locked;
        facts.groups = spec.groups.into_iter().flatten().map(|it| it.to_string()).collect();
        facts.group = spec.group.map_or(name.to_string(), |it| it.to_string());
        facts.shell = spec.shell.map_or("/bin/bash".to_owned(), |it| it.to_string());
        facts.comment = spec.comment.map_or(String::new(), |it| it.to_string());
        if let Some(home) = spec.home {
            facts.account.home = PathBuf::from(home.as_str());
        }
        state.sudo = if new.sudo_group { SudoState::Group } else { SudoState::None };
        self.homes.borrow_mut().remove(name);
        let account = state.facts.account.clone();
        self.insert(state);
        Ok(account)
    }

    fn create_row(&self, row: &[Asked<'_>], told: &mut Told<'_>) {
        let (mut made, mut goes_on) = (None, true);
        for (name, new) in row {
            if !goes_on {
                break;
            }
            let next = self.create(name, new);
            let ready = if self.tells_late { made.replace(next) } else { Some(next) };
            goes_on = ready.is_none_or(|ready| told(ready).is_continue());
        }
        if let Some(last) = made {
            let _ = told(last);
        }
    }

    fn take_over(&self, name: &Username) -> Result<(), AccountsError> {
        self.verb("take_over", name)?;
        self.edit(name, |it| it.facts.account.is_managed = true);
        Ok(())
    }

    fn give_back(&self, name: &Username, sudo_group: bool) -> Result<(), AccountsError> {
        self.verb("give_back", name)?;
        self.edit(name, |it| {
            it.facts.account.is_managed = false;
            it.sudo = if sudo_group { SudoState::Group } else { SudoState::None };
        });
        Ok(())
    }

    fn modify(&self, name: &Username, change: &AccountChange) -> Result<(), AccountsError> {
        self.verb("modify", name)?;
        let change = change.clone();
        self.edit(name, |it| {
            let facts = &mut it.facts;
            facts.group = change.group.map_or(facts.group.clone(), |it| it.to_string());
            facts.groups.extend(change.add_groups.iter().map(ToString::to_string));
            facts.groups.retain(|group| !change.drop_groups.contains(group));
            facts.shell = change.shell.map_or(facts.shell.clone(), |it| it.to_string());
            facts.comment = change.comment.map_or(facts.comment.clone(), |it| it.to_string());
            facts.expires = change.expires.unwrap_or(facts.expires);
        });
        Ok(())
    }

    fn lock(&self, name: &Username) -> Result<(), AccountsError> {
        self.verb("lock", name)?;
        self.edit(name, |it| (it.facts.locked, it.facts.expires) = (true, None));
        Ok(())
    }

    fn unlock(&self, name: &Username, expires: Option<i64>) -> Result<(), AccountsError> {
        self.verb("unlock", name)?;
        self.edit(name, |it| {
            (it.facts.locked, it.facts.barred, it.facts.expires) = (false, false, expires);
        });
        Ok(())
    }

    fn is_running(&self, name: &Username) -> Result<bool, AccountsError> {
        Ok(self.running.borrow().contains(name))
    }

    fn end_sessions(&self, name: &Username) -> Result<usize, AccountsError> {
        self.verb("end_sessions", name)?;
        self.running.borrow_mut().remove(name);
        Ok(1)
    }

    fn remove(&self, name: &Username, removal: Removal) -> Result<HomeFate, AccountsError> {
        self.verb("remove", name)?;
        self.running.borrow_mut().remove(name);
        if removal == Removal::Lock {
            self.edit(name, |it| {
                (it.facts.locked, it.facts.expires) = (true, None);
                (it.keys, it.sudo) = (Ok(FoundKeys::default()), SudoState::None);
                it.facts.groups.clear();
            });
            return Ok(HomeFate::Left("it stays".to_owned()));
        }
        let gone = self.accounts.borrow_mut().remove(name).expect("a test's account");
        if removal == Removal::Keep {
            let uid = gone.facts.account.owner.uid.as_raw();
            self.homes.borrow_mut().insert(name.clone(), uid);
            return Ok(HomeFate::Left("it stays".to_owned()));
        }
        Ok(HomeFate::Removed)
    }
}

impl KeyHost for FakeHost {
    fn keys(&self, account: &Account) -> Result<FoundKeys, AccountsError> {
        let accounts = self.accounts.borrow();
        // The processor's tests keep the accounts of version 1 elsewhere.
        let keys =
            accounts.get(&account.name).map_or(Ok(FoundKeys::default()), |it| it.keys.clone());
        keys.map_err(|what| AccountsError::LookUp { what, errno: Errno::EIO })
    }

    fn set_keys(
        &self,
        name: &Username,
        wanted: &[KeyGrant],
        gone: &[PublicKey],
    ) -> Result<Change, AccountsError> {
        self.verb("set_keys", name)?;
        self.edit(name, |it| {
            let found = it.keys.as_mut().expect("readable keys");
            let is_ours = |key: &PublicKey, ours: &[KeyGrant]| {
                ours.iter().any(|grant| grant.public_key == *key)
            };
            let before = std::mem::replace(&mut found.ours, wanted.to_vec());
            found.foreign.retain(|key| {
                !is_ours(key, wanted) && !is_ours(key, &before) && !gone.contains(key)
            });
        });
        Ok(Change::Changed)
    }

    fn put_back(&self, name: &Username, lines: &[String]) -> Result<Change, AccountsError> {
        self.verb("put_back", name)?;
        self.foreign_lines(name, lines);
        Ok(Change::Changed)
    }
}

impl FakeHost {
    fn foreign_lines(&self, name: &Username, lines: &[String]) {
        let keys = lines.iter().filter_map(|line| PublicKey::parse(line, &KeyPolicy::ANY).ok());
        self.edit(name, |it| it.keys.as_mut().expect("readable keys").foreign.extend(keys));
    }
}

impl SudoHost for FakeHost {
    fn sudo(&self, account: &Account) -> Result<SudoState, AccountsError> {
        Ok(self.accounts.borrow()[&account.name].sudo.clone())
    }

    fn intended_sudo(
        &self,
        name: &Username,
        sudo: &Sudo,
        until: Option<i64>,
    ) -> Result<SudoState, AccountsError> {
        match (sudo, until, &self.sudo_group) {
            (Sudo::None, ..) => Ok(SudoState::None),
            (Sudo::Plain, _, None) => {
                let what = "no sudo group".to_owned();
                Err(AccountsError::LookUp { what, errno: Errno::ENOENT })
            }
            (Sudo::Plain, None, _) => Ok(SudoState::Group),
            (Sudo::Policy(policy), until, _) => {
                Ok(SudoState::Rule(policy.to_sudoers(name, until).map_err(SudoersError::from)?))
            }
            (Sudo::Plain, until, _) => {
                let all = SudoPolicy { password: true, ..SudoPolicy::default() };
                Ok(SudoState::Rule(all.to_sudoers(name, until).map_err(SudoersError::from)?))
            }
        }
    }

    fn set_sudo(
        &self,
        name: &Username,
        sudo: &Sudo,
        until: Option<i64>,
    ) -> Result<Change, AccountsError> {
        self.verb("set_sudo", name)?;
        let state = self.intended_sudo(name, sudo, until)?;
        self.edit(name, |it| it.sudo = state);
        Ok(Change::Changed)
    }
}
