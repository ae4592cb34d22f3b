//! What a run or a schedule is made from: a file with a pipeline, or one that was uploaded.

use std::{fs, path::Path};

use anyhow::Context;
use coracle_api::{
    id::RunId,
    ir::{
        document::{self, Document},
        validate,
        value::text,
    },
    schedule::Macros,
};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{
    arguments::Choice,
    client::{Client, PIPELINES, segment},
    compile::compile,
    kind::Kind,
    output::field,
    parameters,
    trouble::Trouble,
};

/// A pipeline that was found.
pub(crate) struct Source {
    /// What it says.
    pub(crate) document: Document,
    /// Where it was uploaded, unless it comes from a file.
    uploaded: Option<Uploaded>,
}

/// A pipeline on the server.
struct Uploaded {
    pipeline: String,
    /// The version that was asked for, else the latest.
    version: String,
    is_pinned: bool,
}

impl Source {
    /// The pipeline that was chosen: compiled, read, or looked up.
    pub(crate) fn find(choice: &Choice, client: &Client) -> anyhow::Result<Self> {
        let file = &choice.file;
        let extension = file.extension().and_then(|extension| extension.to_str());
        let is_file = matches!(extension, Some("py" | "yaml" | "yml" | "json")) || file.exists();
        if is_file && choice.pipeline_version.is_none() {
            let document = load(choice)?;
            return Ok(Self {
                document,
                uploaded: None,
            });
        }
        let name = file.to_string_lossy();
        let pipeline = Kind::PIPELINE
            .find(client, &name)
            .map_err(|error| explain(error, &name))?;
        let path = Kind::PIPELINE.of(&pipeline, "/versions");
        let version = match &choice.pipeline_version {
            None => {
                let query = [("sort_by", "created_at desc"), ("page_size", "1")];
                client.get(&path, &query)?["pipeline_versions"][0].take()
            }
            Some(wanted) if wanted.parse::<RunId>().is_ok() => {
                client.get(&format!("{path}/{}", segment(wanted)), &[])?
            }
            Some(wanted) => {
                let filter =
                    json!({"predicates": [{"operation": "EQUALS", "key": "name", "string_value": wanted}]});
                client.get(&path, &[("filter", &filter.to_string())])?["pipeline_versions"][0].take()
            }
        };
        let id = field(&version, "pipeline_version_id").to_owned();
        if id.is_empty() {
            let wanted = choice.pipeline_version.as_deref();
            return Err(Trouble::error(
                format!(
                    "pipeline `{name}` has no version{}",
                    wanted.map_or_else(String::new, |wanted| format!(" `{wanted}`"))
                ),
                format!("`coracle describe pipeline {name}` shows its versions"),
            ));
        }
        // Lists may leave the document out.
        let version = match version["pipeline_spec"].is_object() {
            true => version,
            false => client.get(&format!("{path}/{}", segment(&id)), &[])?,
        };
        let document = document::from_value(&version["pipeline_spec"])
            .map_err(|problem| anyhow::anyhow!("the pipeline `{name}` cannot be used: {problem}"))?;
        Ok(Self {
            document,
            uploaded: Some(Uploaded {
                pipeline,
                version: id,
                is_pinned: choice.pipeline_version.is_some(),
            }),
        })
    }

    /// The values that were given, checked against what the pipeline takes. What stands for a
    /// time or a number in them is replaced by the server.
    pub(crate) fn parameters(&self, choice: &Choice) -> anyhow::Result<Map<String, Value>> {
        let spec = &self.document.spec;
        let values = parameters::values(&choice.parameters, spec);
        let now = Timestamp::now();
        let macros = Macros {
            run_id: RunId::new(),
            now,
            scheduled: Some(now),
            index: Some(1),
        };
        validate::check_parameters(spec, &macros.expand_parameters(&values)).map_err(|problem| {
            Trouble::error(
                format!("the run's parameters cannot be used: {problem}"),
                signature(&self.document),
            )
        })?;
        Ok(values)
    }

    /// The name of the pipeline.
    pub(crate) fn name(&self) -> &str {
        &self.document.spec.pipeline_info.name
    }

    /// Writes into a request what it is made from. `latest`: an uploaded pipeline without a
    /// version is to be its latest one whenever a run is made.
    pub(crate) fn write(&self, body: &mut Value, latest: bool) {
        match &self.uploaded {
            None => body["pipeline_spec"] = self.document.value.clone(),
            Some(uploaded) => {
                let mut reference = json!({"pipeline_id": uploaded.pipeline});
                if uploaded.is_pinned || !latest {
                    reference["pipeline_version_id"] = json!(uploaded.version);
                }
                body["pipeline_version_reference"] = reference;
            }
        }
    }

    /// Turns caching off for every task, which only works with the document itself.
    pub(crate) fn without_cache(&mut self) {
        let document = &mut self.document.value;
        let spec = if document["pipeline_spec"].is_object() {
            &mut document["pipeline_spec"]
        } else {
            document
        };
        let off = |component: &mut Value| {
            // Not by index, which would add what is not there.
            let tasks = component.pointer_mut("/dag/tasks").and_then(Value::as_object_mut);
            for task in tasks.into_iter().flat_map(Map::values_mut) {
                task["cachingOptions"] = json!({});
            }
        };
        off(&mut spec["root"]);
        spec["components"]
            .as_object_mut()
            .into_iter()
            .flat_map(Map::values_mut)
            .for_each(off);
        self.uploaded = None;
    }
}

/// The experiment of a name, which is made if it is not there.
pub(crate) fn experiment_id(client: &Client, name: &str) -> anyhow::Result<String> {
    let path = format!("{PIPELINES}/experiments");
    let filter =
        json!({"predicates": [{"operation": "EQUALS", "key": "display_name", "string_value": name}]});
    let found = client.get(&path, &[("filter", &filter.to_string())])?;
    let id = field(&found["experiments"][0], "experiment_id");
    if !id.is_empty() {
        return Ok(id.to_owned());
    }
    let made = client.post(&path, &json!({"display_name": name}))?;
    Ok(field(&made, "experiment_id").to_owned())
}

fn explain(error: anyhow::Error, name: &str) -> anyhow::Error {
    if error.is::<Trouble>() {
        Trouble::error(
            format!("`{name}` is neither a file nor an uploaded pipeline"),
            "give a Python file (.py), a compiled pipeline (.yaml, .json), or a name that \
             `coracle get pipelines` shows",
        )
    } else {
        error
    }
}

fn load(choice: &Choice) -> anyhow::Result<Document> {
    let file = &choice.file;
    fs::metadata(file).with_context(|| format!("cannot read `{}`", file.display()))?;
    let bytes = match file.extension().and_then(|extension| extension.to_str()) {
        Some("py") => compile(file, choice.function.as_deref(), choice.python.as_deref())?,
        Some("yaml" | "yml" | "json") => {
            fs::read(file).with_context(|| format!("cannot read `{}`", file.display()))?
        }
        _ => {
            return Err(Trouble::error(
                format!("`{}` is no pipeline", file.display()),
                "give a Python file (.py) or a compiled pipeline (.yaml, .json)",
            ));
        }
    };
    document::parse(&bytes).map_err(|problem| unusable(file, &problem))
}

fn unusable(file: &Path, problem: &validate::Problem) -> anyhow::Error {
    anyhow::anyhow!("the pipeline in `{}` cannot be used: {problem}", file.display())
}

/// What the pipeline takes, in one line.
fn signature(document: &Document) -> String {
    let inputs = &document.spec.root.input_definitions.parameters;
    if inputs.is_empty() {
        return "this pipeline takes no parameters".to_owned();
    }
    let described = inputs.iter().map(|(name, input)| {
        let default = input.default_value.as_ref().map(|value| match value {
            Value::String(_) => format!(" = {value}"),
            _ => format!(" = {}", text(value)),
        });
        format!("{name}: {}{}", input.parameter_type, default.unwrap_or_default())
    });
    format!("this pipeline takes {}", described.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(uploaded: Option<Uploaded>) -> Source {
        let document = json!({
            "pipelineInfo": {"name": "p"}, "schemaVersion": "2.1.0",
            "root": {"dag": {"tasks": {
                "a": {"componentRef": {"name": "c"}, "cachingOptions": {"enableCache": true}, "taskInfo": {"name": "a"}},
                "b": {"componentRef": {"name": "d"}, "taskInfo": {"name": "b"}}}}},
            "components": {
                "c": {"executorLabel": "e"},
                "d": {"dag": {"tasks": {"x": {"componentRef": {"name": "c"}, "cachingOptions": {"enableCache": true},
                    "taskInfo": {"name": "x"}}}}}},
            "deploymentSpec": {"executors": {"e": {"container": {"image": "alpine", "command": ["true"]}}}},
        });
        Source {
            document: document::from_value(&document).expect("valid"),
            uploaded,
        }
    }

    fn uploaded(is_pinned: bool) -> Option<Uploaded> {
        Some(Uploaded {
            pipeline: "p1".to_owned(),
            version: "v1".to_owned(),
            is_pinned,
        })
    }

    #[test]
    fn caching_is_turned_off_at_every_depth() {
        let mut source = source(uploaded(true));
        source.without_cache();
        let mut body = json!({});
        source.write(&mut body, false);
        let text = body.to_string();
        assert!(!text.contains("enableCache"), "{text}");
        assert!(text.contains(r#""cachingOptions":{}"#), "{text}");
        assert_eq!(body["pipeline_version_reference"], Value::Null);
    }

    #[test]
    fn an_uploaded_pipeline_is_referred_to() {
        let written = |is_pinned, latest| {
            let mut body = json!({});
            source(uploaded(is_pinned)).write(&mut body, latest);
            body["pipeline_version_reference"].take()
        };
        let pinned = json!({"pipeline_id": "p1", "pipeline_version_id": "v1"});
        assert_eq!(written(false, false), pinned);
        assert_eq!(written(true, true), pinned);
        assert_eq!(written(false, true), json!({"pipeline_id": "p1"}));
    }
}
