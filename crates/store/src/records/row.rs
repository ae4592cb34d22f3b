//! Between rows and Rust: reading columns by name, and writing many rows of many tables with one message
//! to the thread of the connection.

use std::{fmt::Display, str::FromStr, sync::OnceLock};

use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{Error, Result};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

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
    /// Text that is JSON.
    Json(String),
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
        Self::Json(json(value))
    }

    pub(super) fn optional_json(value: Option<&impl Serialize>) -> Self {
        value.map_or(Self::Text(None), Self::json)
    }

    /// The JSON that `->>` makes this value of again.
    fn into_json(self) -> String {
        match self {
            // Of an object or an array that is its text, as it is.
            Self::Json(json) if json.starts_with(['{', '[']) => json,
            Self::Json(text) | Self::Text(Some(text)) => {
                // Where a NUL is, the text would end.
                let text = if text.contains('\0') {
                    text.replace('\0', "")
                } else {
                    text
                };
                Value::String(text).to_string()
            }
            Self::Int(Some(number)) => number.to_string(),
            Self::Text(None) | Self::Int(None) => "null".to_owned(),
        }
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
            Bind::Json(text) => query.bind(text),
            Bind::Int(number) => query.bind(number),
        })
}

/// `$1, $2, …`
pub(super) fn places(count: usize) -> String {
    let places: Vec<_> = (1..=count).map(|place| format!("${place}")).collect();
    places.join(", ")
}

/// Statements that are sent as one: the thread of the connection is waited for once.
///
/// How many rows each of them writes is not in the text, so that there are few texts and each is prepared
/// once.
#[derive(Default)]
pub(super) struct Script {
    text: String,
    binds: Vec<Bind>,
}

impl Script {
    /// Adds a statement, in constant text with a `?` for each value.
    pub(super) fn add(&mut self, statement: &str, binds: impl IntoIterator<Item = Bind>) {
        if !self.text.is_empty() {
            self.text.push_str("; ");
        }
        self.text.push_str(statement);
        self.binds.extend(binds);
    }

    /// Runs all of it; what its statements return.
    pub(super) async fn run(self, connection: &mut SqliteConnection) -> sqlx::Result<Vec<SqliteRow>> {
        bound(self.text, self.binds).fetch_all(connection).await
    }
}

/// A table that rows are put into: inserted, or replaced when the key is taken.
pub(super) struct Upsert {
    table: &'static str,
    key: &'static [&'static str],
    rest: &'static [&'static str],
    text: OnceLock<String>,
}

impl Upsert {
    /// Into this table, with these columns: its key, and the rest. Rows give their values in this order.
    pub(super) const fn new(
        table: &'static str,
        key: &'static [&'static str],
        rest: &'static [&'static str],
    ) -> Self {
        Self {
            table,
            key,
            rest,
            text: OnceLock::new(),
        }
    }

    /// Adds the statement that puts these rows, if there are any.
    pub(super) fn rows(&self, script: &mut Script, rows: impl IntoIterator<Item = Vec<Bind>>) {
        let mut json = String::from("[");
        for row in rows {
            let values: Vec<String> = row.into_iter().map(Bind::into_json).collect();
            json.push_str(if json.len() > 1 { ",[" } else { "[" });
            json.push_str(&values.join(","));
            json.push(']');
        }
        if json.len() > 1 {
            json.push(']');
            script.add(self.text.get_or_init(|| self.text()), [Bind::Text(Some(json))]);
        }
    }

    /// Inserts one row. That its key is taken is an error.
    pub(super) async fn insert(&self, connection: &mut SqliteConnection, row: Vec<Bind>) -> sqlx::Result<()> {
        let sql = format!("{} VALUES ({})", self.into(), places(row.len()));
        bound(sql, row).execute(connection).await?;
        Ok(())
    }

    /// All rows are one value, JSON. It is read through a table of its own: otherwise each column would
    /// cut its row out of the whole anew.
    fn text(&self) -> String {
        let (into, key) = (self.into(), self.key.join(", "));
        let columns = self.key.len() + self.rest.len();
        let columns: Vec<_> = (0..columns).map(|column| format!("line ->> {column}")).collect();
        let columns = columns.join(", ");
        let set = self.rest.iter();
        let set: Vec<_> = set
            .map(|column| format!("{column} = excluded.{column}"))
            .collect();
        let otherwise = match set.as_slice() {
            [] => "NOTHING".to_owned(),
            set => format!("UPDATE SET {}", set.join(", ")),
        };
        format!(
            "WITH given AS MATERIALIZED (SELECT value AS line FROM json_each(?)) \
             {into} SELECT {columns} FROM given WHERE true ON CONFLICT ({key}) DO {otherwise}"
        )
    }

    fn into(&self) -> String {
        let columns = [self.key, self.rest].concat().join(", ");
        format!("INSERT INTO {} ({columns})", self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_replaced_by_key() {
        assert_eq!(
            Upsert::new("t", &["a", "b"], &["c"]).text(),
            "WITH given AS MATERIALIZED (SELECT value AS line FROM json_each(?)) \
             INSERT INTO t (a, b, c) SELECT line ->> 0, line ->> 1, line ->> 2 FROM given WHERE true \
             ON CONFLICT (a, b) DO UPDATE SET c = excluded.c"
        );
    }

    #[tokio::test]
    async fn what_is_written_with_others_is_what_would_be_bound_alone() {
        let store = crate::Store::open(crate::Location::Memory).await.unwrap();
        let mut writer = store.database.writer().await.unwrap();
        sqlx::query("CREATE TEMP TABLE t (a TEXT, b TEXT, c BIGINT, d TEXT, PRIMARY KEY (a))")
            .execute(&mut *writer)
            .await
            .unwrap();
        let texts = [
            "",
            "null",
            "7",
            "[",
            "{",
            "\"",
            "\\",
            "[1]",
            " {} ",
            "{\"b\": 1.50}",
            "\u{1}\n\t/",
            "ü🛶",
            "'",
            "true",
        ];
        let json = serde_json::json!({"text": texts, "number": 1e300, "nul": "a\0b", "none": null});
        let number = i64::MAX - 1;
        let rows = texts.iter().map(|text| {
            vec![
                Bind::from(*text),
                Bind::json(&json),
                Bind::from(number),
                Bind::Text(None),
            ]
        });
        let mut script = Script::default();
        Upsert::new("t", &["a"], &["b", "c", "d"]).rows(&mut script, rows);
        script.run(&mut writer).await.unwrap();
        let rows: Vec<(String, String, i64, Option<String>)> =
            sqlx::query_as("SELECT * FROM t ORDER BY rowid")
                .fetch_all(&mut *writer)
                .await
                .unwrap();
        for (text, (a, b, c, d)) in texts.iter().zip(&rows) {
            let read: Value = serde_json::from_str(b).unwrap();
            assert_eq!((a.as_str(), &read, *c, d), (*text, &json, number, &None));
        }
        assert_eq!(rows.len(), texts.len());
    }
}
