//! Filtered, sorted, paged lists, as callers ask for them. The SQL is made in `page`.

use jiff::Timestamp;

/// What to list, and which page of it.
#[derive(Debug, Clone, PartialEq)]
pub struct List {
    /// All must hold.
    pub filter: Vec<Predicate>,
    /// The order. Rows that are equal in it are in order of id; runs that are equal in a state or
    /// name in order of their making first.
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
    /// The last row's value of the sort field: text, or a number (times in microseconds). Or both
    /// that value and another, in an array. Only to be handed back.
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
