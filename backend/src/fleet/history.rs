//! How the model was before each edit changed it: kept thing by thing, so that an edit keeps as much
//! as it changes.
//!
//! Each function that changes a thing calls [`super::edit::Edit::remember`] first. What is kept is
//! written as in `bastio export`. This room must not know how anybody goes back.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bastio_protocol::ServerName;
use bastio_protocol::Username;
use bastio_protocol::api::{
    Holder, Labels, PolicyGrant, PolicyGroup, PolicyName, PolicyUser, SudoRule, UserGroup,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::declared;
use crate::plan::{self, Before};
use crate::store::history::HistoryRow;
use crate::store::servers::ServerRow;
use crate::store::{self, Connection, StoreError};

/// Something that an edit is about to change.
#[derive(Debug, Clone, Copy)]
pub(super) enum Thing<'a> {
    /// A person with keys.
    User(&'a Username),
    /// A group with its members.
    Group(&'a UserGroup),
    /// The grants of a person or of a group itself.
    Grants(&'a Holder),
    /// A sudo policy.
    Policy(&'a PolicyName),
    /// All rules about drift.
    Drift,
    /// The labels of a server.
    Labels(&'a ServerRow),
    /// The name of a server, and the one that it gets.
    Renamed(&'a ServerName, &'a ServerName),
    /// A server that goes.
    Removed(&'a ServerName),
}

/// How the things that one edit changes were before it.
#[derive(Debug, Default)]
pub(super) struct History(BTreeMap<(&'static str, String), Option<String>>);

impl Thing<'_> {
    /// As in the database.
    fn key(self) -> (&'static str, String) {
        match self {
            Self::User(name) => ("user", name.to_string()),
            Self::Group(name) => ("group", name.to_string()),
            Self::Grants(Holder::User(name)) => ("grants-of-user", name.to_string()),
            Self::Grants(Holder::Group(name)) => ("grants-of-group", name.to_string()),
            Self::Policy(name) => ("sudo-policy", name.to_string()),
            Self::Drift => ("drift", String::new()),
            Self::Labels(server) => ("labels", server.name.to_string()),
            Self::Renamed(old, _) => ("renamed", old.to_string()),
            Self::Removed(name) => ("removed", name.to_string()),
        }
    }

    async fn read(self, db: &mut Connection) -> Result<Option<String>, StoreError> {
        Ok(match self {
            Self::User(name) => match store::users::find(db, name).await? {
                None => None,
                Some(row) => {
                    let keys = store::users::keys(db, row.id).await?;
                    Some(json(&declared::person(row, keys)))
                }
            },
            Self::Group(name) => store::groups::inside(db, name)
                .await?
                .map(|inside| json(&PolicyGroup { users: inside.users, groups: inside.groups })),
            Self::Grants(holder) => {
                let grants = match holder {
                    Holder::Group(group) => store::grants::of_group(db, group).await?,
                    Holder::User(user) => match store::users::find(db, user).await? {
                        Some(row) => store::grants::of_user(db, row.id).await?,
                        None => Vec::new(),
                    },
                };
                let own = grants.into_iter().filter(|grant| grant.holder == *holder);
                let own: Vec<_> = own.map(|grant| PolicyGrant(declared::new(grant))).collect();
                Some(json(&own))
            }
            Self::Policy(name) => {
                let all = store::policies::list(db).await?.into_iter();
                all.map(declared::rule).find(|(known, _)| known == name).map(|(_, it)| json(&it))
            }
            Self::Drift => Some(json(&store::drift::rules(db).await?)),
            Self::Labels(server) => {
                let mut labels = store::servers::labels(db, server.id).await?;
                labels.retain(|label, _| !plan::is_host_label(label));
                Some(json(&labels))
            }
            Self::Renamed(_, new) => Some(json(new)),
            Self::Removed(_) => None,
        })
    }
}

impl History {
    /// Keeps in mind how that was, the first time it is called for it.
    pub(super) async fn remember(
        &mut self,
        db: &mut Connection,
        thing: Thing<'_>,
    ) -> Result<(), StoreError> {
        if let Entry::Vacant(place) = self.0.entry(thing.key()) {
            place.insert(thing.read(db).await?);
        }
        Ok(())
    }

    /// Writes it down as changed by that revision, and forgets what leads back behind `oldest`.
    pub(super) async fn keep(
        &mut self,
        db: &mut Connection,
        revision: i64,
        oldest: i64,
    ) -> Result<(), StoreError> {
        let things = std::mem::take(&mut self.0).into_iter();
        let row = |((kind, name), before): ((&str, String), _)| HistoryRow {
            revision,
            kind: kind.to_owned(),
            name,
            before,
        };
        store::history::insert(db, &things.map(row).collect::<Vec<_>>()).await?;
        store::history::forget(db, oldest).await
    }
}

/// What the revisions behind that one have changed, the last first.
pub(super) async fn behind(
    db: &mut Connection,
    revision: i64,
) -> Result<Vec<(i64, Before)>, StoreError> {
    let rows = store::history::behind(db, revision).await?.into_iter();
    rows.map(|row| Ok((row.revision, before(row)?))).collect()
}

fn before(row: HistoryRow) -> Result<Before, StoreError> {
    let HistoryRow { kind, name, before, .. } = row;
    Ok(match kind.as_str() {
        "user" => Before::User(parse_name(name)?, parse::<PolicyUser>(before)?),
        "group" => Before::Group(parse_name(name)?, parse::<PolicyGroup>(before)?),
        "grants-of-user" => {
            Before::Grants(Holder::User(parse_name(name)?), parse(before)?.unwrap_or_default())
        }
        "grants-of-group" => {
            Before::Grants(Holder::Group(parse_name(name)?), parse(before)?.unwrap_or_default())
        }
        "sudo-policy" => Before::Policy(parse_name(name)?, parse::<SudoRule>(before)?),
        "drift" => Before::Drift(parse(before)?.unwrap_or_default()),
        "labels" => {
            let labels: Labels = parse(before)?.unwrap_or_default();
            Before::Labels(parse_name(name)?, labels)
        }
        "renamed" => Before::Renamed(parse_name(name)?, parse(before)?.ok_or(CORRUPT)?),
        "removed" => Before::Removed(parse_name(name)?),
        _ => return Err(CORRUPT),
    })
}

const CORRUPT: StoreError = StoreError::Corrupt { what: "the history of the model" };

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("texts, numbers and lists always serialise")
}

fn parse<T: DeserializeOwned>(text: Option<String>) -> Result<Option<T>, StoreError> {
    text.map(|text| serde_json::from_str(&text).map_err(|_| CORRUPT)).transpose()
}

/// Every kind of name is a text that is checked.
fn parse_name<T: TryFrom<String>>(text: String) -> Result<T, StoreError> {
    T::try_from(text).map_err(|_| CORRUPT)
}
