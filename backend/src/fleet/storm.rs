//! Random edits, random answers, lost connections and kills: whatever happens, a server differs
//! from the model only where a failure says so, and a sync ends that. Beside what the backend
//! believes, the storm keeps what really is on the servers: also what failed may have been done.

use std::collections::BTreeMap;

use bastio_protocol::api::{
    Holder, Members, NewGrant, NewGroup, NewKeys, RemoveGroup, RemoveUser, Terms, UpdateGroup,
    UpdateServer, UpdateUser,
};
use bastio_protocol::{Action, ActionMessage, KeyOptions, Status};
use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof, proptest};
use proptest::test_runner::Config;

use crate::dispatch::Session;
use crate::plan::{self, Accounts, Host, Step};
use crate::store;
use crate::testing::{NOW, TestBackend, host, key, login, new_user};

const USERS: [&str; 3] = ["alice", "bob", "carol"];
const SERVERS: [&str; 2] = ["web-1", "web-2"];
const GROUPS: [&str; 2] = ["inner", "outer"];
const TARGETS: [&str; 5] = ["*", "web-1", "web-1,web-2", "role=web", "role!=web"];

/// Something that happens.
#[derive(Debug, Clone)]
enum Event {
    Add { user: usize, key: u8, target: usize, sudo: bool },
    Share { user: usize, target: usize, sudo: bool },
    Remove { user: usize },
    Key { user: usize, key: u8 },
    Unkey { user: usize, key: u8 },
    Sudo { user: usize, sudo: bool },
    Ungrant { which: usize },
    Member { user: usize, group: usize, on: bool },
    Nest { on: bool },
    GrantGroup { group: usize, target: usize, sudo: bool },
    RemoveGroup { group: usize },
    Label { server: usize, on: bool },
    Answer { server: usize, count: usize, answers: Vec<Answer> },
    Lose { server: usize, sent: usize, done: usize },
    Kill,
}

/// What an agent does and says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Done,
    Failed,
    /// E.g. the folder could not be synced, or the agent was killed.
    FailedButDone,
}

fn answer() -> impl Strategy<Value = Answer> {
    use proptest::prelude::Just;
    prop_oneof![2 => Just(Answer::Done), 1 => Just(Answer::Failed), 1 => Just(Answer::FailedButDone)]
}

fn event() -> impl Strategy<Value = Event> {
    let (user, server, target) = (0..USERS.len(), 0..SERVERS.len(), 0..TARGETS.len());
    let keys = 10_u8..14;
    prop_oneof![
        (user.clone(), keys.clone(), target.clone(), any::<bool>())
            .prop_map(|(user, key, target, sudo)| Event::Add { user, key, target, sudo }),
        (user.clone(), target, any::<bool>()).prop_map(|(user, target, sudo)| Event::Share {
            user,
            target,
            sudo
        }),
        user.clone().prop_map(|user| Event::Remove { user }),
        (user.clone(), keys.clone()).prop_map(|(user, key)| Event::Key { user, key }),
        (user.clone(), keys).prop_map(|(user, key)| Event::Unkey { user, key }),
        (user.clone(), any::<bool>()).prop_map(|(user, sudo)| Event::Sudo { user, sudo }),
        (user, 0..GROUPS.len(), any::<bool>()).prop_map(|(user, group, on)| Event::Member {
            user,
            group,
            on
        }),
        any::<bool>().prop_map(|on| Event::Nest { on }),
        (0..GROUPS.len(), 0..TARGETS.len(), any::<bool>())
            .prop_map(|(group, target, sudo)| Event::GrantGroup { group, target, sudo }),
        (0..GROUPS.len()).prop_map(|group| Event::RemoveGroup { group }),
        (0_usize..6).prop_map(|which| Event::Ungrant { which }),
        (server.clone(), any::<bool>()).prop_map(|(server, on)| Event::Label { server, on }),
        (server.clone(), 1_usize..4, vec(answer(), 4))
            .prop_map(|(server, count, answers)| Event::Answer { server, count, answers }),
        (server, 1_usize..4, 0_usize..4).prop_map(|(server, sent, done)| Event::Lose {
            server,
            sent,
            done
        }),
        proptest::prelude::Just(Event::Kill),
    ]
}

/// The backend and its agents' sessions, one a server.
struct Storm {
    backend: TestBackend,
    sessions: Vec<Session>,
    /// What is on the servers.
    real: Vec<Accounts>,
}

impl Storm {
    async fn begin() -> Self {
        let backend = TestBackend::new().await;
        let mut sessions = Vec::new();
        for (number, name) in (1..).zip(SERVERS) {
            backend.enroll(name, number).await;
            sessions.push(backend.connect(number).await);
        }
        Self { backend, sessions, real: vec![Accounts::new(); SERVERS.len()] }
    }

    async fn reconnect(&mut self) {
        let numbers = 1..=u8::try_from(SERVERS.len()).expect("few");
        self.sessions.clear();
        for number in numbers {
            self.sessions.push(self.backend.connect(number).await);
        }
    }

    /// Lets something happen. Edits of what is not there are refused, which is well.
    async fn happen_to_group(&self, event: &Event) {
        let (fleet, admin) = (&self.backend.fleet, &self.backend.admin);
        match event {
            Event::Member { user, group, on } => {
                let users = [login(USERS[*user])].into();
                self.regroup(*group, Members { users, ..Members::default() }, *on).await;
            }
            Event::Nest { on } => {
                let groups = [GROUPS[0].parse().expect("a name")].into();
                self.regroup(1, Members { groups, ..Members::default() }, *on).await;
            }
            Event::GrantGroup { group, target, sudo } => {
                let on = TARGETS[*target].parse().expect("a target");
                let holder = Holder::Group(GROUPS[*group].parse().expect("a name"));
                let (sudo, reason, terms) = (*sudo, String::new(), Terms::default());
                let new = NewGrant { holder, on, login: None, sudo, terms, reason };
                let _ = fleet.add_grant(admin, &new).await;
            }
            Event::RemoveGroup { group } => {
                let how = RemoveGroup { with_grants: true };
                let _ =
                    fleet.remove_group(admin, &GROUPS[*group].parse().expect("a name"), how).await;
            }
            _ => unreachable!("no event of a group"),
        }
    }

    async fn happen(mut self, event: &Event) -> Self {
        let (fleet, admin) = (&self.backend.fleet, &self.backend.admin);
        match event {
            Event::Add { user, key: number, target, sudo } => {
                let new = new_user(USERS[*user], &[key(*number)], TARGETS[*target], *sudo);
                fleet.add_user(admin, &new).await.expect("added");
            }
            Event::Share { user, target, sudo } => {
                let on = TARGETS[*target].parse().expect("a target");
                let login_name = Some(login("deploy"));
                let (sudo, reason) = (*sudo, String::new());
                let holder = Holder::User(login(USERS[*user]));
                let terms = Terms::default();
                let new = NewGrant { holder, on, login: login_name, sudo, terms, reason };
                let _ = fleet.add_grant(admin, &new).await;
            }
            Event::Remove { user } => {
                let _ = fleet.remove_user(admin, &login(USERS[*user]), RemoveUser::default()).await;
            }
            Event::Key { user, key: number } => {
                let keys = vec![key(*number).to_string()];
                let keys = NewKeys { keys, options: KeyOptions::default(), until: None };
                let _ = fleet.add_keys(admin, &login(USERS[*user]), &keys).await;
            }
            Event::Unkey { user, key: number } => {
                let print = key(*number).fingerprint();
                let _ = fleet.remove_key(admin, &login(USERS[*user]), &print).await;
            }
            Event::Sudo { user, sudo } => {
                let update = UpdateUser { sudo: Some(*sudo), ..UpdateUser::default() };
                let _ = fleet.update_user(admin, &login(USERS[*user]), &update).await;
            }
            Event::Ungrant { which } => {
                let grants = fleet.grants(admin, None).await.expect("listed");
                if let Some(grant) = grants.get(*which) {
                    fleet.remove_grant(admin, grant.id).await.expect("removed");
                }
            }
            Event::Member { .. }
            | Event::Nest { .. }
            | Event::GrantGroup { .. }
            | Event::RemoveGroup { .. } => self.happen_to_group(event).await,
            Event::Label { server, on } => {
                let mut update = UpdateServer::default();
                if *on {
                    update.set_labels.insert("role".into(), "web".into());
                } else {
                    update.unset_labels.push("role".into());
                }
                fleet.update_server(admin, &host(SERVERS[*server]), &update).await.expect("done");
            }
            Event::Answer { server, count, answers } => {
                self.answer(*server, *count, answers).await;
            }
            Event::Lose { server, sent, done } => {
                let actions = self.sessions[*server].next(*sent).await.expect("a queue");
                for action in actions.iter().take(*done) {
                    plan::confirm(&mut self.real[*server], &done_by(action));
                }
                self.reconnect().await;
            }
            Event::Kill => {
                self.sessions.clear();
                self.backend = self.backend.after_kill().await;
                self.reconnect().await;
            }
        }
        self
    }

    /// Lets members come to a group, which is made when it is not there, or leave it.
    async fn regroup(&self, group: usize, members: Members, on: bool) {
        let (fleet, admin) = (&self.backend.fleet, &self.backend.admin);
        let name = GROUPS[group].parse().expect("a name");
        let (add, remove) =
            if on { (members, Members::default()) } else { (Members::default(), members) };
        let new = NewGroup { name, members: Members::default() };
        let _ = fleet.add_group(admin, &new).await;
        let _ = fleet.update_group(admin, &new.name, &UpdateGroup { add, remove }).await;
    }

    async fn answer(&mut self, server: usize, count: usize, answers: &[Answer]) -> usize {
        let session = &self.sessions[server];
        let actions = session.next(count).await.expect("a queue");
        for (action, answer) in actions.iter().zip(answers.iter().cycle()) {
            let step = done_by(action);
            if *answer != Answer::Failed {
                plan::confirm(&mut self.real[server], &step);
            } else if matches!(action.action, Action::RemoveUser { .. })
                && !self.confirmed(server, &step).await
            {
                // What an agent refuses to remove is a stranger's: nothing of ours was there.
                self.real[server].remove(&step.login);
            }
            let status = if *answer == Answer::Done { Status::Done } else { Status::Failed };
            session.feedback(&action.reply(status, "")).await.expect("taken");
        }
        actions.len()
    }

    async fn confirmed(&self, server: usize, step: &Step) -> bool {
        let mut db = self.backend.store.read().await.expect("a reader");
        let row = store::servers::find(&mut db, &host(SERVERS[server])).await.expect("read");
        let id = row.expect("on record").id;
        let accounts = store::accounts::of_server(&mut db, id).await.expect("read");
        accounts.contains_key(&step.login)
    }

    /// What really is on the servers and not wanted there, without a failure that stands for it.
    async fn silent_rights(&self) -> Vec<String> {
        let mut db = self.backend.store.read().await.expect("a reader");
        let model = store::grants::entitlements(&mut db, None, NOW).await.expect("read");
        let real: BTreeMap<_, _> = SERVERS.iter().map(|name| host(name)).zip(&self.real).collect();
        let mut found = Vec::new();
        for (id, (name, labels)) in store::servers::names_and_labels(&mut db).await.expect("read") {
            let wanted = plan::desired(&model, &Host { name: name.clone(), labels });
            for (login, account) in real[&name] {
                let failed = store::actions::standing(&mut db, id, login).await.expect("read");
                let none = plan::Account::default();
                let right = wanted.get(login).unwrap_or(&none);
                let more = !wanted.contains_key(login)
                    || account.sudo && !right.sudo
                    || !account.keys.is_subset(&right.keys);
                if more && failed.is_empty() {
                    found.push(format!("{name} {login}: has {account:?}, wanted {right:?}"));
                }
            }
        }
        found
    }

    /// For every server: the accounts that differ from the model without a failure, and how many
    /// failures stand without a difference.
    async fn silent_differences(&self) -> Vec<String> {
        let mut db = self.backend.store.read().await.expect("a reader");
        let model = store::grants::entitlements(&mut db, None, NOW).await.expect("read");
        let mut found = Vec::new();
        for (id, (name, labels)) in store::servers::names_and_labels(&mut db).await.expect("read") {
            let confirmed = store::accounts::of_server(&mut db, id).await.expect("read");
            let wanted = plan::desired(&model, &Host { name: name.clone(), labels });
            let suspects = store::suspects::of_server(&mut db, id).await.expect("read");
            let present = plan::with_suspects(confirmed, &suspects, &wanted);
            let steps = plan::difference(&wanted, &present);
            for account in USERS.iter().chain(&["deploy"]).map(|name| login(name)) {
                let failed = store::actions::standing(&mut db, id, &account).await.expect("read");
                let failed: Vec<_> = failed.into_iter().map(|(_, step)| step).collect();
                let differs: Vec<_> = steps.iter().filter(|step| step.login == account).collect();
                let silent = differs.iter().any(|step| !failed.contains(step));
                let stale = failed.iter().any(|step| !differs.contains(&step));
                if silent || stale {
                    found.push(format!("{name} {account}: differs {differs:?}, failed {failed:?}"));
                }
            }
        }
        found
    }

    async fn answer_everything(&mut self, answers: &[Answer]) {
        for server in 0..SERVERS.len() {
            while self.answer(server, 7, answers).await > 0 {}
        }
    }
}

fn done_by(action: &ActionMessage) -> Step {
    store::actions::step(action.clone())
}

async fn weather(events: Vec<Event>, last: Vec<Answer>) {
    let mut storm = Storm::begin().await;
    for event in &events {
        storm = storm.happen(event).await;
    }
    storm.answer_everything(&last).await;
    let differences = storm.silent_differences().await;
    assert!(differences.is_empty(), "after the storm: {differences:#?}");
    let rights = storm.silent_rights().await;
    assert!(rights.is_empty(), "rights after the storm: {rights:#?}");
    for name in SERVERS {
        let (fleet, admin) = (&storm.backend.fleet, &storm.backend.admin);
        fleet.sync_server(admin, &host(name)).await.expect("planned");
    }
    storm.answer_everything(&[Answer::Done]).await;
    let differences = storm.silent_differences().await;
    assert!(differences.is_empty(), "after the sync: {differences:#?}");
    let rights = storm.silent_rights().await;
    assert!(rights.is_empty(), "rights after the sync: {rights:#?}");
    let status =
        storm.backend.fleet.status(&storm.backend.admin, String::new()).await.expect("read");
    assert_eq!((status.queued, status.sent, status.failed), (0, 0, 0));
}

/// A database that is a server of its own takes ten times as long for each.
fn cases() -> u32 {
    if crate::testing::on_postgres() { 6 } else { 40 }
}

proptest! {
    #![proptest_config(Config { cases: cases(), max_shrink_iters: 400, ..Config::default() })]

    #[test]
    fn a_server_differs_from_the_model_only_where_a_failure_says_so(
        events in vec(event(), 1..40), last in vec(answer(), 5),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(weather(events, last));
    }
}
