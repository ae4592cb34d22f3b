//! What the command left behind.

use std::fs;

use coracle_api::reason::Reason;
use serde_json::json;

use crate::task::Task;

#[test]
fn parameters_are_read_from_their_files_by_type() {
    let mut task =
        Task::new("printf 3 >$n; printf ' x\\n' >$s; echo True >$b; echo '[1, {}]' >$l; echo 0.5 >$d");
    for (name, kind) in [
        ("n", "NUMBER_INTEGER"),
        ("s", "STRING"),
        ("b", "BOOLEAN"),
        ("l", "LIST"),
        ("d", "NUMBER_DOUBLE"),
    ] {
        task.output_parameter(name, kind);
    }
    let done = task.run();
    let values = json!({"n": 3, "s": " x\n", "b": true, "l": [1, {}], "d": 0.5});
    assert_eq!(json!(done.succeeded().parameters), values);
}

#[test]
fn the_executors_file_wins_and_adds_metadata() {
    let mut task = Task::new(
        r#"echo file > $s; echo only > $f; echo model > "$data"
        cat > "$METADATA" <<END
        {"parameterValues": {"s": "executor", "n": 2.0, "stray": 1},
         "artifacts": {"data": {"artifacts": [{"name": "named", "uri": "$data",
             "metadata": {"loss": NaN, "rows": 5}}]}, "stray": {"artifacts": []}}}
END"#,
    );
    task.output_parameter("s", "STRING");
    task.output_parameter("n", "NUMBER_INTEGER");
    task.output_parameter("f", "STRING");
    task.output_artifact("data");
    task.output_artifact("metrics");
    let done = task.run();
    let report = done.succeeded();
    assert_eq!(
        json!(report.parameters),
        json!({"s": "executor", "n": 2, "f": "only\n"})
    );
    let names: Vec<_> = report.artifacts.keys().collect();
    assert_eq!(names, ["data", "metrics", "executor-logs"]);
    let log = &report.artifacts["executor-logs"][0];
    assert_eq!(
        (log.artifact.uri.clone(), log.size),
        (task.path("log.txt").display().to_string(), Some(0))
    );
    let data = &report.artifacts["data"][0];
    assert_eq!(
        json!(data.artifact.metadata),
        json!({"before": 1, "loss": "NaN", "rows": 5})
    );
    assert_eq!((data.artifact.name.as_str(), data.size), ("named", Some(6)));
    assert!(
        data.digest
            .as_ref()
            .is_some_and(|digest| digest.starts_with("sha256:"))
    );
    let metrics = &report.artifacts["metrics"][0];
    assert_eq!((&metrics.digest, metrics.size), (&None, None), "never written");
}

#[test]
fn a_parameter_without_a_value_is_named() {
    let mut task = Task::new("exit 0");
    task.output_parameter("answer", "STRING");
    let done = task.run();
    let message = done.failure(Reason::OutputParameterMissing);
    assert!(
        message.contains("`answer` (STRING)") && message.contains("/deep/answer"),
        "{message}"
    );
    assert_eq!((done.code, done.report().exit_code), (Some(1), Some(0)));
}

#[test]
fn a_parameter_of_another_type_is_told_with_its_value() {
    for script in [
        "echo much > $n",
        r#"echo '{"parameterValues": {"n": "much"}}' > "$METADATA""#,
    ] {
        let mut task = Task::new(script);
        task.output_parameter("n", "NUMBER_INTEGER");
        let done = task.run();
        let message = done.failure(Reason::OutputParameterInvalid);
        assert!(
            message.contains("`n`") && message.contains("expected NUMBER_INTEGER"),
            "{message}"
        );
        assert!(message.contains("much"), "{message}");
    }
}

#[test]
fn an_executors_file_that_is_none_is_told() {
    let task = Task::new(r#"echo '{"parameterValues": {' > "$METADATA""#);
    let done = task.run();
    let message = done.failure(Reason::OutputMetadataInvalid);
    assert!(
        message.contains("output_metadata.json") && message.contains("line 2"),
        "{message}"
    );

    let task = Task::new(r#": > "$METADATA""#);
    task.run().succeeded();
}

#[test]
fn artifacts_of_a_failed_command_are_kept() {
    let mut task = Task::new("mkdir \"$data\"; echo half > \"$data/part\"; exit 4");
    task.output_artifact("data");
    let done = task.run();
    done.failure(Reason::CommandFailed);
    let data = &done.report().artifacts["data"][0];
    assert_eq!(data.size, Some(5));
    assert!(data.digest.is_some());
}

#[test]
fn what_the_command_put_elsewhere_is_brought_into_the_store() {
    for field in ["custom_path", "customPath", "uri"] {
        let mut task = Task::new(&format!(
            r#"mkdir -p elsewhere; echo moved > elsewhere/file
            echo '{{"artifacts": {{"data": {{"artifacts": [{{"{field}": "'"$PWD"'/elsewhere"}}]}}}}}}' > "$METADATA""#
        ));
        task.output_artifact("data");
        let done = task.run();
        let data = &done.succeeded().artifacts["data"][0];
        assert_eq!(
            data.artifact.uri,
            task.path("data").display().to_string(),
            "{field}"
        );
        assert_eq!(data.artifact.custom_path, None);
        assert_eq!(fs::read(task.path("data/file")).expect("there"), b"moved\n");
        assert_eq!(data.size, Some(6));
    }
}

fn that_hands_out(uri: &str) -> Task {
    let mut task = Task::new(&format!(
        r#"echo '{{"artifacts": {{"data": {{"artifacts": [{{"uri": "{uri}"}}]}}}}}}' > "$METADATA""#
    ));
    task.output_artifact("data");
    task
}

#[test]
fn what_is_on_another_machine_stays_there() {
    for uri in ["https://models.example/m", "gs://b/o"] {
        let task = that_hands_out(uri);
        let done = task.run();
        let data = &done.succeeded().artifacts["data"][0];
        assert_eq!((data.artifact.uri.as_str(), &data.digest), (uri, &None));
        assert!(!task.path("data").exists());
    }
}

#[test]
fn what_was_on_this_machine_before_is_not_the_tasks_to_hand_out() {
    let done = that_hands_out(env!("CARGO_MANIFEST_DIR")).run();
    let failure = done.report().failure.clone().expect("a failure");
    assert_eq!(failure.reason, Reason::OutputOutsideFolder, "{}", failure.message);
    assert!(done.report().artifacts["data"].is_empty());
}

#[test]
fn an_artifact_in_the_tasks_own_folder_stays_where_it_is() {
    let mut task = Task::new(
        r#"echo own > "$(dirname "$data")/own"
        echo '{"artifacts": {"data": {"artifacts": [{"uri": "'"$(dirname "$data")"'/own"}]}}}' > "$METADATA""#,
    );
    task.output_artifact("data");
    let done = task.run();
    let data = &done.succeeded().artifacts["data"][0];
    assert_eq!(
        (data.artifact.uri.clone(), data.size),
        (task.path("own").display().to_string(), Some(4))
    );
}
