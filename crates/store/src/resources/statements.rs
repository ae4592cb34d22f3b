//! The SQL of a batch: one text of several statements, so that the thread of the connection is asked
//! once.
//!
//! There are few such texts, and each is prepared once: they come in sizes, and rows that a batch
//! does not need are NULL, which inserts and deletes nothing.

use std::{collections::HashMap, sync::LazyLock};

use sqlx::{Arguments as _, Encode, Sqlite, Type, query::Query, sqlite::SqliteArguments};

use super::{
    Key, Object,
    state::{Change, Stored},
};

/// The most rows of one batch.
pub(super) const MOST: usize = 256;
/// The sizes are powers of two.
const SIZES: usize = MOST.ilog2() as usize + 1;

/// What a batch does beside appending to the log.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Puts,
    Removes,
    Both,
}

static TEXTS: LazyLock<[[&'static str; SIZES]; 3]> = LazyLock::new(|| {
    [Shape::Puts, Shape::Removes, Shape::Both].map(|shape| {
        std::array::from_fn(|size| {
            let text: &'static str = text(shape, 1 << size).leak();
            text
        })
    })
});

fn text(shape: Shape, rows: usize) -> String {
    let values = |row: &str| vec![row; rows].join(", ");
    let append = format!(
        "INSERT INTO resource_log
             (revision, api_group, resource, namespace, name, kind, previous_revision, body, previous_body)
         SELECT * FROM (VALUES {}) WHERE column1 IS NOT NULL",
        values("(?, ?, ?, ?, ?, ?, ?, ?, ?)")
    );
    let put = format!(
        "INSERT INTO resource_objects (api_group, resource, namespace, name, revision, body)
         SELECT * FROM (VALUES {}) WHERE column1 IS NOT NULL
         ON CONFLICT (api_group, resource, namespace, name)
         DO UPDATE SET revision = excluded.revision, body = excluded.body",
        values("(?, ?, ?, ?, ?, ?)")
    );
    let remove = format!(
        "DELETE FROM resource_objects WHERE (api_group, resource, namespace, name) IN (VALUES {})",
        values("(?, ?, ?, ?)")
    );
    let objects = match shape {
        Shape::Puts => put,
        Shape::Removes => remove,
        Shape::Both => format!("{put}; {remove}"),
    };
    format!("BEGIN; {append}; {objects}; UPDATE resource_revision SET latest = ? WHERE id = 1; COMMIT")
}

/// All that a batch writes, from `BEGIN` to `COMMIT`: the changes, at least one and at most
/// [`MOST`], and the objects as they are after all of them.
pub(super) fn statements(
    changes: &[Change],
    objects: &HashMap<Key, Option<Stored>>,
    latest: u64,
) -> Result<Query<'static, Sqlite, SqliteArguments>, sqlx::Error> {
    let (mut puts, mut removes) = (Vec::new(), Vec::new());
    for (key, stored) in objects {
        match stored {
            Some(stored) => puts.push((key, stored)),
            None => removes.push(key),
        }
    }
    let shape = match (puts.is_empty(), removes.is_empty()) {
        (_, true) => Shape::Puts,
        (true, false) => Shape::Removes,
        (false, false) => Shape::Both,
    };
    let rows = changes.len().next_power_of_two();
    let text = TEXTS[shape as usize][rows.ilog2() as usize];
    let mut values = Values(SqliteArguments::default());
    for Change {
        event,
        previous_revision,
    } in changes
    {
        let Object { key, revision, body } = &event.object;
        values.add(revision.cast_signed())?;
        values.key(key)?;
        values.add(event.kind.to_string())?;
        values.add(previous_revision.map(u64::cast_signed))?;
        values.add(body.as_str().to_owned())?;
        values.add(
            event
                .previous
                .as_ref()
                .map(|previous| previous.as_str().to_owned()),
        )?;
    }
    values.nothing(9 * (rows - changes.len()))?;
    if matches!(shape, Shape::Puts | Shape::Both) {
        for (key, stored) in &puts {
            values.key(key)?;
            values.add(stored.revision.cast_signed())?;
            values.add(stored.as_str().to_owned())?;
        }
        values.nothing(6 * (rows - puts.len()))?;
    }
    if matches!(shape, Shape::Removes | Shape::Both) {
        for key in &removes {
            values.key(key)?;
        }
        values.nothing(4 * (rows - removes.len()))?;
    }
    values.add(latest.cast_signed())?;
    Ok(sqlx::query_with(text, values.0))
}

/// What is bound, one value after the other.
struct Values(SqliteArguments);

impl Values {
    fn add<'a>(&mut self, value: impl Encode<'a, Sqlite> + Type<Sqlite>) -> Result<(), sqlx::Error> {
        self.0.add(value).map_err(sqlx::Error::Encode)
    }

    fn key(&mut self, key: &Key) -> Result<(), sqlx::Error> {
        self.add(key.resource.group.clone())?;
        self.add(key.resource.resource.clone())?;
        self.add(key.namespace.clone())?;
        self.add(key.name.clone())
    }

    fn nothing(&mut self, values: usize) -> Result<(), sqlx::Error> {
        (0..values).try_for_each(|_| self.add(None::<i64>))
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Row as _};

    use super::*;
    use crate::{Location, Store};

    #[tokio::test]
    async fn objects_are_removed_by_their_index() {
        let store = Store::open(Location::Memory).await.unwrap();
        let mut writer = store.database.writer().await.unwrap();
        let all = text(Shape::Removes, 2);
        let remove = all.split("; ").nth(2).unwrap();
        let steps = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {remove}")))
            .fetch_all(&mut *writer)
            .await
            .unwrap();
        let steps: Vec<String> = steps.iter().map(|step| step.get("detail")).collect();
        let first = "SEARCH resource_objects USING COVERING INDEX sqlite_autoindex_resource_objects_1 \
                     (api_group=? AND resource=? AND namespace=? AND name=?)";
        assert_eq!(steps.first().map(String::as_str), Some(first), "{steps:?}");
    }
}
