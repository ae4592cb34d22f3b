//! Decisions about endpoints in made-up states.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::plan::{Observed, plan};
use crate::samples::{Sample, object, pod};

fn observed(spec: Value, pods: Vec<Sample>) -> Observed {
    let mut service = json!({
        "metadata": {"name": "web", "namespace": "ns", "uid": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
    });
    for (name, value) in spec.as_object().expect("an object") {
        service["spec"][name] = value.clone();
    }
    Observed {
        service: Some(Arc::new(object::<Service>(service))),
        pods: pods.into_iter().map(|pod| Arc::new(pod.0)).collect(),
        has_slices: true,
        ..Observed::default()
    }
}

fn web(name: &str, port: i32) -> Sample {
    let mut sample = pod(name);
    sample.0.spec = Some(object(
        json!({"containers": [{"name": "main", "ports": [{"name": "http", "containerPort": port}]}]}),
    ));
    sample
}

/// The subsets as `ready|other:port`.
fn lines(spec: Value, pods: Vec<Sample>) -> Vec<String> {
    let made = plan(&observed(spec, pods)).create.expect("made");
    let names = |addresses: &Option<Vec<k8s_openapi::api::core::v1::EndpointAddress>>| {
        let names = addresses
            .iter()
            .flatten()
            .map(|one| one.target_ref.clone().and_then(|to| to.name).unwrap_or_default());
        names.collect::<Vec<_>>().join("+")
    };
    let line = |subset: &k8s_openapi::api::core::v1::EndpointSubset| {
        let ports = subset
            .ports
            .iter()
            .flatten()
            .map(|port| port.port.to_string())
            .collect::<Vec<_>>();
        format!(
            "{}|{}:{}",
            names(&subset.addresses),
            names(&subset.not_ready_addresses),
            ports.join(",")
        )
    };
    made.subsets.iter().flatten().map(line).collect()
}

#[test]
fn addresses_are_of_pods_that_can_be_reached_by_their_readiness_and_ports() {
    let waiting = |name| web(name, 8080).phase("Running").address("127.1.0.9");
    for (what, spec, pods, expected) in [
        ("nobody", json!({}), vec![], vec![]),
        (
            "without an address",
            json!({}),
            vec![web("a", 8080).phase("Pending")],
            vec![],
        ),
        (
            "ready and not",
            json!({}),
            vec![web("a", 8080).ready(), waiting("b")],
            vec!["a|b:8080"],
        ),
        (
            "ended",
            json!({}),
            vec![web("a", 8080).ready().phase("Succeeded")],
            vec![],
        ),
        (
            "leaving",
            json!({}),
            vec![web("a", 8080).ready().leaving()],
            vec![],
        ),
        (
            "all, ready or not",
            json!({"publishNotReadyAddresses": true}),
            vec![waiting("b")],
            vec!["b|:8080"],
        ),
        (
            "other ports",
            json!({}),
            vec![web("a", 8080).ready(), web("b", 9090).ready()],
            vec!["a|:8080", "b|:9090"],
        ),
        (
            "no such port",
            json!({"ports": [{"port": 80, "targetPort": "grpc"}]}),
            vec![web("a", 8080).ready()],
            vec![],
        ),
        (
            "by number",
            json!({"ports": [{"port": 80, "targetPort": 81}]}),
            vec![web("a", 8080).ready()],
            vec!["a|:81"],
        ),
        (
            "as it is",
            json!({"ports": [{"port": 80}]}),
            vec![web("a", 8080).ready()],
            vec!["a|:80"],
        ),
        (
            "headless without ports",
            json!({"clusterIP": "None", "ports": null}),
            vec![web("a", 8080).ready()],
            vec!["a|:"],
        ),
    ] {
        assert_eq!(lines(spec, pods), expected, "{what}");
    }
}

#[test]
fn what_has_no_selector_or_no_service_is_left_alone_or_removed() {
    let alone = plan(&observed(json!({"selector": null}), vec![]));
    assert!(alone.create.is_none() && alone.create_slices.is_empty());
    let made = plan(&observed(json!({}), vec![web("a", 8080).ready()]));
    let there = Observed {
        endpoints: made.create.map(Arc::new),
        slices: made.create_slices.into_iter().map(Arc::new).collect(),
        has_slices: true,
        ..Observed::default()
    };
    let gone = plan(&there);
    assert!(gone.remove.is_some() && gone.remove_slices.len() == 1);
    // What is as it should be is not written.
    let same = Observed {
        service: observed(json!({}), vec![]).service,
        pods: vec![Arc::new(web("a", 8080).ready().0)],
        ..there
    };
    let nothing = plan(&same);
    assert!(
        nothing.replace.is_none() && nothing.replace_slices.is_empty() && nothing.remove_slices.is_empty()
    );
}
