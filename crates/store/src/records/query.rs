//! Filtered, sorted, paged lists: what callers ask for, turned into SQL.
//!
//! Fields are looked up in a table per entity and values are only ever bound, so that nothing a
//! caller says becomes SQL. Pages are found by key and not by offset: rows that come or go
//! between two pages neither repeat nor hide others.

use jiff::Timestamp;
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{
    Error, Result,
    entity::{Entity, Field, Kind},
    row::{Bind, bound},
};

/// More values than this in one predicate are refused.
const MOST_VALUES: usize = 1000;

/// What to list, and which page of it.
#[derive(Debug, Clone, PartialEq)]
pub struct List {
    /// All must hold.
    pub filter: Vec<Predicate>,
    /// The order. Rows that are equal in it are in order of id.
    pub sort: Sort,
    /// Rows in a page; 0 is taken as 1.
    pub page_size: u32,
    /// Where the page before ended.
    pub after: Option<Cursor>,
}

impl Default for List {
    /// The first twenty, oldest first, as in KFP.
    fn default() -> Self {
        Self {
            filter: Vec::new(),
            sort: Sort {
                field: "created_at".to_owned(),
                descending: false,
            },
            page_size: 20,
            after: None,
        }
    }
}

/// An order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sort {
    /// The field, as the API names it.
    pub field: String,
    /// Largest first.
    pub descending: bool,
}

/// Where a page ended. It fits only a list with the same sort.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The last row's value of the sort field: text, or a number (times in microseconds).
    pub value: serde_json::Value,
    /// The last row's id.
    pub id: String,
}

/// A condition on one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Predicate {
    /// The field, as the API names it, or `tags.NAME`.
    pub field: String,
    /// How it is compared.
    pub op: Op,
    /// With what: one value, any number for [`Op::In`].
    pub values: Vec<Value>,
}

/// How a field is compared with values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// The same.
    Equals,
    /// Another.
    NotEquals,
    /// More than.
    GreaterThan,
    /// At least.
    GreaterThanEquals,
    /// Less than.
    LessThan,
    /// At most.
    LessThanEquals,
    /// One of.
    In,
    /// Contains the text, in upper or lower case.
    IsSubstring,
}

/// A value to compare with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text. For a time: RFC 3339.
    Text(String),
    /// A number. For a time: seconds since 1970.
    Int(i64),
    /// A time.
    Time(Timestamp),
}

/// Rows of one page.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Rows on all pages together.
    pub total: i64,
    /// Where this page ended, when more follow.
    pub next: Option<Cursor>,
}

impl<T> Entity<T> {
    /// One page of the rows for which `scope` holds: conditions, with `?` for the value of each.
    pub(super) async fn page(
        &self,
        connection: &mut SqliteConnection,
        scope: Vec<(&'static str, Bind)>,
        list: &List,
    ) -> Result<Page<T>> {
        let sort = self.field(&list.sort.field)?;
        let (count, page) = self.statements(scope, sort, list)?;
        let total = bound(count.text, count.binds)
            .fetch_one(&mut *connection)
            .await?
            .try_get(0)?;
        let mut rows = bound(page.text, page.binds).fetch_all(connection).await?;
        let page_size = usize::try_from(list.page_size.max(1)).unwrap_or(usize::MAX);
        let has_more = rows.len() > page_size;
        rows.truncate(page_size);
        let next = match rows.last() {
            Some(last) if has_more => Some(cursor_at(sort, last)?),
            _ => None,
        };
        let items = self.read_all(&rows)?;
        Ok(Page { items, total, next })
    }

    /// One that counts the rows of all pages, and one that reads a page.
    pub(super) fn statements(
        &self,
        scope: Vec<(&'static str, Bind)>,
        sort: &Field,
        list: &List,
    ) -> Result<(Statement, Statement)> {
        let Self {
            table, columns, join, ..
        } = self;
        let mut sql = Sql::default();
        for (condition, value) in scope {
            let place = sql.place(value);
            sql.condition(condition.replace('?', &place));
        }
        for predicate in &list.filter {
            self.add(&mut sql, predicate)?;
        }
        let count = Statement {
            text: format!("SELECT COUNT(*) FROM {table}{}", sql.conditions()),
            binds: sql.binds.clone(),
        };
        let (order, is_after) = if list.sort.descending {
            ("DESC", "<")
        } else {
            ("ASC", ">")
        };
        let key = self.sort_key(sort);
        if let Some(cursor) = &list.after {
            let value = sql.place(self.cursor_value(sort, cursor)?);
            let last = sql.place(Bind::from(&cursor.id));
            sql.condition(format!("({key}, {table}.id) {is_after} ({value}, {last})"));
        }
        // One more, to know whether there is more.
        let rows = sql.place(Bind::from(i64::from(list.page_size.max(1)) + 1));
        // The page is found first, from an index where there is one, and read then: sorting does
        // not drag whole rows along.
        let text = format!(
            "SELECT {columns}, page.sort_key FROM (
                 SELECT {table}.id AS id, {key} AS sort_key FROM {table}{}
                 ORDER BY {key} {order}, {table}.id {order} LIMIT {rows}
             ) AS page JOIN {table} ON {table}.id = page.id {join}
             ORDER BY page.sort_key {order}, page.id {order}",
            sql.conditions(),
        );
        Ok((
            count,
            Statement {
                text,
                binds: sql.binds,
            },
        ))
    }

    /// What rows are sorted by. Never null, for databases differ in where nulls go.
    fn sort_key(&self, field: &Field) -> String {
        let column = format!("{}.{}", self.table, field.column);
        match field.kind {
            Kind::Text | Kind::Time => column,
            Kind::OptionalText => format!("COALESCE({column}, '')"),
            Kind::OptionalTime => format!("COALESCE({column}, 0)"),
        }
    }

    fn cursor_value(&self, sort: &Field, cursor: &Cursor) -> Result<Bind> {
        let value = match sort.kind {
            Kind::Text | Kind::OptionalText => cursor.value.as_str().map(Bind::from),
            Kind::Time | Kind::OptionalTime => cursor.value.as_i64().map(Bind::from),
        };
        value.ok_or(Error::InvalidCursor { entity: self.name })
    }

    fn add(&self, sql: &mut Sql, predicate: &Predicate) -> Result<()> {
        let invalid = |expected| Error::InvalidValue {
            entity: self.name,
            field: predicate.field.clone(),
            expected,
        };
        if predicate.values.len() > MOST_VALUES {
            return Err(invalid("at most 1000 values"));
        }
        if predicate.op != Op::In && predicate.values.len() != 1 {
            return Err(invalid("exactly one value"));
        }
        if let (true, Some(tag)) = (self.has_tags, predicate.field.strip_prefix("tags.")) {
            let owner = format!("{}.id", self.table);
            let tag = sql.place(Bind::from(tag));
            // A row without the tag has it neither equal nor unequal, except that it is not equal.
            let (exists, op) = match predicate.op {
                Op::NotEquals => ("NOT EXISTS", Op::Equals),
                op => ("EXISTS", op),
            };
            let comparison =
                comparison(sql, "tags.value", Kind::Text, op, &predicate.values).map_err(invalid)?;
            sql.condition(format!(
                "{exists} (SELECT 1 FROM tags WHERE tags.owner_id = {owner} AND tags.tag = {tag} AND {comparison})"
            ));
            return Ok(());
        }
        let field = self.field(&predicate.field)?;
        let column = format!("{}.{}", self.table, field.column);
        let condition =
            comparison(sql, &column, field.kind, predicate.op, &predicate.values).map_err(invalid)?;
        sql.condition(condition);
        Ok(())
    }
}

/// The condition in SQL, or what would have been accepted.
fn comparison(
    sql: &mut Sql,
    column: &str,
    kind: Kind,
    op: Op,
    values: &[Value],
) -> Result<String, &'static str> {
    if op == Op::In {
        let places = values
            .iter()
            .map(|value| Ok(sql.place(bind(kind, value)?)))
            .collect::<Result<Vec<_>, &'static str>>()?;
        return Ok(if places.is_empty() {
            "1 = 0".to_owned()
        } else {
            format!("{column} IN ({})", places.join(", "))
        });
    }
    let [value] = values else {
        return Err("exactly one value");
    };
    if op == Op::IsSubstring {
        let (Kind::Text | Kind::OptionalText, Value::Text(text)) = (kind, value) else {
            return Err("a field with text, and text to look for");
        };
        let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        let place = sql.place(Bind::Text(Some(format!("%{escaped}%"))));
        return Ok(format!("LOWER({column}) LIKE LOWER({place}) ESCAPE '\\'"));
    }
    let place = sql.place(bind(kind, value)?);
    let is_optional = matches!(kind, Kind::OptionalText | Kind::OptionalTime);
    Ok(match op {
        Op::NotEquals if is_optional => format!("({column} <> {place} OR {column} IS NULL)"),
        Op::NotEquals => format!("{column} <> {place}"),
        Op::GreaterThan => format!("{column} > {place}"),
        Op::GreaterThanEquals => format!("{column} >= {place}"),
        Op::LessThan => format!("{column} < {place}"),
        Op::LessThanEquals => format!("{column} <= {place}"),
        Op::Equals | Op::In | Op::IsSubstring => format!("{column} = {place}"),
    })
}

fn bind(kind: Kind, value: &Value) -> Result<Bind, &'static str> {
    match kind {
        Kind::Text | Kind::OptionalText => match value {
            Value::Text(text) => Ok(Bind::from(text)),
            Value::Int(_) | Value::Time(_) => Err("text"),
        },
        Kind::Time | Kind::OptionalTime => {
            let time = match value {
                Value::Time(time) => Some(*time),
                Value::Int(seconds) => Timestamp::from_second(*seconds).ok(),
                Value::Text(text) => text.parse().ok(),
            };
            time.map(Bind::time)
                .ok_or("a time, such as 2026-01-31T12:00:00Z or seconds since 1970")
        }
    }
}

fn cursor_at(sort: &Field, row: &SqliteRow) -> Result<Cursor> {
    let value = match sort.kind {
        Kind::Text | Kind::OptionalText => row.try_get::<String, _>("sort_key")?.into(),
        Kind::Time | Kind::OptionalTime => row.try_get::<i64, _>("sort_key")?.into(),
    };
    Ok(Cursor {
        value,
        id: row.try_get("id")?,
    })
}

/// SQL and the values for its places.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) text: String,
    pub(super) binds: Vec<Bind>,
}

/// Conditions and the values bound in them.
#[derive(Default)]
struct Sql {
    conditions: Vec<String>,
    binds: Vec<Bind>,
}

impl Sql {
    /// Binds a value and returns its numbered place.
    fn place(&mut self, value: Bind) -> String {
        self.binds.push(value);
        format!("${}", self.binds.len())
    }

    fn condition(&mut self, condition: String) {
        self.conditions.push(condition);
    }

    fn conditions(&self) -> String {
        if self.conditions.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", self.conditions.join(" AND "))
        }
    }
}
