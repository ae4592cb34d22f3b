//! How the binary is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target =
        ["CARGO_CFG_TARGET_OS", "CARGO_CFG_TARGET_ENV"].map(|name| std::env::var(name).unwrap_or_default());
    if target == ["linux", "gnu"] {
        // Every container starts this binary twice, as its helper and as its launcher. At a fixed address, as Go links its
        // programs, nothing is to be relocated at a start: 2 ms less in a development build, and a thousand pages less
        // that each process would have to itself. Libraries, stacks and heap lie elsewhere each time.
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}
