"""The unmodified `kubeflow` SDK finds runtimes among custom resources."""

import pytest
import yaml
from kubeflow.common.types import KubernetesBackendConfig
from kubeflow.trainer import TrainerClient

GROUP, VERSION = "trainer.kubeflow.org", "v1alpha1"


def definition(kind: str, plural: str, scope: str) -> dict:
    """A definition that keeps whatever is in `spec`."""
    kept = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": kept}}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": scope,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [version],
        },
    }


def runtime(kind: str, name: str, image: str) -> dict:
    containers = [{"name": "node", "image": image}]
    template = {
        "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
        "spec": {"template": {"spec": {"containers": containers}}},
    }
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": kind,
        "metadata": {"name": name, "labels": {"trainer.kubeflow.org/framework": "torch"}},
        "spec": {
            "mlPolicy": {"numNodes": 2, "torch": {}},
            "template": {"spec": {"replicatedJobs": [{"name": "node", "template": template}]}},
        },
    }


@pytest.fixture
def definitions(cluster):
    """Those of Kubeflow Trainer's runtimes."""
    plurals = {"ClusterTrainingRuntime": "clustertrainingruntimes", "TrainingRuntime": "trainingruntimes"}
    for kind, plural in plurals.items():
        scope = "Cluster" if kind.startswith("Cluster") else "Namespaced"
        cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(definition(kind, plural, scope)))
        cluster.kubectl("wait", "--for=condition=Established", f"crd/{plural}.{GROUP}", "--timeout=30s")
    yield
    for plural in plurals.values():
        cluster.kubectl("delete", "crd", f"{plural}.{GROUP}", "--timeout=60s")


@pytest.mark.usefixtures("definitions")
def test_runtimes_are_listed(cluster, namespace):
    shared = runtime("ClusterTrainingRuntime", "torch-distributed", "example.com/torch:1")
    own = runtime("TrainingRuntime", "torch-own", "example.com/torch:2")
    namespace.apply(shared, own)
    backend = KubernetesBackendConfig(namespace=namespace.name, config_file=str(cluster.kubeconfig))
    trainer = TrainerClient(backend_config=backend)
    found = {found.name: found for found in trainer.list_runtimes()}
    assert set(found) == {"torch-distributed", "torch-own"}
    assert found["torch-own"].trainer.framework == "torch"
    assert found["torch-own"].trainer.image == "example.com/torch:2"
    assert trainer.get_runtime("torch-distributed").trainer.num_nodes == 2
    with pytest.raises(RuntimeError):
        trainer.get_runtime("no-such-runtime")
