//! Decisions about ReplicaSets in made-up states.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::ResourceExt as _;
use serde_json::json;

use super::{observe::Observed, plan::plan, status::status};
use crate::{
    samples::{Sample, at, object, pod},
    selection::Belongings,
};

fn observed(replicas: i32, pods: Vec<Sample>) -> Observed {
    let set = json!({
        "metadata": {"name": "set", "namespace": "ns", "uid": "set", "generation": 3},
        "spec": {
            "replicas": replicas, "minReadySeconds": 10,
            "selector": {"matchLabels": {"app": "a"}}, "template": {"metadata": {"labels": {"app": "a"}}},
        },
    });
    Observed {
        set: Arc::new(object::<ReplicaSet>(set)),
        pods: Belongings {
            own: pods
                .into_iter()
                .map(|pod| Arc::new(pod.label("app", "a").0))
                .collect(),
            adopt: Vec::new(),
            release: Vec::new(),
        },
        seen: 7,
    }
}

#[test]
fn what_is_too_much_goes_in_the_order_of_least_loss() {
    let pods = || {
        let mut bound = pod("bound-pending").phase("Pending");
        bound.0.spec.get_or_insert_default().node_name = Some("here".to_owned());
        let on_node = |sample: Sample| {
            let mut sample = sample;
            sample.0.spec.get_or_insert_default().node_name = Some("here".to_owned());
            sample
        };
        vec![
            on_node(pod("old-ready").ready_since(0)),
            on_node(pod("new-ready").ready_since(50)),
            on_node(
                pod("cheap")
                    .ready_since(0)
                    .annotation("controller.kubernetes.io/pod-deletion-cost", "-5"),
            ),
            on_node(pod("not-ready").phase("Running")),
            bound,
            pod("unbound").phase("Pending"),
        ]
    };
    let order = [
        "unbound",
        "bound-pending",
        "not-ready",
        "cheap",
        "new-ready",
        "old-ready",
    ];
    for kept in 0..=6 {
        let plan = plan(&observed(kept, pods()));
        let deleted: Vec<String> = plan.delete.iter().map(|pod| pod.name_any()).collect();
        assert_eq!(deleted, order[..6 - usize::try_from(kept).expect("small")]);
        assert!(plan.create.is_empty());
    }
}

#[test]
fn what_is_missing_is_made_and_what_leaves_or_has_ended_does_not_count() {
    let pods = || {
        vec![
            pod("a").ready(),
            pod("b").ready().leaving(),
            pod("c").exited(1, 0),
        ]
    };
    let first = plan(&observed(3, pods()));
    assert_eq!((first.create.len(), first.delete.len()), (2, 0));
    let names = |plan: &super::plan::Plan| plan.create.iter().map(|pod| pod.name_any()).collect::<Vec<_>>();
    assert_eq!(
        names(&first),
        names(&plan(&observed(3, pods()))),
        "the same state, the same names"
    );
}

#[test]
fn pods_are_available_after_they_have_been_ready_for_a_while() {
    let pods = vec![
        pod("a").ready_since(0),
        pod("b").ready_since(55),
        pod("c").phase("Running"),
    ];
    let (status, wake) = status(&observed(3, pods), None, at(60));
    assert_eq!(
        (status.replicas, status.ready_replicas, status.available_replicas),
        (3, Some(2), Some(1))
    );
    assert_eq!(
        (status.fully_labeled_replicas, status.observed_generation),
        (Some(3), Some(3))
    );
    assert_eq!(wake, Some(at(65)));
}
