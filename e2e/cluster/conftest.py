"""A Kubernetes API to test: Coracle's own, or the one whose kubeconfig CORACLE_TEST_KUBECONFIG names.

Where the two differ, the real one is right. Every test has a namespace of its own.
"""

import os
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest
import yaml
from kubernetes import client, config
from server import environment

KUBECONFIG = os.environ.get("CORACLE_TEST_KUBECONFIG")


class Cluster:
    """A Kubernetes API as its users reach it: by a kubeconfig."""

    def __init__(self, kubeconfig: Path, cache: Path):
        self.kubeconfig = kubeconfig
        self.cache = cache

    @property
    def is_coracle(self) -> bool:
        return KUBECONFIG is None

    def command(self, *arguments) -> list[str]:
        flags = [f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.cache}"]
        return ["kubectl", *flags, *map(str, arguments)]

    def run(self, *arguments, stdin: str | None = None, timeout: float = 100, **variables):
        """Run kubectl to its end, whatever that is."""
        return subprocess.run(
            self.command(*arguments),
            capture_output=True, text=True, timeout=timeout, input=stdin, env={**environment(), **variables},
        )  # fmt: skip

    def kubectl(self, *arguments, **options) -> str:
        """Run kubectl, which must succeed. Returns what it printed."""
        ended = self.run(*arguments, **options)
        assert ended.returncode == 0, f"kubectl {' '.join(map(str, arguments))}\n{ended.stdout}{ended.stderr}"
        return ended.stdout

    def refused(self, *arguments, **options) -> str:
        """Run kubectl, which must fail. Returns what it complained about."""
        ended = self.run(*arguments, **options)
        assert ended.returncode != 0, f"kubectl {' '.join(map(str, arguments))}\n{ended.stdout}{ended.stderr}"
        return ended.stderr

    def api(self) -> client.ApiClient:
        """The unmodified Python client."""
        return config.new_client_from_config(str(self.kubeconfig))


class Namespace:
    """A namespace of a cluster, and kubectl in it."""

    def __init__(self, cluster: Cluster, name: str):
        self.cluster = cluster
        self.name = name

    def kubectl(self, *arguments, **options) -> str:
        return self.cluster.kubectl("-n", self.name, *arguments, **options)

    def refused(self, *arguments, **options) -> str:
        return self.cluster.refused("-n", self.name, *arguments, **options)

    def run(self, *arguments, **options):
        return self.cluster.run("-n", self.name, *arguments, **options)

    def apply(self, *objects: dict, flags: tuple = ()) -> str:
        """What `kubectl apply` says of these objects."""
        return self.kubectl("apply", *flags, "-f", "-", stdin=yaml.safe_dump_all(objects))

    def get(self, *arguments) -> dict:
        """What `kubectl get -o yaml` shows."""
        return yaml.safe_load(self.kubectl("get", *arguments, "-o", "yaml"))

    def value(self, what: str, path: str) -> str:
        return self.kubectl("get", what, "-o", f"jsonpath={{{path}}}")


@pytest.fixture(scope="session")
def cluster(request, tmp_path_factory):
    """The Kubernetes API under test."""
    if shutil.which("kubectl") is None:
        pytest.skip("KUBECTL IS NOT ON THIS MACHINE: the Kubernetes API is not tested with it")
    folder = tmp_path_factory.mktemp("cluster")
    if KUBECONFIG:
        return Cluster(Path(KUBECONFIG), folder / "cache")
    server = request.getfixturevalue("server")
    kubeconfig = folder / "kubeconfig"
    server.cli("kubeconfig", kubeconfig)
    return Cluster(kubeconfig, folder / "cache")


@pytest.fixture
def namespace(cluster):
    """A namespace that goes with the test."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    yield Namespace(cluster, name)
    cluster.kubectl("delete", "namespace", name, "--wait=false")
