//! Accounts that are on a server already: listed with whose they may be, taken over one by one when an
//! operator says so, and given back as they were.
//!
//! What was there is seen in a report of the server's agent. An account that was taken over is never
//! deleted by bastio: where no grant wants it any more it is locked, until it is given back.

use std::collections::BTreeSet;

use bastio_protocol::api::{
    ActionState, Adopt, Candidate, Change, Grant, Holder, NewGrant, RequestKind, Terms,
};
use bastio_protocol::{
    AbsolutePath, AccountSpec, Comment, FoundKey, FoundUser, GroupName, HostReport, ServerName,
    Sudo, Target, Username, WantedAccount,
};
use serde::{Deserialize, Serialize};

use super::edit::{Edit, check_text};
use super::{Fleet, FleetError, grants};
use crate::access::Admin;
use crate::audit::Event;
use crate::dispatch::queue::Scope;
use crate::plan::{People, Person};
use crate::store::requests::RequestId;
use crate::store::{self, Connection, ServerId, StoreError};

/// Groups that sudo gives its rights to, and ours: no groups of the account's own.
const NOT_ITS_OWN: [&str; 3] = ["sudo", "wheel", "bastio-managed"];

/// How an account was.
#[derive(Debug, Serialize, Deserialize)]
struct Before {
    shell: String,
    comment: String,
    groups: BTreeSet<String>,
    sudo: bool,
    keys: Vec<FoundKey>,
}

impl Before {
    fn of(account: &FoundUser, report: &HostReport) -> Self {
        let groups = report.groups.iter().filter(|group| group.members.contains(&account.name));
        let (special, groups): (BTreeSet<String>, BTreeSet<String>) = groups
            .map(|group| group.name.clone())
            .partition(|group| NOT_ITS_OWN.contains(&group.as_str()));
        Self {
            shell: account.shell.clone(),
            comment: account.comment.clone(),
            groups,
            sudo: special.iter().any(|group| group != "bastio-managed"),
            keys: account.keys.iter().filter(|key| !key.managed).cloned().collect(),
        }
    }

    /// What gives it back: the fields that `changed` has said otherwise meanwhile, and the lines of
    /// keys for which lines of ours took their place.
    fn release(self, changed: &AccountSpec, lines: Vec<String>) -> WantedAccount {
        let own = |text: &String| GroupName::parse(text).ok();
        let spec = AccountSpec {
            shell: changed.shell.as_ref().and_then(|_| AbsolutePath::parse(&self.shell).ok()),
            comment: changed.comment.as_ref().and_then(|_| Comment::parse(&self.comment).ok()),
            groups: changed.groups.as_ref().map(|_| self.groups.iter().filter_map(own).collect()),
            ..AccountSpec::default()
        };
        let sudo = if self.sudo { Sudo::Plain } else { Sudo::None };
        WantedAccount { spec, sudo, release: Some(lines), ..WantedAccount::default() }
    }
}

impl Fleet {
    /// What is on a server by that report, and whose it may be.
    ///
    /// # Errors
    /// [`FleetError::NoSuchServer`], [`FleetError::NoReport`], [`FleetError::Store`].
    pub async fn candidates(
        &self,
        _proof: &Admin,
        name: &ServerName,
        request: i64,
    ) -> Result<Vec<Candidate>, FleetError> {
        let mut db = self.store.read().await?;
        let server = store::servers::find(&mut db, name).await?;
        let server = server.ok_or_else(|| FleetError::NoSuchServer(name.clone()))?.id;
        let report = report(&mut db, server, request).await?;
        let adopted = store::adoptions::of_server(&mut db, server).await?;
        let people = people(&mut db).await?;
        let people = People::new(&people);
        let candidate = |account: &FoundUser| Candidate {
            sudo: Before::of(account, &report).sudo,
            matches: people.matches(account),
            adopted_by: adopted
                .iter()
                .find_map(|(login, user)| (login.as_str() == account.name).then(|| user.clone())),
            account: account.clone(),
        };
        Ok(report.users.iter().map(candidate).collect())
    }

    /// Takes an account over: a grant on that server alone, with the rights that it has, and how it
    /// was is kept.
    ///
    /// # Errors
    /// [`FleetError::NoSuchServer`], [`FleetError::NoSuchUser`], [`FleetError::NoReport`],
    /// [`FleetError::NotToBeTaken`], [`FleetError::Store`].
    pub async fn adopt(
        &self,
        proof: &Admin,
        name: &ServerName,
        adopt: &Adopt,
    ) -> Result<Change, FleetError> {
        let Adopt { login, user, request, no_sudo, reason } = adopt;
        check_text("the reason", reason)?;
        self.check_login(login)?;
        let mut edit = Edit::begin(self, proof).await?;
        let server = edit.server(name).await?.id;
        let report = report(edit.db(), server, *request).await?;
        let account = report.users.iter().find(|found| found.name == login.as_str());
        let why = match account {
            None => Some("there is no such account"),
            Some(account) if account.managed => Some("bastio manages it already"),
            Some(account) if account.locked => Some("it is locked; unlock it first"),
            Some(_) => None,
        };
        if let Some(why) = why {
            return Err(FleetError::NotToBeTaken { login: login.clone(), why });
        }
        let before = account.map(|account| Before::of(account, &report));
        let sudo = before.as_ref().is_some_and(|before| before.sudo) && !no_sudo;
        let grant = NewGrant {
            holder: Holder::User(user.clone()),
            on: Target::Names([name.clone()].into()),
            login: Some(login.clone()),
            sudo,
            terms: Terms { take_over: true, ..Terms::default() },
            reason: reason.clone(),
        };
        let data = grants::data(&mut edit, &grant).await?;
        let (_, logins) = grants::add(&mut edit, &grant.holder, &data).await?;
        let now = edit.now();
        let before = serde_json::to_string(&before).expect("texts and lists always serialise");
        store::adoptions::insert(edit.db(), server, login, user, &before, now).await?;
        let detail = format!("{login} becomes {user}'s");
        let event = Event {
            action: "server.adopt",
            user: Some(user),
            server: Some(name),
            detail: &detail,
            reason,
            ..Event::default()
        };
        edit.record(event).await?;
        edit.commit(&format!("server {name}: {detail}"), &Scope::Logins(logins)).await
    }

    /// Gives an account back as it was. The grant that took it over ends; no other may want it.
    ///
    /// # Errors
    /// [`FleetError::NoSuchServer`], [`FleetError::NotAdopted`], [`FleetError::Wanted`],
    /// [`FleetError::Store`].
    pub async fn give_back(
        &self,
        proof: &Admin,
        name: &ServerName,
        login: &Username,
    ) -> Result<Change, FleetError> {
        let mut edit = Edit::begin(self, proof).await?;
        let server = edit.server(name).await?.id;
        let before = store::adoptions::before(edit.db(), server, login).await?;
        let before: Option<Before> = before.and_then(|text| serde_json::from_str(&text).ok());
        let Some(before) = before else {
            return Err(FleetError::NotAdopted { server: name.clone(), login: login.clone() });
        };
        let confirmed = store::accounts::of_server(edit.db(), server).await?;
        let changed = confirmed.get(login).map(|account| account.whole().spec).unwrap_or_default();
        let lines = lines(edit.db(), &before.keys).await?;
        let only = Target::Names([name.clone()].into());
        for grant in store::grants::list(edit.db()).await? {
            if grant.login.as_ref() == Some(login) && grant.on == only {
                grants::remove(&mut edit, &grant).await?;
            }
        }
        self.check_unwanted(&mut edit, server, name, login).await?;
        // Who could log in there, and become root by what, was never the model's.
        edit.makes_root(format!(
            "{login} on {name} (#{server}): what it could do before it was taken over"
        ));
        store::adoptions::give_back(edit.db(), server, login, &before.release(&changed, lines))
            .await?;
        let detail = format!("{login} is given back as it was");
        edit.note("server.give-back", None, Some(name), &detail).await?;
        let scope = Scope::Server(server, Some(BTreeSet::from([login.clone()])));
        edit.commit(&format!("server {name}: {detail}"), &scope).await
    }

    async fn check_unwanted(
        &self,
        edit: &mut Edit<'_>,
        server: ServerId,
        name: &ServerName,
        login: &Username,
    ) -> Result<(), FleetError> {
        let now = edit.now();
        let logins = BTreeSet::from([login.clone()]);
        let labels = store::servers::labels(edit.db(), server).await?;
        let model = store::grants::entitlements(edit.db(), Some(&logins), now).await?;
        if !model.iter().any(|right| right.on.includes(name, &labels)) {
            return Ok(());
        }
        let named = |grant: &Grant| grant.on.includes(name, &labels);
        let all = store::grants::list(edit.db()).await?.into_iter().filter(named);
        let own = |grant: &Grant| match (&grant.login, &grant.holder) {
            (Some(of), _) => of == login,
            (None, _) => true,
        };
        let grants = all.filter(own).map(|grant| grant.id).collect();
        Err(FleetError::Wanted { login: login.clone(), grants })
    }
}

/// The report of a server that a request has brought.
async fn report(
    db: &mut Connection,
    server: ServerId,
    request: i64,
) -> Result<HostReport, FleetError> {
    let found = store::requests::report(db, RequestId(request)).await?;
    let found = found.filter(|(of, report)| {
        *of == server && report.kind == RequestKind::Report && report.state == ActionState::Done
    });
    let report = found.and_then(|(_, report)| report.detail).and_then(|detail| detail.report);
    report.map(|report| *report).ok_or(FleetError::NoReport(request))
}

async fn people(db: &mut Connection) -> Result<Vec<Person>, StoreError> {
    let mut keys = store::users::all_keys(db).await?;
    let rows = store::users::list(db).await?.into_iter();
    let person = |row: store::users::UserRow| {
        let keys = keys.remove(&row.id).unwrap_or_default();
        let keys = keys.into_iter().map(|key| key.fingerprint).collect();
        Person { name: row.name, mail: row.mail, keys }
    };
    Ok(rows.map(person).collect())
}

/// The lines of those keys that somebody has: a line of ours stands in their place. A key that nobody
/// has any more was taken on purpose.
async fn lines(db: &mut Connection, found: &[FoundKey]) -> Result<Vec<String>, StoreError> {
    let known = store::users::all_keys(db).await?;
    let known: Vec<_> = known.into_values().flatten().collect();
    let line = |found: &FoundKey| {
        let key = known.iter().find(|key| key.fingerprint == found.fingerprint)?;
        let words = [found.options.as_str(), &key.public_key.without_comment(), &found.comment];
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        Some(words.join(" "))
    };
    Ok(found.iter().filter_map(line).collect())
}

#[cfg(test)]
mod tests;
