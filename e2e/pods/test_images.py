"""Images: how they come to this machine, and what is said when they do not."""

import base64
import json

from engine import IMAGE
from kfp import dsl
from pod_manifests import end, pod, shell
from runs import fail, log, succeed

#: Processes have no images.
RUNTIMES = ["container"]


def pulled(engine, name):
    """Whether the registry gave the manifest of an image since the test began."""
    return [path for path in engine.registry.pulls if path.startswith(name)]


def test_an_image_is_pulled_once_and_says_what_it_runs(pods, engine):
    image = engine.registry.image("team/tool:1")
    first = pods.ended(pod("pulls", {"image": image}))
    assert pods.logs("pulls") == "the image's own\n"
    assert end(first)["exitCode"] == 0
    assert first["status"]["containerStatuses"][0]["imageID"].startswith(
        engine.registry.image("team/tool@sha256:")
    )
    said = [message for reason, message in pods.events("pulls") if reason in ("Pulling", "Pulled")]
    assert said[0] == f'Pulling image "{image}"'
    assert said[-1].startswith(f'Successfully pulled image "{image}" in ')
    pods.ended(pod("pulls-not", shell("id -u", image=image)))
    assert pods.logs("pulls-not") == "65534\n", "the image's own user"
    assert ("Pulled", f'Container image "{image}" already present on machine') in pods.events("pulls-not")
    count = len(pulled(engine, "team/tool"))
    pods.ended(pod("pulls-anyway", shell("true", image=image, imagePullPolicy="Always")))
    assert len(pulled(engine, "team/tool")) > count


def test_one_pull_serves_all_who_wait_for_it(pods, engine):
    image = engine.registry.image("team/shared:1")
    names = [pods.apply(pod(f"together-{number}", shell("true", image=image))) for number in range(4)]
    for name in names:
        pods.wait(name, ".status.phase", "Succeeded")
    told = [reason for name in names for reason, _ in pods.events(name)]
    assert told.count("Pulling") == 1


def test_an_image_that_is_not_there_is_asked_for_again(pods, engine):
    image = engine.registry.image("none/such:1")
    pods.apply(pod("wanting", shell("true", image=image)))
    waiting = pods.wait("wanting", ".status.containerStatuses[0].state.waiting.reason", "ImagePullBackOff")
    message = waiting["status"]["containerStatuses"][0]["state"]["waiting"]["message"]
    assert f'Failed to pull image "{image}"' in message
    told = pods.events("wanting")
    assert ("Failed", "Error: ErrImagePull") in told
    assert ("BackOff", f'Back-off pulling image "{image}"') in told
    assert waiting["status"]["phase"] == "Pending"
    pods.server.kubectl("delete", "pod", "wanting", "--timeout=20s")


def test_an_image_that_is_never_to_be_pulled_is_not(pods, engine):
    image = engine.registry.image("team/never:1")
    pods.apply(pod("never", shell("true", image=image, imagePullPolicy="Never")))
    path = ".status.containerStatuses[0].state.waiting.reason"
    pods.wait("never", path, "ErrImageNeverPull")
    assert pulled(engine, "team/never") == []


def test_a_name_that_no_image_can_have_is_said(pods):
    pods.apply(pod("misnamed", shell("true", image="Not:A:Name")))
    pods.wait("misnamed", ".status.containerStatuses[0].state.waiting.reason", "InvalidImageName")


def test_a_registry_that_asks_who_we_are_is_told(pods, engine, server):
    image = engine.private.image("team/tool:1")
    path = ".status.containerStatuses[0].state.waiting.reason"
    pods.apply(pod("stranger", shell("true", image=image)))
    pods.wait("stranger", path, "ImagePullBackOff")
    who = f"{engine.private.USER}:{engine.private.PASSWORD}".encode()
    config = {"auths": {engine.private.host: {"auth": base64.b64encode(who).decode()}}}
    secret = {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "registry"},
        "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": json.dumps(config)},
    }  # fmt: skip
    server.kubectl("apply", "-f", "-", stdin=json.dumps(secret))
    known = pods.ended(pod("known", shell("echo in", image=image), imagePullSecrets=[{"name": "registry"}]))
    assert end(known)["exitCode"] == 0
    engine.remove_image(image)


def test_a_container_gets_no_more_of_this_machine_than_it_may(pods):
    for name, context in {
        "all": {"privileged": True},
        "more": {"capabilities": {"add": ["SYS_ADMIN"]}},
        "root": {"runAsNonRoot": True},
    }.items():
        ended = pods.ended(pod(name, shell("true", securityContext=context)))
        assert end(ended)["reason"] == "SettingInvalid", end(ended)
    strict = {
        "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True, "runAsUser": 1000,
    }  # fmt: skip
    script = "grep -E 'CapEff|NoNewPrivs' /proc/self/status; touch /file 2>/dev/null || echo closed"
    pods.ended(pod("strict", shell(script, securityContext=strict)))
    assert pods.logs("strict").split() == [
        "CapEff:", "0000000000000000", "NoNewPrivs:", "1",
        "closed",
    ]  # fmt: skip


def test_an_engine_that_is_away_is_waited_for(new_server, engine, flags):
    server = new_server()
    engine.pause()
    try:
        server.start(*flags)
        server.kubectl("apply", "-f", "-", stdin=json.dumps(pod("patient", shell("echo here"))))
        reason = (
            "--for=jsonpath={.status.containerStatuses[0].state.waiting.reason}=ContainerRuntimeUnavailable"
        )
        server.kubectl("wait", "pod", "patient", reason, "--timeout=60s")
        message = "{.status.containerStatuses[0].state.waiting.message}"
        said = server.kubectl("get", "pod", "patient", "-o", f"jsonpath={message}").stdout
        assert str(engine.socket) in said
    finally:
        engine.start()
    server.kubectl("wait", "pod", "patient", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    server.kubectl("delete", "pod", "patient")


def test_an_image_of_no_environment_runs_in_the_engine_by_itself(new_server, engine):
    server = new_server()
    server.start("--container-socket", str(engine.socket))
    image = engine.registry.image("team/other:1")
    for name, asked, kind in [("here", IMAGE, "process://"), ("there", image, "podman://")]:
        server.kubectl("apply", "-f", "-", stdin=json.dumps(pod(name, shell("true", image=asked))))
        server.kubectl("wait", "pod", name, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
        path = "jsonpath={.status.containerStatuses[0].containerID}"
        assert server.kubectl("get", "pod", name, "-o", path).stdout.split("://")[0] in (kind[:-3], "docker")
    chosen = pod("chosen", shell("true"))
    chosen["metadata"]["annotations"] = {"coracle.dev/runtime": "container"}
    server.kubectl("apply", "-f", "-", stdin=json.dumps(chosen))
    server.kubectl("wait", "pod", "chosen", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")


def test_a_pipeline_runs_in_images_that_know_nothing_of_coracle(server, engine):
    image = engine.registry.image("team/step:1")

    @dsl.container_component
    def make(name: str, said: dsl.OutputPath(str), file: dsl.Output[dsl.Artifact]):
        script = 'mkdir -p "$(dirname "$1")" "$(dirname "$2")"; printf "hello $0" > "$1"; echo kept > "$2"'
        return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c"], args=[script, name, said, file.path])

    @dsl.container_component
    def show(said: str, file: dsl.Input[dsl.Artifact]):
        script = 'echo "$0"; cat "$1"; [ -z "$LD_LIBRARY_PATH" ]'
        return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c"], args=[script, said, file.path])

    @dsl.container_component
    def lost():
        return dsl.ContainerSpec(image=image.replace("team/", "none/"), command=["true"])

    @dsl.pipeline
    def in_images(name: str = "you"):
        made = make(name=name)
        show(said=made.outputs["said"], file=made.outputs["file"])

    assert "hello you\nkept" in log(server, succeed(server, in_images), "show")
    failure = fail(server, lost).failure("lost")
    assert "ErrImagePull" in failure and "none/step:1" in failure, failure
