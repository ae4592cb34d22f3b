"""TaskConfig: what a task would have been given, handed to its code instead."""

import uuid

import pytest
import runs
from kfp import dsl, kubernetes


@pytest.mark.covers(
    "TaskConfig: passed to the component instead of its Pod",
    "dsl.TaskConfig",
    "dsl.TaskConfigField",
    "dsl.TaskConfigPassthrough",
)
def test_settings_are_passed_through_to_the_component(server):
    claim = f"task-config-{uuid.uuid4().hex[:8]}"
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    answer = server.http(
        "POST",
        "/api/v1/namespaces/default/persistentvolumeclaims",
        json={"metadata": {"name": claim}, "spec": spec},
    )
    assert answer.ok, answer.text

    @dsl.component(
        base_image="python:3.11",
        task_config_passthroughs=[
            dsl.TaskConfigField.RESOURCES,
            dsl.TaskConfigField.KUBERNETES_TOLERATIONS,
            dsl.TaskConfigField.KUBERNETES_NODE_SELECTOR,
            dsl.TaskConfigField.KUBERNETES_AFFINITY,
            dsl.TaskConfigPassthrough(field=dsl.TaskConfigField.ENV, apply_to_task=True),
            dsl.TaskConfigPassthrough(field=dsl.TaskConfigField.KUBERNETES_VOLUMES, apply_to_task=True),
        ],
    )
    def look(task_config: dsl.TaskConfig) -> dict:
        import os

        return {
            "resources": task_config.resources,
            "tolerations": task_config.tolerations,
            "node_selector": task_config.node_selector,
            "affinity": task_config.affinity,
            "env": task_config.env,
            "volumes": task_config.volumes,
            "volume_mounts": task_config.volume_mounts,
            "greeting": os.environ.get("GREETING"),
            "scratch": os.path.isdir("/scratch-here"),
        }

    @dsl.pipeline(name="task-config")
    def pipeline():
        task = look().set_env_variable("GREETING", "hello")
        # None of these could be met here: they are for the workload that the component starts.
        task.set_cpu_limit("500").set_memory_request("900Gi").set_memory_limit("900Gi")
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(8)
        kubernetes.add_node_selector(task, "pool", "far-away")
        kubernetes.add_toleration(task, key="gpu", operator="Exists", effect="NoSchedule")
        kubernetes.add_node_affinity(
            task, match_expressions=[{"key": "disk", "operator": "In", "values": ["ssd"]}]
        )
        kubernetes.mount_pvc(task, pvc_name=claim, mount_path="/scratch-here")

    run = runs.finish(server, runs.submit_package(server, runs.package(pipeline)))
    assert run.state == "SUCCEEDED", run.describe()
    seen = runs.value(server, run.id, "look", "Output")
    assert seen["resources"]["limits"]["cpu"] == "500"
    assert seen["resources"]["limits"]["memory"] == "900Gi"
    assert seen["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert seen["node_selector"] == {"pool": "far-away"}
    assert seen["tolerations"][0]["key"] == "gpu"
    assert "nodeAffinity" in seen["affinity"]
    assert {"name": "GREETING", "value": "hello"} in seen["env"]
    assert seen["greeting"] == "hello"
    assert seen["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim
    assert seen["volume_mounts"][0]["mountPath"] == "/scratch-here"
    assert seen["scratch"]


@pytest.mark.covers("TaskConfig: empty without passthroughs in use")
def test_a_task_config_without_settings_is_empty(server):
    @dsl.component(
        base_image="python:3.11", task_config_passthroughs=[dsl.TaskConfigField.KUBERNETES_TOLERATIONS]
    )
    def look(task_config: dsl.TaskConfig) -> dict:
        return {"tolerations": task_config.tolerations, "affinity": task_config.affinity}

    @dsl.pipeline(name="task-config-empty")
    def pipeline():
        look()

    run = runs.finish(server, runs.submit_package(server, runs.package(pipeline)))
    assert run.state == "SUCCEEDED", run.describe()
    seen = runs.value(server, run.id, "look", "Output")
    assert not seen["tolerations"] and not seen["affinity"]
