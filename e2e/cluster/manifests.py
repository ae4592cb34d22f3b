"""Objects in few words, with images that a cluster can pull and Coracle has environments for."""

SHELL = "busybox:1.36"
PYTHON = "python:3.11-slim"


def config_map(name: str, **data) -> dict:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def container(script: str, name: str = "main", image: str = SHELL, **fields) -> dict:
    return {"name": name, "image": image, "command": ["sh", "-c", script], **fields}


def pod(name: str, script: str = "sleep 600", containers: list | None = None, **spec) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "restartPolicy": "Never",
            "containers": containers or [container(script)],
            **spec,
        },
    }


def deployment(name: str, replicas: int = 2, script: str = "sleep 600", **fields) -> dict:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [container(script, **fields)]},
            },
        },
    }


def job(name: str, script: str, **spec) -> dict:
    template = {"spec": {"restartPolicy": "Never", "containers": [container(script)]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": template, **spec},
    }


WIDGETS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.e2e.coracle.dev"},
    "spec": {
        "group": "e2e.coracle.dev",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"},
                },
                "additionalPrinterColumns": [
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                    {"name": "Colour", "type": "string", "jsonPath": ".spec.colour", "priority": 1},
                ],
                "selectableFields": [{"jsonPath": ".spec.colour"}],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "description": "A widget has a size and a colour.",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["size"],
                                "x-kubernetes-validations": [
                                    {
                                        "rule": "self.colour != 'invisible' || self.size < 10",
                                        "message": "only small widgets are invisible",
                                    }
                                ],
                                "properties": {
                                    "size": {
                                        "type": "integer",
                                        "minimum": 1,
                                        "maximum": 100,
                                        "description": "How large it is.",
                                    },
                                    "colour": {
                                        "type": "string",
                                        "default": "red",
                                        "x-kubernetes-validations": [
                                            {"rule": "self == oldSelf", "message": "colour is immutable"}
                                        ],
                                    },
                                },
                            },
                            "status": {
                                "type": "object",
                                "properties": {"size": {"type": "integer"}, "phase": {"type": "string"}},
                            },
                        },
                    }
                },
            }
        ],
    },
}
