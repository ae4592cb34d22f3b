//! Decisions about StatefulSets in made-up states.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::{identity, observe::Observed, plan::plan, revisions::revisions, status::status};
use crate::{
    samples::{Sample, at, object, pod},
    selection::Belongings,
};

fn observed(spec: Value, pods: Vec<Sample>) -> Observed {
    let mut set = json!({
        "metadata": {"name": "db", "namespace": "ns", "uid": "db"},
        "spec": {
            "replicas": 3, "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}}, "template": {"metadata": {"labels": {"app": "db"}}},
        },
    });
    for (name, value) in spec.as_object().expect("an object") {
        set["spec"][name] = value.clone();
    }
    let mut observed = Observed {
        set: Arc::new(object::<StatefulSet>(set)),
        pods: Belongings {
            own: Vec::new(),
            adopt: Vec::new(),
            release: Vec::new(),
        },
        revisions: Vec::new(),
        keeps_revisions: true,
        claims: BTreeMap::new(),
    };
    let update = revisions(&observed).update;
    let with_revision = |sample: Sample| match sample.0.labels().get(identity::REVISION) {
        None => sample.label(identity::REVISION, &update),
        Some(_) => sample,
    };
    observed.pods.own = pods
        .into_iter()
        .map(|pod| Arc::new(with_revision(pod).0))
        .collect();
    observed
}

/// What is made and what is deleted.
fn steps(spec: Value, pods: Vec<Sample>) -> (Vec<String>, Vec<String>) {
    let plan = plan(&observed(spec, pods), at(60));
    (
        plan.create.iter().map(|(_, pod)| pod.name_any()).collect(),
        plan.delete.iter().map(|pod| pod.name_any()).collect(),
    )
}

#[test]
fn each_state_has_its_next_step() {
    let old = |name: &str| pod(name).label(identity::REVISION, "db-old");
    let parallel = json!({"podManagementPolicy": "Parallel"});
    let nothing: [&str; 0] = [];
    for (what, spec, pods, made, deleted) in [
        (
            "the first is made alone",
            json!({}),
            vec![],
            vec!["db-0"],
            nothing.to_vec(),
        ),
        (
            "the next waits",
            json!({}),
            vec![pod("db-0").phase("Running")],
            vec![],
            vec![],
        ),
        (
            "the next comes",
            json!({}),
            vec![pod("db-0").ready()],
            vec!["db-1"],
            vec![],
        ),
        (
            "a gap is filled",
            json!({}),
            vec![pod("db-0").ready(), pod("db-2").ready()],
            vec!["db-1"],
            vec![],
        ),
        (
            "one that leaves is waited for",
            json!({}),
            vec![pod("db-0").ready().leaving()],
            vec![],
            vec![],
        ),
        (
            "one that failed is replaced",
            json!({}),
            vec![pod("db-0").exited(1, 0)],
            vec![],
            vec!["db-0"],
        ),
        (
            "places begin where they are to",
            json!({"replicas": 1, "ordinals": {"start": 5}}),
            vec![],
            vec!["db-5"],
            vec![],
        ),
        (
            "all at once",
            parallel.clone(),
            vec![pod("db-1").phase("Running")],
            vec!["db-0", "db-2"],
            vec![],
        ),
        (
            "the last one too many goes",
            json!({"replicas": 1}),
            vec![pod("db-0").ready(), pod("db-1").ready(), pod("db-2").ready()],
            vec![],
            vec!["db-2"],
        ),
        (
            "and is waited for",
            json!({"replicas": 1}),
            vec![
                pod("db-0").ready(),
                pod("db-1").ready(),
                pod("db-2").ready().leaving(),
            ],
            vec![],
            vec![],
        ),
        (
            "all too many go at once",
            json!({"replicas": 1, "podManagementPolicy": "Parallel"}),
            vec![
                pod("db-0").ready(),
                pod("db-1").ready(),
                pod("db-2").phase("Running"),
            ],
            vec![],
            vec!["db-2", "db-1"],
        ),
        (
            "the last place is updated first",
            json!({}),
            vec![old("db-0").ready(), old("db-1").ready(), old("db-2").ready()],
            vec![],
            vec!["db-2"],
        ),
        (
            "then the one before",
            json!({}),
            vec![old("db-0").ready(), old("db-1").ready(), pod("db-2").ready()],
            vec![],
            vec!["db-1"],
        ),
        (
            "down to the partition",
            json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}),
            vec![old("db-0").ready(), old("db-1").ready(), pod("db-2").ready()],
            vec![],
            vec![],
        ),
        (
            "or when somebody deletes it",
            json!({"updateStrategy": {"type": "OnDelete"}}),
            vec![old("db-0").ready(), old("db-1").ready(), old("db-2").ready()],
            vec![],
            vec![],
        ),
    ] {
        let (is_made, is_deleted) = steps(spec, pods);
        assert_eq!(
            (is_made, is_deleted),
            (
                made.iter().map(ToString::to_string).collect(),
                deleted.iter().map(ToString::to_string).collect()
            ),
            "{what}"
        );
    }
}

#[test]
fn claims_are_made_with_their_pod_and_kept_or_not() {
    let templates = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]);
    let mut observed = observed(
        json!({
            "replicas": 1, "volumeClaimTemplates": templates,
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Delete"},
        }),
        vec![pod("db-1").ready()],
    );
    for name in ["data-db-1", "data-db-2", "data-db-x", "other-db-2"] {
        let claim = json!({"metadata": {"name": name, "namespace": "ns", "uid": name}});
        observed.claims.insert(name.to_owned(), Arc::new(object(claim)));
    }
    let plan = plan(&observed, at(60));
    let (claims, pod) = &plan.create[0];
    assert_eq!(
        (claims[0].name_any(), pod.name_any()),
        ("data-db-0".to_owned(), "db-0".to_owned())
    );
    assert_eq!(claims[0].labels()["app"], "db");
    assert_eq!(claims[0].owner_references()[0].uid, "db");
    let names = |claims: &[Arc<_>]| {
        claims
            .iter()
            .map(|claim: &Arc<k8s_openapi::api::core::v1::PersistentVolumeClaim>| claim.name_any())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&plan.remove_claims),
        ["data-db-2"],
        "its place is not wanted, and nobody is there"
    );
    assert_eq!(names(&plan.own_claims), ["data-db-1"]);
}

#[test]
fn names_of_places_are_read_strictly() {
    for (name, place) in [
        ("db-0", Some(0)),
        ("db-12", Some(12)),
        ("db-01", None),
        ("db-+1", None),
        ("db-", None),
        ("dbx-1", None),
        ("db-a-1", None),
    ] {
        assert_eq!(identity::ordinal("db", name), place, "{name}");
    }
}

#[test]
fn the_next_revision_is_current_when_all_have_it() {
    let (status, _) = status(
        &observed(
            json!({"replicas": 2}),
            vec![pod("db-0").ready(), pod("db-1").ready()],
        ),
        at(60),
    );
    assert_eq!(
        (status.replicas, status.ready_replicas, status.updated_replicas),
        (2, Some(2), Some(2))
    );
    assert_eq!(status.current_revision, status.update_revision);
}
