//! Making accounts, one or many in a row: while useradd(8) makes one, the one before it is looked after and the next one
//! is prepared, so that a row takes as long as its useradds.
//!
//! One tool at a time changes the account databases. This file must not know who may be made, nor which keys are wanted.

use std::ops::ControlFlow;
use std::sync::Arc;

use bastio_protocol::{Removal, Username};

use super::create::Recipe;
use super::host::local_account;
use super::snapshot::Databases;
use super::system::{ensure_managed_group, user};
use super::tool::RunningTool;
use super::{Account, Accounts as _, AccountsError, SystemAccounts, ToolFault, removal};
use crate::keys_on_disk;
use crate::reconcile::host::{Asked, NewAccount, Told};
use crate::sshd::Shape;
use crate::sudoers::Sudoers;

/// An account that can be made: all is looked at.
struct Ready<'a> {
    asked: Asked<'a>,
    recipe: Recipe,
}

/// An account that useradd is making.
struct Begun<'a> {
    asked: Asked<'a>,
    uid: u32,
    tool: RunningTool,
}

/// An account that useradd has made, and nobody has looked after yet.
struct Made<'a> {
    asked: Asked<'a>,
    uid: u32,
}

/// Who hears of each account.
struct Listener<'t, 'f> {
    told: &'t mut Told<'f>,
    goes_on: bool,
}

impl Listener<'_, '_> {
    fn tell(&mut self, result: Result<Account, AccountsError>) {
        self.goes_on &= (self.told)(result).is_continue();
    }
}

impl SystemAccounts {
    /// Makes the account, or leaves nothing of it.
    pub(super) fn make(&self, name: &Username, new: &NewAccount) -> Result<Account, AccountsError> {
        let mut made = Err(AccountsError::Absent(name.clone()));
        self.make_row(&[(name, new)], &mut |result| {
            made = result;
            ControlFlow::Continue(())
        });
        made
    }

    /// Makes each of these or leaves nothing of it. `told` hears of them in order, and may end it: what was begun by then
    /// comes to its end.
    pub(super) fn make_row(&self, row: &[Asked<'_>], told: &mut Told<'_>) {
        let mut listener = Listener { told, goes_on: true };
        let mut rest = row.iter().copied();
        let mut ready = rest.next().map(|first| {
            ensure_managed_group()?;
            self.prepare(first, None, None)
        });
        let mut made: Option<Made<'_>> = None;
        while let Some(prepared) = ready.take().filter(|_| listener.goes_on) {
            let begun = prepared.and_then(Ready::begin);
            // From here on until it is waited for, useradd is at work. One look serves both: what it sees of the account
            // that is being made does not count.
            let all = (row.len() > 1).then(|| self.databases().ok()).flatten();
            let spoilt =
                made.take().and_then(|made| self.look_after(made, &mut listener, all.as_ref()));
            let next = rest.next().filter(|_| listener.goes_on);
            let uid = begun
                .as_ref()
                .ok()
                .filter(|begun| next.is_some_and(|next| are_apart(begun.asked, next)));
            let uid = uid.map(|begun| begun.uid);
            if let (Some(next), Some(_)) = (next, uid) {
                ready = Some(self.prepare(next, uid, all.as_ref()));
            }
            let ended = begun.and_then(|begun| self.finish(begun));
            if let Some((made, cause)) = spoilt {
                listener.tell(Err(self.unmake(made.asked, cause)));
            }
            match ended {
                Ok(it) => made = Some(it),
                Err(error) => listener.tell(Err(error)),
            }
            if let (Some(next), None) = (next, uid) {
                ready = Some(self.prepare(next, None, None));
            }
        }
        if let Some((made, cause)) =
            made.and_then(|made| self.look_after(made, &mut listener, None))
        {
            listener.tell(Err(self.unmake(made.asked, cause)));
        }
    }

    /// Looks whether the account can be made, and takes away what a former one of that name left over. `taken` is the id
    /// of another that is being made.
    fn prepare<'a>(
        &self,
        asked: Asked<'a>,
        taken: Option<u32>,
        all: Option<&Arc<Databases>>,
    ) -> Result<Ready<'a>, AccountsError> {
        let (name, new) = asked;
        if user(name.as_str())?.is_some() {
            return Err(AccountsError::Exists(name.clone()));
        }
        // A rule that a former account of that name left over would be the new one's.
        Sudoers::system().remove(name)?;
        let recipe = Recipe::look(&*self.read_unless(all)?, name, new, taken)?;
        // A key that could not be taken out when the account went must not come back with it.
        let shape = Shape::of_coming(name);
        keys_on_disk::clear_stale(&recipe.coming(name), &shape)?;
        if let Some(home) = recipe.kept_home(name)? {
            keys_on_disk::remove_all_keys(&home, &shape)?;
        }
        Ok(Ready { asked, recipe })
    }

    /// Waits for useradd. What is there of that name afterwards is what it made.
    fn finish<'a>(&self, begun: Begun<'a>) -> Result<Made<'a>, AccountsError> {
        let Begun { asked, uid, tool } = begun;
        match tool.finish() {
            Ok(()) => Ok(Made { asked, uid }),
            // The name was free a moment ago: somebody else took it, and theirs is left alone.
            Err(error) if error.fault == ToolFault::NameTaken => Err(error.into()),
            Err(error) => Err(self.unmake(asked, error.into())),
        }
    }

    /// Does once more what was done before there was an account: now sshd may read other files, for its groups. Tells of
    /// it if all is well; else it is to be unmade, once no tool is at work.
    fn look_after<'a>(
        &self,
        made: Made<'a>,
        listener: &mut Listener<'_, '_>,
        all: Option<&Arc<Databases>>,
    ) -> Option<(Made<'a>, AccountsError)> {
        match self.found_after(&made, all).and_then(|account| clear(account, made.asked.1)) {
            Ok(account) => {
                listener.tell(Ok(account));
                None
            }
            Err(cause) => Some((made, cause)),
        }
    }

    fn found_after(
        &self,
        made: &Made<'_>,
        all: Option<&Arc<Databases>>,
    ) -> Result<Account, AccountsError> {
        let (name, _) = made.asked;
        let local = local_account(&*self.read_unless(all)?, name);
        match local.filter(|account| account.owner.uid.as_raw() == made.uid) {
            Some(account) => Ok(account),
            None => self.find(name)?.ok_or_else(|| AccountsError::Absent(name.clone())),
        }
    }

    fn read_unless(&self, all: Option<&Arc<Databases>>) -> Result<Arc<Databases>, AccountsError> {
        all.map_or_else(|| self.databases(), |all| Ok(Arc::clone(all)))
    }

    /// Takes back what a failed making left, and passes its failure on. Only an account with the
    /// mark is certainly ours: somebody may have made the name meanwhile.
    pub(super) fn unmake(&self, (name, new): Asked<'_>, cause: AccountsError) -> AccountsError {
        let removal = if new.keep_home { Removal::Keep } else { Removal::Delete };
        let undone = match self.find(name) {
            Ok(Some(account)) if !account.is_managed => {
                return AccountsError::Unmarked { name: name.clone(), cause: Box::new(cause) };
            }
            Ok(Some(account)) => removal::carry_out(&account, removal).map(|_| ()),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        match undone {
            Ok(()) => cause,
            Err(undo) => AccountsError::HalfMade { cause: Box::new(cause), undo: Box::new(undo) },
        }
    }
}

impl<'a> Ready<'a> {
    fn begin(self) -> Result<Begun<'a>, AccountsError> {
        let tool = self.recipe.begin(self.asked.0)?;
        Ok(Begun { asked: self.asked, uid: self.recipe.uid(), tool })
    }
}

fn clear(account: Account, new: &NewAccount) -> Result<Account, AccountsError> {
    let shape = Shape::of_account(&account.name);
    keys_on_disk::clear_stale(&account, &shape)?;
    if new.keep_home {
        keys_on_disk::remove_all_keys(&account, &shape)?;
    }
    Ok(account)
}

/// Whether looking at the one tells the truth while the other is being made: neither has its home in a place of its own,
/// where the other's might be, too.
fn are_apart(one: Asked<'_>, other: Asked<'_>) -> bool {
    let has_usual_home = |(_, new): Asked<'_>| new.spec.home.is_none() && !new.keep_home;
    has_usual_home(one) && has_usual_home(other)
}
