//! Lists: sorting, page sizes, and the tokens that lead from one page to the next.
//!
//! A token is opaque to clients. It carries the sort and the filter it was made under, so that a
//! walk cannot change them half-way; everything in it is checked again when it comes back.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use coracle_store::records::query::{Cursor, List, Page, Sort};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::IntoParams;

use super::{error::Error, filter::Filter};

/// How many items a page has when the request does not say.
const DEFAULT_PAGE_SIZE: u32 = 20;
/// The most that a page has.
const MAX_PAGE_SIZE: u32 = 200;

/// The query of every list.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// `next_page_token` of the page before.
    #[serde(alias = "pageToken")]
    pub page_token: String,
    /// How many items at most: 20 when absent, 200 at most.
    #[serde(alias = "pageSize")]
    pub page_size: String,
    /// `FIELD`, `FIELD asc` or `FIELD desc`; `created_at` when absent.
    #[serde(alias = "sortBy")]
    pub sort_by: String,
    /// A filter, as JSON: see KFP's `filter.proto`.
    pub filter: String,
    /// Ignored: there is one namespace for pipelines.
    pub namespace: String,
}

/// A list to be asked of the store, and what its next token must carry.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Query {
    /// What the store is asked.
    pub list: List,
    filter: Value,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    field: String,
    descending: bool,
    filter: Value,
    value: Value,
    id: String,
}

impl ListParams {
    /// Reads the whole query.
    pub(super) fn read(&self) -> Result<Query, Error> {
        let page_size = page_size(&self.page_size)?;
        if self.page_token.is_empty() {
            let filter = Filter::parse(&self.filter)?;
            return Ok(Query {
                list: List {
                    filter: filter.predicates,
                    sort: sort(&self.sort_by)?,
                    page_size,
                    after: None,
                },
                filter: filter.source,
            });
        }
        let token = Token::decode(&self.page_token)?;
        if !self.sort_by.trim().is_empty() {
            let asked = sort(&self.sort_by)?;
            if asked.field != token.field || asked.descending != token.descending {
                return Err(mismatch("sort_by"));
            }
        }
        let filter = Filter::from_json(token.filter)?;
        if !self.filter.trim().is_empty() && Filter::parse(&self.filter)?.predicates != filter.predicates {
            return Err(mismatch("filter"));
        }
        Ok(Query {
            list: List {
                filter: filter.predicates,
                sort: Sort {
                    field: token.field,
                    descending: token.descending,
                },
                page_size,
                after: Some(Cursor {
                    value: token.value,
                    id: token.id,
                }),
            },
            filter: filter.source,
        })
    }
}

impl Query {
    /// The token of the page after `page`, when there is one.
    pub(super) fn next_token<T>(&self, page: &Page<T>) -> Option<String> {
        let cursor = page.next.as_ref()?;
        let token = Token {
            field: self.list.sort.field.clone(),
            descending: self.list.sort.descending,
            filter: self.filter.clone(),
            value: cursor.value.clone(),
            id: cursor.id.clone(),
        };
        let json = serde_json::to_vec(&token).ok()?;
        Some(URL_SAFE_NO_PAD.encode(json))
    }
}

impl Token {
    fn decode(text: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::Invalid(
                "the page_token is not one that this server gave: start again from the first page".to_owned(),
            )
        };
        let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong())?;
        serde_json::from_slice(&json).map_err(|_| wrong())
    }
}

fn mismatch(what: &str) -> Error {
    Error::Invalid(format!(
        "the {what} differs from the one that the page_token was given for: leave it out, or start again from \
         the first page"
    ))
}

fn page_size(text: &str) -> Result<u32, Error> {
    if text.is_empty() {
        return Ok(DEFAULT_PAGE_SIZE);
    }
    match text.parse::<i64>() {
        Ok(0) => Ok(DEFAULT_PAGE_SIZE),
        Ok(size) if size > 0 => Ok(u32::try_from(size).unwrap_or(MAX_PAGE_SIZE).min(MAX_PAGE_SIZE)),
        _ => Err(Error::Invalid(format!(
            "the page_size must be a whole number that is not negative, not `{text}`"
        ))),
    }
}

fn sort(text: &str) -> Result<Sort, Error> {
    let lower = text.to_ascii_lowercase();
    let mut words = lower.split_whitespace();
    let field = words.next().unwrap_or("created_at").to_owned();
    let descending = match (words.next(), words.next()) {
        (None | Some("asc"), None) => false,
        (Some("desc"), None) => true,
        _ => {
            return Err(Error::Invalid(format!(
                "the sort_by `{text}` cannot be used: expected `FIELD`, `FIELD asc` or `FIELD desc`"
            )));
        }
    };
    Ok(Sort { field, descending })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn params(page_token: &str, sort_by: &str, filter: &str) -> ListParams {
        ListParams {
            page_token: page_token.to_owned(),
            sort_by: sort_by.to_owned(),
            filter: filter.to_owned(),
            ..ListParams::default()
        }
    }

    fn token_after(params: &ListParams) -> String {
        let cursor = Cursor {
            value: json!("b"),
            id: "2".to_owned(),
        };
        let page = Page::<()> {
            items: Vec::new(),
            total: 9,
            next: Some(cursor),
        };
        params
            .read()
            .expect("a query")
            .next_token(&page)
            .expect("a token")
    }

    const NAMED: &str = r#"{"predicates":[{"operation":1,"key":"name","string_value":"x"}]}"#;

    #[test]
    fn page_sizes_have_a_default_and_a_cap() {
        let check = |text: &str, expect: Option<u32>| assert_eq!(page_size(text).ok(), expect, "{text}");
        check("", Some(20));
        check("0", Some(20));
        check("1", Some(1));
        check("200", Some(200));
        check("201", Some(200));
        check("99999999999", Some(200));
        check("-1", None);
        check("ten", None);
    }

    #[test]
    fn sort_is_a_field_and_a_direction() {
        let check = |text: &str, expect: Option<(&str, bool)>| {
            let sorted = sort(text).ok();
            assert_eq!(
                sorted.as_ref().map(|sort| (sort.field.as_str(), sort.descending)),
                expect,
                "{text}"
            );
        };
        check("", Some(("created_at", false)));
        check("Name", Some(("name", false)));
        check("name ASC", Some(("name", false)));
        check("created_at desc", Some(("created_at", true)));
        check("created_at down", None);
        check("created_at desc name", None);
    }

    #[test]
    fn a_token_carries_the_sort_and_the_filter() {
        let first = params("", "name desc", NAMED);
        let token = token_after(&first);
        let expect = Query {
            list: List {
                after: Some(Cursor {
                    value: json!("b"),
                    id: "2".to_owned(),
                }),
                ..first.read().expect("a query").list
            },
            filter: serde_json::from_str(NAMED).expect("json"),
        };
        assert_eq!(params(&token, "", "").read().expect("a query"), expect);
        assert_eq!(
            params(&token, "name desc", NAMED).read().expect("a query"),
            expect
        );
    }

    #[test]
    fn a_token_with_another_sort_or_filter_is_refused() {
        let token = token_after(&params("", "name desc", NAMED));
        for other in [
            params(&token, "name", ""),
            params(&token, "created_at desc", ""),
            params(&token, "", "{}"),
            params(&token, "", &NAMED.replace("x", "y")),
        ] {
            let error = other.read().expect_err("must be refused");
            assert!(error.to_string().contains("differs"), "{error}");
        }
    }

    #[test]
    fn a_token_that_is_not_ours_is_refused() {
        for token in ["x", "!", "e30", "eyJhIjoxfQ", "' OR 1=1 --"] {
            assert_eq!(params(token, "", "").read().expect_err(token).code(), 3);
        }
    }
}
