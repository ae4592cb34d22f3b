//! The breakpoints of the code against the table that says what holds after each.

use std::collections::BTreeSet;

use crate::source::{files, read};

/// What is between `"` in a call of one of these is a point's name.
const CALLS: [&str; 2] = ["coracle_breakpoint::at(", "coracle_breakpoint::error("];

#[test]
fn every_breakpoint_has_its_row_and_no_other_does() {
    let table: BTreeSet<String> = read("docs/reliability.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|name| name.contains('.'))
        .map(str::to_owned)
        .collect();
    let mut called = BTreeSet::new();
    for file in files()
        .into_iter()
        .filter(|file| file.path.starts_with("crates/") && file.is(".rs"))
    {
        for call in CALLS {
            for rest in file.text.split(call).skip(1) {
                let arguments = rest.split(')').next().unwrap_or_default();
                called.extend(arguments.split('"').skip(1).step_by(2).map(str::to_owned));
            }
        }
    }
    called.retain(|name| name.contains('.'));
    assert_eq!(
        called, table,
        "names of breakpoints in the code, and in docs/reliability.md"
    );
}
