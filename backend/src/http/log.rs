//! The audit log; waits for news when asked to.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use bastio_protocol::audit::{ChainedRow, LogFilter, Pattern};
use bastio_protocol::{ServerName, Username};
use serde::Deserialize;

use super::HttpState;
use super::extract::Query;
use super::problem::Problem;
use crate::access::Admin;
use crate::store::audit::Page;

/// Rows when nobody says how many.
const DEFAULT_LIMIT: u32 = 100;

/// What [`LogFilter`] holds, spelled out: numbers of a query cannot be flattened.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogQuery {
    limit: Option<u32>,
    user: Option<Username>,
    server: Option<ServerName>,
    actor: Option<Pattern>,
    action: Option<Pattern>,
    since: Option<i64>,
    until: Option<i64>,
    after: Option<i64>,
    wait: Option<u64>,
}

/// `GET /log`
pub(super) async fn list(
    State(state): State<HttpState>,
    admin: Admin,
    Query(query): Query<LogQuery>,
) -> Result<Json<Vec<ChainedRow>>, Problem> {
    let LogQuery { limit, user, server, actor, action, since, until, after, wait } = query;
    let filter = LogFilter { user, server, actor, action, since, until };
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    let rows = match (after, wait) {
        (None, None) => state.fleet.log(&admin, &filter, Page::Last, limit).await?,
        (Some(after), None) => state.fleet.log(&admin, &filter, Page::After(after), limit).await?,
        (Some(after), Some(wait)) => {
            let wait = Duration::from_secs(wait);
            state.fleet.await_log(&admin, &filter, after, limit, wait).await?
        }
        (None, Some(_)) => return Err(Problem::bad_request("wait needs after, a row's number")),
    };
    Ok(Json(rows))
}

#[cfg(test)]
mod tests {
    use bastio_protocol::Status;
    use bastio_protocol::api::NewGrant;
    use serde_json::{Value, json};

    use super::super::tests::TestSite;
    use crate::testing::{NOW, key, login};

    /// A site with a log of 9 rows: 1 api-key.add, 2 api-key.add, 3 server.add, 4 user.add,
    /// 5 key.add, 6 grant.add, 7 and 8 action.done, 9 grant.add with a reason.
    async fn site() -> TestSite {
        let site = TestSite::new().await;
        let backend = &site.backend;
        backend.enroll("web-1", 1).await;
        backend.add_user("alice", &[key(10)], "web-1", false).await;
        let session = backend.connect(1).await;
        backend.answer_all(&session, Status::Done).await;
        let grant = NewGrant {
            holder: bastio_protocol::api::Holder::User(login("alice")),
            on: "*".parse().expect("all"),
            login: None,
            sudo: false,
            terms: Default::default(),
            reason: "on call".into(),
        };
        backend.fleet.add_grant(&backend.admin, &grant).await.expect("granted");
        site
    }

    async fn ids(site: &TestSite, query: &str) -> Vec<i64> {
        let (status, rows) = site.get(&format!("/api/v1/log?{query}")).await;
        assert_eq!(status, 200, "{query}: {rows}");
        let rows = rows.as_array().expect("a list").iter();
        rows.map(|row| row["id"].as_i64().expect("a number")).collect()
    }

    #[tokio::test]
    async fn filters_and_pages() {
        let site = site().await;
        let (later, now) = (NOW + 1, NOW);
        for (query, expected) in [
            ("".to_owned(), (1..=9).collect::<Vec<i64>>()),
            ("limit=2".to_owned(), vec![8, 9]),
            ("limit=2&after=0".to_owned(), vec![1, 2]),
            ("limit=2&after=2".to_owned(), vec![3, 4]),
            ("after=9".to_owned(), vec![]),
            ("after=9&wait=0".to_owned(), vec![]),
            ("after=7&wait=30".to_owned(), vec![8, 9]),
            ("user=alice&after=6".to_owned(), vec![7, 8, 9]),
            ("server=web-1".to_owned(), vec![3, 7, 8]),
            ("server=nothing".to_owned(), vec![]),
            ("actor=agent:web-1".to_owned(), vec![7, 8]),
            ("actor=agent:*".to_owned(), vec![7, 8]),
            ("actor=agent".to_owned(), vec![]),
            ("action=grant.add".to_owned(), vec![6, 9]),
            ("action=grant.*&limit=1".to_owned(), vec![9]),
            ("action=api-key.".to_owned(), vec![1, 2]),
            ("action=GRANT.*".to_owned(), vec![]),
            ("action=_rant.*".to_owned(), vec![]),
            (format!("since={now}&limit=1"), vec![9]),
            (format!("since={later}"), vec![]),
            (format!("until={now}"), vec![]),
            (format!("until={later}&limit=1"), vec![9]),
        ] {
            assert_eq!(ids(&site, &query).await, expected, "{query}");
        }
    }

    #[tokio::test]
    async fn rows_tell_why_and_with_what_result() {
        let site = site().await;
        let (_, rows) = site.get("/api/v1/log").await;
        let field = |id: usize, name: &str| rows[id - 1].get(name).cloned().unwrap_or(Value::Null);
        assert_eq!(field(9, "reason"), json!("on call"));
        assert_eq!(field(9, "detail"), json!("granted * as alice"));
        assert_eq!((field(7, "status"), field(7, "reason")), (json!(200), Value::Null));
        assert_eq!(field(1, "prev_hash"), json!(""));
        assert_eq!(field(9, "prev_hash"), field(8, "hash"));
    }

    #[tokio::test]
    async fn a_wait_ends_with_the_row_that_it_is_for() {
        let site = site().await;
        let wait = site.get("/api/v1/log?after=9&wait=30&action=user.*");
        let others = async {
            site.backend.enroll("db-1", 2).await;
            site.backend.add_user("bob", &[], "", false).await;
        };
        let ((status, rows), ()) = tokio::join!(wait, others);
        assert_eq!((status, &rows[0]["action"]), (200, &json!("user.add")), "{rows}");
        assert_eq!((&rows[0]["id"], rows.as_array().map(Vec::len)), (&json!(11), Some(1)));
    }
}
