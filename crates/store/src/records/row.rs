//! Between rows and Rust: reading columns by name, and writing many rows with few statements.

use std::{fmt::Display, str::FromStr};

use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{Error, Result};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Rows written by one statement. A fixed number, so that the statement is prepared once.
const BATCH: usize = 32;

/// Ids looked up by one statement.
pub(super) const LOOKED_UP: usize = 500;

/// A row being read.
pub(super) struct Fields<'row> {
    pub(super) table: &'static str,
    pub(super) row: &'row SqliteRow,
}

impl<'row> Fields<'row> {
    pub(super) fn text(&self, column: &'static str) -> Result<&'row str> {
        self.row
            .try_get(column)
            .map_err(|error| self.unreadable(column, error))
    }

    pub(super) fn string(&self, column: &'static str) -> Result<String> {
        self.text(column).map(str::to_owned)
    }

    pub(super) fn optional_text(&self, column: &'static str) -> Result<Option<&'row str>> {
        self.row
            .try_get(column)
            .map_err(|error| self.unreadable(column, error))
    }

    pub(super) fn int(&self, column: &'static str) -> Result<i64> {
        self.row
            .try_get(column)
            .map_err(|error| self.unreadable(column, error))
    }

    /// A yes or no, kept as a number.
    pub(super) fn flag(&self, column: &'static str) -> Result<bool> {
        Ok(self.int(column)? != 0)
    }

    pub(super) fn optional_int(&self, column: &'static str) -> Result<Option<i64>> {
        self.row
            .try_get(column)
            .map_err(|error| self.unreadable(column, error))
    }

    /// A number in a type that is narrower than the column's.
    pub(super) fn number<T: TryFrom<i64, Error: Into<BoxError>>>(&self, column: &'static str) -> Result<T> {
        T::try_from(self.int(column)?).map_err(|error| self.unreadable(column, error))
    }

    pub(super) fn optional_number<T: TryFrom<i64, Error: Into<BoxError>>>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>> {
        self.optional_int(column)?
            .map(|number| T::try_from(number).map_err(|error| self.unreadable(column, error)))
            .transpose()
    }

    pub(super) fn time(&self, column: &'static str) -> Result<Timestamp> {
        Timestamp::from_microsecond(self.int(column)?).map_err(|error| self.unreadable(column, error))
    }

    pub(super) fn optional_time(&self, column: &'static str) -> Result<Option<Timestamp>> {
        self.optional_int(column)?
            .map(|micros| Timestamp::from_microsecond(micros).map_err(|error| self.unreadable(column, error)))
            .transpose()
    }

    /// An id or a word of an enumeration.
    pub(super) fn word<T: FromStr<Err: Into<BoxError>>>(&self, column: &'static str) -> Result<T> {
        self.text(column)?
            .parse()
            .map_err(|error| self.unreadable(column, error))
    }

    pub(super) fn optional_word<T: FromStr<Err: Into<BoxError>>>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>> {
        self.optional_text(column)?
            .map(|text| text.parse().map_err(|error| self.unreadable(column, error)))
            .transpose()
    }

    pub(super) fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T> {
        serde_json::from_str(self.text(column)?).map_err(|error| self.unreadable(column, error))
    }

    pub(super) fn optional_json<T: DeserializeOwned>(&self, column: &'static str) -> Result<Option<T>> {
        self.optional_text(column)?
            .map(|text| serde_json::from_str(text).map_err(|error| self.unreadable(column, error)))
            .transpose()
    }

    fn unreadable(&self, column: &'static str, source: impl Into<BoxError>) -> Error {
        Error::Unreadable {
            table: self.table,
            column,
            source: source.into(),
        }
    }
}

/// A value on its way to the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bind {
    Text(Option<String>),
    Int(Option<i64>),
}

impl Bind {
    pub(super) fn word(value: impl Display) -> Self {
        Self::Text(Some(value.to_string()))
    }

    pub(super) fn optional_word(value: Option<impl Display>) -> Self {
        Self::Text(value.map(|value| value.to_string()))
    }

    pub(super) fn time(value: Timestamp) -> Self {
        Self::Int(Some(value.as_microsecond()))
    }

    pub(super) fn optional_time(value: Option<Timestamp>) -> Self {
        Self::Int(value.map(Timestamp::as_microsecond))
    }

    pub(super) fn json(value: &impl Serialize) -> Self {
        Self::Text(Some(json(value)))
    }

    pub(super) fn optional_json(value: Option<&impl Serialize>) -> Self {
        Self::Text(value.map(json))
    }
}

impl From<&str> for Bind {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<&String> for Bind {
    fn from(text: &String) -> Self {
        Self::Text(Some(text.clone()))
    }
}

impl From<i64> for Bind {
    fn from(number: i64) -> Self {
        Self::Int(Some(number))
    }
}

pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("the model's maps have text for keys, so they are JSON")
}

/// A statement made of constant text with numbered places, and the values for them.
pub(super) fn bound(
    sql: String,
    binds: Vec<Bind>,
) -> sqlx::query::Query<'static, sqlx::Sqlite, sqlx::sqlite::SqliteArguments> {
    // All text comes from constants of this crate; what callers say is only ever bound.
    binds
        .into_iter()
        .fold(sqlx::query(AssertSqlSafe(sql)), |query, bind| match bind {
            Bind::Text(text) => query.bind(text),
            Bind::Int(number) => query.bind(number),
        })
}

/// `$1, $2, …`
pub(super) fn places(count: usize) -> String {
    let places: Vec<_> = (1..=count).map(|place| format!("${place}")).collect();
    places.join(", ")
}

/// A table that rows are put into: inserted, or replaced when the key is taken.
pub(super) struct Upsert {
    pub(super) table: &'static str,
    /// The key, then the rest. Rows give their values in this order.
    pub(super) key: &'static [&'static str],
    pub(super) rest: &'static [&'static str],
}

impl Upsert {
    pub(super) async fn rows(
        &self,
        connection: &mut SqliteConnection,
        rows: impl ExactSizeIterator<Item = Vec<Bind>>,
    ) -> sqlx::Result<()> {
        let mut left = rows.len();
        let mut rows = rows.peekable();
        while rows.peek().is_some() {
            let count = if left >= BATCH { BATCH } else { 1 };
            left = left.saturating_sub(count);
            let binds = rows.by_ref().take(count).flatten().collect();
            bound(self.sql(count), binds).execute(&mut *connection).await?;
        }
        Ok(())
    }

    /// Inserts one row. That its key is taken is an error.
    pub(super) async fn insert(&self, connection: &mut SqliteConnection, row: Vec<Bind>) -> sqlx::Result<()> {
        bound(self.insert_sql(1), row).execute(connection).await?;
        Ok(())
    }

    fn sql(&self, rows: usize) -> String {
        let set: Vec<_> = self
            .rest
            .iter()
            .map(|column| format!("{column} = excluded.{column}"))
            .collect();
        let (insert, key, set) = (self.insert_sql(rows), self.key.join(", "), set.join(", "));
        format!("{insert} ON CONFLICT ({key}) DO UPDATE SET {set}")
    }

    fn insert_sql(&self, rows: usize) -> String {
        let Self { table, key, rest } = self;
        let width = key.len() + rest.len();
        let columns = [*key, *rest].concat().join(", ");
        let values = (0..rows)
            .map(|row| {
                let places: Vec<_> = (1..=width)
                    .map(|column| format!("${}", row * width + column))
                    .collect();
                format!("({})", places.join(", "))
            })
            .collect::<Vec<_>>()
            .join(", ");
        format!("INSERT INTO {table} ({columns}) VALUES {values}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_replaced_by_key() {
        let upsert = Upsert {
            table: "t",
            key: &["a", "b"],
            rest: &["c"],
        };
        assert_eq!(
            upsert.sql(2),
            "INSERT INTO t (a, b, c) VALUES ($1, $2, $3), ($4, $5, $6) \
             ON CONFLICT (a, b) DO UPDATE SET c = excluded.c"
        );
    }
}
