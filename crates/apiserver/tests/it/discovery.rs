//! Discovery, OpenAPI and health.

use serde_json::json;

use crate::harness::{Api, JSON_PATCH, accepting, get};

#[tokio::test]
async fn resources_are_listed_with_what_can_be_done_to_them() {
    let api = Api::new().await;
    let list = api.get("/api/v1").await;
    let resources = list["resources"].as_array().unwrap();
    let find = |name: &str| {
        resources
            .iter()
            .find(|resource| resource["name"] == name)
            .unwrap()
    };
    assert_eq!(find("pods")["shortNames"], json!(["po"]));
    assert_eq!(find("pods/log")["verbs"], json!(["get"]));
    assert_eq!(find("pods/eviction")["group"], "policy");
    assert_eq!(find("namespaces")["namespaced"], false);
    let leases = api.get("/apis/coordination.k8s.io/v1").await;
    assert_eq!(leases["groupVersion"], "coordination.k8s.io/v1");
    api.expect(404, get("/apis/apps/v1beta1")).await;
    api.expect(404, get("/apis/extensions")).await;
}

#[tokio::test]
async fn groups_are_listed_apart_and_all_at_once() {
    let api = Api::new().await;
    assert_eq!(api.get("/api").await["versions"], json!(["v1"]));
    assert_eq!(
        api.get("/apis").await["groups"][0]["preferredVersion"]["version"],
        "v1"
    );
    assert_eq!(api.get("/apis/coordination.k8s.io").await["kind"], "APIGroup");
    for version in ["v2", "v2beta1"] {
        let accept = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        for path in ["/api", "/apis"] {
            let response = api.raw(accepting(path, &accept)).await;
            assert_eq!(response.headers()["content-type"], accept.as_str());
        }
        let list = api.expect(200, accepting("/api", &accept)).await;
        let resources = list["items"][0]["versions"][0]["resources"].as_array().unwrap();
        let pods = resources
            .iter()
            .find(|resource| resource["resource"] == "pods")
            .unwrap();
        assert_eq!(
            pods["responseKind"],
            json!({"group": "", "version": "v1", "kind": "Pod"})
        );
        assert_eq!(pods["scope"], "Namespaced");
    }
}

#[tokio::test]
async fn openapi_says_that_writes_can_be_validated() {
    let api = Api::new().await;
    let index = api.get("/openapi/v3").await;
    let url = index["paths"]["api/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap()
        .to_owned();
    let document = api.get(&url).await;
    let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Pod");
    let parameters = patch["parameters"].as_array().unwrap().iter();
    assert!(
        parameters
            .map(|one| &one["name"])
            .any(|name| *name == "fieldValidation")
    );
    let protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    // Version 2 describes nothing, which leaves the judging to the server.
    let described = api.expect(200, accepting("/openapi/v2", protobuf)).await;
    assert_eq!(
        described,
        "\n\u{3}2.0\u{12}\u{12}\n\u{7}Coracle\u{12}\u{7}v1.34.0B\u{0}"
    );
    let other = accepting("/openapi/v2", "application/vnd.kubernetes.protobuf");
    assert_eq!(api.expect(406, other).await["reason"], "NotAcceptable");
}

#[tokio::test]
async fn the_server_says_how_it_is() {
    let api = Api::new().await;
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(api.get(path).await, "ok");
    }
    assert_eq!(api.get("/version").await["minor"], "34");
}

#[tokio::test]
async fn openapi_has_the_schemas_of_built_in_and_custom_kinds() {
    let api = Api::new().await;
    let core = api.get("/openapi/v3/api/v1").await;
    let container = &core["components"]["schemas"]["io.k8s.api.core.v1.Container"];
    assert_eq!(container["required"], json!(["name"]));
    assert_eq!(
        container["properties"]["env"]["x-kubernetes-patch-merge-key"],
        "name"
    );
    let create = &core["paths"]["/api/v1/namespaces/{namespace}/services"]["post"];
    assert_eq!(
        create["requestBody"]["content"]["application/json"]["schema"]["$ref"],
        "#/components/schemas/io.k8s.api.core.v1.Service"
    );
    let schema = json!({
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}},
    });
    let definition = json!({
        "metadata": {"name": "widgets.example.dev"},
        "spec": {
            "group": "example.dev",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    api.create(definitions, &definition).await;
    let index = api.get("/openapi/v3").await;
    let url = index["paths"]["apis/example.dev/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap()
        .to_owned();
    let document = api.get(&url).await;
    let widget = &document["components"]["schemas"]["dev.example.v1.Widget"];
    assert_eq!(
        widget["properties"]["spec"]["properties"]["size"]["type"],
        "integer"
    );
    assert_eq!(widget["x-kubernetes-group-version-kind"][0]["kind"], "Widget");
    // Asked for by its hash it may be kept, and another schema has another hash.
    let response = api.raw(accepting(&url, "application/json")).await;
    assert!(
        response.headers()["cache-control"]
            .to_str()
            .unwrap()
            .contains("immutable")
    );
    let more = json!([{
        "op": "add",
        "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/colour",
        "value": {"type": "string"},
    }]);
    api.patch(&format!("{definitions}/widgets.example.dev"), JSON_PATCH, &more)
        .await;
    let again = api.get("/openapi/v3").await;
    assert_ne!(again["paths"]["apis/example.dev/v1"]["serverRelativeURL"], url);
}
