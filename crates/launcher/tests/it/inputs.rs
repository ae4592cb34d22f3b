//! What is in place before the command starts.

use std::fs;

use coracle_api::reason::Reason;
use serde_json::json;

use crate::task::Task;

#[test]
fn defaults_stand_in_for_what_is_absent() {
    let mut task = Task::new("");
    task.spec["command"] = json!([
        "printf",
        "%s|",
        "{{$.inputs.parameters['given']}}",
        "{{$.inputs.parameters['default']}}",
        "{{$.inputs.parameters['nulled']}}",
        "{{$.inputs.parameters['absent']}}",
        "{\"IfPresent\": {\"InputName\": \"default\", \"Then\": [\"--default\", \"{{$.inputs.parameters['default']}}\"]}}",
    ]);
    task.spec["executorInput"]["inputs"]["parameterValues"] = json!({"given": "g", "nulled": null});
    task.spec["inputParameters"] = json!({
        "given": {"parameterType": "STRING", "defaultValue": "other"},
        "default": {"parameterType": "NUMBER_INTEGER", "defaultValue": 3.0},
        "nulled": {"parameterType": "BOOLEAN", "defaultValue": true},
        "absent": {"parameterType": "STRING"},
    });
    let done = task.run();
    done.succeeded();
    assert_eq!(done.stdout, "g|3|true|--default|3|");
}

#[test]
fn folders_of_outputs_are_there_and_the_files_are_not() {
    let mut task = Task::new(
        "ls -d \"$(dirname \"$x\")\" \"$(dirname \"$data\")\" && ! ls \"$x\" \"$data\" 2>/dev/null; echo 1 > $x",
    );
    task.output_parameter("x", "STRING");
    task.output_artifact("data");
    task.run().succeeded();
}

#[test]
fn artifacts_of_this_machine_are_read_where_they_are() {
    let mut task = Task::new("");
    let file = task.folder.path().join("in put");
    fs::write(&file, "content").expect("written");
    task.input_artifact("plain", &file.display().to_string());
    task.input_artifact(
        "file",
        &format!("file://{}", file.display().to_string().replace(' ', "%20")),
    );
    task.spec["command"] = json!([
        "cat",
        "{{$.inputs.artifacts['plain'].path}}",
        "{{$.inputs.artifacts['file'].path}}"
    ]);
    let done = task.run();
    done.succeeded();
    assert_eq!(done.stdout, "contentcontent");
}

#[test]
fn artifacts_of_the_web_are_downloaded_and_removed_afterwards() {
    let mut task = Task::new("");
    let url = format!("{}/data/iris.csv", task.server.url);
    task.input_artifact("web", &url);
    task.spec["command"] = json!([
        "sh",
        "-c",
        "cat \"$0\"; echo; echo \"$0\"; echo \"$1\"; echo '{{$}}'",
        "{{$.inputs.artifacts['web'].path}}",
        "{{$.inputs.artifacts['web'].uri}}"
    ]);
    let done = task.run();
    done.succeeded();
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!((lines[0], lines[2]), ("5.1,3.5", url.as_str()));
    assert!(
        lines[1].ends_with("/iris.csv") && !std::path::Path::new(lines[1]).exists(),
        "{}",
        lines[1]
    );
    let given: serde_json::Value = serde_json::from_str(lines[3]).expect("JSON");
    assert_eq!(
        given["inputs"]["artifacts"]["web"]["artifacts"][0]["uri"], lines[1],
        "what the SDK reads"
    );
}

#[test]
fn artifacts_that_cannot_be_had_are_named() {
    for (uri, reason, why) in [
        (
            "SERVER/none",
            Reason::InputArtifactUnavailable,
            "the server answered 404",
        ),
        (
            "nonsense",
            Reason::InputArtifactUnavailable,
            "is not an artifact URI",
        ),
        ("oci://image/key", Reason::NotSupported, "cannot use (oci://)"),
    ] {
        let mut task = Task::new("echo never");
        let uri = uri.replace("SERVER", &task.server.url);
        task.input_artifact("data", &uri);
        let done = task.run();
        let message = done.failure(reason);
        assert!(message.contains(why) && message.contains(&uri), "{message}");
        assert_eq!((done.stdout.as_str(), done.code), ("", Some(1)));
    }
}

#[test]
fn an_artifact_without_a_file_is_no_error_until_the_command_fails() {
    let mut task = Task::new("exit 0");
    task.input_artifact("metrics", "/no/such/metrics");
    let done = task.run();
    done.succeeded();
    assert!(
        done.stderr
            .contains("nothing is at `/no/such/metrics`, the input artifact `metrics`")
    );

    let mut task = Task::new("exit 1");
    task.input_artifact("metrics", "/no/such/metrics");
    let done = task.run();
    assert!(
        done.failure(Reason::CommandFailed)
            .contains("note: nothing was at `/no/such/metrics`")
    );

    let mut task = Task::new("cat /no/such/metrics");
    task.input_artifact("metrics", "/no/such/metrics");
    let done = task.run();
    let message = done.failure(Reason::InputArtifactUnavailable);
    assert!(message.starts_with("exit code 1: cat: "), "{message}");
}

#[test]
fn a_store_that_cannot_be_written_stops_it_first() {
    let mut task = Task::new("echo never");
    task.spec["logUri"] = json!("/proc/none/log.txt");
    let done = task.run();
    assert!(done.failure(Reason::ArtifactNotStored).contains("/proc/none"));
    assert_eq!(done.stdout, "");

    let mut task = Task::new("echo never");
    task.spec["executorInput"]["outputs"]["artifacts"]["m"] = json!({"artifacts": [{"uri": "oci://b/m"}]});
    assert!(
        task.run()
            .failure(Reason::ArtifactNotStored)
            .contains("oci://b/m")
    );
}
