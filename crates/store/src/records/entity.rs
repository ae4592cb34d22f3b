//! What the tables that are found by id have in common. Lists of them are in `page`.

use sqlx::{AssertSqlSafe, SqliteConnection, sqlite::SqliteRow};

use super::{
    Error, Result,
    row::{Bind, Fields, LOOKED_UP, bound, places},
};

/// A table as its rows are read, found by id, changed and listed.
pub(super) struct Entity<T> {
    /// E.g. `run`.
    pub(super) name: &'static str,
    /// The table that is counted and filtered.
    pub(super) table: &'static str,
    /// What is read of the rows of a page.
    pub(super) columns: &'static str,
    /// What is joined to the rows of a page. Neither adds nor drops rows.
    pub(super) join: &'static str,
    pub(super) fields: &'static [Field],
    pub(super) has_tags: bool,
    pub(super) beside: Option<Beside>,
    pub(super) read: fn(&Fields<'_>) -> Result<T>,
}

/// What triggers keep beside a large table, so that its lists stay fast.
pub(super) struct Beside {
    /// How many rows there are for each combination of the columns that are counted.
    pub(super) counts: &'static str,
    pub(super) counted: &'static [&'static str],
    /// The fields that are the name, and the tables in which it is searched for parts.
    pub(super) name_fields: &'static [&'static str],
    pub(super) names: &'static str,
    pub(super) name_parts: &'static str,
}

/// A field that lists can be filtered by, and sorted by unless said otherwise.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) column: &'static str,
    pub(super) kind: Kind,
    pub(super) is_sorted: bool,
    /// What rows that are equal in it are sorted by, before the id: a column with a time.
    pub(super) then: Option<&'static str>,
    /// The column to sort by, when that is another: one that is never null.
    pub(super) sorted_as: Option<&'static str>,
}

impl Field {
    /// One that lists cannot be sorted by.
    pub(super) const fn unsorted(self) -> Self {
        Self {
            is_sorted: false,
            ..self
        }
    }

    pub(super) const fn sorted_as(self, column: &'static str) -> Self {
        Self {
            sorted_as: Some(column),
            ..self
        }
    }

    pub(super) const fn then(self, column: &'static str) -> Self {
        Self {
            then: Some(column),
            ..self
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    OptionalText,
    Time,
    OptionalTime,
}

/// Short for a table of fields.
pub(super) const fn field(name: &'static str, column: &'static str, kind: Kind) -> Field {
    Field {
        name,
        column,
        kind,
        is_sorted: true,
        then: None,
        sorted_as: None,
    }
}

impl<T> Entity<T> {
    /// One that is not listed.
    pub(super) const fn unlisted(
        name: &'static str,
        table: &'static str,
        columns: &'static str,
        read: fn(&Fields<'_>) -> Result<T>,
    ) -> Self {
        Self {
            name,
            table,
            columns,
            join: "",
            fields: &[],
            has_tags: false,
            beside: None,
            read,
        }
    }

    /// The row with that id.
    pub(super) async fn find(&self, connection: &mut SqliteConnection, id: impl ToString) -> Result<T> {
        let id = id.to_string();
        let condition = format!("{}.id = $1", self.table);
        self.first(connection, &condition, vec![Bind::from(&id)])
            .await?
            .ok_or_else(|| Error::not_found(self.name, id))
    }

    /// The first row for which the condition holds, or none. An order may follow the condition.
    pub(super) async fn first(
        &self,
        connection: &mut SqliteConnection,
        condition: &str,
        binds: Vec<Bind>,
    ) -> Result<Option<T>> {
        let rows = self
            .all(connection, &format!("{condition} LIMIT 1"), binds)
            .await?;
        Ok(rows.into_iter().next())
    }

    /// The rows for which the condition holds. An order may follow the condition.
    pub(super) async fn all(
        &self,
        connection: &mut SqliteConnection,
        condition: &str,
        binds: Vec<Bind>,
    ) -> Result<Vec<T>> {
        let Self {
            table, columns, join, ..
        } = self;
        let sql = format!("SELECT {columns} FROM {table} {join} WHERE {condition}");
        let rows = bound(sql, binds).fetch_all(connection).await?;
        self.read_all(&rows)
    }

    /// The rows with these ids that exist, in no order.
    pub(super) async fn with_ids(
        &self,
        connection: &mut SqliteConnection,
        ids: &[impl ToString],
    ) -> Result<Vec<T>> {
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(LOOKED_UP) {
            let condition = format!("{}.id IN ({})", self.table, places(ids.len()));
            let binds = ids.iter().map(|id| Bind::word(id.to_string())).collect();
            found.extend(self.all(connection, &condition, binds).await?);
        }
        Ok(found)
    }

    /// Sets columns of the row with that id.
    pub(super) async fn set(
        &self,
        connection: &mut SqliteConnection,
        id: impl ToString,
        columns: Vec<(&'static str, Bind)>,
    ) -> Result<()> {
        let id = id.to_string();
        let mut binds = vec![Bind::from(&id)];
        let mut set = Vec::with_capacity(columns.len());
        for (column, value) in columns {
            binds.push(value);
            set.push(format!("{column} = ${}", binds.len()));
        }
        let sql = format!("UPDATE {} SET {} WHERE id = $1", self.table, set.join(", "));
        let done = bound(sql, binds).execute(connection).await?;
        self.if_any(done.rows_affected(), id)
    }

    /// Deletes the row with that id.
    pub(super) async fn delete(&self, connection: &mut SqliteConnection, id: impl ToString) -> Result<()> {
        let id = id.to_string();
        // All text comes from constants of this crate.
        let done = sqlx::query(AssertSqlSafe(format!("DELETE FROM {} WHERE id = $1", self.table)))
            .bind(&id)
            .execute(connection)
            .await?;
        self.if_any(done.rows_affected(), id)
    }

    fn if_any(&self, rows: u64, id: String) -> Result<()> {
        if rows == 0 {
            Err(Error::not_found(self.name, id))
        } else {
            Ok(())
        }
    }

    pub(super) fn read_all(&self, rows: &[SqliteRow]) -> Result<Vec<T>> {
        rows.iter()
            .map(|row| {
                (self.read)(&Fields {
                    table: self.table,
                    row,
                })
            })
            .collect()
    }

    pub(super) fn field(&self, name: &str) -> Result<&'static Field> {
        self.fields
            .iter()
            .find(|field| field.name == name)
            .ok_or_else(|| Error::UnknownField {
                entity: self.name,
                field: name.to_owned(),
            })
    }
}
