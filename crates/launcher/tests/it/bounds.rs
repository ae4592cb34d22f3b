//! What a task may hand over as its own.

use std::{fs, os::unix::fs::symlink};

use coracle_api::reason::Reason;

use crate::task::Task;

#[test]
fn outputs_that_are_not_the_tasks_own_are_refused() {
    for (what, script) in [
        ("a link to a file of the machine", r#"ln -s /etc/passwd "$data""#),
        ("a link to a folder of the machine", r#"ln -s /etc "$data""#),
        ("a link that leads nowhere", r#"ln -s /no/such "$data""#),
        (
            "a path of the machine",
            r#"echo '{"artifacts": {"data": {"artifacts": [{"custom_path": "/etc/passwd"}]}}}' > "$METADATA""#,
        ),
        (
            "a path that goes up",
            r#"echo 1 > stray; echo '{"artifacts": {"data": {"artifacts": [{"custom_path": "'"$(dirname "$data")"'/../stray"}]}}}' > "$METADATA""#,
        ),
        (
            "a URI that goes up",
            r#"echo 1 > stray; echo '{"artifacts": {"data": {"artifacts": [{"uri": "'"$(dirname "$data")"'/../stray"}]}}}' > "$METADATA""#,
        ),
    ] {
        let mut task = Task::new(script);
        task.output_artifact("data");
        let done = task.run();
        let message = done.failure(Reason::OutputOutsideFolder);
        assert!(message.contains("`data`"), "{what}: {message}");
        assert!(!done.report().artifacts.contains_key("data") || done.report().artifacts["data"].is_empty());
        assert!(
            !fs::read(task.path("data")).is_ok_and(|bytes| bytes.starts_with(b"root:"))
                || task.path("data").is_symlink()
        );
    }
}

#[test]
fn a_parameter_that_links_to_a_file_of_the_machine_is_not_read() {
    let mut task = Task::new("ln -s /etc/passwd $x");
    task.output_parameter("x", "STRING");
    let done = task.run();
    let message = done.failure(Reason::OutputOutsideFolder);
    assert!(message.contains("`x`") && !message.contains("root:"), "{message}");
    assert!(done.report().parameters.is_empty());

    let task = Task::new(r#"ln -s /etc/passwd "$METADATA""#);
    task.run().failure(Reason::OutputOutsideFolder);
}

#[test]
fn a_link_to_what_the_task_made_or_was_given_is_made_a_copy() {
    let mut task =
        Task::new(r#"mkdir made; echo 1 > made/file; ln -s "$PWD/made" "$data"; ln -s "$given" "$same""#);
    task.output_artifact("data");
    task.output_artifact("same");
    let given = task.folder.path().join("given");
    fs::write(&given, "given").expect("written");
    task.input_artifact("given", &given.display().to_string());
    task.env.push(("given", given.display().to_string()));
    let done = task.run();
    let report = done.succeeded();
    assert_eq!(report.artifacts["data"][0].size, Some(2));
    for name in ["data", "same"] {
        assert!(!task.path(name).is_symlink(), "{name}");
    }
    assert_eq!(fs::read(task.path("same")).expect("readable"), b"given");
    assert_eq!(fs::read(given).expect("still there"), b"given");
}

#[test]
fn a_link_inside_a_folder_counts_as_a_link() {
    let mut task = Task::new(r#"mkdir "$data"; ln -s /etc/passwd "$data/link"; echo 1 > "$data/file""#);
    task.output_artifact("data");
    let done = task.run();
    assert_eq!(
        done.succeeded().artifacts["data"][0].size,
        Some(2),
        "what it leads to is not weighed"
    );
}

#[test]
fn files_of_other_tasks_are_not_this_ones_to_hand_over() {
    let mut task = Task::new(
        r#"echo stolen > "$other"; echo '{"artifacts": {"data": {"artifacts": [{"uri": "'"$other"'"}]}}}' > "$METADATA""#,
    );
    // RUN/TASK/ATTEMPT/x
    let run = task.folder.path().join("run");
    let (own, other) = (run.join("own/1"), run.join("other/1"));
    fs::create_dir_all(&other).expect("created");
    task.spec["executorInput"]["outputs"]["outputFile"] =
        own.join("output_metadata.json").display().to_string().into();
    task.env
        .push(("METADATA", own.join("output_metadata.json").display().to_string()));
    task.env
        .push(("other", other.join("model").display().to_string()));
    task.spec["executorInput"]["outputs"]["artifacts"]["data"] =
        serde_json::json!({"artifacts": [{"name": "data", "uri": own.join("data")}]});
    symlink("/etc", run.join("link")).expect("linked");
    let done = task.run();
    let message = done.failure(Reason::OutputOutsideFolder);
    assert!(message.contains("other/1/model"), "{message}");
}
