//! Artifacts in an object store: inputs are fetched, outputs are sent.

use std::fs;

use coracle_api::reason::Reason;
use coracle_artifacts::content;
use serde_json::{Value, json};

use crate::{s3::S3, task::Task};

fn task(script: &str) -> (S3, Task) {
    let store = S3::start();
    let mut task = Task::new(script);
    for (name, value) in store.variables() {
        let name: &'static str = name.leak();
        task.env.push((name, value));
    }
    (store, task)
}

/// Declares an output that belongs to the store, as the engine does.
fn output(task: &mut Task, name: &'static str) {
    let path = task.path(name);
    task.spec["executorInput"]["outputs"]["artifacts"][name] = json!({"artifacts": [{
        "name": name, "uri": format!("s3://bucket/root/run/task/1/{name}"), "customPath": path,
    }]});
    task.env.push((name, path.display().to_string()));
}

#[test]
fn what_the_command_made_is_sent_and_its_uri_stays() {
    let (store, mut task) =
        task(r#"mkdir "$model"; echo w > "$model/weights"; echo "$1" > "$data"; echo "$2""#);
    output(&mut task, "model");
    output(&mut task, "data");
    output(&mut task, "metrics");
    task.spec["args"] = json!(["sh", "{{$.outputs.artifacts['data'].uri}}", "{{$}}"]);
    let done = task.run();
    let report = done.succeeded();
    let uri = "s3://bucket/root/run/task/1/data";
    assert_eq!(
        store.object("root/run/task/1/data").expect("sent"),
        format!("{uri}\n").as_bytes()
    );
    assert_eq!(
        store.keys(),
        ["root/run/task/1/data", "root/run/task/1/model/weights"]
    );
    let data = &report.artifacts["data"][0];
    assert_eq!((data.artifact.uri.as_str(), data.size), (uri, Some(33)));
    assert_eq!(data.artifact.custom_path, None);
    assert!(report.artifacts["model"][0].digest.is_some());
    assert_eq!(report.artifacts["metrics"][0].digest, None, "never written");
    assert!(
        !task.path("data").exists() && !task.path("model").exists(),
        "the copy here is gone"
    );
    let given: Value = serde_json::from_str(done.stdout.trim()).expect("JSON");
    let path = task.path("data").display().to_string();
    assert_eq!(
        given["outputs"]["artifacts"]["data"]["artifacts"][0]["uri"], path,
        "what the SDK takes for the path"
    );
}

#[test]
fn what_the_sdk_says_of_it_leads_to_the_same_place() {
    let (store, mut task) = task(
        r#"echo a > "$data"; echo b > "$(dirname "$data")/other"; mkdir -p away; echo c > away/c
        cat > "$METADATA" <<END
        {"artifacts": {
            "data": {"artifacts": [{"uri": "$data", "metadata": {"k": 1}}]},
            "named": {"artifacts": [{"uri": "$(dirname "$data")/other"}]},
            "custom": {"artifacts": [{"uri": "$custom", "custom_path": "$PWD/away/c"}]},
            "foreign": {"artifacts": [{"uri": "gs://theirs/model"}]}
        }}
END"#,
    );
    for name in ["data", "named", "custom", "foreign"] {
        output(&mut task, name);
    }
    let done = task.run();
    let report = done.succeeded();
    let uri = |name: &str| report.artifacts[name][0].artifact.uri.clone();
    assert_eq!(uri("data"), "s3://bucket/root/run/task/1/data");
    assert_eq!(uri("named"), "s3://bucket/root/run/task/1/other");
    assert_eq!(uri("custom"), "s3://bucket/root/run/task/1/custom");
    assert_eq!(uri("foreign"), "gs://theirs/model");
    let sent = ["custom", "data", "other"].map(|name| format!("root/run/task/1/{name}"));
    assert_eq!(store.keys(), sent);
    assert_eq!(store.object("root/run/task/1/custom").expect("sent"), b"c\n");
    assert_eq!(
        json!(report.artifacts["data"][0].artifact.metadata),
        json!({"k": 1})
    );
}

#[test]
fn what_a_failed_command_made_is_sent_too() {
    let (store, mut task) = task(r#"echo half > "$data"; exit 3"#);
    output(&mut task, "data");
    let done = task.run();
    done.failure(Reason::CommandFailed);
    assert!(store.object("root/run/task/1/data").is_some());
    assert!(done.report().artifacts["data"][0].digest.is_some());
}

#[test]
fn a_store_that_lets_nobody_in_is_told_and_the_bytes_stay() {
    let (store, mut task) = task(r#"echo x > "$data""#);
    store.make_private();
    task.env.retain(|(name, _)| !name.contains("KEY"));
    output(&mut task, "data");
    let done = task.run();
    let message = done.failure(Reason::StorageUnavailable);
    assert!(
        message.contains("s3://bucket/root/run/task/1/data")
            && message.contains("403")
            && message.contains("AWS_ACCESS_KEY_ID"),
        "{message}"
    );
    assert!(task.path("data").exists());
    assert_eq!(done.report().artifacts["data"][0].digest, None);
}

#[test]
fn inputs_of_a_store_are_fetched_once_and_checked() {
    let (store, mut task) = task("");
    store.put("in/a/x", b"1");
    store.put("in/a/y", b"2");
    store.put("in/file.csv", b"row");
    task.input_artifact("folder", "s3://bucket/in/a");
    task.input_artifact("file", "s3://bucket/in/file.csv");
    task.input_artifact("again", "s3://bucket/in/file.csv");
    task.input_artifact("metrics", "s3://bucket/in/none");
    task.spec["command"] = json!([
        "sh",
        "-c",
        "cat $0/* $1; ls $0; echo $1 $2",
        "{{$.inputs.artifacts['folder'].path}}",
        "{{$.inputs.artifacts['file'].path}}",
        "{{$.inputs.artifacts['again'].uri}}"
    ]);
    let file = task.folder.path().join("row");
    fs::write(&file, "row").expect("written");
    let digest = content::measure(&file)
        .expect("measurable")
        .expect("there")
        .digest;
    task.spec["inputDigests"] = json!({"s3://bucket/in/file.csv": digest});
    let done = task.run();
    done.succeeded();
    assert!(done.stdout.starts_with("12rowx\ny\n"), "{}", done.stdout);
    assert!(
        done.stdout.ends_with("/file.csv s3://bucket/in/file.csv\n"),
        "{}",
        done.stdout
    );
    assert!(done.stderr.contains("nothing is at `s3://bucket/in/none`"));
    let gets = store.requests();
    let gets = gets.iter().filter(|line| *line == "GET /bucket/in/file.csv");
    assert_eq!(gets.count(), 1);

    store.put("in/file.csv", b"tampered");
    let done = task.run();
    let message = done.failure(Reason::InputArtifactUnavailable);
    assert!(
        message.contains("`file`") && message.contains("is not what it was"),
        "{message}"
    );
}
