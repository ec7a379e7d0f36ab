//! Reads: one SQL text, run on whichever pool is there.

use super::{
    error::{DatabaseError, Failure, ReadError},
    postgres,
    readers::{Outcome, Readers},
    rows::{Column, Record, TableRecord},
};
use crate::Page;
use domain::ProjectId;
use futures::future::BoxFuture;
use sqlx::{AssertSqlSafe, PgConnection, SqlSafeStr, SqlStr, SqliteConnection, postgres::PgRow, sqlite::SqliteRow};
use std::sync::Arc;

pub(crate) enum Pool {
    Sqlite(Readers<SqliteConnection>),
    Postgres(Readers<PgConnection>),
}

/// A value for `$n`.
#[derive(Debug, Clone)]
pub(crate) enum Bind {
    Text(String),
    Int(i64),
}

impl From<&str> for Bind {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Bind {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

macro_rules! binds {
    (text: $($text:ty),+; int: $($int:ty),+) => {
        $(impl From<$text> for Bind {
            fn from(value: $text) -> Self {
                Self::Text(value.to_string())
            }
        })+
        $(impl From<$int> for Bind {
            fn from(value: $int) -> Self {
                Self::Int(Column::json(&value))
            }
        })+
    };
}
macro_rules! id_binds {
    ($($(#[$doc:meta])* $id:ident),+ $(,)?) => {
        binds! { text: $(domain::$id),+; int: i64, u32, domain::Timestamp }
    };
}
domain::for_each_id!(id_binds);

row! {
    /// `SELECT … AS n`.
    pub(crate) struct Count { pub n: i64 }
}

row! {
    /// `SELECT id …`.
    pub(crate) struct IdRow { pub id: String }
}

/// What a query gave, before its columns are read.
enum Rows {
    Sqlite(Vec<SqliteRow>),
    Postgres(Vec<PgRow>),
}

impl Rows {
    fn read<T: Record>(&self) -> Result<Vec<T>, ReadError> {
        let read: sqlx::Result<Vec<T>> = match self {
            Self::Sqlite(rows) => rows.iter().map(T::from_sqlite).collect(),
            Self::Postgres(rows) => rows.iter().map(T::from_postgres).collect(),
        };
        read.map_err(read_error)
    }
}

/// All rows of a query with its binds.
macro_rules! all_rows {
    ($readers:expr, $database:ty, $sql:expr, $binds:expr) => {{
        let mut taken = $readers.take().await.map_err(read_error)?;
        loop {
            let query = $binds.iter().fold(sqlx::query::<$database>($sql.clone()), |query, bind| match bind {
                Bind::Text(text) => query.bind(text.clone()),
                Bind::Int(int) => query.bind(*int),
            });
            let read = query.fetch_all(taken.connection().map_err(read_error)?).await;
            match $readers.finish(taken, read).await {
                Outcome::Done(read) => break read,
                Outcome::Again(next) => taken = next,
            }
        }
    }};
}

impl Pool {
    /// Runs a query on the pool that is there. The future is boxed because an `async fn` is compiled anew in every crate that calls it,
    /// with all of sqlx in it.
    fn rows(&self, sql: SqlStr, binds: Vec<Bind>) -> BoxFuture<'_, Result<Rows, ReadError>> {
        #[cfg(feature = "testing")]
        crate::testing::note_read(matches!(self, Self::Postgres(_)), sql.as_str());
        Box::pin(async move {
            match self {
                Self::Sqlite(readers) => all_rows!(readers, sqlx::Sqlite, sql, binds).map(Rows::Sqlite),
                Self::Postgres(readers) => all_rows!(readers, sqlx::Postgres, sql, binds).map(Rows::Postgres),
            }
            .map_err(read_error)
        })
    }

    pub(crate) async fn fetch_all<T: Record>(
        &self,
        sql: impl SqlSafeStr,
        binds: impl IntoIterator<Item = Bind>,
    ) -> Result<Vec<T>, ReadError> {
        self.rows(sql.into_sql_str(), binds.into_iter().collect()).await?.read()
    }

    pub(crate) async fn fetch_optional<T: Record>(
        &self,
        sql: impl SqlSafeStr,
        binds: impl IntoIterator<Item = Bind>,
    ) -> Result<Option<T>, ReadError> {
        Ok(self.fetch_all(sql, binds).await?.into_iter().next())
    }

    pub(crate) async fn fetch_one<T: Record>(
        &self,
        sql: impl SqlSafeStr,
        binds: impl IntoIterator<Item = Bind>,
    ) -> Result<T, ReadError> {
        self.fetch_optional(sql, binds).await?.ok_or_else(|| read_error(sqlx::Error::RowNotFound))
    }

    /// The row of a table that holds `conditions`, if there is one.
    pub(crate) async fn find<T: TableRecord>(
        &self,
        conditions: &str,
        binds: impl IntoIterator<Item = Bind>,
    ) -> Result<Option<T>, ReadError> {
        self.fetch_optional(AssertSqlSafe(format!("{}{conditions}", T::SELECT)), binds).await
    }

    /// The rows of a table that hold `conditions`, in the order that is said there.
    pub(crate) async fn list<T: TableRecord>(
        &self,
        conditions: &str,
        binds: impl IntoIterator<Item = Bind>,
    ) -> Result<Vec<T>, ReadError> {
        self.fetch_all(AssertSqlSafe(format!("{}{conditions}", T::SELECT)), binds).await
    }

    /// A page of a table's rows, by id: of one project, or (`None`) all.
    pub(crate) async fn page<T: TableRecord>(
        &self,
        project_id: impl Into<Option<ProjectId>>,
        page: Page,
    ) -> Result<Vec<T>, ReadError> {
        let (after, limit) = (page.after_text().into(), page.limit.into());
        match project_id.into() {
            Some(project_id) => {
                let sql = "WHERE project_id = $1 AND id > $2 ORDER BY id LIMIT $3";
                self.list(sql, [project_id.into(), after, limit]).await
            }
            None => self.list("WHERE id > $1 ORDER BY id LIMIT $2", [after, limit]).await,
        }
    }

    /// The rows of a table whose `column` is one of `ids`, by id.
    pub(crate) async fn list_among<T: TableRecord, I: std::fmt::Display>(
        &self,
        column: &str,
        ids: &[I],
    ) -> Result<Vec<T>, ReadError> {
        let binds = [text_array(ids)];
        self.list(&format!("WHERE {column} {} ORDER BY id", self.in_texts(1)), binds).await
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(readers) => readers.close().await,
            Self::Postgres(readers) => readers.close().await,
        }
    }

    /// The one of two texts that this database understands, for the few places where they differ: JSON in columns.
    pub(crate) fn pick<T>(&self, sqlite: T, postgres: T) -> T {
        match self {
            Self::Sqlite(_) => sqlite,
            Self::Postgres(_) => postgres,
        }
    }

    /// What follows a column that must be one of the texts of the JSON array in parameter `n`. PostgreSQL guesses a hundred rows of a set
    /// and reads the whole table; an array it looks up in the index.
    pub(crate) fn in_texts(&self, n: usize) -> String {
        self.pick(
            format!("IN (SELECT value FROM json_each(${n}))"),
            format!("= ANY (ARRAY(SELECT jsonb_array_elements_text(${n}::jsonb)))"),
        )
    }
}

/// The JSON array that [`Pool::in_texts`] reads.
pub(crate) fn text_array<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> Bind {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    Bind::Text(serde_json::Value::from(items).to_string())
}

fn read_error(error: sqlx::Error) -> ReadError {
    if let sqlx::Error::Database(database) = &error
        && database.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some()
    {
        // The primary result code is the low byte: busy, locked, out of memory, I/O error, full, can't open.
        let code: i32 = database.code().and_then(|code| code.parse().ok()).unwrap_or_default();
        return match code & 0xff {
            5 | 6 | 7 | 10 | 13 | 14 => ReadError::Unavailable(Arc::new(DatabaseError::Sqlx(error))),
            _ => ReadError::Internal(Arc::new(DatabaseError::Sqlx(error))),
        };
    }
    match postgres::classify(error) {
        Failure::Conflict(cause)
        | Failure::Away(cause)
        | Failure::Refused(cause)
        | Failure::Full(cause)
        | Failure::Unknown(cause) => ReadError::Unavailable(cause),
        Failure::Internal(cause) => ReadError::Internal(cause),
        other @ (Failure::Constraint(_) | Failure::Guard(_)) => ReadError::Internal(other.into_cause()),
    }
}
