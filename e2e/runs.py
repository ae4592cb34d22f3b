"""Submitting pipelines to a server under test, and reading what came of them."""

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml
from kfp import compiler
from server import Server

TERMINAL = {"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"}
#: An image that stands for a shell and the usual small programs.
SHELL_IMAGE = "alpine:3.20"


@dataclass
class Run:
    """A run as it ended, or as it stood when it was read."""

    body: dict

    @property
    def id(self) -> str:
        return self.body["run_id"]

    @property
    def state(self) -> str:
        return self.body["state"]

    @property
    def tasks(self) -> list[dict]:
        return self.body.get("run_details", {}).get("task_details", [])

    def states(self) -> dict[str, str]:
        """Each task's state by its name. Of equal names the last made counts."""
        return {task["display_name"]: task["state"] for task in self.tasks}

    def task(self, name: str) -> dict:
        found = [task for task in self.tasks if task["display_name"] == name]
        assert found, f"no task `{name}`; there are {sorted(self.states())}"
        return found[-1]

    def failure(self, name: str) -> str:
        """A task's error, reason and message together."""
        return json.dumps(self.task(name).get("error", {}))

    def describe(self) -> str:
        lines = [f"run {self.id}: {self.state} {self.body.get('error', '')}"]
        lines += [f"  {t['display_name']}: {t['state']} {t.get('error', '')}" for t in self.tasks]
        return "\n".join(lines)


def compiled(pipeline) -> dict:
    """The document that the SDK makes of a pipeline or component; platform settings left out."""
    return next(yaml.safe_load_all(package(pipeline)))


def package(pipeline) -> str:
    """The text that the SDK makes of a pipeline or component."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        return path.read_text()


def submit(server: Server, pipeline, **arguments) -> str:
    """Start a run through the SDK. Returns its id."""
    return server.client.create_run_from_pipeline_func(pipeline, arguments=arguments).run_id


def submit_document(server: Server, document: dict, **parameters) -> str:
    """Start a run of a document. Returns its id."""
    answer = post_run(server, document, parameters)
    assert answer.ok, f"{answer.status_code} {answer.text}"
    return answer.json()["run_id"]


def post_run(server: Server, document: dict, parameters: dict):
    """Ask for a run of a document; the answer may be a refusal."""
    body = {"display_name": "probe", "pipeline_spec": document, "runtime_config": {"parameters": parameters}}
    return server.http("POST", "/apis/v2beta1/runs", json=body)


def read(server: Server, run_id: str) -> Run:
    return Run(server.get(f"/runs/{run_id}"))


def finish(server: Server, run_id: str, timeout: float = 100) -> Run:
    """Wait for a run's end, as the SDK does, and also for CANCELED."""
    return until(server, run_id, lambda run: run.state in TERMINAL, timeout)


def until(server: Server, run_id: str, is_so, timeout: float = 100) -> Run:
    """Read a run again and again until something is so. The KFP API has no other way to wait."""
    deadline = time.monotonic() + timeout
    while True:
        run = read(server, run_id)
        if is_so(run):
            return run
        assert time.monotonic() < deadline, f"not so after {timeout} s\n{run.describe()}"
        time.sleep(0.05)


def succeed(server: Server, pipeline, timeout: float = 100, **arguments) -> Run:
    """Run a pipeline through the SDK and expect it to end well."""
    run = finish(server, submit(server, pipeline, **arguments), timeout)
    assert run.state == "SUCCEEDED", run.describe()
    return run


def fail(server: Server, pipeline, timeout: float = 100, **arguments) -> Run:
    """Run a pipeline through the SDK and expect it to fail."""
    run = finish(server, submit(server, pipeline, **arguments), timeout)
    assert run.state == "FAILED", run.describe()
    return run


def artifacts(server: Server, run_id: str) -> dict[str, dict]:
    """A run's artifacts by name. Of equal names the last made counts."""
    answer = server.get("/artifacts", run_id=run_id)
    return {artifact["name"]: artifact for artifact in answer.get("artifacts", [])}


def log(server: Server, run: Run, task: str) -> str:
    """A task's log, as the SDK's pages fetch it."""
    node = run.task(task)["pod_name"]
    answer = server.http("GET", f"/apis/v1alpha1/runs/{run.id}/nodes/{node}/log")
    assert answer.ok, f"{answer.status_code} {answer.text}"
    return answer.text
