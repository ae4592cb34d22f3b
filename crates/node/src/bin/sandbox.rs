//! The sandbox helper alone, for this crate's tests and benchmarks: `coracle-sandbox sandbox <spec.json>`.
//!
//! In the product it is the hidden subcommand `coracle sandbox`. Nothing else belongs here.

use std::process::ExitCode;

fn main() -> ExitCode {
    coracle_node::sandbox_main(std::env::args_os().skip(2))
}
