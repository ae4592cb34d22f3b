//! How commands start, what they see, how they end.

use std::{fs, os::unix::fs::PermissionsExt};

use coracle_api::reason::Reason;
use serde_json::json;

use crate::task::Task;

#[test]
fn output_goes_to_both_streams_and_to_the_log() {
    let task = Task::new("echo one; echo two >&2; printf '\\377\\376 raw\\n'");
    let done = task.run();
    done.succeeded();
    assert_eq!(done.stdout, "one\n\u{fffd}\u{fffd} raw\n");
    assert_eq!(done.stderr, "two\n");
    let mut parts: Vec<&[u8]> = vec![b"one\n", b"two\n", b"\xff\xfe raw\n"];
    parts.retain(|part| !done.log.windows(part.len()).any(|window| window == *part));
    assert!(parts.is_empty() && done.log.len() == 15, "{:?}", done.log_text());
}

#[test]
fn much_output_on_both_streams_at_once_is_kept_whole() {
    let task = Task::new(
        "head -c 8000000 /dev/zero | tr '\\0' a & head -c 8000000 /dev/zero | tr '\\0' b >&2; wait",
    );
    let done = task.run();
    done.succeeded();
    assert_eq!((done.stdout.len(), done.stderr.len()), (8_000_000, 8_000_000));
    // Neither has a line's end, and the log has one wherever the other goes on.
    let kept = |wanted| done.log.iter().filter(|byte| **byte == wanted).count();
    assert_eq!((kept(b'a'), kept(b'b')), (8_000_000, 8_000_000));
    assert_eq!(done.log.len() - kept(b'\n'), 16_000_000);
}

#[test]
fn a_failing_command_is_told_by_its_last_words() {
    let task = Task::new(
        "echo start; printf 'Traceback (most recent call last):\\n  File \"x.py\", line 3\\nValueError: bad rate\\n' >&2
         exit 3",
    );
    let done = task.run();
    assert_eq!(done.code, Some(3));
    assert_eq!(done.report().exit_code, Some(3));
    let message = done.failure(Reason::CommandFailed);
    assert!(
        message.starts_with("exit code 3: ValueError: bad rate\nthe log's last lines:\n  "),
        "{message}"
    );
    assert!(message.contains("\n    File \"x.py\", line 3"), "{message}");
    assert!(
        done.log_text()
            .ends_with("coracle: CommandFailed: exit code 3: ValueError: bad rate\n")
    );
}

#[test]
fn a_command_that_says_nothing_is_told_by_its_code() {
    let done = Task::new("exit 7").run();
    assert_eq!(done.failure(Reason::CommandFailed), "exit code 7");
}

#[test]
fn a_command_killed_from_outside_is_told_by_the_signal() {
    let done = Task::new("kill -9 $$").run();
    assert_eq!(done.code, Some(137));
    assert_eq!(done.report().exit_code, Some(137));
    assert_eq!(done.failure(Reason::KilledBySignal), "killed by SIGKILL (9)");
}

#[test]
fn commands_that_cannot_start_say_why() {
    let mut task = Task::new("");
    let folder = task.folder.path().to_owned();
    let file = |name: &str, text: &str, mode: u32| {
        let path = folder.join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        path.display().to_string()
    };
    let plain = file("plain", "#!/bin/sh\n", 0o644);
    let lost = file("lost", "#!/no/such/interpreter\n", 0o755);
    let none = folder.join("none").display().to_string();
    let long = "x".repeat(200_000);
    for (command, reason, why) in [
        (
            json!(["no-such-program", "x"]),
            Reason::CommandNotFound,
            "no such program in PATH=/",
        ),
        (json!([none]), Reason::CommandNotFound, "no such file"),
        (
            json!([lost]),
            Reason::CommandNotFound,
            "the interpreter that its first line names does not",
        ),
        (json!([plain]), Reason::CommandNotExecutable, "permission denied"),
        (
            json!(["echo", long]),
            Reason::CommandNotExecutable,
            "its longest argument has 200000 bytes",
        ),
        (json!(["echo", "a\0b"]), Reason::CommandNotExecutable, "NUL byte"),
        (json!([]), Reason::NotSupported, "neither command nor args"),
        (
            json!(["echo", "{{$.inputs.parameters['x']}}"]),
            Reason::PlaceholderUnresolved,
            "the task has no input parameter `x`",
        ),
    ] {
        task.spec["command"] = command.clone();
        task.server = crate::server::Server::start();
        let done = task.run();
        let message = done.failure(reason);
        assert!(message.contains(why), "{message}");
        assert!(
            done.log_text().contains(why),
            "the log tells it too: {}",
            done.log_text()
        );
        assert_eq!((done.code, done.report().exit_code), (Some(1), None));
    }
}

#[test]
fn the_command_sees_none_of_the_launchers_own_variables() {
    let mut task =
        Task::new("env | grep -e CORACLE_LAUNCH -e CORACLE_PYTHON_REQ; echo \"$KEPT-$PYTHONUNBUFFERED\"");
    task.env = vec![
        ("KEPT", "kept".to_owned()),
        ("CORACLE_PYTHON_REQUIREMENTS_MET", "1".to_owned()),
    ];
    let done = task.run();
    done.succeeded();
    assert_eq!(done.stdout, "kept-1\n");
}

#[test]
fn what_a_command_leaves_running_ends_with_it() {
    let task = Task::new("sleep 1000 & echo $! > pid; echo done");
    let done = task.run();
    done.succeeded();
    let pid = fs::read_to_string(task.folder.path().join("pid")).expect("written");
    let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "still there: {state}");
}

#[test]
fn the_pip_part_is_left_out_only_where_its_packages_are() {
    let preamble = "\nif ! [ -x \"$(command -v pip)\" ]; then\n    python3 -m ensurepip || python3 -m ensurepip \
                    --user || apt-get install python3-pip\nfi\n\nPIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip \
                    install --quiet --no-warn-script-location 'no-such-package-at-all==99' && \"$0\" \"$@\"\n";
    let mut task = Task::new("");
    task.spec["command"] = json!(["sh", "-c", preamble, "echo"]);
    task.spec["args"] = json!(["{{$.pipeline_job_name}}"]);
    task.env = vec![("CORACLE_PYTHON_REQUIREMENTS_MET", "1".to_owned())];
    let done = task.run();
    done.succeeded();
    assert_eq!(done.stdout, "the run\n");

    let mut task = Task::new("");
    task.spec["command"] = json!([
        "sh",
        "-c",
        preamble.replace("99'", "99' >/dev/null 2>&1 || exit 9; true"),
        "echo"
    ]);
    task.env = vec![
        ("CORACLE_PYTHON_REQUIREMENTS_MET", "1".to_owned()),
        ("PATH", "/bin:/usr/bin".to_owned()),
    ];
    task.run().failure(Reason::CommandFailed);
}
