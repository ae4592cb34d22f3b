"""Workloads by `kubectl`: deployments, jobs, cron jobs, stateful sets, services, volumes, running Pods."""

import json
import subprocess
import time

import pytest
import requests
from manifests import SHELL, config_map, container, deployment, job, pod
from server import environment, free_port


def test_a_deployment_rolls_out_back_and_down(namespace):
    namespace.apply(deployment("web", replicas=2, env=[{"name": "V", "value": "1"}]))
    assert "successfully rolled out" in namespace.kubectl(
        "rollout", "status", "deployment/web", "--timeout=60s"
    )
    namespace.kubectl("set", "env", "deployment/web", "V=2")
    namespace.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    history = namespace.kubectl("rollout", "history", "deployment/web")
    assert [line.split()[0] for line in history.splitlines()[2:] if line] == ["1", "2"]
    namespace.kubectl("rollout", "undo", "deployment/web")
    namespace.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    value = namespace.value("deployment/web", ".spec.template.spec.containers[0].env[0].value")
    assert value == "1"
    namespace.kubectl("rollout", "restart", "deployment/web")
    namespace.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    namespace.kubectl("scale", "deployment/web", "--replicas=0")
    namespace.kubectl("wait", "--for=delete", "pod", "-l", "app=web", "--timeout=60s")


def test_an_indexed_job_gives_each_pod_its_number(namespace):
    script = 'echo "I am $JOB_COMPLETION_INDEX of $(hostname)"'
    namespace.apply(job("many", script, completions=3, parallelism=2, completionMode="Indexed"))
    namespace.kubectl("wait", "--for=condition=Complete", "job/many", "--timeout=60s")
    assert namespace.value("job/many", ".status.completedIndexes") == "0-2"
    log = namespace.kubectl("logs", "-l", "batch.kubernetes.io/job-name=many", "--tail=-1")
    assert sorted(log.split()[2::5]) == ["0", "1", "2"], log


def test_a_job_that_fails_too_often_says_so(namespace):
    namespace.apply(job("bad", "echo no; exit 3", backoffLimit=0))
    namespace.kubectl("wait", "--for=condition=Failed", "job/bad", "--timeout=60s")
    conditions = json.loads(namespace.kubectl("get", "job", "bad", "-o", "json"))["status"]["conditions"]
    assert {condition["reason"] for condition in conditions} == {"BackoffLimitExceeded"}


def test_a_suspended_job_runs_when_it_is_resumed(namespace):
    namespace.apply(job("later", "echo done", suspend=True))
    namespace.kubectl("wait", "--for=condition=Suspended", "job/later", "--timeout=30s")
    assert namespace.kubectl("get", "pods", "-o", "name") == ""
    namespace.kubectl("patch", "job/later", "--type=merge", "-p", '{"spec":{"suspend":false}}')
    namespace.kubectl("wait", "--for=condition=Complete", "job/later", "--timeout=60s")


def test_a_cron_jobs_job_is_made_by_hand(namespace):
    namespace.kubectl(
        "create", "cronjob", "nightly", f"--image={SHELL}", "--schedule=0 3 * * *", "--", "true"
    )
    namespace.kubectl("create", "job", "now", "--from=cronjob/nightly")
    namespace.kubectl("wait", "--for=condition=Complete", "job/now", "--timeout=60s")
    said = namespace.refused("create", "cronjob", "bad", f"--image={SHELL}", "--schedule=whenever")
    assert "spec.schedule: Invalid value" in said


def test_a_stateful_sets_pods_come_in_order_and_know_each_other(namespace):
    labels = {"app": "db"}
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    main = container("echo $HOSTNAME >> /data/who; sleep 600")
    main["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    namespace.apply(
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"},
            "spec": {"clusterIP": "None", "selector": labels, "ports": [{"port": 80}]},
        },
        {
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"},
            "spec": {
                "serviceName": "db", "replicas": 2, "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"terminationGracePeriodSeconds": 1, "containers": [main]},
                },
                "volumeClaimTemplates": [claim],
            },
        },
    )  # fmt: skip
    namespace.kubectl("rollout", "status", "statefulset/db", "--timeout=60s")
    assert namespace.kubectl("get", "pods", "-l", "app=db", "-o", "name").split() == ["pod/db-0", "pod/db-1"]
    old = namespace.value("pod/db-0", ".metadata.uid")
    # kubectl itself would wait for ever if the new Pod came between its two looks at the old one.
    namespace.kubectl("delete", "pod", "db-0", "--wait=false")
    deadline = time.monotonic() + 60
    while namespace.run("get", "pod", "db-0", "-o", "jsonpath={.metadata.uid}").stdout in ("", old):
        assert time.monotonic() < deadline, "db-0 was not made anew"
    namespace.kubectl("wait", "--for=condition=Ready", "pod/db-0", "--timeout=60s")
    # The new Pod has the old one's files.
    both = "until [ $(wc -l < /data/who) = 2 ]; do sleep 0.1; done; cat /data/who"
    assert namespace.kubectl("exec", "db-0", "--", "sh", "-c", both).split() == ["db-0", "db-0"]
    address = namespace.value("pod/db-0", ".status.podIP")
    known = f"until getent hosts db-0.db | grep -qw {address}; do sleep 0.1; done"
    namespace.kubectl("exec", "db-1", "--", "sh", "-c", known)


SERVER = "cd /tmp && echo $HOSTNAME > who && exec python3 -m http.server 8000"


def test_a_service_leads_to_the_pods_that_are_ready(namespace):
    probe = {"httpGet": {"path": "/who", "port": 8000}, "periodSeconds": 1}
    main = container(SERVER, image="python:3.11-slim", readinessProbe=probe)
    manifest = deployment("web", replicas=2)
    manifest["spec"]["template"]["spec"]["containers"] = [main]
    namespace.apply(manifest)
    namespace.kubectl("expose", "deployment/web", "--port=80", "--target-port=8000")
    namespace.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    script = f"""
import urllib.request, time
seen = set()
while len(seen) < 2:
    for host in ("web", "web.{namespace.name}", "web.{namespace.name}.svc.cluster.local"):
        try:
            seen.add(urllib.request.urlopen("http://" + host + "/who", timeout=5).read())
        except OSError:
            time.sleep(0.1)
print("both")
"""
    asking = [{"name": "main", "image": "python:3.11-slim", "command": ["python", "-c", script]}]
    namespace.apply(pod("asks", containers=asking))
    namespace.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/asks", "--timeout=60s")
    assert namespace.kubectl("logs", "asks") == "both\n"


def test_two_pods_listen_at_one_port(namespace):
    script = "exec python3 -m http.server 29500"
    listening = [container(script, image="python:3.11-slim", readinessProbe={"tcpSocket": {"port": 29500}})]
    namespace.apply(pod("one", containers=listening), pod("two", containers=listening))
    namespace.kubectl("wait", "--for=condition=Ready", "pod/one", "pod/two", "--timeout=60s")


def test_init_containers_sidecars_and_shared_volumes(namespace):
    shared = [{"name": "shared", "mountPath": "/shared"}]
    main = container("cat /shared/made; until [ -e /shared/beat ]; do sleep 0.1; done; cat /shared/beat")
    side = container("echo beat > /shared/beat; sleep 600", name="side", restartPolicy="Always")
    first = container("echo made > /shared/made", name="first")
    for one in (main, side, first):
        one["volumeMounts"] = shared
    namespace.apply(
        pod("p", containers=[main], initContainers=[first, side],
            volumes=[{"name": "shared", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]),
    )  # fmt: skip
    namespace.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/p", "--timeout=60s")
    assert namespace.kubectl("logs", "p", "-c", "main") == "made\nbeat\n"


def test_configuration_reaches_a_pod_in_every_way(namespace):
    namespace.apply(config_map("settings", level="debug"))
    namespace.kubectl("create", "secret", "generic", "keys", "--from-literal=token=s3cret")
    main = container('echo "$level $PRE_token $NAME $CPU"; cat /all/level /all/token /all/labels')
    main["envFrom"] = [
        {"configMapRef": {"name": "settings"}},
        {"prefix": "PRE_", "secretRef": {"name": "keys"}},
    ]
    main["env"] = [
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
    ]
    main["resources"] = {"limits": {"cpu": "1"}}
    main["volumeMounts"] = [{"name": "all", "mountPath": "/all"}]
    sources = [
        {"configMap": {"name": "settings"}},
        {"secret": {"name": "keys"}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]
    namespace.apply(pod("p", containers=[main], volumes=[{"name": "all", "projected": {"sources": sources}}]))
    namespace.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/p", "--timeout=60s")
    assert namespace.kubectl("logs", "p") == 'debug s3cret p 1\ndebugs3cretapp="p"'


def test_a_claim_is_bound_and_keeps_its_files(namespace):
    claim = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }  # fmt: skip
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    mounts = [{"name": "data", "mountPath": "/data"}]
    for name, script in [("writes", "echo kept > /data/file"), ("reads", "cat /data/file")]:
        namespace.apply(
            claim, pod(name, containers=[container(script, volumeMounts=mounts)], volumes=volumes)
        )
        namespace.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{name}", "--timeout=60s")
    assert namespace.kubectl("logs", "reads") == "kept\n"
    namespace.kubectl("wait", "--for=jsonpath={.status.phase}=Bound", "pvc/data", "--timeout=30s")
    assert namespace.value("pvc/data", ".spec.volumeName")


def test_a_container_that_crashes_comes_back_and_its_last_log_is_kept(namespace):
    main = container("echo life; [ -e /shared/lived ] && sleep 600; touch /shared/lived; exit 1")
    main["volumeMounts"] = [{"name": "shared", "mountPath": "/shared"}]
    namespace.apply(
        pod("p", containers=[main], restartPolicy="Always", volumes=[{"name": "shared", "emptyDir": {}}])
    )
    namespace.kubectl(
        "wait", "--for=jsonpath={.status.containerStatuses[0].restartCount}=1", "pod/p", "--timeout=60s"
    )
    namespace.kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=60s")
    assert namespace.kubectl("logs", "p", "-p") == "life\n"


def test_logs_by_time_tail_and_container(namespace):
    containers = [
        container("echo one; echo two; sleep 600"),
        container("echo three; sleep 600", name="other"),
    ]
    namespace.apply(pod("p", containers=containers))
    namespace.kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=60s")
    assert namespace.kubectl("logs", "p", "-c", "main", "--tail=1") == "two\n"
    stamped = namespace.kubectl("logs", "p", "-c", "main", "--timestamps", "--tail=1")
    assert stamped[:2] == "20" and stamped.endswith(" two\n")
    assert namespace.kubectl("logs", "p", "-c", "main", "--since=1h").splitlines() == ["one", "two"]
    everything = namespace.kubectl("logs", "p", "--all-containers", "--prefix")
    assert sorted(line.split()[-1] for line in everything.splitlines()) == ["one", "three", "two"]


@pytest.fixture
def talker(namespace):
    """A Pod that waits for somebody to come in."""
    namespace.apply(pod("talker", "sleep 600"))
    namespace.kubectl("wait", "--for=condition=Ready", "pod/talker", "--timeout=60s")
    return namespace


def test_a_command_runs_in_a_pod_with_its_streams_and_exit_code(talker):
    ended = talker.run("exec", "talker", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (ended.returncode, ended.stdout) == (7, "out\n")
    assert ended.stderr.startswith("err\n")
    assert talker.kubectl("exec", "-i", "talker", "--", "wc", "-c", stdin="x" * 300_000).strip() == "300000"
    assert talker.kubectl("exec", "talker", "--", "hostname").strip() == "talker"


def test_files_are_copied_into_and_out_of_a_pod(talker, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "bytes").write_bytes(bytes(range(256)) * 1000)
    talker.kubectl("cp", folder, "talker:/tmp/copied")
    talker.kubectl("cp", "talker:/tmp/copied/bytes", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (folder / "bytes").read_bytes()


def test_a_port_of_a_pod_is_forwarded(namespace):
    probe = {"httpGet": {"path": "/who", "port": 8000}, "periodSeconds": 1}
    namespace.apply(
        pod("web", containers=[container(SERVER, image="python:3.11-slim", readinessProbe=probe)])
    )
    namespace.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
    port = free_port()
    command = namespace.cluster.command("-n", namespace.name, "port-forward", "pod/web", f"{port}:8000")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as forwarding:
        try:
            assert "Forwarding from" in forwarding.stdout.readline()
            for _ in range(3):
                assert requests.get(f"http://127.0.0.1:{port}/who", timeout=10).text == "web\n"
        finally:
            forwarding.kill()


def test_a_pod_is_attached_to(namespace):
    namespace.apply(pod("p", "while true; do echo beat; sleep 0.2; done"))
    namespace.kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=60s")
    command = namespace.cluster.command("-n", namespace.name, "attach", "p")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment()
    ) as attached:
        try:
            assert attached.stdout.readline() == "beat\n"
        finally:
            attached.kill()


def test_a_pod_that_is_deleted_has_its_grace(namespace):
    script = "trap 'sleep 1; exit 0' TERM; while true; do sleep 0.1; done"
    namespace.apply(pod("p", script, terminationGracePeriodSeconds=30))
    namespace.kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=60s")
    before = time.monotonic()
    namespace.kubectl("delete", "pod", "p", "--timeout=60s")
    assert 0.9 < time.monotonic() - before < 25
