//! Parameters of any size.

use std::fs;

use coracle_api::{launch::SpilledValue, reason::Reason};
use coracle_artifacts::content;
use serde_json::{Value, json};

use crate::task::Task;

#[test]
fn a_large_value_is_kept_in_the_store_and_reported_as_a_reference() {
    let mut task = Task::new("head -c 300000 /dev/zero | tr '\\0' x > $x; echo small > $y");
    task.output_parameter("x", "STRING");
    task.output_parameter("y", "STRING");
    let done = task.run();
    let report = done.succeeded();
    assert_eq!(report.parameters["y"], json!("small\n"));
    let spilled = SpilledValue::of(&report.parameters["x"]).expect("a reference");
    assert_eq!(spilled.size, 300_002);
    assert!(spilled.uri.starts_with(&task.path("").display().to_string()));
    let value: Value = serde_json::from_slice(&fs::read(&spilled.uri).expect("there")).expect("JSON");
    assert_eq!(value, json!("x".repeat(300_000)));
    let measure = content::measure(spilled.uri.as_ref())
        .expect("measurable")
        .expect("there");
    assert_eq!(measure.digest, spilled.digest);
}

#[test]
fn many_values_do_not_make_a_large_report() {
    let mut task = Task::new(
        r#"python3 - <<END
import json, os
json.dump({"parameterValues": {f"p{n}": "x" * 9000 for n in range(600)}}, open(os.environ["METADATA"], "w"))
END"#,
    );
    for number in 0..600 {
        let name = format!("p{number}");
        let path = task.path(&format!("deep/{name}"));
        task.spec["outputParameters"][&name] = json!("STRING");
        task.spec["executorInput"]["outputs"]["parameters"][&name] = json!({"outputFile": path});
    }
    let done = task.run();
    let report = done.succeeded();
    assert_eq!(report.parameters.len(), 600);
    assert!(serde_json::to_string(report).expect("JSON").len() < 3 << 20);
}

#[test]
fn a_value_that_is_too_large_fails_alone_with_its_size() {
    for script in [
        "head -c 40000000 /dev/zero | tr '\\0' x > $x",
        r#"python3 -c 'import json, os; json.dump({"parameterValues": {"x": "x" * 40000000}}, open(os.environ["METADATA"], "w"))'"#,
    ] {
        let mut task = Task::new(script);
        task.output_parameter("x", "STRING");
        let done = task.run();
        let message = done.failure(Reason::OutputParameterTooLarge);
        assert!(
            message.contains("`x`") && message.contains("40000") && message.contains("33554432"),
            "{message}"
        );
        assert!(done.report().parameters.is_empty());
    }
}

#[test]
fn references_are_read_back_at_any_depth() {
    let mut task = Task::new("");
    let keep = |name: &str, value: Value| {
        let path = task.folder.path().join(name);
        fs::write(&path, value.to_string()).expect("written");
        let measure = content::measure(&path).expect("measurable").expect("there");
        SpilledValue {
            uri: path.display().to_string(),
            size: measure.size,
            digest: measure.digest,
        }
        .to_value()
    };
    let (one, two) = (keep("one", json!("1")), keep("two", json!([2, "z"])));
    task.spec["executorInput"]["inputs"]["parameterValues"] = json!({
        "text": two, "list": [one, two, 3], "small": 1,
    });
    task.spec["inputParameters"] = json!({
        "text": {"parameterType": "STRING"}, "list": {"parameterType": "LIST"},
    });
    task.spec["command"] = json!([
        "printf",
        "%s|",
        "{{$.inputs.parameters['text']}}",
        "{{$.inputs.parameters['list']}}"
    ]);
    let done = task.run();
    done.succeeded();
    assert_eq!(done.stdout, r#"[2,"z"]|["1",[2,"z"],3]|"#);

    fs::write(task.folder.path().join("one"), "changed").expect("written");
    let done = task.run();
    let message = done.failure(Reason::InputArtifactUnavailable);
    assert!(
        message.contains("`list`") && message.contains("/one`"),
        "{message}"
    );
}

#[test]
fn an_executor_gets_inputs_that_no_command_line_could_hold() {
    let mut task = Task::new("");
    let modules = task.folder.path().join("kfp/dsl");
    fs::create_dir_all(&modules).expect("created");
    fs::write(task.folder.path().join("kfp/__init__.py"), "").expect("written");
    fs::write(modules.join("__init__.py"), "").expect("written");
    fs::write(
        modules.join("executor_main.py"),
        "import json, os, sys\n\
         given = json.loads(sys.argv[sys.argv.index('--executor_input') + 1])\n\
         print(__name__, sys.argv[1:2], len(given['inputs']['parameterValues']['x']), 'CORACLE_PATH' in os.environ)\n",
    )
    .expect("written");
    task.spec["executorInput"]["inputs"]["parameterValues"] = json!({"x": "é".repeat(2_000_000)});
    task.spec["command"] = json!([
        "sh",
        "-ec",
        "_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main --path \"$0\" \"$@\"",
        "source",
        "--executor_input",
        "{{$}}",
        "--function_to_execute",
        "f"
    ]);
    let done = task.run();
    done.succeeded();
    assert_eq!(done.stdout.trim(), "__main__ ['--path'] 2000000 False");
}
