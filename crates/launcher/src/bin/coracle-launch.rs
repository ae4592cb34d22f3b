//! The launcher alone, for this crate's tests and for images that carry only it.
//!
//! In the product it is the hidden subcommand `coracle launch`. Nothing else belongs here.

use std::process::ExitCode;

fn main() -> ExitCode {
    coracle_launcher::launch::run()
}
