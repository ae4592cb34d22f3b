//! Rebuilds the crate when a migration is added: the compiler only notices edits to old ones.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
