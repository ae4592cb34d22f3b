//! Kinds that come from CustomResourceDefinitions, from the definition to its end.

use std::time::Duration;

use coracle_apiserver::bootstrap;
use serde_json::{Value, json};

use crate::harness::{Api, MERGE, accepting, get, with_body};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const JOBS: &str = "/apis/trainer.test.io/v1alpha1/namespaces/default/trainjobs";
const JSON: &str = "application/json";
const TABLE: &str = "application/json;as=Table;g=meta.k8s.io;v=v1";

/// A definition in the shape of Kubeflow's TrainJob.
fn train_jobs() -> Value {
    let schema = json!({
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {
                "type": "object",
                "required": ["runtimeRef"],
                "properties": {
                    "runtimeRef": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {
                            "name": {"type": "string", "minLength": 1},
                            "kind": {"type": "string", "default": "ClusterTrainingRuntime"},
                        },
                        "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "runtimeRef is immutable"}],
                    },
                    "managedBy": {
                        "type": "string",
                        "default": "trainer.test.io/controller",
                        "x-kubernetes-validations": [{
                            "rule": "self in ['trainer.test.io/controller', 'kueue.x-k8s.io/multikueue']",
                            "message": "managedBy is not known",
                        }],
                    },
                    "suspend": {"type": "boolean", "default": false},
                    "trainer": {
                        "type": "object",
                        "properties": {
                            "numNodes": {"type": "integer", "format": "int32", "minimum": 1},
                            "numProcPerNode": {"x-kubernetes-int-or-string": true},
                            "env": {
                                "type": "array",
                                "x-kubernetes-list-type": "map",
                                "x-kubernetes-list-map-keys": ["name"],
                                "items": {
                                    "type": "object",
                                    "required": ["name"],
                                    "properties": {"name": {"type": "string"}, "value": {"type": "string"}},
                                },
                            },
                        },
                    },
                    "template": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                },
            },
            "status": {
                "type": "object",
                "properties": {
                    "replicas": {"type": "integer"},
                    "conditions": {"type": "array", "items": {
                        "type": "object",
                        "properties": {"type": {"type": "string"}, "status": {"type": "string"}},
                    }},
                },
            },
        },
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "trainjobs.trainer.test.io"},
        "spec": {
            "group": "trainer.test.io",
            "scope": "Namespaced",
            "names": {"plural": "trainjobs", "kind": "TrainJob", "shortNames": ["tj"], "categories": ["all"]},
            "versions": [{
                "name": "v1alpha1",
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": schema},
                "subresources": {
                    "status": {},
                    "scale": {
                        "specReplicasPath": ".spec.trainer.numNodes",
                        "statusReplicasPath": ".status.replicas",
                    },
                },
                "selectableFields": [{"jsonPath": ".spec.runtimeRef.name"}],
                "additionalPrinterColumns": [
                    {"name": "State", "type": "string", "jsonPath": ".status.conditions[-1].type"},
                    {"name": "Nodes", "type": "integer", "jsonPath": ".spec.trainer.numNodes"},
                ],
            }],
        },
    })
}

fn job_named(name: &str) -> Value {
    json!({
        "apiVersion": "trainer.test.io/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": name},
        "spec": {"runtimeRef": {"name": "torch"}, "trainer": {"numNodes": 2, "numProcPerNode": "auto"}},
    })
}

async fn defined() -> Api {
    let api = Api::new().await;
    api.create(DEFINITIONS, &train_jobs()).await;
    api
}

#[tokio::test]
async fn a_kind_is_served_as_soon_as_it_is_defined() {
    let api = Api::new().await;
    api.expect(404, get(JOBS)).await;
    api.create(DEFINITIONS, &train_jobs()).await;
    let definition = api.get(&format!("{DEFINITIONS}/trainjobs.trainer.test.io")).await;
    let conditions = definition["status"]["conditions"].as_array().unwrap();
    let holds = |name: &str| {
        conditions
            .iter()
            .any(|one| one["type"] == name && one["status"] == "True")
    };
    assert!(holds("NamesAccepted") && holds("Established"), "{conditions:#?}");
    assert_eq!(definition["status"]["acceptedNames"]["listKind"], "TrainJobList");
    assert_eq!(definition["status"]["storedVersions"], json!(["v1alpha1"]));

    assert_eq!(api.get(JOBS).await["kind"], "TrainJobList");
    let resources = api.get("/apis/trainer.test.io/v1alpha1").await;
    let names = resources["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect::<Vec<_>>();
    assert_eq!(names, ["trainjobs", "trainjobs/status", "trainjobs/scale"]);
    assert_eq!(resources["resources"][0]["shortNames"], json!(["tj"]));
    let groups = api.get("/apis").await;
    let has_group = |group: &Value| group["name"] == "trainer.test.io";
    assert!(groups["groups"].as_array().unwrap().iter().any(has_group));
}

#[tokio::test]
async fn objects_are_completed_and_pruned() {
    let api = defined().await;
    let mut given = job_named("a");
    given["spec"]["nodes"] = json!(3);
    given["spec"]["template"] = json!({"any": {"thing": null}});
    given["status"] = json!({"replicas": 7});
    let created = api.create(JOBS, &given).await;
    assert_eq!(created["spec"]["runtimeRef"]["kind"], "ClusterTrainingRuntime");
    assert_eq!(created["spec"]["suspend"], false);
    assert_eq!(created["spec"].get("nodes"), None);
    assert_eq!(created["spec"]["template"], json!({"any": {"thing": null}}));
    assert_eq!(created.get("status"), None);
    assert_eq!(created["metadata"]["generation"], 1);

    let strict = format!("{JOBS}?fieldValidation=Strict");
    given["metadata"]["name"] = json!("b");
    let refused = api.expect(400, with_body("POST", &strict, JSON, &given)).await;
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("unknown field \"spec.nodes\""),
        "{refused:#}"
    );
}

#[tokio::test]
async fn bad_objects_are_refused_where_they_are_bad() {
    let api = defined().await;
    for (pointer, value, expected) in [
        (
            "/spec/trainer/numNodes",
            json!("two"),
            r#"spec.trainer.numNodes: Invalid value: "string": spec.trainer.numNodes in body must be of type integer: "string""#,
        ),
        (
            "/spec/trainer/numNodes",
            json!(0),
            "spec.trainer.numNodes: Invalid value: 0: spec.trainer.numNodes in body should be greater than or equal to 1",
        ),
        (
            "/spec/runtimeRef",
            json!({}),
            "spec.runtimeRef.name: Required value",
        ),
        (
            "/spec/managedBy",
            json!("me"),
            r#"spec.managedBy: Invalid value: "string": managedBy is not known"#,
        ),
        (
            "/spec/trainer/env",
            json!([{"name": "A"}, {"name": "A"}]),
            r#"spec.trainer.env[1]: Duplicate value: {"name":"A"}"#,
        ),
    ] {
        let mut bad = job_named("bad");
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        bad.pointer_mut(parent).unwrap()[field] = value;
        let refused = api.expect(422, with_body("POST", JOBS, JSON, &bad)).await;
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains(expected), "{message}");
        assert!(
            message.starts_with("TrainJob.trainer.test.io \"bad\" is invalid: "),
            "{message}"
        );
        assert_eq!(refused["reason"], "Invalid");
    }
    assert_eq!(api.get(JOBS).await["items"], json!([]));
}

#[tokio::test]
async fn transition_rules_hold_for_changes() {
    let api = defined().await;
    api.create(JOBS, &job_named("a")).await;
    let path = format!("{JOBS}/a");
    let changed = api.patch(&path, MERGE, &json!({"spec": {"suspend": true}})).await;
    assert_eq!(changed["metadata"]["generation"], 2);
    let other = json!({"spec": {"runtimeRef": {"name": "other"}}});
    let refused = api.expect(422, with_body("PATCH", &path, MERGE, &other)).await;
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("runtimeRef is immutable"),
        "{refused:#}"
    );
}

#[tokio::test]
async fn status_and_scale_are_parts_of_their_own() {
    let api = defined().await;
    api.create(JOBS, &job_named("a")).await;
    let path = format!("{JOBS}/a");
    let status =
        json!({"spec": {"suspend": true}, "status": {"replicas": 1, "conditions": [{"type": "Running"}]}});
    let written = api.patch(&format!("{path}/status"), MERGE, &status).await;
    assert_eq!(written["spec"]["suspend"], false);
    assert_eq!(written["metadata"]["generation"], 1);
    let bad = json!({"status": {"replicas": "many"}});
    api.expect(422, with_body("PATCH", &format!("{path}/status"), MERGE, &bad))
        .await;

    let scale = api.get(&format!("{path}/scale")).await;
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"]),
        (&json!("Scale"), &json!(2))
    );
    assert_eq!(scale["status"]["replicas"], 1);
    let scaled = api
        .patch(&format!("{path}/scale"), MERGE, &json!({"spec": {"replicas": 5}}))
        .await;
    assert_eq!(scaled["spec"]["replicas"], 5);
    let object = api.get(&path).await;
    assert_eq!(object["spec"]["trainer"]["numNodes"], 5);
    assert_eq!(object["metadata"]["generation"], 2);
    let negative = json!({"spec": {"replicas": -1}});
    let refused = api
        .expect(
            422,
            with_body("PATCH", &format!("{path}/scale"), MERGE, &negative),
        )
        .await;
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.contains("spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        "{message}"
    );
}

#[tokio::test]
async fn columns_and_selectable_fields_are_those_of_the_definition() {
    let api = defined().await;
    api.create(JOBS, &job_named("a")).await;
    let mut other = job_named("b");
    other["spec"]["runtimeRef"]["name"] = json!("jax");
    api.create(JOBS, &other).await;
    let table = api.expect(200, accepting(JOBS, TABLE)).await;
    let names = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect::<Vec<_>>();
    assert_eq!(names, ["Name", "State", "Nodes"]);
    assert_eq!(table["rows"][0]["cells"], json!(["a", null, 2]));
    let selected = api
        .get(&format!("{JOBS}?fieldSelector=spec.runtimeRef.name%3Djax"))
        .await;
    assert_eq!(selected["items"].as_array().unwrap().len(), 1);
    assert_eq!(selected["items"][0]["metadata"]["name"], "b");
}

#[tokio::test]
async fn schemas_are_published_and_change_with_the_definition() {
    let api = defined().await;
    let path = "apis/trainer.test.io/v1alpha1";
    let url = async || {
        let index = api.get("/openapi/v3").await;
        index["paths"][path]["serverRelativeURL"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let before = url().await;
    let document = api.get(&before).await;
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let job = schemas
        .iter()
        .find(|(name, _)| name.ends_with(".TrainJob"))
        .unwrap()
        .1;
    assert_eq!(
        job["properties"]["spec"]["properties"]["suspend"]["type"],
        "boolean"
    );
    let mut definition = api.get(&format!("{DEFINITIONS}/trainjobs.trainer.test.io")).await;
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["note"] =
        json!({"type": "string"});
    let path = format!("{DEFINITIONS}/trainjobs.trainer.test.io");
    api.expect(200, with_body("PUT", &path, JSON, &definition)).await;
    assert_ne!(url().await, before);
    let mut noted = job_named("a");
    noted["spec"]["note"] = json!("kept");
    assert_eq!(api.create(JOBS, &noted).await["spec"]["note"], "kept");
}

#[tokio::test]
async fn server_side_apply_goes_by_the_keys_of_the_schema() {
    let api = defined().await;
    let apply = async |manager: &str, env: Value| {
        let mut wanted = job_named("a");
        wanted["spec"]["trainer"] = json!({"env": env});
        let path = format!("{JOBS}/a?fieldManager={manager}");
        let request = with_body("PATCH", &path, "application/apply-patch+yaml", &wanted);
        let (code, applied) = api.send(request).await;
        assert!(code.is_success(), "{applied:#}");
        applied
    };
    apply("one", json!([{"name": "A", "value": "1"}])).await;
    let both = apply("two", json!([{"name": "B", "value": "2"}])).await;
    let env = json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]);
    assert_eq!(both["spec"]["trainer"]["env"], env);
    let less = apply("one", json!([])).await;
    assert_eq!(
        less["spec"]["trainer"]["env"],
        json!([{"name": "B", "value": "2"}])
    );
}

#[tokio::test]
async fn an_object_is_shown_in_every_version_that_is_served() {
    let api = Api::new().await;
    let mut definition = train_jobs();
    let mut newer = definition["spec"]["versions"][0].clone();
    newer["name"] = json!("v1");
    newer["storage"] = json!(false);
    definition["spec"]["versions"][0]["deprecated"] = json!(true);
    definition["spec"]["versions"].as_array_mut().unwrap().push(newer);
    api.create(DEFINITIONS, &definition).await;
    api.create(JOBS, &job_named("a")).await;
    let newer = JOBS.replace("v1alpha1", "v1");
    let shown = api.get(&format!("{newer}/a")).await;
    assert_eq!(shown["apiVersion"], "trainer.test.io/v1");
    let list = api.get(&newer).await;
    assert_eq!(list["items"][0]["apiVersion"], "trainer.test.io/v1");
    api.patch(&format!("{newer}/a"), MERGE, &json!({"spec": {"suspend": true}}))
        .await;
    assert_eq!(api.get(&format!("{JOBS}/a")).await["spec"]["suspend"], true);
    let warnings = [
        (
            JOBS,
            Some("299 - \"trainer.test.io/v1alpha1 TrainJob is deprecated\""),
        ),
        (&newer, None),
    ];
    for (path, warning) in warnings {
        let response = api.raw(get(path)).await;
        assert_eq!(
            response
                .headers()
                .get("warning")
                .map(|value| value.to_str().unwrap()),
            warning
        );
    }
    let group = api.get("/apis/trainer.test.io").await;
    assert_eq!(group["preferredVersion"]["version"], "v1");
}

#[tokio::test]
async fn a_definition_that_is_wrong_or_taken_is_not_served() {
    let api = defined().await;
    let mut wrong = train_jobs();
    wrong["metadata"]["name"] = json!("others.trainer.test.io");
    wrong["spec"]["names"] = json!({"plural": "others", "kind": "Other"});
    wrong["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["type"] = json!("");
    let refused = api
        .expect(422, with_body("POST", DEFINITIONS, JSON, &wrong))
        .await;
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.contains("spec.versions[0].schema.openAPIV3Schema.properties[spec].type: Required value"),
        "{message}"
    );

    let mut taken = train_jobs();
    taken["metadata"]["name"] = json!("others.trainer.test.io");
    taken["spec"]["names"] = json!({"plural": "others", "singular": "other", "kind": "TrainJob"});
    api.create(DEFINITIONS, &taken).await;
    let definition = api.get(&format!("{DEFINITIONS}/others.trainer.test.io")).await;
    assert_eq!(definition["status"]["conditions"][0]["status"], "False");
    assert_eq!(definition["status"]["conditions"][0]["reason"], "KindConflict");
    api.expect(404, get("/apis/trainer.test.io/v1alpha1/others"))
        .await;
}

#[tokio::test]
async fn with_its_definition_a_kind_goes_and_all_its_objects_before() {
    let api = Api::collecting().await;
    api.create(DEFINITIONS, &train_jobs()).await;
    let mut held = job_named("held");
    held["metadata"]["finalizers"] = json!(["a.io/wait"]);
    api.create(JOBS, &held).await;
    api.create(JOBS, &job_named("free")).await;
    let mut definitions = api.watch(&format!("{DEFINITIONS}?watch=true")).await;
    let mut jobs = api.watch(&format!("{JOBS}?watch=true")).await;
    api.delete(&format!("{DEFINITIONS}/trainjobs.trainer.test.io"))
        .await;
    jobs.until_deleted("free").await;
    api.expect(405, with_body("POST", JOBS, JSON, &job_named("late")))
        .await;
    api.patch(
        &format!("{JOBS}/held"),
        MERGE,
        &json!({"metadata": {"finalizers": null}}),
    )
    .await;
    definitions.until_deleted("trainjobs.trainer.test.io").await;
    let gone = async {
        while api.send(get(JOBS)).await.0 != 404 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
    // A kind of the same name begins anew.
    api.create(DEFINITIONS, &train_jobs()).await;
    assert_eq!(api.get(JOBS).await["items"], json!([]));
}

#[tokio::test]
async fn after_a_restart_the_first_request_finds_every_kind() {
    let api = defined().await;
    api.create(JOBS, &job_named("a")).await;
    let catalogue = bootstrap(api.resources()).await.unwrap();
    let api = api.restarted(catalogue);
    assert_eq!(api.get(JOBS).await["items"][0]["metadata"]["name"], "a");
}
