"""`kubectl` against the server: what the Kubernetes API shows of runs, and takes from users."""

import json
import subprocess

import pytest
import runs
import yaml
from kfp import dsl
from server import environment


@dsl.container_component
def say(text: str):
    return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["echo"], args=[text])


@dsl.container_component
def talk_and_wait(command: str):
    return dsl.ContainerSpec(
        image=runs.SHELL_IMAGE,
        command=["sh", "-c", 'echo first line; eval "$0"; echo last line'],
        args=[command],
    )


@dsl.pipeline(name="kubectl-probe")
def spoken(text: str = "hello kubectl"):
    say(text=text)


@dsl.pipeline(name="kubectl-wait")
def waiting(command: str):
    talk_and_wait(command=command)


def pod_of(run: runs.Run, task: str) -> str:
    return run.task(task)["pod_name"]


def test_pods_of_all_namespaces_are_listed(server, kubectl):
    run = runs.succeed(server, spoken)
    lines = kubectl("get", "pods", "-A").stdout.splitlines()
    assert lines[0].split()[:5] == ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS"]
    row = next(line.split() for line in lines if pod_of(run, "say") in line)
    assert row[3] == "Completed"


def test_a_pod_is_shown_whole_and_says_which_run_it_belongs_to(server, kubectl):
    run = runs.succeed(server, spoken)
    pod = yaml.safe_load(kubectl("get", "pod", pod_of(run, "say"), "-o", "yaml").stdout)
    assert pod["metadata"]["labels"]["pipeline/runid"] == run.id
    assert pod["status"]["phase"] == "Succeeded"
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    assert pod["spec"]["nodeName"]


def managers(kubectl, *what: str) -> dict[str, set[str]]:
    """Who wrote something of an object, by subresource."""
    shown = json.loads(kubectl("get", *what, "-o", "json", "--show-managed-fields").stdout)
    found: dict[str, set[str]] = {}
    for entry in shown["metadata"]["managedFields"]:
        found.setdefault(entry.get("subresource", ""), set()).add(entry["manager"])
    return found


def test_the_parts_of_the_server_are_told_apart_by_what_they_write(server, kubectl):
    run = runs.succeed(server, spoken)
    wrote = managers(kubectl, "pod", pod_of(run, "say"))
    assert "coracle-pipelines" in wrote[""] and wrote["status"] == {"coracle-node"}
    kubectl("create", "deployment", "written", "--image=busybox", "--replicas=0")
    kubectl("rollout", "status", "deployment/written", "--timeout=30s")
    wrote = managers(kubectl, "deployment", "written")
    assert wrote[""] >= {"kubectl-create"} and wrote["status"] == {"coracle-controllers"}
    kubectl("delete", "deployment", "written")


def test_pods_are_found_by_the_runs_label(server, kubectl):
    run = runs.succeed(server, spoken)
    runs.succeed(server, spoken)
    found = kubectl("get", "pods", "-l", f"pipeline/runid={run.id}", "-o", "name").stdout.split()
    assert found == [f"pod/{pod_of(run, 'say')}"]


def test_pods_are_found_by_a_field(server, kubectl):
    run = runs.succeed(server, spoken)
    selectors = f"metadata.name={pod_of(run, 'say')},status.phase=Succeeded"
    assert pod_of(run, "say") in kubectl("get", "pods", "-A", "--field-selector", selectors).stdout
    none = kubectl("get", "pods", "-A", "--field-selector", "status.phase=Unknown", "-o", "name").stdout
    assert none == ""


def test_the_log_of_an_ended_task_is_there(server, kubectl):
    run = runs.succeed(server, spoken)
    assert kubectl("logs", pod_of(run, "say")).stdout == "hello kubectl\n"
    assert kubectl("logs", pod_of(run, "say"), "--tail=1").stdout == "hello kubectl\n"


def test_the_log_is_followed_while_the_task_is_at_work(server, kubectl, gate):
    run_id = runs.submit(server, waiting, command=gate.shell)
    gate.wait_reached()
    pod = pod_of(runs.read(server, run_id), "talk-and-wait")
    with subprocess.Popen(
        server.kubectl_command("logs", "-f", pod), stdout=subprocess.PIPE, text=True, env=environment()
    ) as following:
        assert following.stdout.readline() == "first line\n"
        gate.open()
        assert following.stdout.readline() == "last line\n"
        assert following.stdout.read() == ""
        assert following.wait(timeout=30) == 0
    assert runs.finish(server, run_id).state == "SUCCEEDED"


def test_a_pod_at_work_is_shown_running_and_can_be_waited_for(server, kubectl, gate):
    run_id = runs.submit(server, waiting, command=gate.shell)
    gate.wait_reached()
    pod = pod_of(runs.read(server, run_id), "talk-and-wait")
    kubectl("wait", f"pod/{pod}", "--for=jsonpath={.status.phase}=Running", "--timeout=20s")
    gate.open()
    kubectl("wait", f"pod/{pod}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=20s")


def test_deleting_a_pod_at_work_fails_its_task_with_a_reason(server, kubectl, gate):
    run_id = runs.submit(server, waiting, command=gate.shell)
    gate.wait_reached()
    kubectl("delete", "pod", pod_of(runs.read(server, run_id), "talk-and-wait"))
    gate.wait_left()
    run = runs.finish(server, run_id)
    assert run.state == "FAILED", run.describe()
    assert "PodDeleted" in run.failure("talk-and-wait")


def test_an_ended_pod_can_be_deleted_and_the_run_stays(server, kubectl):
    run = runs.succeed(server, spoken)
    pod = pod_of(run, "say")
    kubectl("delete", "pod", pod)
    assert kubectl("get", "pod", pod, check=False).returncode != 0
    assert runs.read(server, run.id).state == "SUCCEEDED"
    assert runs.log(server, run, "say") == "hello kubectl\n"


def test_what_does_not_exist_is_said_in_kubernetes_words(server, kubectl):
    ended = kubectl("get", "pod", "no-such-pod", check=False)
    assert ended.returncode == 1
    assert 'Error from server (NotFound): pods "no-such-pod" not found' in ended.stderr


def own_pod(name: str, script: str, container: dict | None = None, volumes: tuple = ()) -> str:
    """The manifest of a Pod that runs a shell script once."""
    main = {"name": "main", "image": runs.SHELL_IMAGE, "command": ["sh", "-c", script], **(container or {})}
    spec = {"restartPolicy": "Never", "containers": [main], "volumes": list(volumes)}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def test_a_pod_of_the_users_own_runs(server, kubectl):
    kubectl("create", "-f", "-", stdin=own_pod("own-pod", "echo own; exit 4"))
    kubectl("wait", "pod/own-pod", "--for=jsonpath={.status.phase}=Failed", "--timeout=30s")
    shown = json.loads(kubectl("get", "pod", "own-pod", "-o", "json").stdout)
    assert shown["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 4
    assert kubectl("logs", "own-pod").stdout == "own\n"
    kubectl("delete", "pod", "own-pod")


@pytest.mark.parametrize("kind", ["configmap", "secret"])
def test_configuration_is_made_changed_read_and_deleted(server, kubectl, kind):
    generic = ["generic"] if kind == "secret" else []
    kubectl("create", kind, *generic, "settings", "--from-literal=colour=red")
    kubectl("label", kind, "settings", "team=blue")
    kubectl("patch", kind, "settings", "--type=merge", "-p", '{"metadata":{"annotations":{"note":"n"}}}')
    shown = json.loads(kubectl("get", kind, "settings", "-o", "json").stdout)
    assert shown["metadata"]["labels"] == {"team": "blue"}
    assert shown["metadata"]["annotations"]["note"] == "n"
    assert list(shown["data"]) == ["colour"]
    kubectl("delete", kind, "settings")
    assert kubectl("get", kind, "settings", check=False).returncode == 1


def test_a_secret_reaches_a_pod_as_a_file_and_as_a_variable(server, kubectl):
    kubectl(
        "create", "secret", "generic", "login", "--from-literal=username=ada", "--from-literal=password=pi"
    )
    key = {"name": "login", "key": "password"}
    container = {
        "env": [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": key}}],
        "volumeMounts": [{"name": "login", "mountPath": "/etc/login"}],
    }
    volume = {"name": "login", "secret": {"secretName": "login"}}
    manifest = own_pod("secret-pod", 'echo "$(cat /etc/login/username) $PASSWORD"', container, (volume,))
    kubectl("create", "-f", "-", stdin=manifest)
    kubectl("wait", "pod/secret-pod", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s")
    assert kubectl("logs", "secret-pod").stdout == "ada pi\n"
    kubectl("delete", "pod/secret-pod", "secret/login")


def test_a_pod_whose_secret_is_missing_says_which(server, kubectl):
    volume = {"name": "gone", "secret": {"secretName": "no-such-secret"}}
    container = {"volumeMounts": [{"name": "gone", "mountPath": "/etc/gone"}]}
    kubectl("create", "-f", "-", stdin=own_pod("no-secret-pod", "true", container, (volume,)))
    # The API's own way to wait: `kubectl get --watch` until the event is there.
    watch = server.kubectl_command(
        "get", "events", "--watch", "--field-selector", "involvedObject.name=no-secret-pod", "-o", "json"
    )
    with subprocess.Popen(watch, stdout=subprocess.PIPE, text=True, env=environment()) as events:
        said = next(line for line in events.stdout if "no-such-secret" in line)
        events.kill()
    assert "no-such-secret" in said
    kubectl("delete", "pod", "no-secret-pod")


def test_the_kinds_are_discovered(server, kubectl):
    names = kubectl("api-resources", "--no-headers", "-o", "name").stdout.split()
    expected = {"configmaps", "events", "namespaces", "persistentvolumeclaims", "pods", "secrets"}
    assert expected <= {name.split(".")[0] for name in names}


@dsl.container_component
def needs_an_image():
    return dsl.ContainerSpec(image="quay.io/nobody/nothing:1", command=["true"])


@dsl.pipeline(name="needs-an-image")
def image_needed():
    needs_an_image()


def test_events_tell_why_a_pod_cannot_run(server, kubectl):
    run = runs.fail(server, image_needed)
    selector = f"involvedObject.name={pod_of(run, 'needs-an-image')}"
    events = json.loads(kubectl("get", "events", "--field-selector", selector, "-o", "json").stdout)["items"]
    assert "ImageNeedsContainerRuntime" in {event["reason"] for event in events}
