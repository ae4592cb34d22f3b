"""Pods that tests make, and how they ended."""

import json

from engine import IMAGE


def pod(name, *containers, **spec):
    """The manifest of a Pod whose containers run this suite's image unless they say otherwise."""
    full = [{"name": f"c{number}", "image": IMAGE, **one} for number, one in enumerate(containers)]
    spec = {"terminationGracePeriodSeconds": 1, "restartPolicy": "Never", "containers": full, **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def shell(script, **container):
    return {"command": ["sh", "-c", script], **container}


class Pods:
    """Makes Pods, and removes them after the test."""

    def __init__(self, server):
        self.server = server
        self.made = []

    def apply(self, manifest):
        self.made.append(manifest["metadata"]["name"])
        self.server.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
        return self.made[-1]

    def wait(self, name, path, value=None, timeout=60):
        """Until a field is there, or has this value."""
        wanted = f"--for=jsonpath={{{path}}}" + ("" if value is None else f"={value}")
        self.server.kubectl("wait", "pod", name, wanted, f"--timeout={timeout}s", timeout=timeout + 10)
        return self.read(name)

    def ended(self, manifest):
        """The Pod once it is over."""
        name = self.apply(manifest)
        # Whichever phase it ends in, all its containers have.
        last = manifest["spec"]["containers"][-1]["name"]
        path = f'.status.containerStatuses[?(@.name=="{last}")].state.terminated.reason'
        self.wait(name, path)
        return self.read(name)

    def read(self, name):
        return json.loads(self.server.kubectl("get", "pod", name, "-o", "json").stdout)

    def logs(self, name, *flags):
        return self.server.kubectl("logs", name, *flags).stdout

    def events(self, name):
        field = f"--field-selector=involvedObject.name={name}"
        found = json.loads(self.server.kubectl("get", "events", field, "-o", "json").stdout)["items"]
        return [(event["reason"], event["message"]) for event in found]


def end(pod, container=0):
    """How a container of a Pod ended."""
    return pod["status"]["containerStatuses"][container]["state"]["terminated"]
