//! Rows of what an operator must decide about servers.

use std::collections::BTreeMap;

use bastio_protocol::api::{Question, QuestionKind};

use super::{Connection, ServerId, StoreError, sql};

type Columns = (String, bool, String, String, i64);

/// What is open about a server, and what it is about, in a word for programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// For people.
    pub question: Question,
    /// The server or the machine that it is about.
    pub subject: String,
}

/// Asks, or asks anew. Whether it was not open already.
pub async fn ask(db: &mut Connection, server: ServerId, open: &Open) -> Result<bool, StoreError> {
    let Open { question, subject } = open;
    let known: Option<i64> =
        sql::query_scalar("SELECT asked FROM questions WHERE server_id = $1 AND kind = $2")
            .bind(server)
            .bind(question.kind.name())
            .fetch_optional(&mut *db)
            .await?;
    sql::query(
        "INSERT INTO questions (server_id, kind, holds, subject, detail, asked) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (server_id, kind) DO UPDATE SET \
         holds = excluded.holds, subject = excluded.subject, detail = excluded.detail",
    )
    .bind(server)
    .bind(question.kind.name())
    .bind(question.holds)
    .bind(subject)
    .bind(&question.text)
    .bind(question.since)
    .execute(db)
    .await?;
    Ok(known.is_none())
}

/// What is open about one server.
pub async fn of_server(db: &mut Connection, server: ServerId) -> Result<Vec<Open>, StoreError> {
    let rows: Vec<Columns> = sql::query_as(
        "SELECT kind, holds, subject, detail, asked FROM questions WHERE server_id = $1 \
         ORDER BY kind",
    )
    .bind(server)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(open).collect()
}

/// What is open about all.
pub async fn all(db: &mut Connection) -> Result<BTreeMap<ServerId, Vec<Question>>, StoreError> {
    let rows: Vec<(ServerId, String, bool, String, String, i64)> = sql::query_as(
        "SELECT server_id, kind, holds, subject, detail, asked FROM questions \
         ORDER BY server_id, kind",
    )
    .fetch_all(db)
    .await?;
    let mut all = BTreeMap::<ServerId, Vec<Question>>::new();
    for (server, kind, holds, subject, detail, asked) in rows {
        let open = open((kind, holds, subject, detail, asked))?;
        all.entry(server).or_default().push(open.question);
    }
    Ok(all)
}

/// Strikes out what was open about a server.
pub async fn close(db: &mut Connection, server: ServerId) -> Result<(), StoreError> {
    sql::query("DELETE FROM questions WHERE server_id = $1").bind(server).execute(db).await?;
    Ok(())
}

/// The machine that a server is taken for.
pub async fn machine(db: &mut Connection, server: ServerId) -> Result<Option<String>, StoreError> {
    let machine = sql::query_scalar("SELECT machine_id FROM servers WHERE id = $1")
        .bind(server)
        .fetch_one(db)
        .await?;
    Ok(machine)
}

/// Takes a server for that machine from now on; `None`: for the next that it tells, if it tells one.
pub async fn set_machine(
    db: &mut Connection,
    server: ServerId,
    machine: Option<&str>,
) -> Result<(), StoreError> {
    sql::query("UPDATE servers SET machine_id = $1 WHERE id = $2")
        .bind(machine)
        .bind(server)
        .execute(db)
        .await?;
    Ok(())
}

fn open((kind, holds, subject, text, since): Columns) -> Result<Open, StoreError> {
    let kind = match kind.as_str() {
        "same-name" => QuestionKind::SameName,
        "machine" => QuestionKind::Machine,
        "rivals" => QuestionKind::Rivals,
        "restored" => QuestionKind::Restored,
        _ => return Err(StoreError::Corrupt { what: "the kind of a question" }),
    };
    Ok(Open { question: Question { kind, holds, text, since }, subject })
}
