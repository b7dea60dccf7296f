//! What became of actions, for people: by revision, by server, and in numbers.

use std::collections::BTreeMap;

use bastio_protocol::api::ActionReport;
use bastio_protocol::{ServerName, Status};
use serde::Deserialize;

use super::accounts::parse_login;
use super::actions::{ActionId, count, parse_state};
use super::requests::parse_detail;
use super::{Connection, ServerId, StoreError, corrupt, sql};

/// The failures of a server that stand, for people.
pub async fn standing_reports(
    db: &mut Connection,
    server: ServerId,
) -> Result<Vec<ActionReport>, StoreError> {
    let rows: Vec<ReportColumns> = sql::query_as(
        "SELECT action, login, state, tries, status, feedback, detail, mid FROM actions \
         WHERE server_id = $1 AND standing = TRUE ORDER BY id",
    )
    .bind(server)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(report).collect()
}

/// What servers have still to be told or to answer, and what they failed to take; of one server
/// or all, each server's in order.
pub async fn open_reports(
    db: &mut Connection,
    server: Option<ServerId>,
) -> Result<BTreeMap<ServerId, Vec<ActionReport>>, StoreError> {
    let rows: Vec<OpenColumns> = sql::query_as(
        "SELECT server_id, action, login, state, tries, status, feedback, detail, mid \
         FROM actions WHERE (state IN ('queued', 'sent') OR standing = TRUE) \
         AND ($1 IS NULL OR server_id = $1) ORDER BY id",
    )
    .bind(server)
    .fetch_all(db)
    .await?;
    let mut open = BTreeMap::<ServerId, Vec<ActionReport>>::new();
    for (server, action, login, state, tries, status, feedback, detail, mid) in rows {
        let report = report((action, login, state, tries, status, feedback, detail, mid))?;
        open.entry(server).or_default().push(report);
    }
    Ok(open)
}

/// The first revision of which a server has not everything; servers that have all are missing.
pub async fn first_open_revisions(
    db: &mut Connection,
) -> Result<BTreeMap<ServerId, i64>, StoreError> {
    let rows: Vec<(ServerId, i64)> = sql::query_as(
        "SELECT a.server_id, MIN(r.revision) FROM actions a \
         JOIN revision_actions r ON r.action_id = a.id \
         WHERE a.state IN ('queued', 'sent') OR a.standing = TRUE GROUP BY a.server_id",
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().collect())
}

/// How many steps the actions of a revision have made.
pub async fn progress(db: &mut Connection, revision: i64) -> Result<u64, StoreError> {
    let steps: i64 = sql::query_scalar(
        "SELECT CAST(COALESCE(SUM(a.steps), 0) AS BIGINT) FROM revision_actions r \
         JOIN actions a ON a.id = r.action_id WHERE r.revision = $1",
    )
    .bind(revision)
    .fetch_one(db)
    .await?;
    Ok(u64::try_from(steps).unwrap_or(0))
}

/// A server of a revision: its number, name and last session, and one of its actions.
pub struct OutcomeRow {
    /// The server.
    pub server: ServerId,
    /// Its name.
    pub name: ServerName,
    /// Last time a session began or ended.
    pub last_seen: Option<i64>,
    /// One of its actions.
    pub report: ActionReport,
    /// How many steps that one has made.
    pub steps: u32,
}

/// What became of the actions of a revision, by server name, each server's in order.
pub async fn outcomes(db: &mut Connection, revision: i64) -> Result<Vec<OutcomeRow>, StoreError> {
    let rows: Vec<OutcomeColumns> = sql::query(
        "SELECT a.id, s.id AS server_id, s.name, s.last_seen, a.steps, \
         a.action, a.login, a.state, a.tries, a.status, a.feedback, a.detail, a.mid \
         FROM revision_actions r JOIN actions a ON a.id = r.action_id \
         JOIN servers s ON s.id = a.server_id WHERE r.revision = $1",
    )
    .bind(revision)
    .fetch_packed(
        "id, server_id, name, last_seen, steps, action, login, state, tries, status, feedback, detail, mid",
        db,
    )
    .await?;
    let rows: Result<Vec<(ActionId, OutcomeRow)>, StoreError> =
        rows.into_iter().map(OutcomeColumns::read).collect();
    let mut rows = rows?;
    rows.sort_by(|(id, one), (other_id, other)| {
        one.name.cmp(&other.name).then(one.server.cmp(&other.server)).then(id.cmp(other_id))
    });
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// How many actions are queued, are sent, and have failed and stand.
pub async fn counts(db: &mut Connection) -> Result<(u32, u32, u32), StoreError> {
    let (queued, sent, failed): (i64, i64, i64) = sql::query_as(
        "SELECT (SELECT COUNT(*) FROM actions WHERE state = 'queued' \
                 AND state IN ('queued', 'sent')), \
                (SELECT COUNT(*) FROM actions WHERE state = 'sent' \
                 AND state IN ('queued', 'sent')), \
                (SELECT COUNT(*) FROM actions WHERE standing = TRUE)",
    )
    .fetch_one(db)
    .await?;
    Ok((count(queued), count(sent), count(failed)))
}

/// Of every server with actions queued or sent: when the oldest of them was queued.
pub async fn oldest_pending(db: &mut Connection) -> Result<Vec<(ServerId, i64)>, StoreError> {
    let rows = sql::query_as(
        "SELECT server_id, MIN(created) FROM actions WHERE state IN ('queued', 'sent') \
         GROUP BY server_id",
    )
    .fetch_all(db)
    .await?;
    Ok(rows)
}

/// How many servers have not confirmed everything. In two steps, each with an index of its own.
pub async fn servers_behind(db: &mut Connection) -> Result<u32, StoreError> {
    let servers = sql::query_scalar(
        "SELECT COUNT(*) FROM (SELECT server_id FROM actions WHERE state IN ('queued', 'sent') \
         UNION SELECT server_id FROM actions WHERE standing = TRUE) AS behind",
    )
    .fetch_one(db)
    .await?;
    Ok(count(servers))
}

type ReportColumns =
    (String, String, String, i64, Option<i64>, Option<String>, Option<String>, String);
type OpenColumns =
    (ServerId, String, String, String, i64, Option<i64>, Option<String>, Option<String>, String);
/// In the order of its columns.
#[derive(Deserialize)]
struct OutcomeColumns {
    id: ActionId,
    server_id: ServerId,
    name: String,
    last_seen: Option<i64>,
    steps: i64,
    action: String,
    login: String,
    state: String,
    tries: i64,
    status: Option<i64>,
    feedback: Option<String>,
    detail: Option<String>,
    mid: String,
}

impl OutcomeColumns {
    fn read(self) -> Result<(ActionId, OutcomeRow), StoreError> {
        let name = super::servers::parse_name(&self.name)?;
        let Self { action, login, state, tries, status, feedback, detail, mid, .. } = self;
        let report = report((action, login, state, tries, status, feedback, detail, mid))?;
        let (server, last_seen, steps) = (self.server_id, self.last_seen, count(self.steps));
        Ok((self.id, OutcomeRow { server, name, last_seen, report, steps }))
    }
}

fn report(row: ReportColumns) -> Result<ActionReport, StoreError> {
    let (action, login, state, tries, status, feedback, detail, mid) = row;
    let status = status
        .map(|code| u16::try_from(code).map_err(corrupt("a status")))
        .transpose()?
        .map(|code| Status::try_from(code).map_err(corrupt("a status")))
        .transpose()?;
    Ok(ActionReport {
        action,
        username: parse_login(&login)?,
        state: parse_state(&state)?,
        tries: count(tries),
        status,
        feedback,
        detail: detail.as_deref().map(parse_detail).transpose()?,
        mid,
    })
}
