//! What `coracle doctor` is told about this machine.

use std::path::Path;

use coracle_node::doctor::{Outcome, checks};

use crate::machine::Machine;

#[tokio::test(flavor = "multi_thread")]
async fn every_check_says_what_was_found_and_trouble_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_coracle-sandbox"));
    let found = checks(binary, &folder.path().join("not/made/yet")).await;
    let names: Vec<&str> = found.iter().map(|check| check.name).collect();
    assert_eq!(
        names,
        [
            "isolation",
            "overlayfs",
            "limits",
            "network",
            "gpu",
            "containers",
            "python",
            "uv",
            "images"
        ]
    );
    for check in &found {
        assert!(!check.finding.is_empty());
        assert_eq!(check.remedy.is_some(), check.outcome != Outcome::Ok, "{check:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_of_isolation_agrees_with_what_pods_get() {
    let machine = Machine::start().await;
    let binary = Path::new(env!("CARGO_BIN_EXE_coracle-sandbox"));
    let found = checks(binary, &machine.data_dir()).await;
    let isolation = found.iter().find(|check| check.name == "isolation").unwrap();
    assert_eq!(isolation.outcome == Outcome::Ok, machine.is_isolated().await);
}
