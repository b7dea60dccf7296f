//! Statements that run on either engine: one text, values of three kinds, rows as sqlx reads them.
//!
//! Texts say `$1` and hold nothing that only one engine understands. This file must not know any
//! table.

use std::borrow::Cow;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe, Error, FromRow, Postgres, SqlSafeStr, SqlStr, Sqlite};

pub use self::value::{Flag, Value};
use self::value::{Lent, without_nul};
use super::engine::Connection;

mod value;

/// What a row can be read as, from both engines.
pub trait Row: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

impl<T> Row for T where T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{}

/// A statement with its values.
#[derive(Debug)]
pub struct Query<'q> {
    text: Text,
    values: Vec<Value<'q>>,
}

/// A statement whose rows are each a `T`.
#[derive(Debug)]
pub struct QueryAs<'q, T> {
    query: Query<'q>,
    row: PhantomData<fn() -> T>,
}

/// A statement whose rows hold one value each.
#[derive(Debug)]
pub struct QueryScalar<'q, T>(QueryAs<'q, (T,)>);

/// A statement whose text depends on how many values there are.
#[derive(Debug)]
pub struct QueryBuilder<'q> {
    text: String,
    /// Where in the text each value belongs.
    places: Vec<usize>,
    values: Vec<Value<'q>>,
}

/// A list that is being written into a statement.
#[derive(Debug)]
pub struct Separated<'b, 'q> {
    builder: &'b mut QueryBuilder<'q>,
    separator: &'static str,
    first: bool,
}

/// How many rows a statement has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed(u64);

#[derive(Debug)]
enum Text {
    Whole(SqlStr),
    /// Without the signs for its values: they differ.
    Parts(String, Vec<usize>),
}

/// A statement whose rows are not looked at.
pub fn query<'q>(text: impl SqlSafeStr) -> Query<'q> {
    Query { text: Text::Whole(text.into_sql_str()), values: Vec::new() }
}

/// A statement whose rows are each a `T`.
pub fn query_as<'q, T>(text: impl SqlSafeStr) -> QueryAs<'q, T> {
    QueryAs { query: query(text), row: PhantomData }
}

/// A statement whose rows hold one value each.
pub fn query_scalar<'q, T>(text: impl SqlSafeStr) -> QueryScalar<'q, T> {
    QueryScalar(query_as(text))
}

/// The most values of statements that SQLite gets in one go: some megabytes.
const IN_ONE_GO: usize = 32_000;

/// Runs statements one after the other. SQLite gets those that were built in one go: each costs its thread and ours a
/// change of hands, and where both processors are busy that takes longer than the work.
///
/// # Errors
/// What the database says of the first that it refuses.
pub async fn execute_all(
    queries: impl IntoIterator<Item = Query<'_>>,
    db: &mut Connection,
) -> Result<(), Error> {
    let mut all = Vec::<Query<'_>>::new();
    for query in queries {
        let before = all.last_mut().filter(|_| matches!(db, Connection::Sqlite(_)));
        let left = match before {
            Some(before) => before.join(query),
            None => Some(query),
        };
        all.extend(left);
    }
    for query in all {
        query.execute(db).await?;
    }
    Ok(())
}

impl<'q> Query<'q> {
    /// Takes another one behind it, for SQLite, which gives each as many values as it has places. Gives it back where these
    /// are named or not as many, or where it would be too much.
    fn join(&mut self, mut next: Self) -> Option<Self> {
        let (Text::Parts(text, places), Text::Parts(more, more_places)) =
            (&mut self.text, &next.text)
        else {
            return Some(next);
        };
        let even = (places.len(), more_places.len()) == (self.values.len(), next.values.len());
        if !even || self.values.len() + next.values.len() > IN_ONE_GO {
            return Some(next);
        }
        text.push_str("; ");
        places.extend(more_places.iter().map(|place| place + text.len()));
        text.push_str(more);
        self.values.append(&mut next.values);
        None
    }

    /// The next value.
    #[must_use]
    pub fn bind(mut self, value: impl Into<Value<'q>>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Runs the statement.
    ///
    /// # Errors
    /// What the database says.
    pub async fn execute(self, db: &mut Connection) -> Result<Changed, Error> {
        Ok(Changed(match db {
            Connection::Sqlite(db) => {
                let again = self.text.comes_again();
                let (text, values) = self.for_sqlite()?;
                let query = sqlx::query_with(text, values).persistent(again);
                query.execute(&mut **db).await?.rows_affected()
            }
            Connection::Postgres(db) => {
                let (text, values) = self.for_postgres()?;
                sqlx::query_with(text, values).execute(&mut **db).await?.rows_affected()
            }
        }))
    }

    /// Whether there is a row.
    ///
    /// # Errors
    /// What the database says.
    pub async fn exists(self, db: &mut Connection) -> Result<bool, Error> {
        Ok(match db {
            Connection::Sqlite(db) => {
                let (text, values) = self.for_sqlite()?;
                sqlx::query_with(text, values).fetch_optional(&mut **db).await?.is_some()
            }
            Connection::Postgres(db) => {
                let (text, values) = self.for_postgres()?;
                sqlx::query_with(text, values).fetch_optional(&mut **db).await?.is_some()
            }
        })
    }

    /// All rows, each read from a JSON array of these columns. They come as one text: a row of its own costs SQLite's
    /// thread and ours a change of hands, which for thousands of them is most of the work.
    ///
    /// # Errors
    /// What the database says; [`Error::Decode`] when it is not a `T`.
    pub async fn fetch_packed<T: DeserializeOwned>(
        mut self,
        columns: &'static str,
        db: &mut Connection,
    ) -> Result<Vec<T>, Error> {
        let (before, behind) = match db {
            Connection::Sqlite(_) => (["SELECT json_group_array(json_array(", ")) FROM ("], ")"),
            Connection::Postgres(_) => (
                ["SELECT CAST(COALESCE(json_agg(json_build_array(", ")), '[]') AS TEXT) FROM ("],
                ") AS packed",
            ),
        };
        self.text = self.text.within(&before.join(columns), behind);
        let text: String = match db {
            Connection::Sqlite(db) => {
                let again = self.text.comes_again();
                let (text, values) = self.for_sqlite()?;
                sqlx::query_scalar_with(text, values).persistent(again).fetch_one(&mut **db).await?
            }
            Connection::Postgres(db) => {
                let (text, values) = self.for_postgres()?;
                let packed = sqlx::query_scalar_with(text, values);
                // Planned anew each time: a plan from when the tables were small takes seconds when they are not.
                packed.persistent(false).fetch_one(&mut **db).await?
            }
        };
        serde_json::from_str(&text).map_err(|error| Error::Decode(error.into()))
    }

    fn for_sqlite(self) -> Result<(SqlStr, SqliteArguments), Error> {
        let mut values = SqliteArguments::default();
        values.reserve(self.values.len(), 0);
        let mut lent = Lent::default();
        for value in self.values {
            match value {
                Value::Integer(number) => values.add(number),
                Value::Text(Some(Cow::Borrowed(text))) => values.add(lent.copy(text)),
                Value::Text(text) => values.add(text.map(Cow::into_owned)),
                Value::Boolean(flag) => values.add(flag),
            }
            .map_err(Error::Encode)?;
        }
        Ok((self.text.with(|text, _| text.push('?')), values))
    }

    fn for_postgres(self) -> Result<(SqlStr, PgArguments), Error> {
        let mut values = PgArguments::default();
        for value in self.values {
            match value {
                Value::Integer(number) => values.add(number),
                Value::Text(text) => values.add(text.map(without_nul)),
                Value::Boolean(flag) => values.add(flag),
            }
            .map_err(Error::Encode)?;
        }
        let numbered = |text: &mut String, number: usize| {
            text.push('$');
            text.push_str(&number.to_string());
        };
        Ok((self.text.with(numbered), values))
    }
}

impl<'q, T: Row> QueryAs<'q, T> {
    /// The next value.
    #[must_use]
    pub fn bind(mut self, value: impl Into<Value<'q>>) -> Self {
        self.query = self.query.bind(value);
        self
    }

    /// All rows.
    ///
    /// # Errors
    /// What the database says.
    pub async fn fetch_all(self, db: &mut Connection) -> Result<Vec<T>, Error> {
        match db {
            Connection::Sqlite(db) => {
                let (text, values) = self.query.for_sqlite()?;
                sqlx::query_as_with::<Sqlite, T, _>(text, values).fetch_all(&mut **db).await
            }
            Connection::Postgres(db) => {
                let (text, values) = self.query.for_postgres()?;
                sqlx::query_as_with::<Postgres, T, _>(text, values).fetch_all(&mut **db).await
            }
        }
    }

    /// The first row, if there is one.
    ///
    /// # Errors
    /// What the database says.
    pub async fn fetch_optional(self, db: &mut Connection) -> Result<Option<T>, Error> {
        match db {
            Connection::Sqlite(db) => {
                let (text, values) = self.query.for_sqlite()?;
                sqlx::query_as_with::<Sqlite, T, _>(text, values).fetch_optional(&mut **db).await
            }
            Connection::Postgres(db) => {
                let (text, values) = self.query.for_postgres()?;
                sqlx::query_as_with::<Postgres, T, _>(text, values).fetch_optional(&mut **db).await
            }
        }
    }

    /// The first row.
    ///
    /// # Errors
    /// [`Error::RowNotFound`]; what the database says.
    pub async fn fetch_one(self, db: &mut Connection) -> Result<T, Error> {
        self.fetch_optional(db).await?.ok_or(Error::RowNotFound)
    }
}

impl<'q, T> QueryScalar<'q, T>
where
    (T,): Row,
{
    /// The next value.
    #[must_use]
    pub fn bind(self, value: impl Into<Value<'q>>) -> Self {
        Self(self.0.bind(value))
    }

    /// The value of each row.
    ///
    /// # Errors
    /// What the database says.
    pub async fn fetch_all(self, db: &mut Connection) -> Result<Vec<T>, Error> {
        Ok(self.0.fetch_all(db).await?.into_iter().map(|(value,)| value).collect())
    }

    /// The value of the first row, if there is one.
    ///
    /// # Errors
    /// What the database says.
    pub async fn fetch_optional(self, db: &mut Connection) -> Result<Option<T>, Error> {
        Ok(self.0.fetch_optional(db).await?.map(|(value,)| value))
    }

    /// The value of the first row.
    ///
    /// # Errors
    /// [`Error::RowNotFound`]; what the database says.
    pub async fn fetch_one(self, db: &mut Connection) -> Result<T, Error> {
        self.fetch_optional(db).await?.ok_or(Error::RowNotFound)
    }
}

impl<'q> QueryBuilder<'q> {
    /// A statement that begins so.
    #[must_use]
    pub fn new(text: &'static str) -> Self {
        Self { text: text.to_owned(), places: Vec::new(), values: Vec::new() }
    }

    /// Goes on with that text, which is ours and nobody's input.
    pub fn push(&mut self, text: &'static str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Goes on with a value.
    pub fn push_bind(&mut self, value: impl Into<Value<'q>>) -> &mut Self {
        self.places.push(self.text.len());
        self.values.push(value.into());
        self
    }

    /// Goes on with a list.
    pub fn separated(&mut self, separator: &'static str) -> Separated<'_, 'q> {
        Separated { builder: self, separator, first: true }
    }

    /// Goes on with `VALUES (...), (...)`.
    pub fn push_values<I>(
        &mut self,
        rows: impl IntoIterator<Item = I>,
        mut row: impl FnMut(Separated<'_, 'q>, I),
    ) -> &mut Self {
        self.push("VALUES ");
        for (number, item) in rows.into_iter().enumerate() {
            self.push(if number == 0 { "(" } else { ", (" });
            row(self.separated(", "), item);
            self.push(")");
        }
        self
    }

    /// The statement.
    #[must_use]
    pub fn build(self) -> Query<'q> {
        Query { text: Text::Parts(self.text, self.places), values: self.values }
    }

    /// The statement, its rows each a `T`.
    #[must_use]
    pub fn build_query_as<T>(self) -> QueryAs<'q, T> {
        QueryAs { query: self.build(), row: PhantomData }
    }

    /// The statement, its rows one value each.
    #[must_use]
    pub fn build_query_scalar<T>(self) -> QueryScalar<'q, T> {
        QueryScalar(self.build_query_as())
    }
}

impl<'q> Separated<'_, 'q> {
    /// One more value of the list.
    pub fn push_bind(&mut self, value: impl Into<Value<'q>>) -> &mut Self {
        if !std::mem::take(&mut self.first) {
            self.builder.push(self.separator);
        }
        self.builder.push_bind(value);
        self
    }
}

impl Changed {
    /// How many rows.
    #[must_use]
    pub fn rows_affected(self) -> u64 {
        self.0
    }
}

impl Text {
    /// Whether it is worth while to keep it prepared: of the others there is one for each number of values.
    fn comes_again(&self) -> bool {
        matches!(self, Self::Whole(_))
    }

    /// The same between two other texts, which are ours as well.
    fn within(self, before: &str, behind: &str) -> Self {
        match self {
            Self::Whole(text) => {
                let whole = format!("{before}{}{behind}", text.as_str());
                Self::Whole(AssertSqlSafe(whole).into_sql_str())
            }
            Self::Parts(text, places) => {
                let places = places.into_iter().map(|place| place + before.len()).collect();
                Self::Parts(format!("{before}{text}{behind}"), places)
            }
        }
    }

    /// With `sign` writing what stands for the value of each number.
    fn with(self, sign: impl Fn(&mut String, usize)) -> SqlStr {
        let (text, places) = match self {
            Self::Whole(text) => return text,
            Self::Parts(text, places) => (text, places),
        };
        let mut whole = String::with_capacity(text.len() + 5 * places.len());
        let mut rest = text.as_str();
        let mut at = 0;
        for (number, place) in (1..).zip(places) {
            let (before, behind) = rest.split_at(place - at);
            whole.push_str(before);
            sign(&mut whole, number);
            (rest, at) = (behind, place);
        }
        whole.push_str(rest);
        // The parts are constants of this program, see `QueryBuilder::push`.
        AssertSqlSafe(whole).into_sql_str()
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::testing::TestBackend;

    #[test]
    fn values_stand_where_they_were_pushed() {
        let mut builder = QueryBuilder::new("INSERT INTO t (a, b) ");
        builder.push_values([(1_i64, "x"), (2, "y")], |mut row, (number, text)| {
            row.push_bind(number).push_bind(text);
        });
        builder.push(" ON CONFLICT (a) DO UPDATE SET b = ").push_bind(true).push(" RETURNING a");
        let query = builder.build();
        assert_eq!(query.values.len(), 5);
        let text = query.for_postgres().unwrap().0;
        assert_eq!(
            text.as_str(),
            "INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4) ON CONFLICT (a) DO UPDATE SET b = $5 \
             RETURNING a"
        );
        let mut builder = QueryBuilder::new("SELECT a FROM t WHERE a IN (");
        let mut list = builder.separated(", ");
        list.push_bind(1_i64).push_bind(None::<i64>);
        builder.push(")");
        let text = builder.build().for_sqlite().unwrap().0;
        assert_eq!(text.as_str(), "SELECT a FROM t WHERE a IN (?, ?)");
    }

    #[tokio::test]
    async fn packed_rows_are_the_rows() {
        let backend = TestBackend::new().await;
        let mut db = backend.store.read().await.unwrap();
        let rows: Vec<(i64, Option<String>, Flag)> = query(
            "SELECT 1 AS a, 'he said \"{}\"' AS b, 1 < 2 AS c UNION ALL SELECT 2, NULL, 1 > 2",
        )
        .fetch_packed("a, b, c", &mut db)
        .await
        .unwrap();
        let said = "he said \"{}\"".to_owned();
        assert_eq!(rows, [(1, Some(said), Flag(true)), (2, None, Flag(false))]);
        let mut none = QueryBuilder::new("SELECT a FROM (SELECT 1 AS a) AS one WHERE a > ");
        none.push_bind(1_i64);
        let none: Vec<(i64,)> = none.build().fetch_packed("a", &mut db).await.unwrap();
        assert!(none.is_empty());
        let wrong = query("SELECT 1 AS a").fetch_packed::<(String,)>("a", &mut db).await;
        assert!(matches!(wrong, Err(Error::Decode(_))), "{wrong:?}");
    }

    #[test]
    fn text_that_postgresql_has_no_place_for_is_changed_and_no_other() {
        assert_eq!(without_nul("a\0b".into()), "a\u{fffd}b");
        assert!(matches!(without_nul("ä ö".into()), Cow::Borrowed("ä ö")));
    }

    #[tokio::test]
    async fn of_statements_in_one_go_each_is_done_with_its_own_values_until_one_is_refused() {
        let backend = TestBackend::new().await;
        let mut tx = backend.store.write().await.expect("a writer");
        let insert = |rows: &[(i64, &'static str)]| {
            let mut insert = QueryBuilder::new("INSERT INTO revisions (revision, summary, at) ");
            insert.push_values(rows.to_vec(), |mut row, (revision, summary)| {
                row.push_bind(revision).push_bind(summary).push_bind(7_i64);
            });
            insert.build()
        };
        let renamed = || query("UPDATE revisions SET summary = $1 WHERE revision = $2");
        let all = [
            insert(&[(1001, "one"), (1002, "two")]),
            insert(&[(1003, "three")]),
            renamed().bind("second").bind(1002_i64),
            insert(&[(1004, "four")]),
        ];
        execute_all(all, &mut tx).await.expect("done");
        let select =
            "SELECT revision, summary FROM revisions WHERE revision > 1000 ORDER BY revision";
        let rows: Vec<(i64, String)> = query_as(select).fetch_all(&mut tx).await.expect("read");
        let rows: Vec<_> = rows.iter().map(|(revision, text)| (*revision, text.as_str())).collect();
        assert_eq!(rows, [(1001, "one"), (1002, "second"), (1003, "three"), (1004, "four")]);
        let rest = || (1005..1008).map(|revision| insert(&[(revision, "rest")]));
        let some = rest().take(1).chain([insert(&[(1001, "again")])]).chain(rest().skip(1));
        let refused = execute_all(some, &mut tx).await.expect_err("there is a 1001");
        assert!(refused.as_database_error().is_some_and(|error| error.is_unique_violation()));
        if let Connection::Sqlite(_) = &mut *tx {
            // PostgreSQL takes nothing more after that.
            let behind: i64 = query_scalar("SELECT COUNT(*) FROM revisions WHERE revision > 1005")
                .fetch_one(&mut tx)
                .await
                .expect("read");
            assert_eq!(behind, 0, "what stands behind the refused one");
        }
    }

    #[test]
    fn statements_are_joined_with_all_their_values_or_not_at_all() {
        let list = |count: i64| {
            let mut list = QueryBuilder::new("SELECT ");
            let mut values = list.separated(", ");
            (0..count).for_each(|number| _ = values.push_bind(number));
            list.build()
        };
        let mut one = list(2);
        let joined = one.join(list(0)).or_else(|| one.join(list(1)));
        assert!(joined.is_none(), "{joined:?}");
        assert!(one.join(list(1).bind(7_i64)).is_some(), "a value too many");
        assert!(one.join(query("SELECT $1").bind(7_i64)).is_some(), "a value with a name");
        let most = i64::try_from(IN_ONE_GO).expect("small");
        assert!(one.join(list(most)).is_some(), "too much");
        assert!(one.join(list(most - 3)).is_none(), "as much as may be");
        let values = one.values.len();
        let text = one.text.with(|text, _| text.push('?'));
        assert!(text.as_str().starts_with("SELECT ?, ?; SELECT ; SELECT ?; SELECT ?, ?"));
        assert_eq!(text.as_str().matches('?').count(), values);
        assert!(list(1).bind(7_i64).join(list(1)).is_some(), "a value too many before");
    }
}
