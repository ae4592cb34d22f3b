"""`coracle kubeconfig` and `coracle kubectl`: the way of unmodified clients to the server."""

import json
import os
import shutil
import stat
import subprocess

import pytest
import yaml
from kubernetes import client, config
from server import BINARY, environment, run_cli

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None,
    reason="KUBECTL IS NOT ON THIS MACHINE: the kubeconfig is not tested with it",
)


def plain(*arguments, env: dict | None = None) -> subprocess.CompletedProcess:
    """kubectl as users start it: nothing but an environment says where the server is."""
    return subprocess.run(
        ["kubectl", *arguments],
        capture_output=True, text=True, timeout=60, env={**environment(), **(env or {})},
    )  # fmt: skip


def coracle_kubectl(server, *arguments, check: bool = True, env: dict | None = None):
    return run_cli("--data-dir", server.data_dir, "kubectl", *arguments, check=check, env=env)


@pytest.fixture
def home(tmp_path):
    """Variables of a user who has nothing yet."""
    folder = tmp_path / "home"
    folder.mkdir()
    return {"HOME": str(folder), "KUBECONFIG": ""}


def test_the_file_is_for_its_user_only_and_kubectl_takes_it_as_it_is(server, home):
    path = server.cli("kubeconfig").stdout.strip()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    who = plain("auth", "whoami", "-o", "json", env={**home, "KUBECONFIG": path})
    assert who.returncode == 0, who.stderr
    assert json.loads(who.stdout)["status"]["userInfo"]["username"] == "system:admin"
    where = plain(
        "config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}", env={"KUBECONFIG": path}
    )
    assert where.stdout.startswith("https://")


def test_the_python_client_takes_it_too(server, tmp_path):
    path = tmp_path / "kubeconfig"
    server.cli("kubeconfig", path)
    with config.new_client_from_config(str(path)) as api:
        names = [item.metadata.name for item in client.CoreV1Api(api).list_namespace().items]
    assert "default" in names and "kube-system" in names


def test_it_is_printed_where_that_is_asked_for(server):
    shown = yaml.safe_load(server.cli("kubeconfig", "-").stdout)
    assert shown["current-context"] == "coracle"
    assert [context["name"] for context in shown["contexts"]] == ["coracle"]
    assert shown["contexts"][0]["context"]["namespace"] == "default"


def test_merged_it_leaves_what_was_there_and_becomes_the_current_context(server, home):
    other = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "work", "cluster": {"server": "https://work.example:6443"}}],
        "users": [{"name": "me", "user": {"token": "secret"}}],
        "contexts": [{"name": "work", "context": {"cluster": "work", "user": "me"}}],
        "current-context": "work",
    }
    usual = os.path.join(home["HOME"], ".kube", "config")
    os.makedirs(os.path.dirname(usual))
    with open(usual, "w") as file:
        yaml.safe_dump(other, file)
    for _ in range(2):
        assert server.cli("kubeconfig", "--merge", env=home).stdout.strip() == usual
    with open(usual) as file:
        merged = yaml.safe_load(file)
    for part in ("clusters", "users", "contexts"):
        assert [entry["name"] for entry in merged[part]] == [other[part][0]["name"], "coracle"]
        assert merged[part][0] == other[part][0]
    contexts = plain("config", "get-contexts", "-o", "name", env=home)
    assert contexts.stdout.split() == ["coracle", "work"]
    assert plain("config", "current-context", env=home).stdout == "coracle\n"
    assert "default" in plain("get", "namespaces", "-o", "name", env=home).stdout
    assert plain("config", "use-context", "work", env=home).returncode == 0
    assert plain("--context", "coracle", "get", "namespace", "default", env=home).returncode == 0


def test_merged_it_begins_the_usual_file_where_there_is_none(server, home):
    server.cli("kubeconfig", "--merge", env=home)
    assert "namespace/default" in plain("get", "namespaces", "-o", "name", env=home).stdout


def test_a_file_that_is_no_kubeconfig_is_left_alone(server, tmp_path):
    path = tmp_path / "diary"
    path.write_text("- dear diary\n")
    ended = server.cli("kubeconfig", path, "--merge", check=False)
    assert ended.returncode == 1
    assert f"`{path}` is not a kubeconfig, and was left alone" in ended.stderr
    assert path.read_text() == "- dear diary\n"


def test_the_token_of_the_file_is_void_once_the_keys_are_deleted(new_server, tmp_path):
    server = new_server().start()
    path = tmp_path / "kubeconfig"
    server.cli("kubeconfig", path)
    assert plain("get", "namespaces", env={"KUBECONFIG": str(path)}).returncode == 0
    assert server.stop() == 0
    shutil.rmtree(server.data_dir / "pki")
    server.start()
    assert plain("get", "namespaces", env={"KUBECONFIG": str(path)}).returncode == 1
    server.cli("kubeconfig", path)
    assert plain("get", "namespaces", env={"KUBECONFIG": str(path)}).returncode == 0


def test_without_a_server_it_is_said_how_to_start_one(tmp_path):
    for command in (["kubeconfig"], ["kubectl", "get", "pods"]):
        ended = run_cli("--data-dir", tmp_path, *command)
        assert ended.returncode == 1
        assert str(tmp_path) in ended.stderr and "hint: start one with `coracle up`" in ended.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("-o", "json", "get", "namespace", "default"),
        ("get", "namespace", "default", "-o", "json"),
        ("get", "-ojson", "namespace", "default"),
        ("--", "get", "namespace", "default", "--output=json"),
    ],
    ids=lambda words: " ".join(words),
)
def test_options_after_kubectl_are_kubectls(server, home, words):
    shown = json.loads(coracle_kubectl(server, *words, env=home).stdout)
    assert (shown["kind"], shown["metadata"]["name"]) == ("Namespace", "default")


def test_help_after_kubectl_is_kubectls(server):
    assert "kubectl controls the Kubernetes cluster manager" in coracle_kubectl(server, "--help").stdout
    assert coracle_kubectl(server, "get", "-h").stdout == plain("get", "-h").stdout


def config_map(**metadata) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})


def piped(server, text: str, *arguments) -> subprocess.CompletedProcess:
    """`coracle kubectl` with something on its standard input."""
    return subprocess.run(
        [BINARY, "--data-dir", server.data_dir, "kubectl", *arguments],
        capture_output=True, text=True, timeout=60, input=text, env=environment(),
    )  # fmt: skip


def test_streams_and_exit_codes_pass_through(server):
    made = piped(server, config_map(generateName="piped-"), "create", "-o", "name", "-f", "-")
    assert made.stdout.startswith("configmap/piped-"), made.stderr
    missing = coracle_kubectl(server, "get", "configmap", "none", check=False)
    assert missing.returncode == 1
    assert missing.stderr == 'Error from server (NotFound): configmaps "none" not found\n'
    # `kubectl diff` says with 1 that there is a difference, and with more that it failed.
    diff = piped(server, config_map(name="new", namespace="default"), "diff", "-f", "-")
    assert diff.returncode == 1 and "+kind: ConfigMap" in diff.stdout, diff.stderr
