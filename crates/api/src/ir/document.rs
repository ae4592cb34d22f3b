//! From the bytes that a client sends to a pipeline that can run, and back to what it reads.
//!
//! A document is one YAML or JSON text holding a `PipelineSpec`, a second YAML text after `---`
//! holding a `PlatformSpec`, or an object `{pipeline_spec, platform_spec}` of both, which is also
//! how the API shows a pipeline with a platform part.

mod fields;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    PipelineSpec,
    platform::{KubernetesExecutorConfig, PipelineConfig},
    validate::{self, Problem},
};

/// What [`KubernetesExecutorConfig::read`] says of a field that it does not know.
const UNKNOWN_SETTING: &str = "there is no such setting";

/// A parsed and validated pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The pipeline.
    pub spec: PipelineSpec,
    /// The platform part, `{platforms: {kubernetes: …}}`, when there is one.
    pub platform: Option<Value>,
    /// The document as the API shows it: the IR, or `{pipeline_spec, platform_spec}`.
    pub value: Value,
    /// What was noticed and does not stop it from running: fields that nobody knows, by place.
    pub warnings: Vec<String>,
}

/// Reads a document from what a client uploaded.
///
/// # Errors
/// The first [`Problem`], with its place in the document.
pub fn parse(bytes: &[u8]) -> Result<Document, Problem> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Problem::at("document", format!("the file is not text: {error}")))?;
    if text.trim().is_empty() {
        return Err(Problem::at(
            "document",
            "the file is empty: expected a compiled pipeline",
        ));
    }
    let mut parts = read(text)?.into_iter().filter(|part| !part.is_null());
    let (first, second) = (parts.next().unwrap_or(Value::Null), parts.next());
    if parts.next().is_some() {
        return Err(Problem::at(
            "document",
            "expected one YAML document, or two (pipeline and platform), found more",
        ));
    }
    match second {
        None => from_value(&first),
        Some(second) => build(first, Some(second)),
    }
}

/// Reads a document from the `pipeline_spec` of a request.
///
/// # Errors
/// The first [`Problem`], with its place in the document.
pub fn from_value(value: &Value) -> Result<Document, Problem> {
    let part = |snake: &str, camel: &str| value.get(snake).or_else(|| value.get(camel)).cloned();
    match part("pipeline_spec", "pipelineSpec") {
        Some(pipeline) => build(pipeline, part("platform_spec", "platformSpec")),
        None => build(value.clone(), None),
    }
}

/// The fields of a document that nobody knows, one sentence each: [`Document::warnings`] of a
/// document that was read before.
#[must_use]
pub fn unknown_fields(value: &Value) -> Vec<String> {
    match value.get("pipeline_spec") {
        Some(pipeline) => fields::unknown(pipeline, value.get("platform_spec")),
        None => fields::unknown(value, None),
    }
}

fn read(text: &str) -> Result<Vec<Value>, Problem> {
    if text.trim_start().starts_with('{')
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(vec![value]);
    }
    // libyaml's reading, as PyYAML writes: other parsers refuse some of its line breaks.
    yaml_serde::Deserializer::from_str(text)
        .map(Value::deserialize)
        .collect::<Result<_, _>>()
        .map_err(|error| Problem::at("document", format!("the file is neither YAML nor JSON: {error}")))
}

fn build(pipeline: Value, platform: Option<Value>) -> Result<Document, Problem> {
    refuse_what_is_no_pipeline(&pipeline)?;
    let spec: PipelineSpec = serde_path_to_error::deserialize(&pipeline).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { "document".to_owned() } else { path };
        Problem::at(path, error.into_inner().to_string())
    })?;
    let platform = platform.filter(|platform| !platform.as_object().is_none_or(serde_json::Map::is_empty));
    if let Some(platform) = &platform
        && !platform.get("platforms").is_some_and(Value::is_object)
    {
        return Err(Problem::at(
            "platforms",
            "the platform part holds no object `platforms`",
        ));
    }
    validate::check(&spec)?;
    check_platform(&spec, platform.as_ref())?;
    let warnings = fields::unknown(&pipeline, platform.as_ref());
    let value = match &platform {
        None => pipeline,
        Some(platform) => json!({"pipeline_spec": pipeline, "platform_spec": platform}),
    };
    Ok(Document {
        spec,
        platform,
        value,
        warnings,
    })
}

/// Checks the Kubernetes part: what it holds is of the types that it must be of. Fields that nobody
/// knows are for the warnings, and fail the task that they are for.
fn check_platform(spec: &PipelineSpec, platform: Option<&Value>) -> Result<(), Problem> {
    const AT: &str = "platforms.kubernetes";
    let kubernetes = platform.and_then(|platform| platform.pointer("/platforms/kubernetes"));
    let part =
        |camel: &str, snake: &str| kubernetes.and_then(|part| part.get(camel).or_else(|| part.get(snake)));
    let executors = part("deploymentSpec", "deployment_spec")
        .and_then(|part| part.get("executors"))
        .and_then(Value::as_object);
    for (label, settings) in executors.into_iter().flatten() {
        let at = format!("{AT}.deploymentSpec.executors.{label}");
        let Some(settings) = settings.as_object() else {
            return Err(Problem::at(at, "expected an object with settings"));
        };
        if let Err(error) = KubernetesExecutorConfig::read(settings)
            && error.message != UNKNOWN_SETTING
        {
            return Err(Problem::at(format!("{at}.{}", error.path), error.message));
        }
    }
    let config = match part("pipelineConfig", "pipeline_config") {
        None | Some(Value::Null) => PipelineConfig::default(),
        Some(config) => serde_path_to_error::deserialize(config).map_err(|error| {
            let path = error.path().to_string();
            Problem::at(
                format!("{AT}.pipelineConfig.{path}"),
                error.into_inner().to_string(),
            )
        })?,
    };
    if config.workspace.is_some() {
        return Ok(());
    }
    let downloads = spec.deployment_spec.executors.iter().find(|(_, executor)| {
        executor
            .importer
            .as_ref()
            .is_some_and(|importer| importer.download_to_workspace)
    });
    match downloads {
        None => Ok(()),
        Some((label, _)) => Err(Problem::at(
            format!("deploymentSpec.executors.{label}.importer.downloadToWorkspace"),
            "the pipeline has no workspace: set `pipelineConfig.workspace` in its platform part",
        )),
    }
}

/// Says so plainly when somebody uploads another kind of file.
fn refuse_what_is_no_pipeline(value: &Value) -> Result<(), Problem> {
    let Some(object) = value.as_object() else {
        return Err(Problem::at(
            "document",
            "this is no pipeline: expected an object with `pipelineInfo` and `root`",
        ));
    };
    if object.get("kind").and_then(Value::as_str) == Some("Workflow") {
        return Err(Problem::at(
            "kind",
            "this is an Argo Workflow, as kfp 1.x compiles; compile it again with kfp 2 (`kfp dsl compile`)",
        ));
    }
    for field in ["pipelineInfo", "root"] {
        if !object.contains_key(field) {
            let known = object.get("kind").and_then(Value::as_str);
            let what = known.map_or_else(String::new, |kind| {
                format!(" (it looks like a Kubernetes {kind})")
            });
            return Err(Problem::at(
                field,
                format!("missing: this is no compiled pipeline{what}"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r"
pipelineInfo: {name: one-step}
schemaVersion: 2.1.0
root:
  dag:
    tasks:
      say:
        componentRef: {name: comp-say}
        taskInfo: {name: say}
components:
  comp-say: {executorLabel: exec-say}
deploymentSpec:
  executors:
    exec-say: {container: {image: alpine, command: [echo, hello]}}
";

    fn problem(text: &str) -> String {
        parse(text.as_bytes()).expect_err("must be refused").to_string()
    }

    #[test]
    fn a_compiled_pipeline_is_read_and_shown_as_it_came() {
        let document = parse(MINIMAL.as_bytes()).expect("valid");
        assert_eq!(document.spec.pipeline_info.name, "one-step");
        assert_eq!(
            document.value["root"]["dag"]["tasks"]["say"]["taskInfo"]["name"],
            "say"
        );
        assert_eq!(from_value(&document.value), Ok(document));
    }

    #[test]
    fn a_parameter_may_be_called_n() {
        let text = MINIMAL
            .replace("componentRef: {name: comp-say}", "componentRef: {name: comp-say}\n        inputs: {parameters: {n: {componentInputParameter: n}}}")
            .replace("{executorLabel: exec-say}", "{executorLabel: exec-say, inputDefinitions: {parameters: {n: {parameterType: NUMBER_INTEGER}}}}")
            .replace("root:\n", "root:\n  inputDefinitions: {parameters: {n: {parameterType: NUMBER_INTEGER}}}\n");
        let document = parse(text.as_bytes()).expect("valid");
        assert!(document.spec.root.input_definitions.parameters.contains_key("n"));
    }

    #[test]
    fn a_second_document_is_the_platform_part() {
        let text =
            format!("{MINIMAL}---\nplatforms: {{kubernetes: {{deploymentSpec: {{executors: {{}}}}}}}}\n");
        let document = parse(text.as_bytes()).expect("valid");
        assert!(document.platform.is_some());
        assert_eq!(
            document.value["pipeline_spec"]["pipelineInfo"]["name"],
            "one-step"
        );
        assert_eq!(from_value(&document.value), Ok(document));
    }

    #[test]
    fn a_download_to_a_workspace_needs_one() {
        let text = MINIMAL
            .replace(
                "{container: {image: alpine, command: [echo, hello]}}",
                "{importer: {artifactUri: {constant: /x}, downloadToWorkspace: true}}",
            )
            .replace(
                "{executorLabel: exec-say}",
                "{executorLabel: exec-say, outputDefinitions: {artifacts: {artifact: {}}}}",
            );
        assert_eq!(
            problem(&text),
            "`deploymentSpec.executors.exec-say.importer.downloadToWorkspace`: the pipeline has no workspace: \
             set `pipelineConfig.workspace` in its platform part"
        );
        let text = format!(
            "{text}---\nplatforms: {{kubernetes: {{pipelineConfig: {{workspace: {{size: 1Gi}}}}}}}}\n"
        );
        assert!(parse(text.as_bytes()).is_ok());
    }

    #[test]
    fn settings_of_the_wrong_type_are_refused_and_unknown_ones_told() {
        let with =
            |part: &str| parse(format!("{MINIMAL}---\nplatforms: {{kubernetes: {{{part}}}}}\n").as_bytes());
        let executor = |settings: &str| {
            with(&format!(
                "deploymentSpec: {{executors: {{exec-say: {{{settings}}}}}}}"
            ))
        };
        let place = |result: Result<Document, Problem>| result.expect_err("refused").path;
        assert!(executor("imagePullPolicy: Always, secret_as_env: []").is_ok());
        assert_eq!(
            place(executor("imagePullPolicy: 7")),
            "platforms.kubernetes.deploymentSpec.executors.exec-say.imagePullPolicy"
        );
        assert_eq!(
            place(with("pipelineConfig: {activeDeadlineSeconds: soon}")),
            "platforms.kubernetes.pipelineConfig.activeDeadlineSeconds"
        );
        let told = executor("colour: red").expect("only told").warnings;
        assert_eq!(
            told,
            ["`platforms.kubernetes.deploymentSpec.executors.exec-say.colour`: unknown field, ignored"]
        );
    }

    #[test]
    fn unknown_fields_are_told_and_kept() {
        let document = parse(format!("colour: red\n{MINIMAL}").as_bytes()).expect("valid");
        assert_eq!(document.warnings, ["`colour`: unknown field, ignored"]);
        assert_eq!(document.value["colour"], "red");
    }

    #[test]
    fn what_is_no_pipeline_is_refused_by_what_it_is() {
        for (text, expected) in [
            ("", "`document`: the file is empty: expected a compiled pipeline"),
            (
                "just words",
                "`document`: this is no pipeline: expected an object with `pipelineInfo` and `root`",
            ),
            (
                "kind: Pod\nmetadata: {}",
                "`pipelineInfo`: missing: this is no compiled pipeline (it looks like a Kubernetes Pod)",
            ),
            (
                "pipelineInfo: {name: x}",
                "`root`: missing: this is no compiled pipeline",
            ),
        ] {
            assert_eq!(problem(text), expected);
        }
        assert!(problem("kind: Workflow").contains("compile it again with kfp 2"));
        assert!(problem("a: [1, 2").starts_with("`document`: the file is neither YAML nor JSON"));
        assert!(
            parse(b"\xff\xfe")
                .expect_err("refused")
                .message
                .starts_with("the file is not text")
        );
    }

    #[test]
    fn a_field_of_the_wrong_type_is_named_by_its_path() {
        let text = MINIMAL.replace("command: [echo, hello]", "command: 7");
        assert!(
            problem(&text).starts_with("`deploymentSpec.executors.exec-say.container.command`: invalid type")
        );
    }

    #[test]
    fn a_document_that_grows_without_end_is_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let previous = format!("*a{}, ", level - 1).repeat(9);
            text.push_str(&format!("a{level}: &a{level} [{previous}]\n"));
        }
        assert!(problem(&text).starts_with("`document`"));
    }
}
