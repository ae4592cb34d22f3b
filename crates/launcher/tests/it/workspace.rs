//! An importer's artifact, brought into the workspace, and those who use it there.

use std::fs;

use coracle_api::reason::Reason;
use serde_json::json;

use crate::{s3::S3, task::Task};

fn importing(uri: &str) -> Task {
    let mut task = Task::new("echo never");
    task.spec["command"] = json!([]);
    task.spec["workspaceImport"] = json!({
        "artifact": {"name": "artifact", "uri": uri, "metadata": {"k": "v"}},
        "output": "artifact",
        "folder": task.folder.path().join("workspace/.artifacts"),
    });
    task
}

#[test]
fn it_is_copied_to_where_the_sdk_looks_for_it() {
    let store = S3::start();
    store.put("models/m/a", b"1");
    store.put("models/m/b/c", b"22");
    let mut task = importing("s3://bucket/models/m");
    for (name, value) in store.variables() {
        task.env.push((name.leak(), value));
    }
    for _ in 0..2 {
        let done = task.run();
        let artifact = &done.reports_last().artifacts["artifact"][0];
        assert_eq!(artifact.artifact.uri, "s3://bucket/models/m");
        assert_eq!(
            json!(artifact.artifact.metadata),
            json!({"k": "v", "_kfp_workspace": true})
        );
        assert_eq!(artifact.size, Some(3));
        let target = task.folder.path().join("workspace/.artifacts/s3/bucket/models/m");
        assert_eq!(fs::read(target.join("b/c")).expect("copied"), b"22");
    }

    let source = tempfile::tempdir().expect("a folder");
    let file = source.path().join("data.csv");
    fs::write(&file, "row").expect("written");
    let task = importing(&file.display().to_string());
    let done = task.run();
    assert_eq!(done.succeeded().artifacts["artifact"][0].size, Some(3));
    let below = file.display().to_string();
    let target = task
        .folder
        .path()
        .join("workspace/.artifacts")
        .join(below.trim_start_matches('/'));
    assert_eq!(fs::read(target).expect("copied"), b"row");
}

#[test]
fn what_cannot_be_had_is_told() {
    for (uri, why) in [
        ("/no/such/file", "/no/such/file"),
        ("nonsense", "is not an artifact URI"),
        ("/tmp/../etc/hostname", "`..`"),
    ] {
        let done = importing(uri).run();
        let message = done.failure(Reason::InputArtifactUnavailable);
        assert!(message.contains(why), "{message}");
    }
}

#[test]
fn what_is_in_the_workspace_is_used_there() {
    let mut task = Task::new("");
    task.spec["executorInput"]["inputs"]["artifacts"]["data"] = json!({"artifacts": [
        {"uri": "s3://nowhere/x", "metadata": {"_kfp_workspace": true}},
    ]});
    task.spec["command"] = json!(["echo", "{{$.inputs.artifacts['data'].path}}"]);
    let done = task.run();
    done.succeeded();
    assert_eq!(done.stdout, "/kfp-workspace/.artifacts/s3/nowhere/x\n");
    assert!(
        done.stderr.contains("nothing is at `/kfp-workspace/"),
        "{}",
        done.stderr
    );
}
