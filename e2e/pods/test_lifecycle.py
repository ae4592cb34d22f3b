"""From a Pod's start to its end, for both runtimes."""

import json
import subprocess
import time

import pytest
from engine import IMAGE
from pod_manifests import end, pod, shell
from server import environment


def test_an_end_has_its_code_and_its_last_words(pods):
    script = "echo out; echo err >&2; echo words > /dev/termination-log; exit 3"
    ended = pods.ended(pod("ends", shell(script)))
    assert ended["status"]["phase"] == "Failed"
    assert (end(ended)["exitCode"], end(ended)["reason"], end(ended)["message"]) == (3, "Error", "words\n")
    assert sorted(pods.logs("ends").split()) == ["err", "out"]
    fallen = pods.ended(
        pod("falls-back", shell("echo seen; false", terminationMessagePolicy="FallbackToLogsOnError"))
    )
    assert end(fallen)["message"] == "seen"
    done = pods.ended(pod("succeeds", shell("true")))
    assert (done["status"]["phase"], end(done)["reason"]) == ("Succeeded", "Completed")


def test_the_status_says_what_runs_it(pods, runtime):
    ended = pods.ended(pod("named", shell("true")))
    status = ended["status"]["containerStatuses"][0]
    known = {
        "process": ("process://", "coracle://host"),
        "container": (("docker://", "podman://"), "localhost/busybox@"),
    }
    container, image = known[runtime]
    assert status["containerID"].startswith(container)
    assert status["imageID"].startswith(image)


def test_init_containers_run_first_and_volumes_are_shared(pods):
    volume = {"name": "v", "mountPath": "/v"}
    manifest = pod(
        "inits", shell("cat /v/f", volumeMounts=[volume]),
        initContainers=[
            {"name": "one", "image": IMAGE, **shell("echo one >> /v/f", volumeMounts=[volume])},
            {"name": "two", "image": IMAGE, **shell("echo two >> /v/f", volumeMounts=[volume])},
        ],
        volumes=[{"name": "v", "emptyDir": {}}],
    )  # fmt: skip
    pods.ended(manifest)
    assert pods.logs("inits", "-c", "c0") == "one\ntwo\n"


def test_a_sidecar_runs_beside_the_others_and_ends_after_them(pods):
    sidecar = {
        "name": "side", "image": IMAGE, "restartPolicy": "Always",
        **shell("trap 'echo told; exit 0' TERM; echo up; while true; do sleep 0.1; done"),
    }  # fmt: skip
    manifest = pod(
        "beside", shell("sleep 0.5; echo done"), initContainers=[sidecar], terminationGracePeriodSeconds=20
    )
    pods.apply(manifest)
    over = pods.wait("beside", ".status.phase", "Succeeded")
    assert end(over)["exitCode"] == 0
    assert pods.logs("beside", "-c", "side") == "up\ntold\n"


def test_variables_volumes_and_names_are_as_in_kubernetes(pods, server):
    server.kubectl("create", "configmap", "config", "--from-literal=key=value")
    server.kubectl("create", "secret", "generic", "secret", "--from-literal=word=hush")
    try:
        main = shell(
            "echo $OWN $A $key $NODE; cat /config/key /secret/word; echo; cat /down/name; echo; hostname; "
            "grep -c kubernetes.default /etc/hosts; "
            "cat /var/run/secrets/kubernetes.io/serviceaccount/namespace",
            env=[
                {"name": "A", "value": "$(OWN)-b"},
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            ],
            envFrom=[{"configMapRef": {"name": "config"}}],
            volumeMounts=[
                {"name": "config", "mountPath": "/config"}, {"name": "secret", "mountPath": "/secret"},
                {"name": "down", "mountPath": "/down"},
            ],
        )  # fmt: skip
        main["env"].insert(0, {"name": "OWN", "value": "a"})
        volumes = [
            {"name": "config", "configMap": {"name": "config"}},
            {"name": "secret", "secret": {"secretName": "secret"}},
            {"name": "down", "downwardAPI": {"items": [
                {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        ]  # fmt: skip
        pods.ended(pod("sees", main, volumes=volumes))
        lines = pods.logs("sees").splitlines()
        assert lines == ["a a-b value sees", "valuehush", "sees", "sees", "1", "default"]
    finally:
        server.kubectl("delete", "configmap/config", "secret/secret")


def test_who_a_container_is_can_be_said(pods):
    ended = pods.ended(
        pod("somebody", shell("id -u; id -g"), securityContext={"runAsUser": 1234, "runAsGroup": 4321})
    )
    assert end(ended)["exitCode"] == 0, end(ended)
    assert pods.logs("somebody").split() == ["1234", "4321"]


def test_too_much_memory_is_the_end(pods):
    ended = pods.ended(pod(
        "greedy", {"command": ["python3", "-c", "x = bytearray(200 << 20); print(len(x))"],
                   "resources": {"limits": {"memory": "64Mi"}}},
    ))  # fmt: skip
    assert (end(ended)["reason"], end(ended)["exitCode"]) == ("OOMKilled", 137)
    assert "64Mi" in end(ended)["message"]


def test_a_program_that_is_not_there_is_said(pods):
    ended = pods.ended(pod("absent", {"command": ["no-such-program"]}))
    assert end(ended)["reason"] == "CommandNotFound"
    assert "no-such-program" in end(ended)["message"]


def test_what_fails_is_started_again_and_its_logs_are_kept(pods):
    volume = {"name": "v", "mountPath": "/v"}
    script = "echo x >> /v/f; echo run $(wc -l < /v/f); [ $(wc -l < /v/f) -gt 1 ]"
    manifest = pod(
        "again",
        shell(script, volumeMounts=[volume]),
        restartPolicy="OnFailure",
        volumes=[{"name": "v", "emptyDir": {}}],
    )
    pods.apply(manifest)
    over = pods.wait("again", ".status.phase", "Succeeded")
    status = over["status"]["containerStatuses"][0]
    assert status["restartCount"] == 1
    assert status["lastState"]["terminated"]["exitCode"] == 1
    assert pods.logs("again") == "run 2\n"
    assert pods.logs("again", "-p") == "run 1\n"


def test_probes_tell_when_a_container_is_ready_and_when_it_is_dead(pods):
    script = "sleep 0.5; touch /tmp/ready; sleep 2; rm /tmp/ready; sleep 1000"
    check = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1, "failureThreshold": 1}
    main = shell(script, startupProbe={**check, "failureThreshold": 60}, livenessProbe=check)
    pods.apply(pod("probed", main))
    pods.server.kubectl("wait", "pod", "probed", "--for=condition=Ready", "--timeout=60s")
    over = pods.wait("probed", ".status.containerStatuses[0].state.terminated.reason")
    assert end(over)["exitCode"] in (137, 143)
    assert "Unhealthy" in {reason for reason, _ in pods.events("probed")}


def test_hooks_run_inside(pods):
    main = shell(
        "trap 'cat /tmp/hooks; exit 0' TERM; while true; do sleep 0.1; done",
        lifecycle={
            "postStart": {"exec": {"command": ["sh", "-c", "echo started >> /tmp/hooks"]}},
            "preStop": {"exec": {"command": ["sh", "-c", "echo stopping >> /tmp/hooks"]}},
        },
    )
    pods.apply(pod("hooked", main, terminationGracePeriodSeconds=30))
    pods.server.kubectl("wait", "pod", "hooked", "--for=condition=Ready", "--timeout=60s")
    follow = pods.server.kubectl_command("logs", "-f", "hooked")
    with subprocess.Popen(follow, stdout=subprocess.PIPE, text=True, env=environment()) as following:
        pods.server.kubectl("delete", "pod", "hooked", "--wait=false")
        assert following.stdout.read() == "started\nstopping\n"


def test_one_that_does_not_listen_is_killed_after_its_grace(pods):
    pods.apply(pod("deaf", shell("trap '' TERM; echo up; while true; do sleep 0.1; done")))
    pods.wait("deaf", ".status.phase", "Running")
    begun = time.monotonic()
    pods.server.kubectl("delete", "pod", "deaf")
    assert 0.9 < time.monotonic() - begun < 20


def test_a_container_and_its_log_go_on_while_the_server_is_gone(new_server, flags, runtime, request):
    server = new_server()
    server.start(*flags)
    script = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo line $i; sleep 0.01; done; exit 7"
    server.kubectl("apply", "-f", "-", stdin=json.dumps(pod("goes-on", shell(script))))
    server.kubectl("wait", "pod", "goes-on", "--for=jsonpath={.status.phase}=Running", "--timeout=60s")
    for _ in range(3):
        server.kill()
        server.start(*flags)
    reason = "--for=jsonpath={.status.containerStatuses[0].state.terminated.reason}"
    server.kubectl("wait", "pod", "goes-on", reason, "--timeout=60s")
    over = json.loads(server.kubectl("get", "pod", "goes-on", "-o", "json").stdout)
    assert (end(over)["exitCode"], over["status"]["containerStatuses"][0]["restartCount"]) == (7, 0)
    lines = server.kubectl("logs", "goes-on").stdout.splitlines()
    assert lines == [f"line {number}" for number in range(1, 401)]
    if runtime == "container":
        assert request.getfixturevalue("engine").containers("goes-on") == []


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "over"])
def test_a_pod_that_is_deleted_while_the_server_is_gone_leaves_nothing(
    new_server, flags, runtime, request, is_running
):
    server = new_server()
    server.start(*flags)
    server.kubectl(
        "apply", "-f", "-", stdin=json.dumps(pod("left", shell("sleep 1000" if is_running else "true")))
    )
    phase = "Running" if is_running else "Succeeded"
    server.kubectl("wait", "pod", "left", f"--for=jsonpath={{.status.phase}}={phase}", "--timeout=60s")
    server.kill()
    server.start(*flags)
    server.kubectl("delete", "pod", "left", "--timeout=60s")
    folders = server.data_dir / "pods"
    deadline = time.monotonic() + 20
    while any(folders.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(folders.iterdir()) == []
    if runtime == "container":
        assert request.getfixturevalue("engine").containers("left") == []
