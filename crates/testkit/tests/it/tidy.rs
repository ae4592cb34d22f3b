//! Tidiness that the compiler and clippy do not check.

use crate::source::{File, files, holds};

/// Past this, a file has more than one subject.
const MAX_LINES: usize = 1000;
/// Names that say nothing, so everything ends up in them.
const EMPTY_NAMES: [&str; 7] = ["common", "helper", "helpers", "misc", "types", "util", "utils"];

fn check(rule: &str, is_fault: impl Fn(&File) -> Option<String>) {
    let faults: Vec<String> = files()
        .iter()
        .filter_map(|file| is_fault(file).map(|fault| format!("{}: {fault}", file.path)))
        .collect();
    holds(rule, &faults);
}

#[test]
fn no_written_file_is_over_a_thousand_lines() {
    check("a file is too long: split it by subject", |file| {
        let lines = file.text.lines().count();
        let is_source = file.is(".rs") || file.is(".py");
        (is_source && !file.is_generated() && lines > MAX_LINES).then(|| format!("{lines} lines"))
    });
}

#[test]
fn names_of_files_and_folders_say_what_is_inside() {
    check("a name says nothing: name it after what it holds", |file| {
        file.path
            .split('/')
            .map(|part| part.split('.').next().unwrap_or(part))
            .find(|part| EMPTY_NAMES.contains(part))
            .map(|part| format!("`{part}`"))
    });
}

#[test]
fn every_rust_file_says_first_what_it_is() {
    check(
        "a file does not open with `//!`: say what it is, and what it is not",
        |file| (file.is(".rs") && !file.text.starts_with("//!")).then(String::new),
    );
}

#[test]
fn every_python_file_says_first_what_it_is() {
    check("a file does not open with a docstring: say what it is", |file| {
        let opening = file
            .text
            .lines()
            .find(|line| !line.starts_with('#'))
            .unwrap_or_default();
        (file.is(".py") && !opening.starts_with("\"\"\"")).then(String::new)
    });
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    check(
        "a crate goes without the workspace's lints: add `[lints] workspace = true`",
        |file| (file.is("/Cargo.toml") && !file.text.contains("[lints]\nworkspace = true")).then(String::new),
    );
}

#[test]
fn every_dependency_is_a_dependency_of_the_workspace() {
    check(
        "a version stands outside the root's [workspace.dependencies]",
        |file| {
            if !file.is("/Cargo.toml") {
                return None;
            }
            let mut in_dependencies = false;
            file.text
                .lines()
                .find(|line| {
                    if line.starts_with('[') {
                        in_dependencies = line.contains("dependencies");
                    }
                    in_dependencies && line.contains('=') && !line.contains("workspace = true")
                })
                .map(ToOwned::to_owned)
        },
    );
}

#[test]
fn nothing_is_left_to_be_written() {
    // Spelled apart, so that this file does not find itself.
    let marks = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
    ];
    check("something is left unfinished", |file| {
        file.text.lines().enumerate().find_map(|(number, line)| {
            marks
                .iter()
                .any(|mark| line.contains(mark))
                .then(|| format!("line {}: {}", number + 1, line.trim()))
        })
    });
}

#[test]
fn every_crate_has_one_integration_binary() {
    check("integration tests are modules of `tests/it/main.rs`", |file| {
        let below = file.path.strip_prefix("crates/")?.split_once("/tests/")?.1;
        (file.is(".rs") && !below.starts_with("it/")).then(String::new)
    });
}

#[test]
fn no_test_waits_by_sleeping() {
    let sleep = concat!("thread::", "sleep");
    check(
        "a test sleeps: wait for the event, or pause tokio's clock",
        |file| (file.path.contains("/tests/it/") && file.text.contains(sleep)).then(String::new),
    );
}

#[test]
fn a_test_that_is_left_out_says_why() {
    check("a test is ignored without a reason", |file| {
        (file.is(".rs") && file.text.lines().any(|line| line.trim() == "#[ignore]")).then(String::new)
    });
}
