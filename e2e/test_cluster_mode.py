"""`coracle up --kubeconfig`: runs belong to one server, their Pods to another, which is its cluster."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import runs
import yaml
from components import make_file, read_file
from kfp import dsl
from server import free_port, run_cli

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None,
    reason="KUBECTL IS NOT ON THIS MACHINE: a cluster is not looked at with it",
)


@dsl.container_component
def talk(command: str):
    return dsl.ContainerSpec(
        image=runs.SHELL_IMAGE, command=["sh", "-c", 'echo begun; eval "$0"; echo ended'], args=[command]
    )


@dsl.pipeline(name="handed-on")
def handed_on(text: str):
    read_file(data=make_file(text=text).outputs["data"])


@dsl.pipeline(name="at-work")
def at_work(command: str):
    first = talk(command=command)
    talk(command="true").after(first)


def serve_cluster(new_server, folder) -> SimpleNamespace:
    """A server that is the cluster (`nodes`), and one that is to use it (`runs`), not yet started."""
    user = new_server(folder / "runs")
    nodes = new_server(folder / "nodes").start("--host-path", str(user.data_dir / "artifacts"))
    kubeconfig = folder / "kubeconfig"
    nodes.cli("kubeconfig", kubeconfig)
    return SimpleNamespace(nodes=nodes, runs=user, kubeconfig=kubeconfig)


@pytest.fixture
def pair(new_server, tmp_path):
    """Two servers of a test's own, both at work."""
    made = serve_cluster(new_server, tmp_path)
    made.runs.start("--kubeconfig", made.kubeconfig)
    return made


def pods(server, run_id: str) -> dict[str, str]:
    """Phases of a run's Pods by name, as kubectl shows them at a server."""
    shown = json.loads(server.kubectl("get", "pods", "-l", f"pipeline/runid={run_id}", "-o", "json").stdout)
    return {pod["metadata"]["name"]: pod["status"]["phase"] for pod in shown["items"]}


def address(server) -> str:
    """Where the Kubernetes API of a server is."""
    return announced(server)["kubernetes"]


def announced(server) -> dict:
    """What a server tells of itself."""
    return json.loads((server.data_dir / "server.json").read_text())


def kubectl(server, *arguments):
    """`coracle kubectl` at a server."""
    return run_cli("--data-dir", server.data_dir, "kubectl", *arguments, check=True)


def with_token(kubeconfig: Path, token: str) -> None:
    """Put another token into a kubeconfig."""
    content = yaml.safe_load(kubeconfig.read_text())
    content["users"][0]["user"] = {"token": token}
    kubeconfig.write_text(yaml.safe_dump(content))


def refused(*arguments) -> str:
    """What `coracle up` says when it cannot start."""
    ended = run_cli("up", "--foreground", "--port", free_port(), *arguments, timeout=60)
    assert ended.returncode not in (0, 101), ended.stdout
    assert ended.stdout == ""
    return ended.stderr


def test_tasks_are_pods_of_the_cluster_and_artifacts_and_logs_stay_here(pair):
    run = runs.succeed(pair.runs, handed_on, text="across two servers")
    made, read = run.task("make-file")["pod_name"], run.task("read-file")["pod_name"]
    assert pods(pair.nodes, run.id) == {made: "Succeeded", read: "Succeeded"}
    assert runs.log(pair.runs, run, "read-file") == "across two servers"
    assert "across two servers" in pair.runs.cli("logs", run.id, "read-file").stdout
    data = runs.artifacts(pair.runs, run.id)["data"]
    assert data["uri"].startswith(str(pair.runs.data_dir / "artifacts"))
    assert runs.texts([data]) == ["across two servers"]
    assert not pair.nodes.get("/runs").get("runs")
    pod = pair.nodes.kubectl("get", "pod", made, "-o", "json", "--show-managed-fields").stdout
    fields = json.loads(pod)["metadata"]["managedFields"]
    assert "coracle-pipelines" in {entry["manager"] for entry in fields}


def test_a_log_is_read_while_its_task_is_at_work_on_the_cluster(pair, gate):
    run_id = runs.submit(pair.runs, at_work, command=gate.shell)
    gate.wait_reached()
    task = runs.read(pair.runs, run_id).task("talk")
    path = f"/apis/v1alpha1/runs/{run_id}/nodes/{task['pod_name']}/log?follow=true"
    with pair.runs.http("GET", path, stream=True) as following:
        lines = following.iter_lines(chunk_size=1)
        assert next(lines) == b"begun"
        gate.open()
        assert list(lines) == [b"ended"]
    assert runs.finish(pair.runs, run_id).state == "SUCCEEDED"


def test_there_is_no_kubernetes_api_and_no_node_of_its_own(pair):
    told = announced(pair.runs)
    assert told["kubernetes"] is None and told["cluster"]["server"] == address(pair.nodes)
    assert not (pair.runs.data_dir / "pki").exists() and not (pair.runs.data_dir / "audit.log").exists()
    refusal = pair.runs.cli("kubeconfig", check=False)
    assert refusal.returncode == 1
    assert str(pair.kubeconfig) in refusal.stderr and "hint:" in refusal.stderr
    seen = [
        json.loads(server.kubectl("get", "nodes", "-o", "json").stdout) for server in (pair.runs, pair.nodes)
    ]
    names = [[node["metadata"]["uid"] for node in nodes["items"]] for nodes in seen]
    assert names[0] == names[1] and len(names[0]) == 1


def test_reads_show_the_cluster_and_writes_are_told_where_they_belong(pair):
    pair.nodes.kubectl("create", "configmap", "there", "--from-literal=a=1")
    assert pair.runs.kubectl("get", "configmap", "there", "-o", "jsonpath={.data.a}").stdout == "1"
    assert "there" in pair.runs.cli("get", "configmaps").stdout
    ended = pair.runs.kubectl("delete", "configmap", "there", check=False)
    assert ended.returncode == 1
    assert "MethodNotAllowed" in ended.stderr and str(pair.kubeconfig) in ended.stderr
    kubectl(pair.runs, "delete", "configmap", "there")
    assert pair.nodes.kubectl("get", "configmap", "there", check=False).returncode == 1


def test_a_run_outlives_a_killed_server_and_each_task_runs_once(pair, gate, witness):
    run_id = runs.submit(pair.runs, at_work, command=f"{witness.shell('worked')}; {gate.shell}")
    gate.wait_reached()
    (before,) = pods(pair.nodes, run_id)
    pair.runs.kill()
    pair.runs.start("--kubeconfig", pair.kubeconfig)
    gate.open()
    run = runs.finish(pair.runs, run_id)
    assert run.state == "SUCCEEDED", run.describe()
    assert witness.count("worked") == 1
    after = pods(pair.nodes, run_id)
    assert len(after) == 2 and before in after
    assert runs.log(pair.runs, run, "talk").startswith("begun\n")


def test_a_task_that_ends_while_nobody_is_there_is_taken_up_later(pair, gate):
    run_id = runs.submit(pair.runs, at_work, command=gate.shell)
    gate.wait_reached()
    pod = runs.read(pair.runs, run_id).task("talk")["pod_name"]
    pair.runs.kill()
    # Its launcher waits for the server with its report, and holds the Pod up.
    gate.open()
    pair.runs.start("--kubeconfig", pair.kubeconfig)
    run = runs.finish(pair.runs, run_id)
    assert run.state == "SUCCEEDED", run.describe()
    pair.nodes.kubectl("wait", f"pod/{pod}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s")


def test_a_run_outlives_a_killed_cluster(pair, gate):
    run_id = runs.submit(pair.runs, at_work, command=gate.shell)
    gate.wait_reached()
    pair.nodes.kill()
    asked = pair.runs.http("GET", "/api/v1/pods")
    assert (asked.status_code, asked.json()["reason"]) == (503, "ServiceUnavailable")
    assert address(pair.nodes) in asked.json()["message"]
    assert pair.runs.http("GET", "/healthz").ok
    assert runs.read(pair.runs, run_id).state == "RUNNING"
    pair.nodes.start("--host-path", str(pair.runs.data_dir / "artifacts"))
    gate.open()
    run = runs.finish(pair.runs, run_id)
    assert run.state == "SUCCEEDED", run.describe()
    assert len(pods(pair.nodes, run_id)) == 2


def test_a_terminated_run_leaves_no_pod_at_work_on_the_cluster(pair, gate):
    run_id = runs.submit(pair.runs, at_work, command=gate.shell)
    gate.wait_reached()
    pair.runs.client.runs.run_service_terminate_run(run_id=run_id)
    gate.wait_left()
    assert runs.finish(pair.runs, run_id).state == "CANCELED"


def test_a_pod_that_is_deleted_on_the_cluster_fails_its_task(pair, gate):
    run_id = runs.submit(pair.runs, at_work, command=gate.shell)
    gate.wait_reached()
    pair.nodes.kubectl("delete", "pod", runs.read(pair.runs, run_id).task("talk")["pod_name"])
    run = runs.finish(pair.runs, run_id)
    assert run.state == "FAILED", run.describe()
    assert "PodDeleted" in run.failure("talk")


def test_a_cluster_that_does_not_answer_is_named_with_what_to_do(new_server, tmp_path):
    made = serve_cluster(new_server, tmp_path)
    where = address(made.nodes)
    made.nodes.kill()
    text = refused("--data-dir", made.runs.data_dir, "--kubeconfig", made.kubeconfig)
    for part in (where, str(made.kubeconfig), "context `coracle`", "does not answer", "start it"):
        assert part in text, text
    assert not (made.runs.data_dir / "server.json").exists()


def test_credentials_that_the_cluster_refuses_are_told_from_silence(new_server, tmp_path):
    made = serve_cluster(new_server, tmp_path)
    with_token(made.kubeconfig, "wrong")
    text = refused("--data-dir", made.runs.data_dir, "--kubeconfig", made.kubeconfig)
    assert "Unauthorized" in text and "credentials" in text and "does not answer" not in text, text


def test_a_user_without_the_rights_is_told_which_are_missing(new_server, tmp_path):
    made = serve_cluster(new_server, tmp_path)
    with_token(made.kubeconfig, made.nodes.kubectl("create", "token", "default").stdout.strip())
    text = refused("--data-dir", made.runs.data_dir, "--kubeconfig", made.kubeconfig)
    assert "create pods" in text and "watch pods" in text and "namespace `default`" in text, text


@pytest.mark.parametrize("words", [("--context", "nowhere"), ()], ids=["context", "file"])
def test_what_the_kubeconfig_lacks_is_named(tmp_path, words):
    file = tmp_path / "kubeconfig"
    if words:
        file.write_text('{"apiVersion": "v1", "kind": "Config", "clusters": [], "contexts": [], "users": []}')
    text = refused("--data-dir", tmp_path / "data", "--kubeconfig", file, *words)
    assert str(file) in text and "panicked" not in text, text


def test_a_namespace_of_its_own_holds_the_pods(new_server, tmp_path):
    made = serve_cluster(new_server, tmp_path)
    made.nodes.kubectl("create", "namespace", "team")
    made.runs.start("--kubeconfig", made.kubeconfig, "--cluster-namespace", "team")
    run = runs.succeed(made.runs, handed_on, text="in a namespace")
    assert pods(made.nodes, run.id) == {}
    shown = made.nodes.kubectl("get", "pods", "-n", "team", "-o", "name").stdout.split()
    assert f"pod/{run.task('read-file')['pod_name']}" in shown and len(shown) == 2
