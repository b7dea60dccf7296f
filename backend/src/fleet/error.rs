//! Why the model was not read or edited, and what to do about it.

mod hints;

use bastio_protocol::api::{PolicyName, UserGroup, utc};
use bastio_protocol::{KeyOptionsError, PublicKeyError, ServerName, Target, TargetError, Username};
use thiserror::Error;

use super::overtaken::Overtaken;
use crate::approvals::Gains;
use crate::plan::{Conflict, Fault, Stop};
use crate::store::StoreError;

/// Why the model was not read or edited.
#[derive(Debug, Error)]
pub enum FleetError {
    /// No server of that name.
    #[error("there is no server named {0}")]
    NoSuchServer(ServerName),
    /// No person of that name.
    #[error("there is no user named {0}")]
    NoSuchUser(Username),
    /// No group of that name.
    #[error("there is no group named {0}")]
    NoSuchGroup(UserGroup),
    /// There is a group of that name.
    #[error("there is a group named {0} already")]
    GroupTaken(UserGroup),
    /// A group that has grants still.
    #[error("the group {name} has {}", numbers(.grants))]
    GroupInUse {
        /// The group.
        name: UserGroup,
        /// Its grants.
        grants: Vec<i64>,
    },
    /// A group would be inside itself.
    #[error("the group would be inside itself: {}", circle(.0))]
    Circle(Vec<UserGroup>),
    /// Sudo rights that are not the person's own to lose.
    #[error("{user} has sudo rights through the group {group}")]
    SudoByGroup {
        /// The person.
        user: Username,
        /// A group with such a grant.
        group: UserGroup,
    },
    /// No grant of that number.
    #[error("there is no grant {0}")]
    NoSuchGrant(i64),
    /// The person has no such key.
    #[error("{user} has no key {fingerprint}")]
    NoSuchKey {
        /// The person.
        user: Username,
        /// The fingerprint asked for.
        fingerprint: String,
    },
    /// A numeric id that belongs to another login name, also when nobody has that any more.
    #[error("the uid {uid} belongs to {owner}")]
    UidTaken {
        /// The id.
        uid: u32,
        /// Whose it is.
        owner: Username,
    },
    /// All numeric ids of the range are somebody's.
    #[error("no uid is left for {0}")]
    NoUidLeft(Username),
    /// No edit of that number.
    #[error("there is no revision {0}")]
    NoSuchRevision(i64),
    /// A revision that is known, and not what led from it to now.
    #[error("revision {to} is too long ago: the model is known from revision {first} on")]
    TooLongAgo {
        /// The revision asked for.
        to: i64,
        /// The first that can be asked for.
        first: i64,
    },
    /// What cannot end on one server alone.
    #[error("{server} is reached by label, which cannot end there alone: {}", .grants.join("; "))]
    NotThereAlone {
        /// The server.
        server: ServerName,
        /// The grants, in words.
        grants: Vec<String>,
    },
    /// No report of that server under that number.
    #[error("request {0} is no report of this server that was answered")]
    NoReport(i64),
    /// An account that cannot be taken over.
    #[error("{login} cannot be taken over: {why}")]
    NotToBeTaken {
        /// The account.
        login: Username,
        /// Why not.
        why: &'static str,
    },
    /// An account that was not taken over.
    #[error("{login} on {server} was not taken over")]
    NotAdopted {
        /// The server.
        server: ServerName,
        /// The account.
        login: Username,
    },
    /// An account that somebody has there still.
    #[error("{login} is wanted there by {}", numbers(.grants))]
    Wanted {
        /// The account.
        login: Username,
        /// The grants.
        grants: Vec<i64>,
    },
    /// No rule about drift of these servers.
    #[error("there is no rule about drift on {0}")]
    NoSuchDriftRule(Target),
    /// Another server has that name.
    #[error("there is a server named {0} already")]
    NameTaken(ServerName),
    /// A key line that is no usable key.
    #[error("key {number}: {fault}")]
    BadKey {
        /// Its place in the request, counted from 1.
        number: usize,
        /// What is wrong.
        fault: PublicKeyError,
    },
    /// A request to add no key at all.
    #[error("the request holds no key")]
    NoKeys,
    /// No label.
    #[error(transparent)]
    BadLabel(TargetError),
    /// A label that says what the server's agent has told.
    #[error(
        "the label {0:?} is not yours to set: what is under host/ is told by the server's agent"
    )]
    HostLabel(String),
    /// A text for people with line breaks or other control characters, or a very long one.
    #[error("{what} must be one line of at most {limit} bytes")]
    BadText {
        /// Which text.
        what: &'static str,
        /// Longest text, in bytes.
        limit: usize,
    },
    /// The name belongs to the system.
    #[error("{0} is an account of the system itself")]
    SystemName(Username),
    /// A disabled person is let in again on purpose alone.
    #[error("{0} is disabled")]
    Disabled(Username),
    /// Grants would contradict each other.
    #[error("this would contradict another grant: {0}")]
    Conflict(Conflict),
    /// Grants would contradict each other once one of them begins.
    #[error("from {} UTC on this would contradict another grant: {conflict}", utc(*.at))]
    ConflictLater {
        /// When, in seconds since the Unix epoch.
        at: i64,
        /// How.
        conflict: Conflict,
    },
    /// Others have edited the model meanwhile.
    #[error("{0}")]
    Overtaken(Box<Overtaken>),
    /// Key options that mean nothing for one of the keys.
    #[error("the key {fingerprint}: {fault}")]
    UnfitOptions {
        /// The key.
        fingerprint: String,
        /// What is wrong.
        fault: KeyOptionsError,
    },
    /// Options of a key that cannot stand beside those of a grant.
    #[error("the key {fingerprint} has options of its own that contradict those of grant {grant}")]
    TwoOptions {
        /// The key.
        fingerprint: String,
        /// The grant.
        grant: i64,
    },
    /// An end that is over already.
    #[error("the end of it is not in the future")]
    Past,
    /// An end before the begin.
    #[error("the end of it is not behind its begin")]
    Backwards,
    /// No request of that number.
    #[error("there is no request {0}")]
    NoSuchRequest(i64),
    /// The server's agent cannot be asked that.
    #[error("the agent of {0} speaks version 1, which cannot be asked that")]
    Version1(ServerName),
    /// The server's agent is away.
    #[error("{0} is not connected")]
    NotConnected(ServerName),
    /// Nobody must decide anything about that server.
    #[error("there is nothing to decide about {0}")]
    NothingAsked(ServerName),
    /// A server that was not enrolled under the name of the other.
    #[error("{with} was not enrolled as {name}, so it does not take its place")]
    NotAsked {
        /// The one that is there.
        name: ServerName,
        /// The new one.
        with: ServerName,
    },
    /// No sudo policy of that name.
    #[error("there is no sudo policy named {0}")]
    NoSuchPolicy(PolicyName),
    /// There is a sudo policy of that name.
    #[error("there is a sudo policy named {0} already")]
    PolicyTaken(PolicyName),
    /// A sudo policy that grants still give.
    #[error("the sudo policy {name} is given by {}", numbers(.grants))]
    PolicyInUse {
        /// The policy.
        name: PolicyName,
        /// The grants.
        grants: Vec<i64>,
    },
    /// A sudo policy that cannot be written as a rule.
    #[error("{0}")]
    BadPolicy(String),
    /// What makes root, and would be named no more.
    #[error("{0} would be left to the host, and the account would keep it")]
    LeftBehind(String),
    /// Sudo rights in two ways at once.
    #[error("a grant gives plain sudo or a policy, not both")]
    TwoSudos,
    /// An edit that concerns much of the fleet, or locks somebody out.
    #[error("this edit was stopped: {}", texts(.0))]
    NeedsConfirmation(Vec<Stop>),
    /// An edit that adds to what makes root, and waits for a second operator.
    #[error("this needs another operator's approval: {0}")]
    NeedsApproval(Gains),
    /// What was approved was carried out, or refused, meanwhile.
    #[error("proposal {0} does not wait any more")]
    ProposalEnded(i64),
    /// A request that was only to be tried, and does not know how.
    #[error("this cannot be tried without being done")]
    NotTriable,
    /// A file that cannot be made so.
    #[error("{}", faults(.0))]
    Faults(Vec<Fault>),
    /// An edit of a file that cannot be made.
    #[error("{place}: {error}")]
    At {
        /// Which.
        place: String,
        /// Why not.
        error: Box<FleetError>,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl FleetError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoSuchServer(_) => Some("`bastio server ls` shows every server"),
            Self::NoSuchUser(_) => Some("`bastio user ls` shows every user"),
            Self::NoSuchGroup(_) => Some("`bastio group ls` shows every group"),
            Self::GroupTaken(_) => Some("add members to it with `bastio group member add`"),
            Self::GroupInUse { .. } => Some(hints::GROUP_IN_USE),
            Self::Circle(_) => Some("nothing was changed; `bastio group ls` shows what is in what"),
            Self::SudoByGroup { .. } => Some(hints::SUDO_BY_GROUP),
            Self::NoSuchGrant(_) => Some("`bastio grant ls` shows every grant with its number"),
            Self::NoSuchKey { .. } => Some("`bastio key ls USER` shows the user's fingerprints"),
            Self::NoSuchRevision(_) => Some("`bastio revisions` shows them"),
            Self::TooLongAgo { .. } => Some(hints::TOO_LONG_AGO),
            Self::NotThereAlone { .. } => Some(hints::NOT_THERE_ALONE),
            Self::HostLabel(_) => Some("choose a name that does not begin with host/"),
            Self::NoReport(_) => Some("ask for one: bastio server report NAME"),
            Self::NotToBeTaken { .. } | Self::NotAdopted { .. } => {
                Some("nothing was changed; `bastio adopt ls SERVER` shows what is there")
            }
            Self::Wanted { .. } => Some("nothing was changed; end these grants first"),
            Self::NameTaken(_) => Some("choose another name, or rename the other server first"),
            Self::BadKey { .. } => Some("nothing was changed; correct the key and repeat"),
            Self::UidTaken { .. } => Some(hints::UID_TAKEN),
            Self::NoUidLeft(_) => Some("nothing was changed; make [uids] in backend.toml larger"),
            Self::NoKeys => Some("give at least one public key line"),
            Self::SystemName(_) => Some(hints::SYSTEM_NAME),
            Self::Overtaken(_) => Some(hints::OVERTAKEN),
            Self::Conflict(_) | Self::ConflictLater { .. } => Some(hints::CONFLICT),
            Self::UnfitOptions { .. } => Some(hints::UNFIT_OPTIONS),
            Self::TwoOptions { .. } => Some(hints::TWO_OPTIONS),
            Self::NoSuchRequest(_) => Some("the last requests of each server are kept"),
            Self::NothingAsked(_) => Some("`bastio server ls` shows what is undecided"),
            Self::NotAsked { .. } => Some(hints::NOT_ASKED),
            Self::Version1(_) => Some("update the agent on that server"),
            Self::NotConnected(_) => Some("try again when `bastio server ls` shows it connected"),
            Self::Backwards => Some("give an end behind the begin, or none at all"),
            Self::Disabled(_) => Some("let the person in again with: bastio user enable NAME"),
            Self::Past => Some("give a time to come, or none at all"),
            Self::NoSuchPolicy(_) => Some("`bastio sudo-policy ls` shows every policy"),
            Self::NoSuchDriftRule(_) => Some("`bastio drift ls` shows every rule"),
            Self::PolicyTaken(_) => Some("choose another name; policies in use do not change"),
            Self::PolicyInUse { .. } => Some("end these grants first: bastio grant rm ID"),
            Self::LeftBehind(_) => Some(hints::LEFT_BEHIND),
            Self::TwoSudos => Some("leave out either --sudo or --sudo-policy"),
            Self::NeedsConfirmation(_) => Some(hints::NEEDS_CONFIRMATION),
            Self::NeedsApproval(_) => Some("nothing was done"),
            Self::ProposalEnded(_) => Some("`bastio proposal ls` shows all of them"),
            Self::NotTriable => {
                Some("nothing was done; `bastio server check NAME` tells what a sync would change")
            }
            Self::Faults(_) => Some("nothing was changed; correct the file and repeat"),
            Self::At { error, .. } => error.hint(),
            Self::BadPolicy(_) | Self::BadLabel(_) | Self::BadText { .. } | Self::Store(_) => None,
        }
    }
}

/// At most so many faults are named: who has more corrects these first.
const FAULTS: usize = 20;

fn faults(all: &[Fault]) -> String {
    let mut texts: Vec<String> = all.iter().take(FAULTS).map(ToString::to_string).collect();
    if let Some(more) = all.len().checked_sub(FAULTS).filter(|more| *more > 0) {
        texts.push(format!("and {more} more"));
    }
    texts.join("; ")
}

fn circle(groups: &[UserGroup]) -> String {
    groups.iter().map(UserGroup::as_str).collect::<Vec<_>>().join(" > ")
}

fn texts(stops: &[Stop]) -> String {
    stops.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn numbers(ids: &[i64]) -> String {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let noun = if ids.len() == 1 { "grant" } else { "grants" };
    format!("{noun} {}", ids.join(", "))
}
