//! What each placeholder becomes.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{ir::ParameterType, launch::OutputParameter};

struct Fixture {
    input: ExecutorInput,
    declared: BTreeMap<String, ParameterDefault>,
    context: BTreeMap<String, String>,
}

impl Fixture {
    fn new() -> Self {
        let input = serde_json::from_value(json!({
            "inputs": {
                "parameterValues": {
                    "n": 3, "rate": 0.5, "text": "a b", "yes": true, "list": [1, "x"],
                    "map": {"k": {"deep": 7}}, "tricky": "{{$.inputs.parameters['n']}}",
                    "it's": "quoted", "nothing": null,
                },
                "artifacts": {
                    "data": {"artifacts": [
                        {"name": "d1", "type": {"schemaTitle": "system.Dataset"}, "uri": "gs://b/o",
                         "metadata": {"rows": 10, "it's": "odd"}},
                        {"name": "d2", "uri": "/second"},
                    ]},
                    "moved": {"artifacts": [{"uri": "https://h/x", "customPath": "/local/x"}]},
                    "empty": {"artifacts": []},
                },
            },
            "outputs": {
                "artifacts": {"model": {"artifacts": [{"name": "model", "uri": "/store/model"}]}},
                "outputFile": "/t/output_metadata.json",
            },
        }));
        let mut input: ExecutorInput = input.expect("a valid executor input");
        let answer = OutputParameter {
            output_file: "/t/answer".to_owned(),
        };
        input.outputs.parameters.insert("answer".to_owned(), answer);
        let absent = ParameterDefault {
            parameter_type: ParameterType::String,
            default_value: None,
        };
        let context = [
            ("pipeline_job_name", "my run"),
            ("pipeline_job_uuid", "0198"),
            ("pipeline_job_resource_name", "my-run-x1"),
            ("pipeline_task_name", "train"),
            ("pipeline_task_uuid", "77"),
            ("pipeline_root", "/store"),
            ("pipeline_job_create_time_utc", "2026-01-02T03:04:05Z"),
            ("pipeline_job_schedule_time_utc", "2026-01-02T03:00:00Z"),
            ("workspace_path", "/kfp-workspace"),
        ];
        Self {
            input,
            declared: BTreeMap::from([("absent".to_owned(), absent)]),
            context: context
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        }
    }

    fn scope(&self) -> Scope<'_> {
        Scope {
            input: &self.input,
            declared: &self.declared,
            context: &self.context,
        }
    }

    fn one(&self, element: &str) -> Result<Vec<String>, String> {
        resolve(&[element.to_owned()], &self.scope()).map_err(|error| error.to_string())
    }
}

#[test]
fn each_placeholder_becomes_its_value() {
    let fixture = Fixture::new();
    for (element, expected) in [
        ("{{$.inputs.parameters['n']}}", "3"),
        ("{{$.inputs.parameters['rate']}}", "0.5"),
        ("{{$.inputs.parameters[\"text\"]}}", "a b"),
        ("{{$.inputs.parameters[''yes'']}}", "true"),
        ("{{$.inputs.parameters['list']}}", r#"[1,"x"]"#),
        ("{{$.inputs.parameters['map']}}", r#"{"k":{"deep":7}}"#),
        ("{{$.inputs.parameters['map']['k'].deep}}", "7"),
        ("{{$.inputs.parameters['it's']}}", "quoted"),
        (
            "{{$.inputs.parameters['tricky']}}",
            "{{$.inputs.parameters['n']}}",
        ),
        (
            "--n={{$.inputs.parameters['n']}},{{$.inputs.parameters['yes']}}}",
            "--n=3,true}",
        ),
        ("<{{$.inputs.parameters['absent']}}>", "<null>"),
        ("{{$.inputs.artifacts['data'].uri}}", "gs://b/o"),
        ("{{$.inputs.artifacts['data'].path}}", "/gcs/b/o"),
        ("{{$.inputs.artifacts['data'].name}}", "d1"),
        (
            "{{$.inputs.artifacts['data'].metadata}}",
            r#"{"rows":10,"it's":"odd"}"#,
        ),
        ("{{$.inputs.artifacts['data'].metadata['rows']}}", "10"),
        ("{{$.inputs.artifacts['data'].metadata['it's']}}", "odd"),
        ("{{$.inputs.artifacts['empty']}}", r#"{"artifacts":[]}"#),
        ("{{$.inputs.artifacts['moved'].path}}", "/local/x"),
        ("{{$.outputs.artifacts['model'].path}}/w", "/store/model/w"),
        ("{{$.outputs.artifacts['model'].uri}}", "/store/model"),
        ("{{$.outputs.parameters['answer'].output_file}}", "/t/answer"),
        ("{{$.outputs.output_file}}", "/t/output_metadata.json"),
        ("{{$.outputs.outputFile}}", "/t/output_metadata.json"),
        ("{{$.outputMetadataUri}}", "/t/output_metadata.json"),
        ("{{$.pipeline_job_name}}", "my run"),
        ("{{$.pipeline_job_uuid}}", "0198"),
        ("{{$.pipeline_job_resource_name}}", "my-run-x1"),
        ("{{$.pipeline_task_name}}", "train"),
        ("{{$.pipeline_task_uuid}}", "77"),
        ("{{$.pipeline_root}}/tmp", "/store/tmp"),
        ("{{$.pipeline_job_create_time_utc}}", "2026-01-02T03:04:05Z"),
        ("{{$.pipeline_job_schedule_time_utc}}", "2026-01-02T03:00:00Z"),
        ("{{$.workspace_path}}/repo", "/kfp-workspace/repo"),
        ("helm {{$.Values.image}} {{$.x", "helm {{$.Values.image}} {{$.x"),
    ] {
        assert_eq!(fixture.one(element), Ok(vec![expected.to_owned()]), "{element}");
    }
}

#[test]
fn the_whole_executor_input_is_json_that_reads_back() {
    let fixture = Fixture::new();
    let resolved = fixture.one("{{$}}").expect("resolves");
    let read: ExecutorInput = serde_json::from_str(&resolved[0]).expect("JSON");
    let mut expected = fixture.input.clone();
    // The SDK derives the path from the URI alone.
    expected.inputs.artifacts["moved"].artifacts[0].uri = "/local/x".to_owned();
    assert_eq!(read, expected);
    assert!(
        resolved[0].contains(r#""outputFile":"/t/answer""#),
        "{}",
        resolved[0]
    );
}

#[test]
fn what_has_no_value_is_left_out() {
    let fixture = Fixture::new();
    for element in [
        "{{$.inputs.parameters['absent']}}",
        "{{$.inputs.parameters['nothing']}}",
    ] {
        assert_eq!(fixture.one(element), Ok(vec![]), "{element}");
    }
}

#[test]
fn a_name_that_means_nothing_is_an_error() {
    let fixture = Fixture::new();
    for (element, why) in [
        (
            "{{$.inputs.parameters['other']}}",
            "the task has no input parameter `other`",
        ),
        (
            "{{$.inputs.artifacts['other'].path}}",
            "the task was given no artifact `other` (if it is optional, put the argument in IfPresent)",
        ),
        (
            "{{$.inputs.artifacts['empty'].path}}",
            "its list of artifacts is empty",
        ),
        (
            "{{$.inputs.artifacts['data'].size}}",
            "an artifact has no `size` (it has uri, path, name, metadata)",
        ),
        (
            "{{$.inputs.artifacts['data'].metadata['x']}}",
            "the artifact's metadata has no `x`",
        ),
        ("{{$.inputs.parameters['map']['x']}}", "the value has no `x`"),
        (
            "{{$.outputs.artifacts['other'].uri}}",
            "the task has no output artifact `other`",
        ),
        (
            "{{$.outputs.parameters['other'].output_file}}",
            "the task has no output parameter `other`",
        ),
        (
            "{{$.outputs.parameters['answer'].uri}}",
            "no such placeholder exists",
        ),
        ("{{$.inputs}}", "no such placeholder exists"),
        (
            "{{$.pipeline_google_cloud_location}}",
            "it has no meaning outside the cloud service it is for",
        ),
        ("{{$.json_escape[1]}}", ""),
    ] {
        let found = fixture.one(&format!("a {element}"));
        if why.is_empty() {
            assert_eq!(
                found,
                Ok(vec![format!("a {element}")]),
                "not a placeholder at all"
            );
        } else {
            assert_eq!(found, Err(format!("cannot resolve `{element}`: {why}")));
        }
    }
    let context = BTreeMap::new();
    let scope = Scope {
        context: &context,
        ..fixture.scope()
    };
    let error = resolve_text("{{$.workspace_path}}", &scope).expect_err("no workspace");
    assert!(error.to_string().contains("no workspace"));
}

#[test]
fn if_present_and_concat_nest_and_splice() {
    let fixture = Fixture::new();
    for (structure, expected) in [
        (
            json!({"IfPresent": {"InputName": "n", "Then": ["--n", "{{$.inputs.parameters['n']}}"]}}),
            vec!["--n", "3"],
        ),
        (
            json!({"IfPresent": {"InputName": "absent", "Then": ["x"]}}),
            vec![],
        ),
        (
            json!({"IfPresent": {"InputName": "nothing", "Then": "x", "Else": "none"}}),
            vec!["none"],
        ),
        (
            json!({"IfPresent": {"InputName": "data", "Then": "x", "Else": ["a", "b"]}}),
            vec!["x"],
        ),
        (
            json!({"Concat": ["p-", "{{$.inputs.parameters['text']}}", "{{$.outputs.artifacts['model'].uri}}"]}),
            vec!["p-a b/store/model"],
        ),
        (
            json!({"Concat": ["a", {"IfPresent": {"InputName": "absent", "Then": "x"}},
                {"Concat": ["b", {"IfPresent": {"InputName": "n", "Then": {"Concat": ["c", "d"]}}}]}]}),
            vec!["abcd"],
        ),
        (
            json!({"IfPresent": {"InputName": "n", "Then": ["a",
                {"IfPresent": {"InputName": "absent", "Then": "b"}}, {"Concat": ["c", "d"]}]}}),
            vec!["a", "cd"],
        ),
        (json!({"Concat": []}), vec![""]),
        (
            json!({"Concat": ["{{$.inputs.parameters['absent']}}", "z"]}),
            vec!["z"],
        ),
    ] {
        let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(fixture.one(&structure.to_string()), Ok(expected), "{structure}");
    }
}

#[test]
fn json_that_is_no_structure_is_text() {
    let fixture = Fixture::new();
    for text in [
        r#"{"Concat": "x"}"#,
        r#"{"IfPresent": {}}"#,
        r#"{"Concat": [], "x": 1}"#,
        r#"{"a": 1}"#,
        "{",
    ] {
        assert_eq!(fixture.one(text), Ok(vec![text.to_owned()]));
    }
    assert!(fixture.one(r#"{"Concat": [{"If": 1}]}"#).is_err());
}

#[test]
fn a_constant_takes_the_context_anywhere() {
    let fixture = Fixture::new();
    for (text, expected) in [
        ("{{$.pipeline_job_name}}", "my run"),
        ("run {{$.pipeline_job_name}}", "run my run"),
        ("{{$.workspace_path}}/a", "/kfp-workspace/a"),
        ("{{$.pipeline_unknown}}", "{{$.pipeline_unknown}}"),
        ("{{$}}", "{{$}}"),
        ("plain", "plain"),
    ] {
        assert_eq!(constant(text, &fixture.context), expected);
    }
}

#[test]
fn a_constant_takes_other_inputs_at_any_depth() {
    let fixture = Fixture::new();
    let found = references(
        &json!({
            "a": "{{$.inputs.parameters['n']}}-{{$.inputs.parameters['text']}}",
            "b": [{"c": "{{$.inputs.parameters['list']}}"}, 2],
            "d": "{{$.inputs.parameters['other']}} {{$.pipeline_job_name}}",
        }),
        &fixture.input.inputs.parameter_values,
    );
    let expected = json!({
        "a": "3-a b", "b": [{"c": "[1,\"x\"]"}, 2],
        "d": "{{$.inputs.parameters['other']}} {{$.pipeline_job_name}}",
    });
    assert_eq!(found, expected);
}

#[test]
fn values_resolve_in_keys_and_texts() {
    let fixture = Fixture::new();
    let value = json!({"{{$.inputs.parameters['n']}}": ["{{$.inputs.parameters['text']}}", 1, null]});
    assert_eq!(
        resolve_value(&value, &fixture.scope()),
        Ok(json!({"3": ["a b", 1, null]}))
    );
    assert_eq!(
        resolve_text("img:{{$.inputs.parameters['n']}}", &fixture.scope()),
        Ok("img:3".to_owned())
    );
}

#[test]
fn uris_become_the_paths_that_the_sdk_expects() {
    for (uri, expected) in [
        ("gs://b/o", "/gcs/b/o"),
        ("s3://b/o", "/s3/b/o"),
        ("minio://b/o", "/minio/b/o"),
        ("oci://r/i:t", "/oci/r_i:t"),
        ("/a/b", "/a/b"),
        ("https://h/x", "https://h/x"),
    ] {
        assert_eq!(path_of_uri(uri), expected);
    }
}

#[test]
fn an_artifact_in_the_workspace_has_its_path_there() {
    let artifact = |value| serde_json::from_value::<RuntimeArtifact>(value).expect("an artifact");
    let found = path(&artifact(
        json!({"uri": "gs://b/o", "metadata": {"_kfp_workspace": true}}),
    ));
    assert_eq!(found, "/kfp-workspace/.artifacts/gcs/b/o");
    assert_eq!(path(&artifact(json!({"uri": "/a", "customPath": ""}))), "/a");
}

#[test]
fn presence_is_a_matter_of_shape() {
    assert!(is_present("a {{$.pipeline_job_name}}"));
    assert!(!is_present("a {{$ x}}"));
}

proptest! {
    #[test]
    fn text_without_a_placeholder_is_unchanged(text in "[^$]*") {
        prop_assume!(structure(&text).is_none());
        let fixture = Fixture::new();
        prop_assert_eq!(fixture.one(&text), Ok(vec![text.clone()]));
        prop_assert_eq!(constant(&text, &fixture.context), text.clone());
    }

    #[test]
    fn nothing_that_is_written_makes_it_panic(text in r#"(\{\{\$|\}\}|\.|inputs|parameters|\['|'\]|n|é|\{|\}){0,12}"#) {
        let fixture = Fixture::new();
        let _ = fixture.one(&text);
    }
}
