//! What is told of a Python program that failed.

use coracle_api::reason::Reason;

use crate::task::Task;

#[track_caller]
fn check(program: &str, reason: Reason, first: &str, more: &[&str]) {
    let mut task = Task::new("python3 -c \"$program\"");
    task.env.push(("program", program.to_owned()));
    let done = task.run();
    let message = done.failure(reason);
    assert_eq!(message.lines().next(), Some(first), "{message}");
    for text in more {
        assert!(message.contains(text), "{text:?} is not in {message}");
    }
}

#[test]
fn the_exception_is_named_however_it_came() {
    let failed = Reason::CommandFailed;
    check(
        "print('before')\nraise ValueError('much')",
        failed,
        "exit code 1: ValueError: much",
        &["Traceback", "line 2, in <module>"],
    );
    check(
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise RuntimeError('worse') from error",
        failed,
        "exit code 1: RuntimeError: worse",
        &["ZeroDivisionError: division by zero", "direct cause"],
    );
    check(
        "raise ValueError('first line\\nsecond line\\n\\nlast line')",
        failed,
        "exit code 1: ValueError: first line",
        &["second line", "last line"],
    );
    check(
        "raise SystemExit('given up')",
        failed,
        "exit code 1: given up",
        &[],
    );
    check("import sys; sys.exit(7)", failed, "exit code 7", &[]);
    check(
        "x = (",
        failed,
        "exit code 1: SyntaxError: '(' was never closed",
        &["^"],
    );
}

#[test]
fn an_exception_group_is_told_with_what_is_in_it() {
    let check_version = std::process::Command::new("python3")
        .args(["-c", "ExceptionGroup"])
        .output();
    if !check_version.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: THIS PYTHON HAS NO EXCEPTION GROUPS");
        return;
    }
    check(
        "raise ExceptionGroup('both', [ValueError('one'), TypeError('two')])",
        Reason::CommandFailed,
        "exit code 1: ExceptionGroup: both (2 sub-exceptions): ValueError: one, TypeError: two",
        &["+---------------- 2 ----------------"],
    );
    check(
        "def f():\n    raise ValueError('one')\ntry:\n    f()\nexcept ValueError as error:\n    inner = error\n\
         raise ExceptionGroup('both', [inner, ExceptionGroup('deep', [KeyError('k')])])",
        Reason::CommandFailed,
        "exit code 1: ExceptionGroup: both (2 sub-exceptions): ValueError: one, ExceptionGroup: deep (1 sub-exception), \
         KeyError: 'k'",
        &[],
    );
}

#[test]
fn a_crash_below_python_names_the_signal() {
    // Directly, and as a shell tells of it.
    for script in ["exec python3 -c \"$program\"", "python3 -c \"$program\"; exit $?"] {
        let mut task = Task::new(script);
        task.env
            .push(("program", "import os; os.kill(os.getpid(), 11)".to_owned()));
        let done = task.run();
        let message = done.failure(Reason::KilledBySignal);
        assert!(message.contains("killed by SIGSEGV"), "{message}");
    }
    let mut task = Task::new("python3 -c \"$program\"; exit $?");
    task.env.push((
        "program",
        "import faulthandler, os; faulthandler.enable(); os.abort()".to_owned(),
    ));
    let done = task.run();
    let message = done.failure(Reason::KilledBySignal);
    assert!(
        message.starts_with("exit code 134 (killed by SIGABRT): "),
        "{message}"
    );
    assert!(message.contains("Fatal Python error: Aborted"), "{message}");
}
