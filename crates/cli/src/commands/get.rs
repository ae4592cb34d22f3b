//! `coracle get`: lists, newest first for what runs made, as the API orders it for the rest.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    arguments::{Format, Get},
    client::{Client, PIPELINES},
    kind::Kind,
    output::{self, Table, field},
    runs,
    trouble::Trouble,
};

pub(super) fn get(options: &Get, client: &Client, format: Format) -> anyhow::Result<()> {
    match (Kind::named(&options.kind), &options.name) {
        (Some(Kind::ARTIFACT), None) if options.run.is_some() => artifacts_of_run(options, client, format),
        (Some(kind), None) => list(client, kind, options.limit, format),
        (Some(kind), Some(name)) => {
            let one = client.get(&kind.of(&kind.find(client, name)?, ""), &[])?;
            show(client, kind, &one, std::slice::from_ref(&one), format)
        }
        (None, None) if options.kind.eq_ignore_ascii_case("cache") => {
            super::cache::list(client, &super::cache::Which::default(), options.limit, format)
        }
        (None, _) => resources(options, client, format),
    }
}

/// Lists the newest of a kind.
pub(super) fn list(client: &Client, kind: Kind, limit: u32, format: Format) -> anyhow::Result<()> {
    let sorted = [("sort_by", "created_at desc")];
    let listed = pages(client, kind.path, kind.list, &sorted, limit)?;
    let rows = listed[kind.list].as_array().cloned().unwrap_or_default();
    show(client, kind, &listed, &rows, format)?;
    if format == Format::Text {
        say_more(&listed, kind.list)?;
    }
    Ok(())
}

fn artifacts_of_run(options: &Get, client: &Client, format: Format) -> anyhow::Result<()> {
    let run = runs::find(client, options.run.as_deref().unwrap_or_default())?;
    let listed = client.get(&format!("{PIPELINES}/artifacts"), &[("run_id", &run)])?;
    let rows = listed["artifacts"].as_array().cloned().unwrap_or_default();
    show(client, Kind::ARTIFACT, &listed, &rows, format)
}

/// How a kind is shown in a table.
struct Columns {
    headings: &'static [&'static str],
    row: fn(&Value, &Context) -> Vec<String>,
}

fn columns(kind: Kind) -> &'static Columns {
    match kind {
        Kind::EXPERIMENT => &EXPERIMENTS,
        Kind::PIPELINE => &PIPELINES_OF_USERS,
        Kind::SCHEDULE => &SCHEDULES,
        Kind::ARTIFACT => &ARTIFACTS,
        _ => &RUNS,
    }
}

/// What a row needs beside its own object.
struct Context {
    now: Timestamp,
    experiments: HashMap<String, String>,
}

const RUNS: Columns = Columns {
    headings: &["run id", "name", "state", "duration", "age", "experiment"],
    row: |run, context| {
        let experiment = field(run, "experiment_id");
        vec![
            field(run, "run_id").to_owned(),
            field(run, "display_name").to_owned(),
            field(run, "state").to_owned(),
            output::between(field(run, "created_at"), field(run, "finished_at"), context.now),
            output::age(field(run, "created_at"), context.now),
            context
                .experiments
                .get(experiment)
                .map_or(experiment, String::as_str)
                .to_owned(),
        ]
    },
};

const EXPERIMENTS: Columns = Columns {
    headings: &["experiment id", "name", "storage", "last run", "age"],
    row: |experiment, context| {
        vec![
            field(experiment, "experiment_id").to_owned(),
            field(experiment, "display_name").to_owned(),
            field(experiment, "storage_state").to_owned(),
            output::age(field(experiment, "last_run_created_at"), context.now),
            output::age(field(experiment, "created_at"), context.now),
        ]
    },
};

const PIPELINES_OF_USERS: Columns = Columns {
    headings: &["pipeline id", "name", "description", "age"],
    row: |pipeline, context| {
        vec![
            field(pipeline, "pipeline_id").to_owned(),
            field(pipeline, "display_name").to_owned(),
            output::short(&pipeline["description"], 50).replace("null", ""),
            output::age(field(pipeline, "created_at"), context.now),
        ]
    },
};

const SCHEDULES: Columns = Columns {
    headings: &[
        "schedule id",
        "name",
        "when",
        "status",
        "next",
        "age",
        "last error",
    ],
    row: |schedule, context| {
        vec![
            field(schedule, Kind::SCHEDULE.id).to_owned(),
            field(schedule, "display_name").to_owned(),
            super::schedule::pattern(schedule),
            field(schedule, "status").to_owned(),
            super::schedule::next(schedule, context.now),
            output::age(field(schedule, "created_at"), context.now),
            output::short(&schedule["error"]["message"], 60).replace("null", ""),
        ]
    },
};

const ARTIFACTS: Columns = Columns {
    headings: &["artifact id", "name", "type", "size", "age", "uri"],
    row: |artifact, context| {
        let size = field(artifact, "size").parse().map(output::bytes);
        vec![
            field(artifact, "artifact_id").to_owned(),
            field(artifact, "name").to_owned(),
            field(artifact, "type").to_owned(),
            size.unwrap_or_default(),
            output::age(field(artifact, "created_at"), context.now),
            field(artifact, "uri").to_owned(),
        ]
    },
};

fn show(client: &Client, kind: Kind, answer: &Value, rows: &[Value], format: Format) -> anyhow::Result<()> {
    if output::raw(answer, format)? {
        return Ok(());
    }
    let mut experiments = HashMap::new();
    if kind == Kind::RUN {
        let known = pages(client, "experiments", "experiments", &[], 200)?;
        for experiment in known["experiments"].as_array().into_iter().flatten() {
            let name = field(experiment, "display_name").to_owned();
            experiments.insert(field(experiment, "experiment_id").to_owned(), name);
        }
    }
    let context = Context {
        now: Timestamp::now(),
        experiments,
    };
    let columns = columns(kind);
    let mut table = Table::new(columns.headings.iter().copied());
    rows.iter()
        .for_each(|row| table.row((columns.row)(row, &context)));
    if table.is_empty() {
        writeln!(io::stderr(), "there are no {}", kind.plural)?;
        return Ok(());
    }
    let mut out = io::stdout().lock();
    let colour = output::has_colour(&out);
    write(&mut out, &table, colour)?;
    Ok(out.flush()?)
}

/// Says how many were not shown.
pub(super) fn say_more(listed: &Value, list: &str) -> anyhow::Result<()> {
    let shown = listed[list].as_array().map_or(0, Vec::len) as u64;
    let total = match &listed["total_size"] {
        Value::String(text) => text.parse().unwrap_or(0),
        other => other.as_u64().unwrap_or(0),
    };
    if total > shown {
        writeln!(
            io::stderr(),
            "… and {} older ones: `--limit {total}`",
            total - shown
        )?;
    }
    Ok(())
}

/// Writes a table with its states coloured.
pub(super) fn write(out: &mut impl Write, table: &Table, colour: bool) -> io::Result<()> {
    for line in table.lines() {
        let state = line
            .split("  ")
            .map(str::trim)
            .find(|cell| runs::is_over(cell) || *cell == "RUNNING");
        match state.filter(|_| colour) {
            Some(state) => writeln!(out, "{}", line.replacen(state, &output::state(state, true), 1))?,
            None => writeln!(out, "{line}")?,
        }
    }
    Ok(())
}

/// The first so many of a list, as many pages as it takes, as one answer.
pub(super) fn pages(
    client: &Client,
    path: &str,
    list: &str,
    query: &[(&str, &str)],
    limit: u32,
) -> anyhow::Result<Value> {
    const LARGEST_PAGE: u32 = 200;
    let mut all: Value = Value::Null;
    let mut token = String::new();
    loop {
        let have = all[list].as_array().map_or(0, Vec::len);
        let left = limit
            .saturating_sub(u32::try_from(have).unwrap_or(u32::MAX))
            .min(LARGEST_PAGE);
        if have > 0 && left == 0 {
            return Ok(all);
        }
        let size = left.max(1).to_string();
        let mut query = query.to_vec();
        query.push(("page_size", &size));
        if !token.is_empty() {
            query.push(("page_token", &token));
        }
        let mut page = client.get(&format!("{PIPELINES}/{path}"), &query)?;
        let next = field(&page, "next_page_token").to_owned();
        let items = page[list].as_array_mut().map(std::mem::take).unwrap_or_default();
        if all.is_null() {
            if let Some(page) = page.as_object_mut() {
                page.remove("next_page_token");
            }
            all = page;
            all[list] = Value::Array(items);
        } else if let Some(known) = all[list].as_array_mut() {
            known.extend(items);
        }
        token = next;
        if token.is_empty() {
            return Ok(all);
        }
    }
}

/// A resource of the Kubernetes API.
pub(super) struct Resource {
    base: String,
    plural: String,
    is_namespaced: bool,
}

impl Resource {
    /// The resource that a word names, as discovery knows it.
    pub(super) fn find(client: &Client, word: &str) -> anyhow::Result<Self> {
        let wanted = word.to_ascii_lowercase();
        let mut bases = vec!["/api/v1".to_owned()];
        let groups = client.get("/apis", &[])?;
        for group in groups["groups"].as_array().into_iter().flatten() {
            bases.push(format!(
                "/apis/{}",
                field(&group["preferredVersion"], "groupVersion")
            ));
        }
        for base in bases {
            // A group that cannot be discovered hides none of the others.
            let Ok(list) = client.get(&base, &[]) else {
                continue;
            };
            let found = list["resources"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|resource| {
                    let names = ["name", "singularName", "kind"]
                        .map(|name| field(resource, name).to_ascii_lowercase());
                    let short = resource["shortNames"].as_array().into_iter().flatten();
                    names.contains(&wanted) || short.filter_map(Value::as_str).any(|name| name == wanted)
                });
            if let Some(resource) = found.filter(|resource| !field(resource, "name").contains('/')) {
                return Ok(Self {
                    base,
                    plural: field(resource, "name").to_owned(),
                    is_namespaced: resource["namespaced"] == true,
                });
            }
        }
        Err(Trouble::error(
            format!("there is no kind of thing called `{word}`"),
            "try runs, experiments, pipelines, schedules, artifacts, cache, pods, events, namespaces, configmaps, \
             secrets, pvc or nodes",
        ))
    }

    /// Where its objects are: of one namespace, or of all.
    pub(super) fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let namespace = namespace.filter(|_| self.is_namespaced);
        let namespace = namespace.map_or_else(String::new, |name| {
            format!("/namespaces/{}", crate::client::segment(name))
        });
        let name = name.map_or_else(String::new, |name| format!("/{}", crate::client::segment(name)));
        format!("{}{namespace}/{}{name}", self.base, self.plural)
    }
}

fn resources(options: &Get, client: &Client, format: Format) -> anyhow::Result<()> {
    const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let resource = Resource::find(client, &options.kind)?;
    let namespace = (!options.scope.all_namespaces).then_some(options.scope.namespace.as_str());
    let path = resource.path(namespace, options.name.as_deref());
    if format != Format::Text {
        output::raw(&client.get(&path, &[])?, format)?;
        return Ok(());
    }
    let answer = client.get_as(&path, &[], TABLE)?;
    let definitions = answer["columnDefinitions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let shown: Vec<usize> = (0..definitions.len())
        .filter(|index| definitions[*index]["priority"] == 0)
        .collect();
    let with_namespace = options.scope.all_namespaces && resource.is_namespaced;
    let headings = with_namespace.then_some("namespace").into_iter();
    let mut table = Table::new(headings.chain(shown.iter().map(|index| field(&definitions[*index], "name"))));
    for row in answer["rows"].as_array().into_iter().flatten() {
        let namespace = field(&row["object"]["metadata"], "namespace").to_owned();
        let cells = shown.iter().map(|index| match &row["cells"][*index] {
            Value::Null => String::new(),
            cell => coracle_api::ir::value::text(cell),
        });
        table.row(with_namespace.then_some(namespace).into_iter().chain(cells));
    }
    if table.is_empty() {
        let place = namespace.filter(|_| resource.is_namespaced);
        let place = place.map_or_else(String::new, |name| format!(" in namespace `{name}`"));
        writeln!(io::stderr(), "there are no {}{place}", resource.plural)?;
        return Ok(());
    }
    Ok(table.print()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_a_namespace_only_where_there_is_one() {
        let resource = |is_namespaced| Resource {
            base: "/api/v1".to_owned(),
            plural: "things".to_owned(),
            is_namespaced,
        };
        assert_eq!(
            resource(true).path(Some("a"), Some("b")),
            "/api/v1/namespaces/a/things/b"
        );
        assert_eq!(resource(true).path(None, None), "/api/v1/things");
        assert_eq!(resource(false).path(Some("a"), Some("b")), "/api/v1/things/b");
    }
}
