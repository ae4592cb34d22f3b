//! What objects have beside others: addresses, quotas, limits, classes.

use std::collections::BTreeSet;

use coracle_apiserver::{Reserve, publish_api};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Api, MERGE, PODS, pod, with_body};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const LIMITS: &str = "/api/v1/namespaces/default/limitranges";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const JSON: &str = "application/json";

fn service(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "selector": {"app": name}}})
}

fn quota(hard: Value) -> Value {
    json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})
}

#[tokio::test]
async fn services_made_at_once_get_addresses_of_their_own() {
    let api = Api::new().await;
    let names = (0..40).map(|number| format!("s{number}")).collect::<Vec<_>>();
    let created = names
        .iter()
        .map(async |name| api.create(SERVICES, &service(name)).await);
    let created = join_all(created).await;
    let addresses = created
        .iter()
        .map(|service| service["spec"]["clusterIP"].as_str().unwrap())
        .collect::<BTreeSet<_>>();
    assert_eq!(addresses.len(), 40);
    assert!(addresses.iter().all(|address| address.starts_with("127.15.")));
    // It stays when the Service is changed, whether the change names it or not.
    let path = format!("{SERVICES}/s0");
    let mut changed = service("s0");
    changed["spec"]["ports"][0]["port"] = json!(81);
    let changed = api.expect(200, with_body("PUT", &path, JSON, &changed)).await;
    assert_eq!(changed["spec"]["clusterIP"], created[0]["spec"]["clusterIP"]);
    let taken = json!({"spec": {"clusterIP": created[1]["spec"]["clusterIP"]}});
    let refused = api.expect(422, with_body("PATCH", &path, MERGE, &taken)).await;
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("may not change once set")
    );
    let mut given = service("given");
    given["spec"]["clusterIP"] = created[1]["spec"]["clusterIP"].clone();
    let refused = api.expect(422, with_body("POST", SERVICES, JSON, &given)).await;
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("provided IP is already allocated")
    );
    // What is deleted is free again.
    api.delete(&format!("{SERVICES}/s1")).await;
    let free = api.create(SERVICES, &given).await;
    assert_eq!(free["spec"]["clusterIP"], created[1]["spec"]["clusterIP"]);
}

#[tokio::test]
async fn a_service_can_begin_to_have_ports_of_the_machine_and_cease_to() {
    let api = Api::new().await;
    api.create(SERVICES, &service("s")).await;
    let path = format!("{SERVICES}/s");
    let open = api
        .patch(&path, MERGE, &json!({"spec": {"type": "NodePort"}}))
        .await;
    let port = open["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    assert!((30000..=32767).contains(&port));
    let relabelled = api
        .patch(&path, MERGE, &json!({"spec": {"selector": {"app": "x"}}}))
        .await;
    assert_eq!(relabelled["spec"]["ports"][0]["nodePort"], port);
    let closed = api
        .patch(&path, MERGE, &json!({"spec": {"type": "ClusterIP"}}))
        .await;
    assert_eq!(closed["spec"]["ports"][0].get("nodePort"), None);
    assert_eq!(closed["spec"]["clusterIP"], open["spec"]["clusterIP"]);
}

#[tokio::test]
async fn the_api_is_a_service_whose_port_may_change() {
    let api = Api::new().await;
    for port in [6443, 7443] {
        let address = format!("127.0.0.1:{port}").parse().unwrap();
        publish_api(api.resources(), &Default::default(), &Reserve::default(), address)
            .await
            .unwrap();
        let service = api.get(&format!("{SERVICES}/kubernetes")).await;
        assert_eq!(service["spec"]["clusterIP"], "127.15.0.1");
        assert_eq!(service["spec"]["ports"][0]["targetPort"], port);
        let endpoints = api.get("/api/v1/namespaces/default/endpoints/kubernetes").await;
        assert_eq!(endpoints["subsets"][0]["ports"][0]["port"], port);
    }
}

#[tokio::test]
async fn no_more_is_made_at_once_than_a_quota_allows() {
    let api = Api::new().await;
    api.create(QUOTAS, &quota(json!({"pods": "5", "count/configmaps": "3"})))
        .await;
    let names = (0..20).map(|number| format!("p{number}")).collect::<Vec<_>>();
    let answers = names
        .iter()
        .map(async |name| api.send(with_body("POST", PODS, JSON, &pod(name))).await);
    let answers = join_all(answers).await;
    let made = answers.iter().filter(|(code, _)| *code == 201).count();
    assert_eq!(made, 5);
    let (_, refused) = answers.iter().find(|(code, _)| *code == 403).unwrap();
    let message = refused["message"].as_str().unwrap();
    assert!(
        message
            .ends_with("is forbidden: exceeded quota: q, requested: pods=1, used: pods=5, limited: pods=5"),
        "{message}"
    );
    // What is over leaves room.
    let (_, one) = answers.iter().find(|(code, _)| *code == 201).unwrap();
    let name = one["metadata"]["name"].as_str().unwrap();
    let over = json!({"status": {"phase": "Succeeded"}});
    api.patch(&format!("{PODS}/{name}/status"), MERGE, &over).await;
    api.create(PODS, &pod("again")).await;
    // Nothing is limited in another namespace.
    api.create("/api/v1/namespaces", &json!({"metadata": {"name": "other"}}))
        .await;
    for number in 0..6 {
        api.create("/api/v1/namespaces/other/pods", &pod(&format!("p{number}")))
            .await;
    }
}

#[tokio::test]
async fn a_pod_says_what_it_needs_when_that_is_limited() {
    let api = Api::new().await;
    api.create(
        QUOTAS,
        &quota(json!({"limits.cpu": "2", "requests.nvidia.com/gpu": "1"})),
    )
    .await;
    let refused = api.expect(403, with_body("POST", PODS, JSON, &pod("p"))).await;
    assert_eq!(
        refused["message"],
        "pods \"p\" is forbidden: failed quota: q: must specify limits.cpu for: main"
    );
    let mut sized = pod("p");
    sized["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "1500m", "nvidia.com/gpu": "1"}});
    api.create(PODS, &sized).await;
    sized["metadata"]["name"] = json!("second");
    let refused = api.expect(403, with_body("POST", PODS, JSON, &sized)).await;
    assert_eq!(
        refused["message"],
        "pods \"second\" is forbidden: exceeded quota: q, requested: limits.cpu=1500m,requests.nvidia.com/gpu=1, \
         used: limits.cpu=1500m,requests.nvidia.com/gpu=1, limited: limits.cpu=2,requests.nvidia.com/gpu=1"
    );
}

#[tokio::test]
async fn bounds_of_a_namespace_fill_in_and_refuse() {
    let api = Api::new().await;
    let limit = json!({
        "type": "Container",
        "max": {"cpu": "1"},
        "default": {"cpu": "500m", "memory": "1024Mi"},
        "defaultRequest": {"cpu": "250m"},
    });
    api.create(
        LIMITS,
        &json!({"metadata": {"name": "l"}, "spec": {"limits": [limit]}}),
    )
    .await;
    let filled = api.create(PODS, &pod("p")).await;
    assert_eq!(
        filled["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "250m", "memory": "1Gi"}})
    );
    assert_eq!(filled["status"]["qosClass"], "Burstable");
    let mut large = pod("large");
    large["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "2"}});
    let refused = api.expect(403, with_body("POST", PODS, JSON, &large)).await;
    assert_eq!(
        refused["message"],
        "pods \"large\" is forbidden: maximum cpu usage per Container is 1, but limit is 2"
    );
}

#[tokio::test]
async fn claims_and_pods_have_the_classes_that_are_always_there() {
    let api = Api::new().await;
    let claim = json!({
        "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    let claim = api.create(CLAIMS, &claim).await;
    assert_eq!(claim["spec"]["storageClassName"], "local");
    let class = api.get("/apis/storage.k8s.io/v1/storageclasses/local").await;
    assert_eq!(class["volumeBindingMode"], "Immediate");
    let mut critical = pod("p");
    critical["spec"]["priorityClassName"] = json!("system-node-critical");
    let critical = api.create(PODS, &critical).await;
    assert_eq!(critical["spec"]["priority"], 2_000_001_000);
    let mut unknown = pod("u");
    unknown["spec"]["priorityClassName"] = json!("gone");
    let refused = api.expect(403, with_body("POST", PODS, JSON, &unknown)).await;
    assert_eq!(
        refused["message"],
        "pods \"u\" is forbidden: no PriorityClass with name gone was found"
    );
}
