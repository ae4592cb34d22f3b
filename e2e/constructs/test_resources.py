"""What tasks ask of the machine: constants, values of other tasks, and what is never to be had."""

import json
import time

import pytest
import runs
from components import shell, write
from kfp import dsl


@dsl.container_component
def work():
    return shell("true")


def containers(server, run_id: str, task: str) -> list[dict]:
    """The containers of a task's Pod."""
    node = runs.read(server, run_id).task(task)["pod_name"]
    return server.http("GET", f"/api/v1/namespaces/default/pods/{node}").json()["spec"]["containers"]


def resources(server, run_id: str, task: str) -> dict:
    found = [c["resources"] for c in containers(server, run_id, task) if c.get("resources")]
    return found[0] if found else {}


@pytest.mark.covers(
    "Resources: constants",
    "PipelineTask.set_cpu_limit",
    "PipelineTask.set_cpu_request",
    "PipelineTask.set_memory_limit",
    "PipelineTask.set_memory_request",
)
def test_requests_and_limits_become_the_pods(server):
    @dsl.pipeline(name="resources")
    def pipeline():
        task = work().set_cpu_request("100m").set_cpu_limit("1")
        task.set_memory_request("64Mi").set_memory_limit("256Mi")

    run = runs.succeed(server, pipeline)
    asked = resources(server, run.id, "work")
    assert asked["requests"] == {"cpu": "100m", "memory": "64Mi"} or asked["requests"]["cpu"] in (
        "100m",
        "0.1",
    )
    assert asked["limits"]["memory"] == "256Mi"


@pytest.mark.covers("Resources: pipeline parameters and outputs of tasks")
def test_requests_may_be_values_of_the_pipeline_and_of_tasks(server):
    @dsl.pipeline(name="resources-dynamic")
    def pipeline(cpu: str = "200m"):
        memory = write(text="128Mi").outputs["out"]
        work().set_cpu_limit(cpu).set_memory_limit(memory).set_memory_request(memory)

    run = runs.succeed(server, pipeline)
    asked = resources(server, run.id, "work")
    assert asked["limits"]["cpu"] in ("200m", "0.2")
    assert asked["limits"]["memory"] == "128Mi"


@pytest.mark.covers("Resources: an image that is a parameter", "PipelineTask.set_container_image")
def test_the_image_may_be_a_value(server):
    @dsl.pipeline(name="image-dynamic")
    def pipeline(image: str):
        work().set_container_image(image)

    run = runs.succeed(server, pipeline, image="debian:12")
    assert "debian:12" in [container["image"] for container in containers(server, run.id, "work")]
    bad = runs.fail(server, pipeline, image="registry.example/none:1")
    assert "ImageNeedsContainerRuntime" in bad.failure("work")


@pytest.mark.covers(
    "Resources: accelerators that are not there",
    "PipelineTask.set_accelerator_type",
    "PipelineTask.set_accelerator_limit",
)
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_gpu_that_can_never_be_had_fails_at_once_with_the_numbers(server, dynamic):
    @dsl.pipeline(name="gpu")
    def pipeline(kind: str = "nvidia.com/gpu", number: str = "64"):
        if dynamic:
            work().set_accelerator_type(kind).set_accelerator_limit(number)
        else:
            work().set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(64)

    started = time.monotonic()
    run = runs.fail(server, pipeline)
    assert time.monotonic() - started < 20
    failure = run.failure("work")
    assert "RequestExceedsNode" in failure and "64" in failure and "nvidia.com/gpu" in failure


@pytest.mark.covers("Resources: what must wait says for what")
def test_a_task_that_waits_for_others_says_for_what(server, gate):
    node = server.http("GET", "/api/v1/nodes").json()["items"][0]
    cpu = int(float(node["status"]["allocatable"]["cpu"].removesuffix("m"))) or 1
    if node["status"]["allocatable"]["cpu"].endswith("m"):
        cpu //= 1000

    @dsl.container_component
    def hold(command: str):
        return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["sh", "-c"], args=[command])

    @dsl.pipeline(name="waits-for-cpu")
    def pipeline(command: str):
        hold(command=command).set_cpu_request(str(cpu))

    first = runs.submit(server, pipeline, command=gate.shell)
    gate.wait_reached()
    second = runs.submit(server, pipeline, command="true")

    def says_so(run: runs.Run) -> bool:
        return "cpu" in json.dumps(
            [row.get("error") or row.get("events") or "" for row in runs.rows(server, run.id)]
        )

    runs.until(server, second, says_so, timeout=30)
    gate.open()
    assert runs.finish(server, first).state == "SUCCEEDED"
    assert runs.finish(server, second).state == "SUCCEEDED"
