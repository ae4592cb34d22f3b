"""`kubectl` reads: tables, selectors, explain, watches, what it may do."""

import json
import subprocess

import yaml
from manifests import config_map, deployment, pod
from server import environment


def test_explain_tells_of_fields_and_their_fields(cluster):
    said = cluster.kubectl("explain", "pod.spec.containers.livenessProbe.httpGet")
    assert "GROUP" not in said and "KIND:       Pod" in said
    assert "port\t<IntOrString> -required-" in said
    assert "replicas\t<integer>" in cluster.kubectl("explain", "deployments", "--recursive")
    assert "nothings" in cluster.refused("explain", "nothings")


def test_discovery_lists_kinds_with_their_short_names(cluster):
    rows = cluster.kubectl("api-resources", "--no-headers").splitlines()
    kinds = {row.split()[-1]: row.split() for row in rows}
    for kind, short in [("Pod", "po"), ("Deployment", "deploy"), ("PersistentVolumeClaim", "pvc"),
                        ("CustomResourceDefinition", "crd,crds"), ("CronJob", "cj")]:  # fmt: skip
        assert short in kinds[kind], kind
    versions = cluster.kubectl("api-versions").split()
    for version in ["v1", "apps/v1", "batch/v1", "rbac.authorization.k8s.io/v1", "apiextensions.k8s.io/v1"]:
        assert version in versions


def test_lists_come_in_pages_and_by_selectors(namespace):
    namespace.apply(*(config_map(f"m{number:02}") for number in range(25)))
    for number in range(0, 25, 5):
        namespace.kubectl("label", f"configmap/m{number:02}", "fifth=yes")
    names = namespace.kubectl("get", "configmaps", "--chunk-size=7", "-o", "name").split()
    assert len([name for name in names if name.startswith("configmap/m")]) == 25
    chosen = namespace.kubectl("get", "cm", "-l", "fifth in (yes,no),fifth!=no", "-o", "name").split()
    assert chosen == [f"configmap/m{number:02}" for number in range(0, 25, 5)]
    one = namespace.kubectl("get", "cm", "--field-selector", "metadata.name=m03", "-o", "name").split()
    assert one == ["configmap/m03"]
    said = namespace.refused("get", "cm", "--field-selector", "data.x=1")
    assert "field label not supported: data.x" in said


def test_tables_show_what_people_look_for(namespace):
    namespace.apply(deployment("web", replicas=1))
    namespace.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    head, row = namespace.kubectl("get", "deployment", "web").splitlines()
    assert head.split() == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert row.split()[:4] == ["web", "1/1", "1", "1"]
    head, row = namespace.kubectl("get", "pods", "-o", "wide").splitlines()
    assert head.split()[:6] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP"]
    assert row.split()[1:4] == ["1/1", "Running", "0"]


def test_a_watch_shows_changes_as_they_come(namespace):
    command = namespace.cluster.command(
        "-n", namespace.name, "get", "configmaps", "-w", "--output-watch-events", "-o", "json"
    )
    namespace.kubectl("create", "configmap", "before")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as watching:
        try:
            events = read_events(watching.stdout)
            # It is there when the watch begins, so that the watch has begun when it is shown.
            until_seen(events, ("ADDED", "before"))
            namespace.kubectl("create", "configmap", "a")
            until_seen(events, ("ADDED", "a"))
            namespace.kubectl("delete", "configmap", "a")
            until_seen(events, ("DELETED", "a"))
        finally:
            watching.kill()


def read_events(stream):
    """The events of a watch as kubectl prints them: objects in JSON, one after the other."""
    decoder, buffer = json.JSONDecoder(), ""
    for line in stream:
        buffer = (buffer + line).lstrip()
        try:
            event, end = decoder.raw_decode(buffer)
        except json.JSONDecodeError:
            continue
        buffer = buffer[end:]
        yield event["type"], event["object"]["metadata"]["name"]


def until_seen(events, wanted) -> None:
    assert wanted in events, f"the watch ended without {wanted}"


def test_wait_ends_when_a_condition_holds(namespace):
    namespace.apply(pod("p", "sleep 600"))
    namespace.kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=60s")
    namespace.kubectl("wait", "--for=jsonpath={.status.phase}=Running", "pod/p", "--timeout=10s")
    assert "timed out" in namespace.refused("wait", "--for=condition=Never", "pod/p", "--timeout=1s")


def test_describe_shows_a_pod_and_its_events(namespace):
    namespace.apply(pod("p", containers=[{"name": "main", "image": "busybox:1.36", "command": ["/no/such"]}]))
    namespace.kubectl("wait", "--for=jsonpath={.status.phase}=Failed", "pod/p", "--timeout=60s")
    said = namespace.kubectl("describe", "pod", "p")
    assert "Status:           Failed" in said
    assert "/no/such" in said


def test_who_may_do_what_is_asked_and_kept(namespace):
    account = f"system:serviceaccount:{namespace.name}:reader"
    namespace.kubectl("create", "serviceaccount", "reader")
    assert namespace.kubectl("auth", "can-i", "create", "pods").strip() == "yes"
    denied = namespace.run("auth", "can-i", "list", "pods", f"--as={account}")
    assert (denied.returncode, denied.stdout.strip()) == (1, "no")
    namespace.kubectl("create", "role", "reader", "--verb=get,list", "--resource=pods")
    namespace.kubectl(
        "create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace.name}:reader"
    )
    assert namespace.kubectl("auth", "can-i", "list", "pods", f"--as={account}").strip() == "yes"
    listed = namespace.kubectl("auth", "can-i", "--list", f"--as={account}")
    assert any(line.split()[0] == "pods" and "[get list]" in line for line in listed.splitlines()[1:])
    said = namespace.refused("delete", "pod", "p", f"--as={account}")
    assert f'User "{account}" cannot delete resource "pods" in API group "" in the namespace' in said
    # Granting more than one has is refused.
    said = namespace.refused(
        "create", "role", "more", "--verb=delete", "--resource=pods", "--as=somebody", "--as-group=none"
    )
    assert "forbidden" in said


def test_a_pods_own_token_is_what_its_account_may_do(namespace):
    namespace.kubectl("create", "serviceaccount", "reader")
    namespace.kubectl("create", "role", "reader", "--verb=list", "--resource=pods")
    namespace.kubectl(
        "create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace.name}:reader"
    )
    script = """
import json, os, pathlib, ssl, urllib.error, urllib.request
folder = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")
token, space = (folder / "token").read_text(), (folder / "namespace").read_text()
context = ssl.create_default_context(cafile=folder / "ca.crt")
base = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
def ask(path, headers):
    request = urllib.request.Request(base + path, headers=headers)
    try:
        return urllib.request.urlopen(request, context=context).status
    except urllib.error.HTTPError as error:
        return error.code
bearer = {"Authorization": f"Bearer {token}"}
print(json.dumps([
    ask(f"/api/v1/namespaces/{space}/pods", bearer),
    ask(f"/api/v1/namespaces/{space}/secrets", bearer),
    ask(f"/api/v1/namespaces/{space}/pods", {"Authorization": "Bearer nonsense"}),
]))
"""
    containers = [{"name": "main", "image": "python:3.11-slim", "command": ["python", "-c", script]}]
    namespace.apply(pod("p", containers=containers, serviceAccountName="reader"))
    namespace.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/p", "--timeout=60s")
    assert json.loads(namespace.kubectl("logs", "p")) == [200, 403, 401]


def test_tokens_are_made_and_reviewed(namespace):
    namespace.kubectl("create", "serviceaccount", "robot")
    token = namespace.kubectl("create", "token", "robot", "--duration=20m").strip()
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    answer = yaml.safe_load(
        namespace.kubectl("create", "-f", "-", "-o", "yaml", stdin=yaml.safe_dump(review))
    )
    assert answer["status"]["authenticated"] is True
    assert answer["status"]["user"]["username"] == f"system:serviceaccount:{namespace.name}:robot"
