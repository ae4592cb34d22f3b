//! Filtered, sorted, paged lists: what callers ask for, turned into SQL.
//!
//! Fields are looked up in a table per entity and values are only ever bound, so that nothing a
//! caller says becomes SQL. Pages are found by key and not by offset: rows that come or go
//! between two pages neither repeat nor hide others.

use jiff::Timestamp;
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{
    Cursor, Error, Page, Result,
    entity::{Beside, Entity, Field, Kind},
    query::{List, Op, Predicate, Value},
    row::{Bind, bound},
};

/// More values than this in one predicate are refused.
const MOST_VALUES: usize = 1000;
/// Up to so many rows whose names hold a text are looked at one by one. When there are more, a
/// page is soon full of them.
const MOST_NAMED: i64 = 2000;

impl<T> Entity<T> {
    /// One page of the rows for which `scope` holds: conditions, with `?` for the value of each.
    pub(super) async fn page(
        &self,
        connection: &mut SqliteConnection,
        scope: Vec<(&'static str, Bind)>,
        list: &List,
    ) -> Result<Page<T>> {
        let sort = self.field(&list.sort.field)?;
        if !sort.is_sorted {
            return Err(Error::InvalidValue {
                entity: self.name,
                field: sort.name.to_owned(),
                expected: "a field that such lists are sorted by, e.g. created_at",
            });
        }
        let named = match &self.beside {
            Some(beside) => few_named(connection, beside, list).await?,
            None => None,
        };
        let (count, page) = self.statements(&scope, sort, list, named)?;
        let mut rows = bound(page.text, page.binds).fetch_all(&mut *connection).await?;
        let page_size = usize::try_from(list.page_size.max(1)).unwrap_or(usize::MAX);
        let has_more = rows.len() > page_size;
        rows.truncate(page_size);
        let total = if list.after.is_none() && !has_more {
            i64::try_from(rows.len()).unwrap_or(i64::MAX)
        } else {
            bound(count.text, count.binds)
                .fetch_one(connection)
                .await?
                .try_get(0)?
        };
        let next = match rows.last() {
            Some(last) if has_more => Some(cursor_at(sort, last)?),
            _ => None,
        };
        let items = self.read_all(&rows)?;
        Ok(Page { items, total, next })
    }

    /// One that counts the rows of all pages, and one that reads a page. `named` is what full-text
    /// search finds a superset of the rows by.
    pub(super) fn statements(
        &self,
        scope: &[(&'static str, Bind)],
        sort: &Field,
        list: &List,
        named: Option<String>,
    ) -> Result<(Statement, Statement)> {
        let Self {
            table, columns, join, ..
        } = self;
        let mut sql = Sql::default();
        let mut from = (*table).to_owned();
        let mut mark = "";
        if let (Some(named), Some(beside)) = (named, &self.beside) {
            let place = sql.place(Bind::Text(Some(named)));
            let (names, parts) = (beside.names, beside.name_parts);
            sql.condition(format!("{parts} MATCH {place}"));
            // A cross join is made in this order, and a plus keeps a condition from being looked
            // up in an index: each row is found by its id.
            mark = "+";
            from = format!(
                "{parts} CROSS JOIN {names} ON {names}.number = {parts}.rowid
                 CROSS JOIN {table} ON {table}.id = {names}.run_id"
            );
        }
        self.conditions(&mut sql, table, (mark, scope), &list.filter)?;
        let count = match &self.beside {
            Some(beside) if self.is_counted(beside, &list.filter) => {
                let mut sql = Sql::default();
                self.conditions(&mut sql, beside.counts, ("", scope), &list.filter)?;
                Statement {
                    text: format!(
                        "SELECT COALESCE(SUM(runs), 0) FROM {}{}",
                        beside.counts,
                        sql.conditions()
                    ),
                    binds: sql.binds,
                }
            }
            _ => Statement {
                text: format!("SELECT COUNT(*) FROM {from}{}", sql.conditions()),
                binds: sql.binds.clone(),
            },
        };
        let (order, is_after) = if list.sort.descending {
            ("DESC", "<")
        } else {
            ("ASC", ">")
        };
        let keys = self.sort_keys(sort);
        if let Some(cursor) = &list.after {
            let values = self.cursor_values(sort, cursor)?;
            let places: Vec<_> = values.into_iter().map(|value| sql.place(value)).collect();
            let (keys, places) = (keys.join(", "), places.join(", "));
            sql.condition(format!("({keys}, {table}.id) {is_after} ({places})"));
        }
        // One more, to know whether there is more.
        let rows = sql.place(Bind::from(i64::from(list.page_size.max(1)) + 1));
        // The page is found first, from an index where there is one, and read then: sorting does
        // not drag whole rows along.
        let [mut selected, mut shown, mut sorted, mut in_order] = [const { String::new() }; 4];
        for (number, key) in keys.iter().enumerate() {
            selected = format!("{selected}, {key} AS sort_key_{number}");
            shown = format!("{shown}, page.sort_key_{number}");
            in_order = format!("{in_order}{key} {order}, ");
            sorted = format!("{sorted}page.sort_key_{number} {order}, ");
        }
        if sort.column != "id" {
            in_order = format!("{in_order}{table}.id {order}, ");
        }
        let text = format!(
            "SELECT {columns}{shown} FROM (
                 SELECT {table}.id AS id{selected} FROM {from}{}
                 ORDER BY {} LIMIT {rows}
             ) AS page JOIN {table} ON {table}.id = page.id {join}
             ORDER BY {sorted}page.id {order}",
            sql.conditions(),
            in_order.trim_end_matches(", "),
        );
        Ok((
            count,
            Statement {
                text,
                binds: sql.binds,
            },
        ))
    }

    fn conditions(
        &self,
        sql: &mut Sql,
        table: &str,
        (mark, scope): (&str, &[(&'static str, Bind)]),
        filter: &[Predicate],
    ) -> Result<()> {
        for (condition, value) in scope {
            let place = sql.place(value.clone());
            sql.condition(format!("{mark}{}", condition.replace('?', &place)));
        }
        for predicate in filter {
            self.add(sql, table, predicate)?;
        }
        Ok(())
    }

    /// Whether the counts kept beside the table tell apart all that the filter does.
    fn is_counted(&self, beside: &Beside, filter: &[Predicate]) -> bool {
        filter.iter().all(|predicate| {
            self.field(&predicate.field)
                .is_ok_and(|field| beside.counted.contains(&field.column))
        })
    }

    /// What rows are sorted by, before their id. Never null, for databases differ in where nulls go.
    fn sort_keys(&self, sort: &Field) -> Vec<String> {
        let column = format!("{}.{}", self.table, sort.sorted_as.unwrap_or(sort.column));
        let key = match sort.kind {
            _ if sort.sorted_as.is_some() => column,
            Kind::Text | Kind::Time => column,
            Kind::OptionalText => format!("COALESCE({column}, '')"),
            Kind::OptionalTime => format!("COALESCE({column}, 0)"),
        };
        let then = sort.then.map(|column| format!("{}.{column}", self.table));
        [key].into_iter().chain(then).collect()
    }

    /// The values of the sort keys and the id at a cursor.
    fn cursor_values(&self, sort: &Field, cursor: &Cursor) -> Result<Vec<Bind>> {
        let key = |value: &serde_json::Value| match sort.kind {
            Kind::Text | Kind::OptionalText => value.as_str().map(Bind::from),
            Kind::Time | Kind::OptionalTime => value.as_i64().map(Bind::from),
        };
        let values = match sort.then {
            None => key(&cursor.value).map(|key| vec![key, Bind::from(&cursor.id)]),
            Some(_) => match cursor.value.as_array().map(Vec::as_slice) {
                Some([value, then]) => key(value)
                    .zip(then.as_i64())
                    .map(|(key, then)| vec![key, Bind::from(then), Bind::from(&cursor.id)]),
                _ => None,
            },
        };
        values.ok_or(Error::InvalidCursor { entity: self.name })
    }

    fn add(&self, sql: &mut Sql, table: &str, predicate: &Predicate) -> Result<()> {
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
            let owner = format!("{table}.id");
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
        let column = format!("{table}.{}", field.column);
        let condition =
            comparison(sql, &column, field.kind, predicate.op, &predicate.values).map_err(invalid)?;
        sql.condition(condition);
        Ok(())
    }
}

/// What finds the rows whose names hold the text that the list asks for, when these are few.
async fn few_named(
    connection: &mut SqliteConnection,
    beside: &Beside,
    list: &List,
) -> Result<Option<String>> {
    let asked = list.filter.iter().find_map(|predicate| {
        let is_name = beside.name_fields.contains(&predicate.field.as_str());
        match predicate.values.as_slice() {
            [Value::Text(text)] if is_name && predicate.op == Op::IsSubstring => Some(text),
            _ => None,
        }
    });
    // Parts are three characters; and a text ends at a zero, as far as the search is concerned.
    let Some(text) = asked.filter(|text| text.chars().count() >= 3 && !text.contains('\0')) else {
        return Ok(None);
    };
    let quoted = format!("\"{}\"", text.replace('"', "\"\""));
    let parts = beside.name_parts;
    let sql = format!(
        "SELECT COUNT(*) FROM (SELECT rowid FROM {parts} WHERE {parts} MATCH $1 LIMIT {})",
        MOST_NAMED + 1
    );
    let found: i64 = bound(sql, vec![Bind::from(&quoted)])
        .fetch_one(connection)
        .await?
        .try_get(0)?;
    Ok((found <= MOST_NAMED).then_some(quoted))
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
        // SQLite's LIKE takes upper and lower case for the same.
        return Ok(format!("{column} LIKE {place} ESCAPE '\\'"));
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
    let key: serde_json::Value = match sort.kind {
        Kind::Text | Kind::OptionalText => row.try_get::<String, _>("sort_key_0")?.into(),
        Kind::Time | Kind::OptionalTime => row.try_get::<i64, _>("sort_key_0")?.into(),
    };
    let value = match sort.then {
        None => key,
        Some(_) => serde_json::json!([key, row.try_get::<i64, _>("sort_key_1")?]),
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
