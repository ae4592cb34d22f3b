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


def uncached(text: str) -> str:
    """The same pipeline, in which every task is run and none is cached."""
    documents = list(yaml.safe_load_all(text))
    for component in (documents[0]["root"], *documents[0]["components"].values()):
        for task in component.get("dag", {}).get("tasks", {}).values():
            task.pop("cachingOptions", None)
    return yaml.safe_dump_all(documents)


def submit(server: Server, pipeline, /, **arguments) -> str:
    """Start a run through the SDK, in which every task is run and none is cached. Returns its id."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pipeline.yaml"
        file.write_text(uncached(package(pipeline)))
        return server.client.create_run_from_pipeline_package(str(file), arguments=arguments).run_id


def submit_as_compiled(server: Server, pipeline, /, **arguments) -> str:
    """Start a run through the SDK, in which tasks may be cached. Returns its id."""
    return server.client.create_run_from_pipeline_func(pipeline, arguments=arguments).run_id


def submit_document(server: Server, document: dict, /, **parameters) -> str:
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


def succeed(server: Server, pipeline, /, timeout: float = 100, **arguments) -> Run:
    """Run a pipeline through the SDK and expect it to end well."""
    run = finish(server, submit(server, pipeline, **arguments), timeout)
    assert run.state == "SUCCEEDED", run.describe()
    return run


def fail(server: Server, pipeline, /, timeout: float = 100, **arguments) -> Run:
    """Run a pipeline through the SDK and expect it to fail."""
    run = finish(server, submit(server, pipeline, **arguments), timeout)
    assert run.state == "FAILED", run.describe()
    return run


def submit_package(server: Server, package: str, /, **parameters) -> str:
    """Start a run of what the SDK made, platform settings included, caching left out. Returns its id."""
    documents = list(yaml.safe_load_all(uncached(package)))
    if len(documents) == 1:
        return submit_document(server, documents[0], **parameters)
    both = {"pipeline_spec": documents[0], "platform_spec": documents[1]}
    return submit_document(server, both, **parameters)


def finish_all(server: Server, started: dict, timeout: float = 100) -> dict[str, Run]:
    """Wait for runs that were started together. Gives each under its key."""
    return {key: finish(server, run_id, timeout) for key, run_id in started.items()}


def rows(server: Server, run_id: str) -> list[dict]:
    """Every task of a run with its inputs and outputs, the root first."""
    return server.get(f"/runs/{run_id}/tasks").get("tasks", [])


def row(server: Server, run_id: str, name: str) -> dict:
    """The only task of a name."""
    found = [row for row in rows(server, run_id) if name in (row["name"], row["display_name"])]
    assert len(found) == 1, f"{len(found)} tasks `{name}`"
    return found[0]


def value(server: Server, run_id: str, name: str, output: str = "out"):
    """An output parameter of the only task of a name."""
    return row(server, run_id, name)["outputs"]["parameters"][output]


def result(server: Server, run_id: str, output: str = "Output"):
    """An output parameter of the pipeline itself."""
    root = next(row for row in rows(server, run_id) if row["type"] == "ROOT")
    return root["outputs"]["parameters"][output]


def iterated(server: Server, run_id: str, name: str) -> dict[tuple[int, ...], dict]:
    """The tasks of a name inside loops, by their iterations from the outermost loop inwards."""
    found = rows(server, run_id)
    by_id = {row["task_id"]: row for row in found}

    def place(row: dict | None) -> tuple[int, ...]:
        if row is None:
            return ()
        above = place(by_id.get(row.get("parent_task_id")))
        index = row.get("iteration_index")
        return above if index is None or row["type"] != "ITERATION" else (*above, int(index))

    return {
        place(row): row
        for row in found
        if name in (row["name"], row["display_name"]) and row["type"] not in ("LOOP", "ITERATION")
    }


def values(server: Server, run_id: str, name: str, output: str = "out") -> list:
    """An output parameter of the tasks of a name, in the order of their iterations."""
    found = iterated(server, run_id, name)
    return [found[place]["outputs"]["parameters"][output] for place in sorted(found)]


def carried(server: Server, row: dict, side: str, name: str) -> list[dict]:
    """The artifacts of one of a task's `inputs` or `outputs`, in order."""
    ids = row[side]["artifacts"][name]["artifact_ids"]
    return [server.get(f"/artifacts/{artifact_id}") for artifact_id in ids]


def texts(artifacts: list[dict]) -> list[str]:
    """What the files of artifacts hold."""
    return [Path(artifact["uri"]).read_text() for artifact in artifacts]


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
