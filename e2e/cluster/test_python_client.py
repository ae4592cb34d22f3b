"""The unmodified Python client: typed and dynamic calls, watches, exec, YAML files, leader election."""

import subprocess
import sys
import threading
import time

import pytest
import yaml
from kubernetes import client, dynamic, utils, watch
from kubernetes.stream import portforward, stream
from manifests import SHELL, WIDGETS, container, deployment, job, pod


@pytest.fixture
def api(cluster):
    with cluster.api() as made:
        yield made


@pytest.fixture
def core(api):
    return client.CoreV1Api(api)


def until(holds, what: str, seconds: float = 60):
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not {what} within {seconds} s"
        time.sleep(0.1)
    return found


def running(core, namespace: str, name: str):
    return until(
        lambda: core.read_namespaced_pod(name, namespace).status.phase == "Running", f"running: {name}"
    )


def test_a_pods_life(core, namespace):
    space = namespace.name
    made = core.create_namespaced_pod(space, pod("p", "echo hello; sleep 600"))
    assert (made.metadata.namespace, made.status.phase) == (space, "Pending")
    with pytest.raises(client.ApiException) as caught:
        core.create_namespaced_pod(space, pod("p"))
    assert (caught.value.status, '"reason":"AlreadyExists"' in caught.value.body) == (409, True)
    running(core, space, "p")
    assert core.read_namespaced_pod_log("p", space) == "hello\n"
    assert [item.metadata.name for item in core.list_namespaced_pod(space, label_selector="app=p").items] == [
        "p"
    ]
    core.delete_namespaced_pod("p", space, grace_period_seconds=0)
    until(lambda: not core.list_namespaced_pod(space).items, "gone")


def test_a_command_in_a_pod(core, namespace):
    space = namespace.name
    core.create_namespaced_pod(space, pod("p"))
    running(core, space, "p")
    said = stream(
        core.connect_get_namespaced_pod_exec, "p", space, command=["sh", "-c", "echo out; echo err >&2"],
        stderr=True, stdin=False, stdout=True, tty=False,
    )  # fmt: skip
    assert sorted(said.split()) == ["err", "out"]
    talk = stream(
        core.connect_get_namespaced_pod_exec, "p", space, command=["sh"],
        stderr=True, stdin=True, stdout=True, tty=False, _preload_content=False,
    )  # fmt: skip
    talk.write_stdin("echo $((6 * 7))\n")
    assert talk.readline_stdout(timeout=20) == "42"
    talk.write_stdin("exit 3\n")
    talk.run_forever(timeout=20)
    assert talk.returncode == 3
    talk.close()


def test_a_port_of_a_pod(core, namespace):
    space = namespace.name
    script = "cd /tmp && echo here > it && exec python3 -m http.server 8000"
    probe = {"tcpSocket": {"port": 8000}, "periodSeconds": 1}
    containers = [container(script, image="python:3.11-slim", readinessProbe=probe)]
    core.create_namespaced_pod(space, pod("p", containers=containers))
    namespace.kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=60s")
    forward = portforward(core.connect_get_namespaced_pod_portforward, "p", space, ports="8000")
    socket = forward.socket(8000)
    socket.setblocking(True)
    socket.sendall(b"GET /it HTTP/1.0\r\n\r\n")
    answer = b""
    while piece := socket.recv(4096):
        answer += piece
    assert answer.endswith(b"here\n")
    assert forward.error(8000) is None


def test_a_service_and_its_endpoints(core, namespace):
    space = namespace.name
    service = {"metadata": {"name": "s"}, "spec": {"selector": {"app": "p"}, "ports": [{"port": 80}]}}
    made = core.create_namespaced_service(space, service)
    assert made.spec.cluster_ip and made.spec.type == "ClusterIP"
    core.create_namespaced_pod(space, pod("p"))
    running(core, space, "p")

    def addresses():
        try:
            subsets = core.read_namespaced_endpoints("s", space).subsets or []
        except client.ApiException:
            return []
        return [address.ip for subset in subsets for address in subset.addresses or []]

    found = until(addresses, "an endpoint")
    assert found == [core.read_namespaced_pod("p", space).status.pod_ip]
    core.delete_namespaced_service("s", space)


def test_a_configmap_is_replaced_patched_and_deleted_with_the_others(core, namespace):
    space = namespace.name
    for name in ("a", "b"):
        core.create_namespaced_config_map(space, {"metadata": {"name": name, "labels": {"mine": "yes"}}})
    core.patch_namespaced_config_map("a", space, {"data": {"x": "1"}})
    found = core.read_namespaced_config_map("a", space)
    found.data["x"] = "2"
    core.replace_namespaced_config_map("a", space, found)
    with pytest.raises(client.ApiException) as caught:
        core.replace_namespaced_config_map("a", space, found)
    assert caught.value.status == 409
    core.delete_collection_namespaced_config_map(space, label_selector="mine=yes")
    until(lambda: not core.list_namespaced_config_map(space, label_selector="mine=yes").items, "gone")


def test_a_watch_goes_on_from_a_list(core, namespace):
    space = namespace.name
    core.create_namespaced_config_map(space, {"metadata": {"name": "before"}})
    version = core.list_namespaced_config_map(space).metadata.resource_version

    def write():
        for number in range(3):
            core.create_namespaced_config_map(space, {"metadata": {"name": f"after-{number}"}})

    writer = threading.Timer(0.2, write)
    writer.start()
    seen = []
    watching = watch.Watch()
    for event in watching.stream(
        core.list_namespaced_config_map, space, resource_version=version, timeout_seconds=30
    ):
        seen.append((event["type"], event["object"].metadata.name))
        if len(seen) == 3:
            watching.stop()
    writer.join()
    assert seen == [("ADDED", f"after-{number}") for number in range(3)]


def test_a_log_is_followed(core, namespace):
    space = namespace.name
    core.create_namespaced_pod(space, pod("p", "for i in 1 2 3; do echo line $i; sleep 0.2; done"))
    until(lambda: core.read_namespaced_pod("p", space).status.phase != "Pending", "started")
    lines = list(watch.Watch().stream(core.read_namespaced_pod_log, "p", space))
    assert lines == ["line 1", "line 2", "line 3"]


def test_a_job_and_a_deployment(api, namespace):
    batch, apps = client.BatchV1Api(api), client.AppsV1Api(api)
    batch.create_namespaced_job(namespace.name, job("j", "true"))
    apps.create_namespaced_deployment(namespace.name, deployment("d", replicas=1))
    until(lambda: batch.read_namespaced_job("j", namespace.name).status.succeeded == 1, "complete")
    until(
        lambda: apps.read_namespaced_deployment("d", namespace.name).status.available_replicas == 1,
        "available",
    )
    apps.patch_namespaced_deployment_scale("d", namespace.name, {"spec": {"replicas": 2}})
    assert apps.read_namespaced_deployment_scale("d", namespace.name).spec.replicas == 2
    apps.delete_namespaced_deployment("d", namespace.name, propagation_policy="Foreground")
    batch.delete_namespaced_job("j", namespace.name, propagation_policy="Background")


def test_custom_objects_and_the_dynamic_client(api, cluster, namespace):
    definition = yaml.safe_load(yaml.safe_dump(WIDGETS).replace("widget", "gizmo").replace("Widget", "Gizmo"))
    definition["spec"]["names"].pop("shortNames")
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(definition))
    cluster.kubectl("wait", "--for=condition=Established", "crd/gizmos.e2e.coracle.dev", "--timeout=30s")
    try:
        custom = client.CustomObjectsApi(api)
        where = {"group": "e2e.coracle.dev", "version": "v1", "namespace": namespace.name, "plural": "gizmos"}
        body = {
            "apiVersion": "e2e.coracle.dev/v1",
            "kind": "Gizmo",
            "metadata": {"name": "g"},
            "spec": {"size": 1},
        }
        custom.create_namespaced_custom_object(**where, body=body)
        custom.patch_namespaced_custom_object(**where, name="g", body={"spec": {"size": 2}})
        custom.patch_namespaced_custom_object_status(**where, name="g", body={"status": {"phase": "Done"}})
        found = custom.get_namespaced_custom_object(**where, name="g")
        assert (found["spec"]["size"], found["status"]) == (2, {"phase": "Done"})
        listed = custom.list_namespaced_custom_object(**where)
        assert [(item["kind"], item["metadata"]["name"]) for item in listed["items"]] == [("Gizmo", "g")]
        gizmos = dynamic.DynamicClient(api).resources.get(api_version="e2e.coracle.dev/v1", kind="Gizmo")
        body["spec"]["size"] = 5
        applied = gizmos.server_side_apply(
            body, namespace=namespace.name, field_manager="e2e", force_conflicts=True
        )
        assert applied.spec.size == 5
        gizmos.delete("g", namespace=namespace.name)
    finally:
        cluster.kubectl("delete", "crd", "gizmos.e2e.coracle.dev", "--timeout=60s")


def test_objects_are_made_from_yaml(api, core, namespace, tmp_path):
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump_all([pod("p"), deployment("d", replicas=0)]))
    utils.create_from_yaml(api, str(file), namespace=namespace.name)
    assert core.read_namespaced_pod("p", namespace.name).spec.containers[0].image == SHELL


CANDIDATE = """
import sys
from kubernetes import client, config
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock

kubeconfig, namespace, name = sys.argv[1:]
lock = ConfigMapLock("leader", namespace, name)
lock.api_instance = client.CoreV1Api(config.new_client_from_config(kubeconfig))
lead = lambda: print(name, flush=True)
times = {"lease_duration": 4, "renew_deadline": 3, "retry_period": 1}
election = electionconfig.Config(lock, **times, onstarted_leading=lead, onstopped_leading=None)
leaderelection.LeaderElection(election).run()
"""


def test_one_of_two_candidates_leads_and_the_other_takes_over(cluster, namespace):
    """With a ConfigMap as the lock, which is what this client offers."""

    def stand(name: str) -> subprocess.Popen:
        command = [sys.executable, "-c", CANDIDATE, str(cluster.kubeconfig), namespace.name, name]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    with stand("one") as first:
        assert first.stdout.readline() == "one\n"
        with stand("two") as second:
            try:
                first.kill()
                assert second.stdout.readline() == "two\n"
            finally:
                second.kill()


def test_who_may_do_what(api, namespace):
    review = {
        "spec": {"resourceAttributes": {"namespace": namespace.name, "verb": "create", "resource": "pods"}}
    }
    answer = client.AuthorizationV1Api(api).create_self_subject_access_review(review)
    assert answer.status.allowed is True


def test_quotas_and_storage_classes(api, core, namespace):
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}}
    core.create_namespaced_resource_quota(namespace.name, quota)
    core.create_namespaced_pod(namespace.name, pod("one"))
    with pytest.raises(client.ApiException) as caught:
        core.create_namespaced_pod(namespace.name, pod("two"))
    assert caught.value.status == 403
    assert "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1" in caught.value.body
    until(
        lambda: (
            (core.read_namespaced_resource_quota("q", namespace.name).status.used or {}).get("pods") == "1"
        ),
        "counted",
    )
    assert client.StorageV1Api(api).list_storage_class().items
