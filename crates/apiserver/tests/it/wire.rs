//! What the API answers to what, as tables: `wire/*.http`, a server of its own for each. The
//! requests of a table are sent in order. With CORACLE_TEST_KUBECONFIG they go to the cluster of that
//! kubeconfig instead, but for those whose title begins with `[embedded]`: they hold only where no
//! controllers, no node and no one else is.
//!
//! ```text
//! # what this request shows
//! PUT $cm/a?dryRun=All
//! Content-Type: application/yaml
//! {metadata: {name: a}}
//! -> 422 Invalid
//! /message ~ "is invalid"
//! /details/causes/0/field = "data"
//! /items absent
//! /metadata/resourceVersion as revision
//! ```
//!
//! Paths begin with `$` and a name of [`names`]; `$(text * 300)` is that text so many times; what
//! was kept with `as` comes back as `$revision`. A body is sent as JSON unless a header says
//! otherwise; `PATCH-merge`, `PATCH-json`, `PATCH-strategic` and `PATCH-apply` say which patch it
//! is. After the arrow are the status code and the `reason`; `=` compares JSON, `~` looks for text,
//! `!~` for its absence, and `header Name` stands for a header of the answer.

mod cluster;

use std::collections::HashMap;

use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;

use self::cluster::Cluster;
use crate::harness::Api;

/// One request and what is to be answered.
#[derive(Debug, Default)]
struct Case {
    line: usize,
    title: String,
    /// It is sent to no cluster.
    is_embedded: bool,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
    code: u16,
    reason: String,
    checks: Vec<String>,
}

/// What stands for what in every table.
fn names(namespace: &str) -> HashMap<String, String> {
    let core = format!("/api/v1/namespaces/{namespace}");
    let paths = [
        ("core", "/api/v1".to_owned()),
        ("ns", namespace.to_owned()),
        ("cm", format!("{core}/configmaps")),
        ("pods", format!("{core}/pods")),
        ("secrets", format!("{core}/secrets")),
        ("services", format!("{core}/services")),
        ("sa", format!("{core}/serviceaccounts")),
        ("events", format!("{core}/events")),
        (
            "widgets",
            format!("/apis/example.com/v1/namespaces/{namespace}/widgets"),
        ),
        (
            "deploy",
            format!("/apis/apps/v1/namespaces/{namespace}/deployments"),
        ),
        (
            "leases",
            format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"),
        ),
    ];
    paths
        .into_iter()
        .map(|(name, path)| (name.to_owned(), path))
        .collect()
}

fn parse(table: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut is_answer = true;
    for (number, line) in table.lines().enumerate() {
        if let Some(title) = line.strip_prefix("# ") {
            if is_answer {
                cases.push(Case {
                    line: number + 1,
                    ..Case::default()
                });
                is_answer = false;
            }
            let case = cases.last_mut().unwrap();
            case.is_embedded = title.starts_with("[embedded] ");
            case.title = title.to_owned();
            continue;
        }
        let Some(case) = cases.last_mut() else {
            continue;
        };
        if let Some(answer) = line.strip_prefix("-> ") {
            is_answer = true;
            let (code, reason) = answer.split_once(' ').unwrap_or((answer, ""));
            case.code = code.parse().unwrap();
            case.reason = reason.to_owned();
        } else if is_answer {
            if !line.trim().is_empty() {
                case.checks.push(line.to_owned());
            }
        } else if case.method.is_empty() {
            let (method, path) = line.split_once(' ').expect("a request has a method and a path");
            let (method, patch) = method.split_once('-').unwrap_or((method, ""));
            let media = match patch {
                "" => "application/json",
                "apply" => "application/apply-patch+yaml",
                "merge" => "application/merge-patch+json",
                "json" => "application/json-patch+json",
                "strategic" => "application/strategic-merge-patch+json",
                other => unreachable!("line {}: there is no patch {other}", number + 1),
            };
            case.headers.push(("content-type".to_owned(), media.to_owned()));
            (case.method, case.path) = (method.to_owned(), path.to_owned());
        } else if case.body.is_empty() && is_header(line) {
            let (name, value) = line.split_once(": ").unwrap();
            case.headers.retain(|(one, _)| !one.eq_ignore_ascii_case(name));
            case.headers.push((name.to_owned(), value.to_owned()));
        } else {
            case.body.push_str(line);
            case.body.push('\n');
        }
    }
    cases
}

fn is_header(line: &str) -> bool {
    let name = line.split_once(": ").map_or("", |(name, _)| name);
    matches!(name, "Content-Type" | "Accept" | "User-Agent")
}

/// The text with everything in it that stands for something else.
fn expand(text: &str, names: &HashMap<String, String>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(inner) = after.strip_prefix('(') {
            let (inner, behind) = inner.split_once(')').unwrap();
            let (what, times) = inner.rsplit_once('*').unwrap();
            expanded.push_str(&what.trim().repeat(times.trim().parse().unwrap()));
            rest = behind;
            continue;
        }
        let end = after
            .find(|one: char| !one.is_ascii_alphanumeric())
            .unwrap_or(after.len());
        match names.get(&after[..end]) {
            Some(value) => expanded.push_str(value),
            None => {
                expanded.push('$');
                expanded.push_str(&after[..end]);
            }
        }
        rest = &after[end..];
    }
    expanded.push_str(rest);
    expanded
}

/// What is wrong with the answer.
fn problems(
    case: &Case,
    (code, headers, answer): &(StatusCode, HeaderMap, Value),
    names: &mut HashMap<String, String>,
) -> Vec<String> {
    let mut problems = Vec::new();
    let reason = answer["reason"].as_str().unwrap_or_default();
    let is_status = answer["kind"] == "Status" && answer["status"] == "Failure";
    if code.as_u16() != case.code || (is_status && reason != case.reason) {
        problems.push(format!("answered {code} {reason}"));
    }
    if is_status && answer["code"] != case.code {
        problems.push("the code in the body is another one".to_owned());
    }
    for check in &case.checks {
        let check = expand(check, names);
        let header;
        let (found, rest) = match check.strip_prefix("header ") {
            Some(rest) => {
                let (name, rest) = rest.split_once(' ').unwrap();
                let values = headers.get_all(name).iter().map(|value| value.to_str().unwrap());
                header = Value::from(values.collect::<Vec<_>>().join(", "));
                (Some(&header).filter(|value| *value != ""), rest)
            }
            None => {
                let (pointer, rest) = check.split_once(' ').unwrap();
                (answer.pointer(if pointer == "/" { "" } else { pointer }), rest)
            }
        };
        let (operator, wanted) = rest.split_once(' ').unwrap_or((rest, ""));
        let text = || match found {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        let json = || serde_json::from_str::<Value>(wanted).expect("what is compared with is JSON");
        let holds = match operator {
            "=" => found == Some(&json()),
            "!=" => found != Some(&json()),
            "~" => text().contains(json().as_str().unwrap()),
            "!~" => !text().contains(json().as_str().unwrap()),
            "absent" => found.is_none(),
            "present" => found.is_some(),
            "has" => found.and_then(Value::as_array).map(Vec::len) == wanted.parse().ok(),
            "as" => {
                names.insert(wanted.to_owned(), text());
                found.is_some()
            }
            other => unreachable!("{check}: there is no {other}"),
        };
        if !holds {
            problems.push(format!("{check}: it is {}", found.unwrap_or(&Value::Null)));
        }
    }
    problems
}

/// Where the requests go.
enum End {
    Embedded(Box<Api>),
    Cluster(Cluster),
}

impl End {
    async fn of(table: &str) -> Self {
        match Cluster::from_environment(table).await {
            Some(cluster) => Self::Cluster(cluster),
            None => Self::Embedded(Box::new(Api::new().await)),
        }
    }

    fn namespace(&self) -> &str {
        match self {
            Self::Embedded(_) => "default",
            Self::Cluster(cluster) => &cluster.namespace,
        }
    }

    async fn send(&self, case: &Case, names: &HashMap<String, String>) -> (StatusCode, HeaderMap, Value) {
        let path = expand(&case.path, names).replace(' ', "%20");
        let mut request = Request::builder().method(case.method.as_str()).uri(path);
        for (name, value) in &case.headers {
            request = request.header(name, expand(value, names));
        }
        let body = expand(case.body.trim_end_matches('\n'), names);
        let (code, headers, bytes) = match self {
            Self::Embedded(api) => {
                let response = api.raw(request.body(Body::from(body)).unwrap()).await;
                let (parts, body) = response.into_parts();
                let bytes = body.collect().await.unwrap().to_bytes();
                (parts.status, parts.headers, bytes.into())
            }
            Self::Cluster(cluster) => cluster.send(request.body(body.into()).unwrap()).await,
        };
        let answer = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into());
        (code, headers, answer)
    }
}

async fn check(name: &str, table: &str) {
    let end = End::of(name).await;
    let mut names = names(end.namespace());
    let mut failures = Vec::new();
    let mut sent = 0;
    for case in parse(table) {
        if case.is_embedded && matches!(end, End::Cluster(_)) {
            continue;
        }
        sent += 1;
        let answer = end.send(&case, &names).await;
        let problems = problems(&case, &answer, &mut names);
        if !problems.is_empty() {
            failures.push(format!(
                "wire/{name}.http:{}: {}\n  {} {}\n  {}\n  {}",
                case.line,
                case.title,
                case.method,
                case.path,
                problems.join("\n  "),
                answer.2.to_string().chars().take(1000).collect::<String>(),
            ));
        }
    }
    if let End::Cluster(cluster) = end {
        cluster.leave(table.contains("/customresourcedefinitions")).await;
    }
    assert!(
        failures.is_empty(),
        "{} of {sent} failed:\n{}",
        failures.len(),
        failures.join("\n\n")
    );
    assert!(sent > 5, "the table is sent");
}

macro_rules! tables {
    ($($name:ident)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                check(stringify!($name), include_str!(concat!("wire/", stringify!($name), ".http"))).await;
            }
        )*

        #[test]
        fn the_tables_are_long() {
            let all = [$(include_str!(concat!("wire/", stringify!($name), ".http"))),*];
            let cases: usize = all.iter().map(|table| parse(table).len()).sum();
            assert!(cases > 150, "{cases}");
        }
    };
}

tables! { create bodies fields update patches apply custom lists deletes paths }
