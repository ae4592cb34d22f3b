//! Which crate may depend on which, read from `cargo metadata` and from the sources' `use` lines.
//!
//! The tables are the rule: a new dependency between our crates, or of one of ours on a crate that
//! has a home here, is a change to this file and is reviewed as one.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::source::{files, holds, root};

/// Crate, and which of our crates it may depend on.
const OURS: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("breakpoint", &[]),
    ("store", &["api", "breakpoint"]),
    ("artifacts", &["api", "breakpoint"]),
    ("reconcile", &["api"]),
    ("apiserver", &["api", "store"]),
    ("controllers", &["api", "reconcile"]),
    ("node", &["api", "breakpoint"]),
    ("launcher", &["api", "artifacts", "breakpoint"]),
    (
        "pipelines",
        &["api", "artifacts", "breakpoint", "reconcile", "store"],
    ),
    ("gateway", &["api", "artifacts", "breakpoint", "store"]),
    ("webui", &["api"]),
    (
        "platform",
        &[
            "api",
            "apiserver",
            "artifacts",
            "breakpoint",
            "controllers",
            "gateway",
            "node",
            "pipelines",
            "reconcile",
            "store",
            "webui",
        ],
    ),
    ("cli", &["api", "launcher", "node", "platform"]),
    (
        "testkit",
        &[
            "api",
            "apiserver",
            "artifacts",
            "breakpoint",
            "controllers",
            "gateway",
            "node",
            "pipelines",
            "platform",
            "store",
        ],
    ),
];

/// External crate, and which of our crates may depend on it.
const HOMES: &[(&str, &[&str])] = &[
    ("anyhow", &["cli"]),
    (
        "axum",
        &["apiserver", "gateway", "node", "platform", "testkit", "webui"],
    ),
    ("bollard", &["node"]),
    ("cel", &["api"]),
    ("chrono", &["apiserver"]),
    ("clap", &["cli"]),
    ("flate2", &["apiserver", "gateway", "node", "platform"]),
    ("json-patch", &["apiserver"]),
    (
        "kube",
        &[
            "controllers",
            "gateway",
            "node",
            "pipelines",
            "platform",
            "reconcile",
            "testkit",
        ],
    ),
    ("kube-cel", &["apiserver"]),
    ("nvml-wrapper", &["node"]),
    ("object_store", &["artifacts"]),
    ("rcgen", &["platform"]),
    ("ring", &["apiserver", "platform"]),
    ("rust-embed", &["webui"]),
    ("rustls", &["platform"]),
    ("sqlx", &["store"]),
    ("tar", &["gateway", "platform"]),
    ("tracing-subscriber", &["cli", "platform"]),
    ("ureq", &["artifacts", "cli", "gateway", "launcher"]),
    ("utoipa", &["gateway"]),
    ("utoipa-axum", &["gateway"]),
    ("zip", &["gateway"]),
];

/// Crate, and external crates it never depends on, whoever else does.
const NEVER: &[(&str, &[&str])] = &[
    (
        "api",
        &[
            "futures",
            "http",
            "k8s-openapi",
            "reqwest",
            "tokio",
            "tokio-util",
            "tower",
            "tracing",
        ],
    ),
    ("launcher", &["k8s-openapi", "reqwest", "tower"]),
    ("store", &["k8s-openapi"]),
];

/// Crate, and the half of `store` it never names.
const STORE_HALVES: &[(&str, &str)] = &[
    ("apiserver", "records"),
    ("gateway", "resources"),
    ("pipelines", "resources"),
];

/// What a crate needs to build and run, by crate without the `coracle-` prefix.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .other_options(vec!["--offline".to_owned()])
        .exec()
        .expect("`cargo metadata` describes this workspace");
    metadata
        .workspace_packages()
        .into_iter()
        .map(|package| {
            let name = package.name.as_str();
            let needs = package
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind != DependencyKind::Development)
                .map(|dependency| dependency.name.clone())
                .collect();
            (short(name), needs)
        })
        .collect()
}

/// The command's package is `coracle` or `coracle-cli`; every other one is `coracle-` and its folder.
fn short(package: &str) -> String {
    match package {
        "coracle" => "cli".to_owned(),
        other => other.strip_prefix("coracle-").unwrap_or(other).to_owned(),
    }
}

#[test]
fn every_crate_has_a_place_in_the_table() {
    let placed: BTreeSet<&str> = OURS.iter().map(|(name, _)| *name).collect();
    let there = dependencies();
    let there: BTreeSet<&str> = there.keys().map(String::as_str).collect();
    assert_eq!(
        there, placed,
        "crates of the workspace, and crates of the table `OURS` in layers.rs"
    );
}

#[test]
fn our_crates_depend_one_way() {
    let mut faults = Vec::new();
    for (name, needs) in dependencies() {
        let allowed = OURS
            .iter()
            .find(|(ours, _)| *ours == name)
            .map_or(&[][..], |(_, allowed)| *allowed);
        for need in needs.iter().filter(|need| need.starts_with("coracle-")) {
            if !allowed.contains(&short(need).as_str()) {
                faults.push(format!("{name} depends on {need}; it may depend on {allowed:?}"));
            }
        }
    }
    holds(
        "a crate depends on one it may not see (table `OURS` in layers.rs):",
        &faults,
    );
}

#[test]
fn an_external_crate_stays_at_home() {
    let mut faults = Vec::new();
    for (name, needs) in dependencies() {
        for (external, homes) in HOMES {
            if needs.contains(*external) && !homes.contains(&name.as_str()) {
                faults.push(format!(
                    "{name} depends on {external}, which belongs to {homes:?}"
                ));
            }
        }
        for (_, never) in NEVER.iter().filter(|(ours, _)| *ours == name) {
            for external in never.iter().filter(|external| needs.contains(**external)) {
                faults.push(format!("{name} depends on {external}, and must not"));
            }
        }
    }
    holds(
        "an external crate is used outside its home (`HOMES` and `NEVER` in layers.rs):",
        &faults,
    );
}

#[test]
fn each_side_sees_its_own_half_of_the_store() {
    let files = files();
    let mut faults = Vec::new();
    for (name, half) in STORE_HALVES {
        let folder = format!("crates/{name}/src/");
        for file in files.iter().filter(|file| file.path.starts_with(&folder)) {
            if store_paths(&file.text).any(|path| names(path, half)) {
                faults.push(format!("{} names coracle_store::{half}", file.path));
            }
        }
    }
    holds(
        "a crate reaches into the half of the store that is not its own:",
        &faults,
    );
}

/// What follows each `coracle_store::` up to the end of its path or of its `use` statement.
fn store_paths(text: &str) -> impl Iterator<Item = &str> {
    text.split("coracle_store::").skip(1).map(|rest| {
        let ends: &[char] = if rest.starts_with('{') {
            &[';']
        } else {
            &[';', '(', ')', '<', '>', ',', ' ', '\n']
        };
        rest.split(ends).next().unwrap_or_default()
    })
}

/// Whether a path or a braced group of paths has `word` as one of its names.
fn names(path: &str, word: &str) -> bool {
    path.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|name| name == word)
}

#[test]
fn a_use_of_the_other_half_is_seen_in_each_form() {
    for text in [
        "use coracle_store::records::Run;",
        "use coracle_store::{resources::Key, records};",
        "fn f(r: &coracle_store::records::Records) {}",
    ] {
        assert!(store_paths(text).any(|path| names(path, "records")), "{text}");
    }
    for text in [
        "use coracle_store::resources::Key; fn records() {}",
        "use coracle_store::Resources;",
    ] {
        assert!(!store_paths(text).any(|path| names(path, "records")), "{text}");
    }
}
