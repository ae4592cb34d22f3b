//! Every setting, with a constant and with a value from the pipeline, and what each becomes.

use serde_json::{Value, json};

use super::super::tests::{built_with, component};
use coracle_api::{launch::Failure, reason::Reason};

/// What the pipeline knows: inputs of the DAG by name, outputs as `task.output`.
fn known() -> Value {
    json!({
        "secret": "from-input",
        "gen.out": "from-output",
        "pipelinechannel--looped": "from-channel",
        "absent": null,
        "labels": {"disk": "ssd"},
        "taint": {"key": "k", "operator": "Exists", "tolerationSeconds": 3.0},
        "taints": [{"key": "a"}, {}, {"key": "b"}],
        "affinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": []}]}},
        "text": "{\"disk\": \"hdd\"}",
        "number": 3,
    })
}

fn pod(settings: Value) -> Result<Value, Failure> {
    built_with(
        &component(),
        json!({"image": "alpine"}),
        json!({}),
        settings,
        known(),
    )
    .map(|built| built.pod)
}

/// The Pod's part at the pointer.
fn check(settings: Value, pointer: &str, expected: Value) {
    let pod = pod(settings.clone()).unwrap_or_else(|failure| panic!("{settings}: {}", failure.message));
    let found = pod.pointer(pointer).cloned().unwrap_or_default();
    assert_eq!(found, expected, "{settings}");
}

fn refused(settings: Value, expected: &str) {
    let failure = pod(settings.clone()).expect_err("must fail");
    assert_eq!(failure.reason, Reason::SettingInvalid, "{settings}");
    assert!(
        failure.message.starts_with(expected),
        "{settings}: {}",
        failure.message
    );
}

const SPEC: &str = "/spec";
const VOLUMES: &str = "/spec/volumes";
const MOUNTS: &str = "/spec/containers/0/volumeMounts";

fn input(name: &str) -> Value {
    json!({"componentInputParameter": name})
}

fn output() -> Value {
    json!({"taskOutputParameter": {"producerTask": "gen", "outputParameterKey": "out"}})
}

fn constant(value: Value) -> Value {
    json!({"runtimeValue": {"constant": value}})
}

/// The variables behind the launcher's own two.
fn env(settings: Value, expected: Value) {
    let pod = pod(settings).expect("builds");
    let env = pod["spec"]["containers"][0]["env"].as_array().expect("list");
    assert_eq!(json!(env[2..]), expected);
}

#[test]
fn values_of_secrets_and_config_maps_become_variables() {
    let secret = |name: Value| {
        let mut setting = json!({"keyToEnv": [{"secretKey": "k", "envVar": "E"}]});
        setting["secretNameParameter"] = name;
        json!({"secretAsEnv": [setting]})
    };
    let reference =
        |name: &str| json!([{"name": "E", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}]);
    env(secret(constant(json!("s"))), reference("s"));
    env(secret(input("secret")), reference("from-input"));
    env(secret(input("looped")), reference("from-channel"));
    env(secret(output()), reference("from-output"));
    env(secret(input("absent")), json!([]));
    env(
        secret(constant(json!("a-{{channel:task=;name=secret;type=String;}}-z"))),
        reference("a-from-input-z"),
    );
    env(
        json!({"secretAsEnv": [{"secretName": "old", "optional": true, "keyToEnv": [{"secretKey": "k", "envVar": "E"}]}]}),
        json!([{"name": "E", "valueFrom": {"secretKeyRef": {"name": "old", "key": "k", "optional": true}}}]),
    );
    env(
        json!({"configMapAsEnv": [{"configMapNameParameter": output(), "optional": false,
            "keyToEnv": [{"configMapKey": "a", "envVar": "A"}, {"configMapKey": "b", "envVar": "B"}]}]}),
        json!([
            {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "from-output", "key": "a", "optional": false}}},
            {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "from-output", "key": "b", "optional": false}}},
        ]),
    );
    env(
        json!({"fieldPathAsEnv": [{"name": "N", "fieldPath": "metadata.name"}]}),
        json!([{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
    );
}

#[test]
fn secrets_config_maps_and_claims_become_folders() {
    let settings = json!({
        "secretAsVolume": [{"secretNameParameter": input("secret"), "mountPath": "/s", "optional": true}],
        "configMapAsVolume": [{"configMapName": "c", "mountPath": "/c"}],
        "pvcMount": [
            {"pvcNameParameter": output(), "mountPath": "/a", "subPath": "x"},
            {"taskOutputParameter": output()["taskOutputParameter"], "mountPath": "/b"},
            {"constant": "My.Claim", "mountPath": "/d"},
        ],
    });
    check(
        settings.clone(),
        VOLUMES,
        json!([
            {"name": "from-output", "persistentVolumeClaim": {"claimName": "from-output"}},
            {"name": "my-claim", "persistentVolumeClaim": {"claimName": "My.Claim"}},
            {"name": "from-input", "secret": {"secretName": "from-input", "optional": true}},
            {"name": "c", "configMap": {"name": "c", "optional": false}},
        ]),
    );
    check(
        settings,
        MOUNTS,
        json!([
            {"name": "from-output", "mountPath": "/a", "subPath": "x"},
            {"name": "from-output", "mountPath": "/b"},
            {"name": "my-claim", "mountPath": "/d"},
            {"name": "from-input", "mountPath": "/s"},
            {"name": "c", "mountPath": "/c"},
        ]),
    );
    check(
        json!({
            "secretAsVolume": [{"secretName": "same", "mountPath": "/s"}],
            "configMapAsVolume": [{"configMapName": "same", "mountPath": "/c"}],
        }),
        MOUNTS,
        json!([{"name": "same", "mountPath": "/s"}, {"name": "same-2", "mountPath": "/c"}]),
    );
}

#[test]
fn folders_of_the_pod_alone_live_as_long_as_it() {
    let settings = json!({
        "genericEphemeralVolume": [{"volumeName": "e", "mountPath": "/e", "accessModes": ["ReadWriteOnce"],
            "size": "1Gi", "storageClassName": "fast", "metadata": {"labels": {"a": "b"}}}],
        "emptyDirMounts": [{"volumeName": "d", "mountPath": "/d", "medium": "Memory", "sizeLimit": "1Mi"}],
        "enabledSharedMemory": {"size": "2Gi"},
    });
    check(
        settings.clone(),
        VOLUMES,
        json!([
            {"name": "e", "ephemeral": {"volumeClaimTemplate": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
                    "storageClassName": "fast"},
            }}},
            {"name": "d", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}},
        ]),
    );
    check(
        settings,
        MOUNTS,
        json!([
            {"name": "e", "mountPath": "/e"},
            {"name": "d", "mountPath": "/d"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ]),
    );
}

#[test]
fn the_machine_is_chosen_by_labels_taints_and_affinity() {
    let selector = |source: Value| json!({"nodeSelector": {"nodeSelectorJson": source}});
    let pointer = "/spec/nodeSelector";
    check(
        json!({"nodeSelector": {"labels": {"a": "b"}}}),
        pointer,
        json!({"a": "b"}),
    );
    check(selector(input("labels")), pointer, json!({"disk": "ssd"}));
    check(selector(input("text")), pointer, json!({"disk": "hdd"}));
    check(selector(input("absent")), pointer, Value::Null);
    check(
        json!({"tolerations": [
            {"key": "z", "operator": "Exists", "tolerationSeconds": "3"},
            {"tolerationJson": input("taint")},
            {"tolerationJson": input("taints")},
            {"tolerationJson": input("absent")},
        ]}),
        "/spec/tolerations",
        json!([
            {"key": "z", "operator": "Exists", "tolerationSeconds": 3},
            {"key": "k", "operator": "Exists", "tolerationSeconds": 3},
            {"key": "a"},
            {"key": "b"},
        ]),
    );
    let requirement = json!({"key": "a", "operator": "In", "values": ["b"]});
    check(
        json!({
            "nodeAffinity": [
                {"matchExpressions": [requirement]},
                {"matchFields": [requirement], "weight": 3},
                {"nodeAffinityJson": input("affinity")},
                {},
            ],
            "podAffinity": [
                {"topologyKey": "t", "matchPodLabels": {"x": "y"}, "namespaces": ["n"]},
                {"topologyKey": "t", "matchPodExpressions": [requirement], "anti": true, "weight": 1},
            ],
        }),
        "/spec/affinity",
        json!({
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [requirement]},
                    {"matchExpressions": []},
                ]},
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 3, "preference": {"matchFields": [requirement]}},
                ],
            },
            "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "t", "labelSelector": {"matchLabels": {"x": "y"}}, "namespaces": ["n"]},
            ]},
            "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "podAffinityTerm": {"topologyKey": "t",
                    "labelSelector": {"matchExpressions": [requirement]}}},
            ]},
        }),
    );
}

#[test]
fn image_deadline_user_and_names_are_the_pods() {
    let settings = json!({
        "imagePullSecret": [{"secretName": "a"}, {"secretNameParameter": input("secret")}],
        "imagePullPolicy": "Always",
        "activeDeadlineSeconds": "60",
        "securityContext": {"runAsUser": "1000", "runAsGroup": 5, "runAsNonRoot": true},
        "podMetadata": {"labels": {"mine": "x", "pipeline/runid": "forged"}, "annotations": {"note": "y"}},
    });
    let pod = pod(settings).expect("builds");
    let spec = pod.pointer(SPEC).expect("spec");
    assert_eq!(
        spec["imagePullSecrets"],
        json!([{"name": "a"}, {"name": "from-input"}])
    );
    assert_eq!(spec["activeDeadlineSeconds"], json!(60));
    let main = &spec["containers"][0];
    assert_eq!(main["imagePullPolicy"], json!("Always"));
    assert_eq!(
        main["securityContext"],
        json!({"runAsUser": 1000, "runAsGroup": 5, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}})
    );
    let metadata = &pod["metadata"];
    assert_eq!(metadata["labels"]["mine"], json!("x"));
    assert_eq!(metadata["annotations"], json!({"note": "y"}));
    assert_ne!(
        metadata["labels"]["pipeline/runid"],
        json!("forged"),
        "our labels are ours"
    );
}

#[test]
fn containers_that_run_before_see_the_tasks_volumes() {
    check(
        json!({
            "emptyDirMounts": [{"volumeName": "My.Data", "mountPath": "/d"}],
            "initContainers": [{
                "name": "fetch", "image": "alpine", "command": ["sh"], "args": ["-c", "true"],
                "env": [{"name": "A", "value": "B"}],
                "volumeMounts": [{"volumeName": "My.Data", "mountPath": "/x"}],
                "restartPolicy": "Always",
                "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
            }],
        }),
        "/spec/initContainers",
        json!([{
            "name": "fetch", "image": "alpine", "command": ["sh"], "args": ["-c", "true"],
            "env": [{"name": "A", "value": "B"}],
            "volumeMounts": [{"name": "my-data", "mountPath": "/x"}],
            "restartPolicy": "Always",
            "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        }]),
    );
}

#[test]
fn what_cannot_be_used_is_named() {
    for (settings, expected) in [
        (
            json!({"hostIPC": true}),
            "the setting `hostIPC`: there is no such setting",
        ),
        (
            json!({"imagePullPolicy": "Sometimes"}),
            "the setting `imagePullPolicy` is `Sometimes`",
        ),
        (
            json!({"activeDeadlineSeconds": -1}),
            "the setting `activeDeadlineSeconds` is -1",
        ),
        (
            json!({"secretAsVolume": [{"secretName": "", "mountPath": "/s"}]}),
            "the setting `secretAsVolume[0].secretName` is empty",
        ),
        (
            json!({"secretAsVolume": [{"secretName": "s", "mountPath": "s"}]}),
            "the setting `secretAsVolume[0].mountPath` is `s`, which is no absolute path",
        ),
        (
            json!({"secretAsVolume": [{"secretNameParameter": input("number"), "mountPath": "/s"}]}),
            "the setting `secretAsVolume[0].secretName` must be text, and is 3",
        ),
        (
            json!({"secretAsVolume": [{"secretNameParameter": {}, "mountPath": "/s"}]}),
            "the setting `secretAsVolume[0].secretNameParameter` says nowhere",
        ),
        (
            json!({"pvcMount": [{"pvcNameParameter": input("absent"), "mountPath": "/s"}]}),
            "the setting `pvcMount[0].pvcNameParameter` has no value",
        ),
        (
            json!({"pvcMount": [{"taskOutputParameter": {"producerTask": "no", "outputParameterKey": "x"}, "mountPath": "/s"}]}),
            "the setting `pvcMount[0].pvcNameParameter` takes the output `x` of `no`",
        ),
        (
            json!({"nodeSelector": {"nodeSelectorJson": input("number")}}),
            "the setting `nodeSelector.nodeSelectorJson` must be labels",
        ),
        (
            json!({"nodeSelector": {"nodeSelectorJson": input("secret")}}),
            "the setting `nodeSelector.nodeSelectorJson` is text that is no JSON",
        ),
        (
            json!({"tolerations": [{"tolerationJson": input("number")}]}),
            "the setting `tolerations[0].tolerationJson` must be a toleration",
        ),
        (
            json!({"emptyDirMounts": [{"volumeName": "d", "mountPath": "/d", "sizeLimit": "big"}]}),
            "the setting `emptyDirMounts[0].sizeLimit` is no amount",
        ),
        (
            json!({"securityContext": {"runAsUser": 0, "runAsNonRoot": true}}),
            "the setting `securityContext.runAsUser` is 0 (root)",
        ),
        (
            json!({"securityContext": {"runAsUser": -4}}),
            "the setting `securityContext.runAsUser` is -4",
        ),
        (
            json!({"initContainers": [{"name": "main", "image": "x"}]}),
            "the setting `initContainers[0].name` is `main`",
        ),
        (
            json!({"initContainers": [{"name": "a", "image": "x", "volumeMounts": [{"volumeName": "v", "mountPath": "/v"}]}]}),
            "the setting `initContainers[0].volumeMounts` mounts `v`",
        ),
    ] {
        refused(settings, expected);
    }
}

mod passthrough {
    use super::*;

    fn built(passthroughs: Value, resources: Value, settings: Value) -> (Value, Value) {
        let mut component = component();
        component.task_config_passthroughs = serde_json::from_value(passthroughs).expect("passthroughs");
        let config = json!({"parameterType": "TASK_CONFIG", "isOptional": true});
        component.input_definitions.parameters.insert(
            "config".to_owned(),
            serde_json::from_value(config).expect("input"),
        );
        let container =
            json!({"image": "alpine", "env": [{"name": "A", "value": "B"}], "resources": resources});
        let built = built_with(&component, container, json!({}), settings, known()).expect("builds");
        let values = &built.launch.executor_input.inputs.parameter_values;
        (values["config"].clone(), built.pod)
    }

    fn settings() -> Value {
        json!({
            "nodeSelector": {"labels": {"a": "b"}},
            "tolerations": [{"key": "k"}],
            "nodeAffinity": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}],
            "secretAsVolume": [{"secretName": "s", "mountPath": "/s"}],
            "emptyDirMounts": [{"volumeName": "d", "mountPath": "/d"}],
        })
    }

    #[test]
    fn what_is_handed_on_is_off_the_pod_unless_it_is_applied_too() {
        let all = json!([
            {"field": "RESOURCES"},
            {"field": "ENV", "applyToTask": true},
            {"field": "KUBERNETES_AFFINITY"},
            {"field": "KUBERNETES_TOLERATIONS"},
            {"field": "KUBERNETES_NODE_SELECTOR"},
            {"field": "KUBERNETES_VOLUMES"},
        ]);
        let (config, pod) = built(all, json!({"resourceCpuLimit": "2"}), settings());
        assert_eq!(
            config,
            json!({
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}],
                }}},
                "tolerations": [{"key": "k"}],
                "nodeSelector": {"a": "b"},
                "env": [{"name": "A", "value": "B"}],
                "volumes": [{"name": "s", "secret": {"secretName": "s", "optional": false}}],
                "volumeMounts": [{"name": "s", "mountPath": "/s"}],
                "resources": {"limits": {"cpu": "2"}},
            })
        );
        let spec = &pod["spec"];
        for field in ["affinity", "tolerations", "nodeSelector"] {
            assert_eq!(spec.get(field), None, "{field}");
        }
        assert_eq!(spec["volumes"], json!([{"name": "d", "emptyDir": {}}]));
        assert_eq!(spec["containers"][0]["resources"], json!({}));
        assert_eq!(
            spec["containers"][0]["env"][2],
            json!({"name": "A", "value": "B"})
        );
    }

    #[test]
    fn without_passthroughs_everything_is_the_pods_and_nothing_the_components() {
        let (config, pod) = built(json!([]), json!({"resourceCpuLimit": "2"}), settings());
        assert_eq!(
            config,
            json!({
                "affinity": null, "tolerations": null, "nodeSelector": null, "env": null,
                "volumes": null, "volumeMounts": null, "resources": {},
            })
        );
        assert_eq!(pod["spec"]["nodeSelector"], json!({"a": "b"}));
        assert_eq!(
            pod["spec"]["containers"][0]["resources"]["limits"],
            json!({"cpu": "2"})
        );
    }
}
