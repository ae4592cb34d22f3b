//! Endpoints, and what every namespace has.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    core::v1::{
        ConfigMap, Endpoints, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota, Service,
        ServiceAccount,
    },
    discovery::v1::EndpointSlice,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::harness::{Cluster, Fate, template};

fn pod(name: &str) -> serde_json::Value {
    let mut pod = template("web", "one");
    pod["metadata"]["name"] = json!(name);
    pod["spec"]["hostname"] = json!(name);
    pod["spec"]["subdomain"] = json!("web");
    pod
}

/// Names of the Pods that are ready and of those that are not.
fn targets(endpoints: &Endpoints) -> (BTreeSet<String>, BTreeSet<String>) {
    let name = |address: &k8s_openapi::api::core::v1::EndpointAddress| {
        address.target_ref.clone().and_then(|target| target.name).unwrap()
    };
    let subsets = endpoints.subsets.iter().flatten();
    let ready = subsets
        .clone()
        .flat_map(|subset| subset.addresses.iter().flatten().map(name));
    let other = subsets.flat_map(|subset| subset.not_ready_addresses.iter().flatten().map(name));
    (ready.collect(), other.collect())
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn endpoints_follow_the_readiness_of_pods() {
    let cluster = Cluster::start(|pod| {
        if pod.name_any() == "a" {
            Fate::Serves
        } else {
            Fate::Runs
        }
    })
    .await;
    let service = json!({
        "metadata": {"name": "web"},
        "spec": {"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"name": "main", "port": 80, "targetPort": "http"}]},
    });
    cluster.create::<Service>(service).await;
    for name in ["a", "b"] {
        cluster.create::<Pod>(pod(name)).await;
    }
    let is_first = |endpoints: &Endpoints| targets(endpoints) == (set(&["a"]), set(&["b"]));
    let first = cluster.until::<Endpoints>("web", "first", is_first).await;
    let subset = &first.subsets.as_ref().unwrap()[0];
    let port = &subset.ports.as_ref().unwrap()[0];
    assert_eq!((port.name.as_deref(), port.port), (Some("main"), 8080));
    assert_eq!(
        subset.addresses.as_ref().unwrap()[0].hostname.as_deref(),
        Some("a")
    );
    cluster.meet("b", Fate::Serves).await;
    cluster.meet("a", Fate::Runs).await;
    let is_second = |endpoints: &Endpoints| targets(endpoints) == (set(&["b"]), set(&["a"]));
    cluster.until::<Endpoints>("web", "second", is_second).await;
    cluster.delete::<Pod>("a").await;
    let is_third = |endpoints: &Endpoints| targets(endpoints) == (set(&["b"]), set(&[]));
    cluster.until::<Endpoints>("web", "third", is_third).await;
    let slices = cluster.list::<EndpointSlice>().await;
    let slice = slices.iter().find(|slice| !slice.endpoints.is_empty()).unwrap();
    let slice = cluster
        .until::<EndpointSlice>(&slice.name_any(), "third", |slice| slice.endpoints.len() == 1)
        .await;
    assert_eq!(slice.labels()["kubernetes.io/service-name"], "web");
    assert_eq!(slice.endpoints[0].conditions.as_ref().unwrap().ready, Some(true));
    cluster.delete::<Service>("web").await;
    cluster.until_gone::<Endpoints>("web").await;
    cluster.until_gone::<EndpointSlice>(&slice.name_any()).await;
}

#[tokio::test]
async fn every_namespace_has_an_account_and_the_certificate() {
    let cluster = Cluster::start(|_| Fate::Waits).await;
    cluster
        .until::<ServiceAccount>("default", "there", |_| true)
        .await;
    let is_right = |bundle: &ConfigMap| {
        bundle
            .data
            .as_ref()
            .is_some_and(|data| data["ca.crt"] == "certificate")
    };
    cluster
        .until::<ConfigMap>("kube-root-ca.crt", "there", is_right)
        .await;
    cluster
        .patch::<ConfigMap>("kube-root-ca.crt", json!({"data": {"ca.crt": "other"}}))
        .await;
    cluster
        .until::<ConfigMap>("kube-root-ca.crt", "mended", is_right)
        .await;
    cluster.delete::<ServiceAccount>("default").await;
    cluster.until::<ServiceAccount>("default", "back", |_| true).await;
}

#[tokio::test]
async fn a_bound_claim_has_a_volume_that_goes_with_it() {
    let cluster = Cluster::start(|_| Fate::Waits).await;
    let claim = json!({
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    cluster.create::<PersistentVolumeClaim>(claim).await;
    let bound = Patch::Merge(json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}));
    let claims = cluster.api::<PersistentVolumeClaim>();
    claims
        .patch_status("data", &PatchParams::default(), &bound)
        .await
        .unwrap();
    let named =
        |claim: &PersistentVolumeClaim| claim.spec.as_ref().is_some_and(|spec| spec.volume_name.is_some());
    let claim = cluster
        .until::<PersistentVolumeClaim>("data", "named", named)
        .await;
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    let name = claim.spec.unwrap().volume_name.unwrap();
    let volume = volumes.get(&name).await.unwrap();
    assert_eq!(volume.status.unwrap().phase.as_deref(), Some("Bound"));
    cluster.delete::<PersistentVolumeClaim>("data").await;
    let gone =
        kube::runtime::wait::await_condition(volumes.clone(), &name, |volume: Option<&PersistentVolume>| {
            volume.is_none()
        });
    tokio::time::timeout(std::time::Duration::from_secs(30), gone)
        .await
        .unwrap()
        .unwrap();
    assert!(
        volumes
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

#[tokio::test]
async fn quotas_and_budgets_tell_what_there_is() {
    let cluster = Cluster::start(|_| Fate::Serves).await;
    let quota =
        json!({"metadata": {"name": "limits"}, "spec": {"hard": {"pods": "5", "count/configmaps": "9"}}});
    cluster.create::<ResourceQuota>(quota).await;
    let budget = json!({"metadata": {"name": "web"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    cluster.create::<PodDisruptionBudget>(budget).await;
    for name in ["a", "b"] {
        cluster.create::<Pod>(pod(name)).await;
    }
    let uses = |quota: &ResourceQuota, pods: &str| {
        let used = quota
            .status
            .clone()
            .and_then(|status| status.used)
            .unwrap_or_default();
        used.get("pods").is_some_and(|used| used.0 == pods)
    };
    cluster
        .until::<ResourceQuota>("limits", "used", |quota| uses(quota, "2"))
        .await;
    let allows = |budget: &PodDisruptionBudget, count: i32| {
        budget
            .status
            .as_ref()
            .is_some_and(|status| status.disruptions_allowed == count)
    };
    cluster
        .until::<PodDisruptionBudget>("web", "loose", |budget| allows(budget, 1))
        .await;
    cluster.delete::<Pod>("a").await;
    cluster
        .until::<ResourceQuota>("limits", "less used", |quota| uses(quota, "1"))
        .await;
    cluster
        .until::<PodDisruptionBudget>("web", "tight", |budget| allows(budget, 0))
        .await;
}
