//! What happens when somebody asks a task to stop.

use std::{
    io::{BufRead, BufReader},
    process::Child,
};

use coracle_api::reason::Reason;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    server::Answer,
    task::{Done, Task},
};

fn stop(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process number"));
    kill(pid, signal).expect("signalled");
}

/// Starts the task, waits for the word it says first, and asks it to stop.
fn stopped(task: &Task, signal: Signal) -> Done {
    task.answer_with_spec();
    let mut child = task.start();
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    assert_eq!(line, "ready\n");
    stop(&child, signal);
    // Read on, so that the launcher is never blocked.
    let rest = std::thread::spawn(move || out.lines().map_while(Result::ok).collect::<Vec<_>>());
    let mut done = task.finish(child);
    done.stdout = rest.join().expect("read").join("\n");
    done
}

#[test]
fn a_stop_reaches_the_command_and_its_children_and_is_reported() {
    let mut task = Task::new(
        "trap 'echo cleaning; echo partial > \"$data\"; exit 0' TERM
         sh -c 'trap \"echo child stops; exit\" TERM; echo ready; while :; do sleep 0.01; done' &
         while :; do wait; done",
    );
    task.output_artifact("data");
    let done = stopped(&task, Signal::SIGTERM);
    assert_eq!(done.failure(Reason::RunTerminated), "asked to stop (SIGTERM)");
    assert_eq!((done.code, done.report().exit_code), (Some(1), Some(0)));
    let log = done.log_text();
    assert!(
        log.starts_with("ready\n") && log.contains("cleaning\n") && log.contains("child stops\n"),
        "{log}"
    );
    assert!(
        log.ends_with("coracle: RunTerminated: asked to stop (SIGTERM)\n"),
        "{log}"
    );
    assert_eq!(done.report().artifacts["data"][0].size, Some(8));
}

#[test]
fn a_command_that_dies_of_the_stop_says_so() {
    let task = Task::new("echo ready; exec sleep 1000");
    let done = stopped(&task, Signal::SIGINT);
    assert_eq!(done.failure(Reason::RunTerminated), "asked to stop (SIGINT)");
    assert_eq!((done.code, done.report().exit_code), (Some(130), Some(130)));
}

#[test]
fn a_stop_while_the_server_is_away_ends_the_wait() {
    let task = Task::new("echo never");
    task.server.spec([Answer::Silence]);
    let child = task.start();
    while task.server.requests().is_empty() {
        std::thread::yield_now();
    }
    stop(&child, Signal::SIGTERM);
    let done = task.finish(child);
    assert!(
        done.failure(Reason::RunTerminated)
            .starts_with("asked to stop while waiting for the server")
    );
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""));
}
