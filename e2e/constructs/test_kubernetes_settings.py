"""What `kfp.kubernetes` sets on a task becomes its Pod's, names known only at run time included."""

import base64
import json
import os
import uuid

import pytest
import runs
from components import shell, write
from kfp import dsl, kubernetes

NAMESPACE = "/api/v1/namespaces/default"


@dsl.container_component
def show(script: str):
    """Prints what a script prints, where it was put."""
    return shell('eval "$1"', script)


@pytest.fixture
def name() -> str:
    return f"probe-{uuid.uuid4().hex[:10]}"


def create(server, resource: str, body: dict) -> None:
    answer = server.http("POST", f"{NAMESPACE}/{resource}", json=body)
    assert answer.ok, answer.text


def secret(server, name: str, **values: str) -> None:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    create(server, "secrets", {"metadata": {"name": name}, "type": "Opaque", "data": data})


def config_map(server, name: str, **values: str) -> None:
    create(server, "configmaps", {"metadata": {"name": name}, "data": values})


def started(server, pipeline, **parameters) -> str:
    return runs.submit_package(server, runs.package(pipeline), **parameters)


def succeed(server, pipeline, **parameters) -> runs.Run:
    run = runs.finish(server, started(server, pipeline, **parameters))
    assert run.state == "SUCCEEDED", run.describe()
    return run


def pod(server, run: runs.Run, task: str) -> dict:
    answer = server.http("GET", f"{NAMESPACE}/pods/{run.task(task)['pod_name']}")
    assert answer.ok, answer.text
    return answer.json()


@pytest.mark.covers(
    "kubernetes.use_secret_as_env",
    "kubernetes.use_secret_as_volume",
    "KubernetesExecutorConfig.secret_as_env",
    "KubernetesExecutorConfig.secret_as_volume",
    "Platform settings: names that are parameters or outputs of tasks",
    "Platform settings: optional secrets and configMaps that are absent",
)
def test_secrets_are_variables_and_files(server, name):
    secret(server, name, user="Ada", password="s3cret\n")

    @dsl.pipeline(name="secrets")
    def pipeline(secret_name: str):
        made = write(text=secret_name).outputs["out"]
        for title, source in (("constant", name), ("parameter", secret_name), ("output", made)):
            task = show(script='echo "$USER_NAME"; cat /etc/probe/password').set_display_name(title)
            kubernetes.use_secret_as_env(task, secret_name=source, secret_key_to_env={"user": "USER_NAME"})
            kubernetes.use_secret_as_volume(task, secret_name=source, mount_path="/etc/probe")
        absent = show(script='echo "[$USER_NAME]"; ls -A /etc/probe | wc -l').set_display_name("absent")
        kubernetes.use_secret_as_env(
            absent, secret_name="no-such-secret", secret_key_to_env={"user": "USER_NAME"}, optional=True
        )
        kubernetes.use_secret_as_volume(
            absent, secret_name="no-such-secret", mount_path="/etc/probe", optional=True
        )

    run = succeed(server, pipeline, secret_name=name)
    for title in ("constant", "parameter", "output"):
        assert runs.log(server, run, title) == "Ada\ns3cret\n", title
    assert runs.log(server, run, "absent").split() == ["[]", "0"]


@pytest.mark.covers(
    "kubernetes.use_config_map_as_env",
    "kubernetes.use_config_map_as_volume",
    "KubernetesExecutorConfig.config_map_as_env",
    "KubernetesExecutorConfig.config_map_as_volume",
)
def test_config_maps_are_variables_and_files(server, name):
    config_map(server, name, **{"color": "green", "settings.json": "{}"})

    @dsl.pipeline(name="config-maps")
    def pipeline(map_name: str):
        for title, source in (("constant", name), ("parameter", map_name)):
            task = show(script='echo "$COLOR"; cat /etc/probe/settings.json').set_display_name(title)
            kubernetes.use_config_map_as_env(
                task, config_map_name=source, config_map_key_to_env={"color": "COLOR"}
            )
            kubernetes.use_config_map_as_volume(task, config_map_name=source, mount_path="/etc/probe")
        absent = show(script="ls -A /etc/probe | wc -l").set_display_name("absent")
        kubernetes.use_config_map_as_volume(
            absent, config_map_name="no-such-map", mount_path="/etc/probe", optional=True
        )

    run = succeed(server, pipeline, map_name=name)
    for title in ("constant", "parameter"):
        assert runs.log(server, run, title) == "green\n{}", title
    assert runs.log(server, run, "absent").strip() == "0"


@pytest.mark.covers("Platform settings: a secret that comes late or never")
def test_a_task_waits_for_a_secret_that_is_not_there_and_says_so(server, name):
    @dsl.pipeline(name="late-secret")
    def pipeline():
        kubernetes.use_secret_as_env(
            show(script='echo "$WORD"'), secret_name=name, secret_key_to_env={"word": "WORD"}
        )

    run_id = started(server, pipeline)
    runs.until(server, run_id, lambda run: name in json.dumps(runs.rows(server, run_id)), timeout=60)
    secret(server, name, word="arrived")
    run = runs.finish(server, run_id, timeout=100)
    assert run.state == "SUCCEEDED", run.describe()
    assert runs.log(server, run, "show") == "arrived\n"


@pytest.mark.covers(
    "kubernetes.CreatePVC",
    "kubernetes.DeletePVC",
    "kubernetes.mount_pvc",
    "KubernetesExecutorConfig.pvc_mount",
)
def test_a_volume_is_made_shared_and_deleted(server):
    @dsl.pipeline(name="volumes")
    def pipeline():
        made = kubernetes.CreatePVC(
            pvc_name_suffix="-probe",
            access_modes=["ReadWriteOnce"],
            size="1Gi",
            storage_class_name="standard",
        )
        first = show(script="mkdir -p /data/sub && echo kept > /data/sub/file").set_display_name("put")
        kubernetes.mount_pvc(first, pvc_name=made.outputs["name"], mount_path="/data")
        second = show(script="cat /data/sub/file").set_display_name("get").after(first)
        kubernetes.mount_pvc(second, pvc_name=made.outputs["name"], mount_path="/data")
        below = show(script="cat /sub/file").set_display_name("get below").after(first)
        kubernetes.mount_pvc(below, pvc_name=made.outputs["name"], mount_path="/sub", sub_path="sub")
        kubernetes.DeletePVC(pvc_name=made.outputs["name"]).after(second, below)

    run = succeed(server, pipeline)
    assert runs.log(server, run, "get") == runs.log(server, run, "get below") == "kept\n"
    claim = runs.value(server, run.id, "createpvc", "name")
    assert claim.endswith("-probe")
    assert server.http("GET", f"{NAMESPACE}/persistentvolumeclaims/{claim}").status_code == 404


@pytest.mark.covers("Platform settings: a volume of a name of one's own, that outlives its run")
def test_a_volume_that_exists_is_mounted_by_its_name(server, name):
    @dsl.pipeline(name="own-volume")
    def make(claim: str):
        made = kubernetes.CreatePVC(
            pvc_name=claim, access_modes=["ReadWriteMany"], size="10Mi", annotations={"made-by": "a test"}
        )
        kubernetes.mount_pvc(
            show(script="echo kept > /data/file"), pvc_name=made.outputs["name"], mount_path="/data"
        )

    @dsl.pipeline(name="own-volume-again")
    def use(claim: str):
        kubernetes.mount_pvc(show(script="cat /data/file"), pvc_name=claim, mount_path="/data")
        constant = show(script="cat /data/file").set_display_name("constant")
        kubernetes.mount_pvc(constant, pvc_name=name, mount_path="/data")

    @dsl.pipeline(name="own-volume-gone")
    def delete(claim: str):
        kubernetes.DeletePVC(pvc_name=claim)

    succeed(server, make, claim=name)
    claim = server.http("GET", f"{NAMESPACE}/persistentvolumeclaims/{name}").json()
    assert claim["metadata"]["annotations"]["made-by"] == "a test"
    assert claim["spec"]["resources"]["requests"]["storage"] == "10Mi"
    run = succeed(server, use, claim=name)
    assert runs.log(server, run, "show") == runs.log(server, run, "constant") == "kept\n"
    succeed(server, delete, claim=name)
    assert server.http("GET", f"{NAMESPACE}/persistentvolumeclaims/{name}").status_code == 404


@pytest.mark.covers(
    "kubernetes.add_ephemeral_volume",
    "kubernetes.empty_dir_mount",
    "KubernetesExecutorConfig.generic_ephemeral_volume",
    "KubernetesExecutorConfig.empty_dir_mounts",
)
def test_a_task_has_volumes_that_go_with_it(server):
    @dsl.pipeline(name="scratch")
    def pipeline():
        task = show(script="for d in /scratch /memory /big; do echo x > $d/file; ls $d; done")
        kubernetes.empty_dir_mount(task, volume_name="scratch", mount_path="/scratch", size_limit="10Mi")
        kubernetes.empty_dir_mount(task, volume_name="memory", mount_path="/memory", medium="Memory")
        kubernetes.add_ephemeral_volume(
            task, volume_name="big", mount_path="/big", access_modes=["ReadWriteOnce"], size="1Gi",
            labels={"kind": "scratch"}, annotations={"note": "goes away"},
        )  # fmt: skip

    run = succeed(server, pipeline)
    assert runs.log(server, run, "show").split() == ["file"] * 3
    volumes = {volume["name"]: volume for volume in pod(server, run, "show")["spec"]["volumes"]}
    assert volumes["scratch"]["emptyDir"]["sizeLimit"] == "10Mi"
    assert volumes["memory"]["emptyDir"]["medium"] == "Memory"
    assert (
        volumes["big"]["ephemeral"]["volumeClaimTemplate"]["spec"]["resources"]["requests"]["storage"]
        == "1Gi"
    )


@pytest.mark.covers(
    "kubernetes.add_pod_label",
    "kubernetes.add_pod_annotation",
    "kubernetes.use_field_path_as_env",
    "KubernetesExecutorConfig.pod_metadata",
    "KubernetesExecutorConfig.field_path_as_env",
)
def test_labels_annotations_and_fields_of_the_pod(server):
    @dsl.pipeline(name="pod-metadata")
    def pipeline():
        task = show(script='echo "$TEAM $NOTE $POD $RUN"')
        kubernetes.add_pod_label(task, label_key="team", label_value="red")
        kubernetes.add_pod_annotation(task, annotation_key="acme.example/note", annotation_value="by hand")
        for variable, field in (
            ("TEAM", "metadata.labels['team']"),
            ("NOTE", "metadata.annotations['acme.example/note']"),
            ("POD", "metadata.name"),
            ("RUN", "metadata.labels['pipeline/runid']"),
        ):
            kubernetes.use_field_path_as_env(task, env_name=variable, field_path=field)

    run = succeed(server, pipeline)
    assert runs.log(server, run, "show").strip() == f"red by hand {run.task('show')['pod_name']} {run.id}"
    metadata = pod(server, run, "show")["metadata"]
    assert metadata["labels"]["team"] == "red"
    assert metadata["annotations"]["acme.example/note"] == "by hand"


@pytest.mark.covers(
    "kubernetes.add_node_selector",
    "kubernetes.add_node_selector_json",
    "kubernetes.add_node_affinity",
    "kubernetes.add_node_affinity_json",
    "KubernetesExecutorConfig.node_selector",
    "KubernetesExecutorConfig.node_affinity",
)
def test_a_task_runs_where_the_node_has_what_it_wants(server):
    wanted = {"kubernetes.io/os": "linux"}
    expression = {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}
    required = {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [expression]}]
        }
    }

    @dsl.pipeline(name="node-wanted")
    def pipeline(selector: dict, affinity: dict):
        kubernetes.add_node_selector(show(script="true"), "kubernetes.io/os", "linux")
        dynamic = show(script="true").set_display_name("dynamic")
        kubernetes.add_node_selector_json(dynamic, selector)
        kubernetes.add_node_affinity_json(dynamic, affinity)
        affine = show(script="true").set_display_name("affine")
        kubernetes.add_node_affinity(affine, match_expressions=[expression])
        kubernetes.add_node_affinity(
            affine, match_expressions=[{"key": "disk", "operator": "In", "values": ["ssd"]}], weight=50
        )

    run = succeed(server, pipeline, selector=wanted, affinity=required)
    assert pod(server, run, "show")["spec"]["nodeSelector"] == wanted
    spec = pod(server, run, "dynamic")["spec"]
    assert spec["nodeSelector"] == wanted
    assert spec["affinity"]["nodeAffinity"] == required
    weighed = pod(server, run, "affine")["spec"]["affinity"]["nodeAffinity"]
    assert weighed["preferredDuringSchedulingIgnoredDuringExecution"][0]["weight"] == 50


@pytest.mark.covers("Platform settings: a node that does not exist")
@pytest.mark.parametrize("kind", ["selector", "affinity"])
def test_a_task_that_no_node_suits_fails_at_once(server, kind):
    @dsl.pipeline(name="node-unwanted")
    def pipeline():
        task = show(script="true")
        if kind == "selector":
            kubernetes.add_node_selector(task, "pool", "far-away")
        else:
            expression = {"key": "pool", "operator": "In", "values": ["far-away"]}
            kubernetes.add_node_affinity(task, match_expressions=[expression])

    run = runs.finish(server, started(server, pipeline), timeout=30)
    assert run.state == "FAILED"
    assert "NodeSelectorMismatch" in run.failure("show")
    assert "pool" in run.failure("show")


@pytest.mark.covers(
    "kubernetes.add_toleration", "kubernetes.add_toleration_json", "KubernetesExecutorConfig.tolerations"
)
def test_tolerations_are_the_pods(server):
    @dsl.pipeline(name="tolerations")
    def pipeline(one: dict, many: list):
        task = show(script="true").set_display_name("constant")
        kubernetes.add_toleration(
            task, key="gpu", operator="Equal", value="true", effect="NoExecute", toleration_seconds=9
        )
        kubernetes.add_toleration_json(show(script="true").set_display_name("one"), one)
        kubernetes.add_toleration_json(show(script="true").set_display_name("many"), many)

    spot = {"key": "spot", "operator": "Exists"}
    run = succeed(server, pipeline, one=spot, many=[spot, {"key": "b", "operator": "Exists"}])

    def keys(task: str) -> list[str]:
        return [toleration.get("key") for toleration in pod(server, run, task)["spec"]["tolerations"]]

    first = next(t for t in pod(server, run, "constant")["spec"]["tolerations"] if t.get("key") == "gpu")
    assert first == {
        "key": "gpu", "operator": "Equal", "value": "true", "effect": "NoExecute", "tolerationSeconds": 9,
    }  # fmt: skip
    assert "spot" in keys("one")
    assert {"spot", "b"} <= set(keys("many"))


@pytest.mark.covers(
    "kubernetes.set_image_pull_policy",
    "kubernetes.set_image_pull_secrets",
    "KubernetesExecutorConfig.image_pull_policy",
    "KubernetesExecutorConfig.image_pull_secret",
)
def test_how_an_image_is_pulled_is_kept_on_the_pod(server):
    @dsl.pipeline(name="pulling")
    def pipeline(secret_name: str):
        task = show(script="true")
        kubernetes.set_image_pull_policy(task, "Always")
        kubernetes.set_image_pull_secrets(task, secret_names=["first"])
        dynamic = show(script="true").set_display_name("dynamic")
        kubernetes.set_image_pull_secrets(dynamic, secret_names=[secret_name])

    run = succeed(server, pipeline, secret_name="second")
    spec = pod(server, run, "show")["spec"]
    assert "Always" in [container.get("imagePullPolicy") for container in spec["containers"]]
    assert spec["imagePullSecrets"] == [{"name": "first"}]
    assert pod(server, run, "dynamic")["spec"]["imagePullSecrets"] == [{"name": "second"}]


@pytest.mark.covers("kubernetes.set_security_context", "KubernetesExecutorConfig.security_context")
def test_a_task_runs_as_the_user_it_names(server):
    if os.geteuid() != 0:
        pytest.skip("ONLY ROOT MAY CHANGE THE USER: security contexts are not tested")

    @dsl.pipeline(name="as-somebody")
    def pipeline():
        task = show(script="id -u; id -g")
        kubernetes.set_security_context(task, run_as_user=1234, run_as_group=2345, run_as_non_root=True)

    run = succeed(server, pipeline)
    assert runs.log(server, run, "show").split() == ["1234", "2345"]


def changed_platform(pipeline, change) -> str:
    """What the SDK makes of a pipeline, with a change to the settings of its first task."""
    import yaml

    documents = list(yaml.safe_load_all(runs.package(pipeline)))
    change(next(iter(documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values())))
    return yaml.safe_dump_all(documents)


@dsl.pipeline(name="by-document")
def by_document():
    task = show(script="ls -d /dev/shm").set_caching_options(False)
    kubernetes.add_pod_label(task, "team", "red")


@pytest.mark.covers("KubernetesExecutorConfig.enabled_shared_memory", "KubernetesExecutorConfig.pod_affinity")
def test_settings_that_this_sdk_has_no_function_for(server):
    def change(executor):
        executor["enabledSharedMemory"] = {"volumeName": "shm", "size": "64Mi"}
        executor["podAffinity"] = [
            {"matchPodLabels": {"team": "red"}, "topologyKey": "kubernetes.io/hostname", "weight": 5}
        ]

    run = runs.finish(server, runs.submit_package(server, changed_platform(by_document, change)))
    assert run.state == "SUCCEEDED", run.describe()
    spec = pod(server, run, "show")["spec"]
    shared = next(volume for volume in spec["volumes"] if volume["name"] == "shm")
    assert shared["emptyDir"] == {"medium": "Memory", "sizeLimit": "64Mi"}
    terms = spec["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert terms[0]["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"


@pytest.mark.covers("Platform settings: init containers")
def test_init_containers_run_first(server):
    def change(executor):
        executor["emptyDirMounts"] = [{"volumeName": "scratch", "mountPath": "/scratch"}]
        executor["initContainers"] = [
            {"name": "first", "image": runs.SHELL_IMAGE, "command": ["sh", "-c", "true"]},
        ]

    run = runs.finish(server, runs.submit_package(server, changed_platform(by_document, change)))
    assert run.state == "SUCCEEDED", run.describe()
    assert "first" in [c["name"] for c in pod(server, run, "show")["spec"].get("initContainers", [])]


@pytest.mark.covers("Platform settings: in loops, with the item as a name")
def test_a_loops_item_may_be_a_secrets_name(server, name):
    for letter in "ab":
        secret(server, f"{name}-{letter}", word=letter)

    @dsl.pipeline(name="secrets-in-loop")
    def pipeline(names: list):
        with dsl.ParallelFor(names) as item:
            task = show(script='test -n "$WORD"')
            kubernetes.use_secret_as_env(task, secret_name=item, secret_key_to_env={"word": "WORD"})

    run = succeed(server, pipeline, names=[f"{name}-a", f"{name}-b"])
    assert len(runs.iterated(server, run.id, "show")) == 2
