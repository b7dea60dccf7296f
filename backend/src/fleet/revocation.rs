//! The end of a person's access everywhere, and what proves it.
//!
//! A disabled person has no keys, no rights and no sessions; accounts and homes stay, so that it can be undone. What has
//! become of it is told account by account: proven by a receipt of the server, or until when access can last.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bastio_protocol::api::{ActionReport, ActionState, Change, Grant, Labels, Presence, UserState};
use bastio_protocol::{
    AccessEntry, AccessReport, AccessStatus, Action, ActionMessage, ServerName, SigningKey,
    Username, VerifyingKey, WantedAccount,
};
use tokio::time::Instant;

use super::changes::MAX_WAIT;
use super::edit::{Edit, check_text};
use super::users::logins_of;
use super::{Fleet, FleetError, users};
use crate::access::Admin;
use crate::audit::Event;
use crate::dispatch::mid::new_mid;
use crate::dispatch::queue::Scope;
use crate::plan::{Account, Accounts, More};
use crate::store::receipts::ReceiptRow;
use crate::store::speech::Speech;
use crate::store::users::UserRow;
use crate::store::{self, Connection, ServerId, StoreError};

impl Fleet {
    /// Ends keys, sudo rights and sessions of a person everywhere. Done again, the sessions are ended again, and
    /// each server signs once more.
    ///
    /// # Errors
    /// [`FleetError::NoSuchUser`], [`FleetError::NeedsConfirmation`] when somebody is the last admin of a server,
    /// [`FleetError::BadText`], [`FleetError::Store`].
    pub async fn disable_user(
        &self,
        proof: &Admin,
        name: &Username,
        reason: &str,
    ) -> Result<Change, FleetError> {
        self.set_state(proof, name, UserState::Disabled, reason).await
    }

    /// Lets a disabled person in again, as the grants say.
    ///
    /// # Errors
    /// [`FleetError::NoSuchUser`], [`FleetError::BadText`], [`FleetError::Store`].
    pub async fn enable_user(
        &self,
        proof: &Admin,
        name: &Username,
        reason: &str,
    ) -> Result<Change, FleetError> {
        self.set_state(proof, name, UserState::Active, reason).await
    }

    async fn set_state(
        &self,
        proof: &Admin,
        name: &Username,
        state: UserState,
        reason: &str,
    ) -> Result<Change, FleetError> {
        check_text("the reason", reason)?;
        let mut edit = Edit::begin(self, proof).await?;
        let row = edit.user(name).await?;
        let logins = logins_of(edit.db(), row.id, name).await?;
        users::set_state(&mut edit, &row, state).await?;
        let (action, done) = match state {
            UserState::Disabled => ("user.disable", "disabled"),
            UserState::Active | UserState::Locked => ("user.enable", "enabled"),
        };
        edit.record(Event { action, user: Some(name), reason, ..Event::default() }).await?;
        edit.commit(&format!("user {name}: {done}"), &Scope::Logins(logins)).await
    }

    /// Where a person's access stands: as soon as no connected server owes an answer, after `wait` (at most 30 s) in
    /// any case. Signed with the key, if there is one.
    ///
    /// # Errors
    /// [`FleetError::NoSuchUser`] when nothing at all is known of that name, [`FleetError::Store`].
    pub async fn access_report(
        &self,
        _proof: &Admin,
        name: &Username,
        wait: Duration,
        key: Option<&SigningKey>,
    ) -> Result<AccessReport, FleetError> {
        let deadline = Instant::now() + wait.min(MAX_WAIT);
        let mut steps = self.dispatch.steps();
        loop {
            steps.mark_unchanged();
            let (state, entries) = self.access_entries(name).await?;
            let is_owed = |entry: &AccessEntry| {
                entry.status == AccessStatus::Pending && entry.presence == Presence::Connected
            };
            let is_over = !entries.iter().any(is_owed)
                || tokio::time::timeout_at(deadline, steps.changed()).await.is_err();
            if is_over {
                return Ok(AccessReport::seal(name.clone(), state, self.store.now(), entries, key));
            }
        }
    }

    async fn access_entries(
        &self,
        name: &Username,
    ) -> Result<(Option<UserState>, Vec<AccessEntry>), FleetError> {
        let mut db = self.store.read().await?;
        let row = store::users::find(&mut db, name).await?;
        let known = Known::read(&mut db, name, row.as_ref()).await?;
        if row.is_none() && known.places.is_empty() {
            return Err(FleetError::NoSuchUser(name.clone()));
        }
        let state = row.map(|row| row.state());
        let entry = |(server, login): &(ServerId, Username)| {
            let last_seen = known.last_seen.get(server).copied();
            known.entry(*server, login, state, self.presence(*server, last_seen), last_seen)
        };
        let mut entries: Vec<AccessEntry> = known.places.iter().filter_map(entry).collect();
        entries.sort_by(|one, other| (&one.server, &one.login).cmp(&(&other.server, &other.login)));
        Ok((state, entries))
    }
}

/// Queues the end of all sessions of the accounts that a person may use. Agents of version 1 cannot end any.
pub(super) async fn end_all_sessions(edit: &mut Edit<'_>, row: &UserRow) -> Result<(), FleetError> {
    if edit.is_tried() {
        return Ok(());
    }
    let grants = store::grants::of_user(edit.db(), row.id).await?;
    let hosts = store::servers::names_and_labels(edit.db()).await?;
    let places = granted(&grants, &row.name, &hosts);
    let servers: BTreeSet<ServerId> = places.iter().map(|(server, _)| *server).collect();
    let servers: Vec<ServerId> = servers.into_iter().collect();
    let spoken = store::speech::spoken(edit.db(), &servers).await?;
    for (server, username) in places {
        if spoken.by(server) != Speech::Version1 {
            let mid = new_mid();
            edit.enqueue(server, ActionMessage { mid, username, action: Action::EndSessions });
        }
    }
    Ok(())
}

type Hosts = BTreeMap<ServerId, (ServerName, Labels)>;

/// Where grants let a person in, and as whom.
fn granted(grants: &[Grant], name: &Username, hosts: &Hosts) -> BTreeSet<(ServerId, Username)> {
    let mut places = BTreeSet::new();
    for (server, (host, labels)) in hosts {
        let here = grants.iter().filter(|grant| grant.on.includes(host, labels));
        places.extend(here.map(|grant| (*server, grant.login.as_ref().unwrap_or(name).clone())));
    }
    places
}

/// Everything that is known of a person's accounts.
struct Known {
    hosts: Hosts,
    last_seen: BTreeMap<ServerId, i64>,
    keys: BTreeMap<ServerId, VerifyingKey>,
    own_keys: BTreeSet<String>,
    open: BTreeMap<ServerId, Vec<ActionReport>>,
    accounts: BTreeMap<Username, BTreeMap<ServerId, Accounts>>,
    receipts: BTreeMap<Username, BTreeMap<ServerId, ReceiptRow>>,
    places: BTreeSet<(ServerId, Username)>,
}

impl Known {
    async fn read(
        db: &mut Connection,
        name: &Username,
        row: Option<&UserRow>,
    ) -> Result<Self, StoreError> {
        let hosts = store::servers::names_and_labels(db).await?;
        let (mut grants, mut own_keys) = (Vec::new(), BTreeSet::new());
        if let Some(row) = row {
            grants = store::grants::of_user(db, row.id).await?;
            let keys = store::users::keys(db, row.id).await?;
            own_keys.extend(keys.into_iter().map(|key| key.fingerprint));
        }
        let mut places = granted(&grants, name, &hosts);
        let open = store::outcomes::open_reports(db, None).await?;
        let mut logins: BTreeSet<Username> =
            places.iter().map(|(_, login)| login.clone()).collect();
        logins.insert(name.clone());
        let (mut accounts, mut receipts) = (BTreeMap::new(), BTreeMap::new());
        for login in logins {
            receipts.insert(login.clone(), store::receipts::of_login(db, &login).await?);
            accounts.insert(login.clone(), store::accounts::of_login(db, &login).await?);
        }
        // Of the person's own name also where no grant reaches any more.
        let own = |server: &ServerId| (*server, name.clone());
        places.extend(receipts.get(name).into_iter().flat_map(BTreeMap::keys).map(own));
        places.extend(accounts.get(name).into_iter().flat_map(BTreeMap::keys).map(own));
        let is_open = |reports: &[ActionReport]| reports.iter().any(|it| it.username == *name);
        places.extend(open.iter().filter(|(_, it)| is_open(it)).map(|(server, _)| own(server)));
        let last_seen = store::servers::last_seen(db).await?;
        let keys = store::receipts::keys(db).await?;
        Ok(Self { hosts, last_seen, keys, own_keys, open, accounts, receipts, places })
    }

    fn entry(
        &self,
        server: ServerId,
        login: &Username,
        state: Option<UserState>,
        presence: Presence,
        last_seen: Option<i64>,
    ) -> Option<AccessEntry> {
        let (host, _) = self.hosts.get(&server)?;
        let row = self.receipts.get(login).and_then(|it| it.get(&server));
        let mut entry = AccessEntry {
            server: host.clone(),
            id: bastio_protocol::ServerId::from_number(server.0),
            login: login.clone(),
            presence,
            last_seen,
            status: AccessStatus::Unproven,
            why: None,
            lasts_until: None,
            receipt_key: self.keys.get(&server).copied(),
            receipt: row.and_then(|row| row.body.clone()),
            digest: None,
        };
        let account = self.accounts.get(login).and_then(|it| it.get(&server)?.get(login));
        (entry.status, entry.why) = self.status(server, login, state, account, row, &entry);
        if matches!(entry.status, AccessStatus::Pending | AccessStatus::Failed) {
            entry.lasts_until = account.and_then(|account| lasts_until(&account.whole()));
        }
        Some(entry)
    }

    fn status(
        &self,
        server: ServerId,
        login: &Username,
        state: Option<UserState>,
        account: Option<&Account>,
        row: Option<&ReceiptRow>,
        entry: &AccessEntry,
    ) -> (AccessStatus, Option<String>) {
        let open = self.open.get(&server).map(Vec::as_slice).unwrap_or_default();
        let mut open = open.iter().filter(|report| report.username == *login).peekable();
        let is_ended = |it: &ActionReport| it.state == ActionState::Failed;
        if open.peek().is_some() {
            let last = open.clone().rfind(|it| is_ended(it));
            return match (open.all(is_ended), last) {
                (true, Some(failed)) => (AccessStatus::Failed, failed.feedback.clone()),
                _ => (AccessStatus::Pending, None),
            };
        }
        if let Some(account) = account.filter(|account| lets_in(account)) {
            let has_own = |account: &Account| {
                account.keys.iter().any(|key| self.own_keys.contains(&key.fingerprint()))
            };
            let is_out = state != Some(UserState::Active) && !has_own(account);
            return (if is_out { AccessStatus::Shared } else { AccessStatus::Open }, None);
        }
        match row {
            None => {
                let why = match entry.receipt_key {
                    Some(_) => "its agent has signed nothing about this account yet",
                    None => "its agent gives no receipts; sessions may go on",
                };
                (AccessStatus::Unproven, Some(why.to_owned()))
            }
            Some(ReceiptRow { fault: Some(why), .. }) => {
                (AccessStatus::Unproven, Some(why.clone()))
            }
            Some(_) => match entry.prove() {
                Ok(()) => (AccessStatus::Proven, None),
                Err(why) => (AccessStatus::Unproven, Some(why)),
            },
        }
    }
}

/// Whether somebody may log in as the account, as far as bastio let them.
fn lets_in(account: &Account) -> bool {
    let is_locked = matches!(&account.more, More::Whole(whole) if whole.locked);
    !is_locked && !account.keys.is_empty()
}

/// When the server itself lets nobody in any more: the account's own end, or that of its last key.
fn lasts_until(account: &WantedAccount) -> Option<i64> {
    if account.until.is_some() {
        return account.until;
    }
    let ends: Option<Vec<i64>> = account.keys.iter().map(|key| key.until).collect();
    ends?.into_iter().max()
}
