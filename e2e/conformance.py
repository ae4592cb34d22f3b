"""Upload and run a folder of compiled pipelines, and compare how each ends with what was expected.

    make conformance DIR=/path/to/folder [ONLY=word] [JOBS=2] [TIMEOUT=180] [HOST=url] [STRICT=1] [NAP=5]

The folder holds `inventory.tsv` with at least the columns file, category, expected and features; a column
`expected_output` may hold what a pipeline gives out, as JSON or text. Without HOST a server of its own is
started, in a data directory that is thrown away. Pipelines that sleep do so beside the others and have as
long as they want; NAP gives them another number of seconds.
"""

import argparse
import base64
import concurrent.futures
import csv
import json
import re
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import requests
from server import Server

TERMINAL = {"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"}
#: What a pipeline parameter without a default is given.
GENERATED = {
    "STRING": "text",
    "NUMBER_INTEGER": 3,
    "NUMBER_DOUBLE": 0.5,
    "BOOLEAN": True,
    "LIST": ["a", "b"],
    "STRUCT": {"key": "value"},
}
#: What the SDK's own tests of local execution pass, and what has to come out: any of these.
OUTPUTS = [
    (r"/add_numbers\.", {"a": 5, "b": 5}, [10]),
    (r"/flip_coin\.", {}, ["heads", "tails"]),
    (r"/concat_message\.", {"message1": "Hello ", "message2": "World!"}, ["Hello World!"]),
    (r"/identity\.", {"value": "test_value"}, ["test_value"]),
    (r"/nested_return\.", {}, [[{"A_a": "1", "B_b": "2"}, {"A_a": "10", "B_b": "20"}]]),
    (r"/local_execution/.*oneof", {}, ["selected:A"]),
    (r"/local_execution/.*retry", {}, ["attempt=2"]),
    (r"/local_execution/.*collected", {}, ["0,1,2"]),
    # The SDK's local runner says SUCCEEDED where a server says COMPLETE.
    (r"/local_execution/.*exit_handler", {}, ["exit:COMPLETE", "exit:SUCCEEDED"]),
]
#: The Secrets `test-secret-1` and so on that some pipelines mount, as upstream's tests make them.
SECRETS = [("username", "user1"), ("password", "psw1"), ("password", "psw2")]
#: The parameter of pipelines that do nothing but sleep, and how much longer than it a run may take.
NAP, SPARE_SECONDS = "naptime_secs", 120
#: Categories of which only the upload is judged: running them needs their image, or a network.
UPLOAD_ONLY = ("b2_", "d_")


@dataclass
class Verdict:
    """What came of one file."""

    outcome: str  # passed, failed or skipped
    file: str
    text: str


class Client:
    """The few requests that this program makes."""

    def __init__(self, host: str):
        self.host = host.rstrip("/")

    def request(self, method: str, path: str, **options) -> requests.Response:
        return requests.request(method, f"{self.host}{path}", timeout=120, **options)

    def prepare(self) -> None:
        """Create what some pipelines mount."""
        for number, (key, value) in enumerate(SECRETS, start=1):
            data = {key: base64.b64encode(value.encode()).decode()}
            secret = {"metadata": {"name": f"test-secret-{number}"}, "type": "Opaque", "data": data}
            self.create("secrets", secret)
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        self.create("persistentvolumeclaims", {"metadata": {"name": "test-pvc"}, "spec": claim})

    def create(self, resource: str, body: dict) -> None:
        answer = self.request("POST", f"/api/v1/namespaces/default/{resource}", json=body)
        if not answer.ok and answer.status_code != 409:
            print(
                f"cannot create {body['metadata']['name']}: {answer.status_code} {answer.text}",
                file=sys.stderr,
            )


class Check:
    """One file of the inventory."""

    def __init__(self, client: Client, folder: Path, row: dict, timeout: float, nap: int | None):
        self.client = client
        self.path = folder / row["file"]
        self.row = row
        self.timeout = timeout
        self.nap = nap
        self.naps = NAP in self.path.read_text(errors="replace")

    def run(self) -> Verdict:
        try:
            return self._run()
        except (requests.RequestException, OSError, KeyError, ValueError) as error:
            return self.verdict("failed", f"{type(error).__name__}: {error}")

    def _run(self) -> Verdict:
        with self.path.open("rb") as file:
            name = f"{self.row['file'].replace('/', '-')[-110:]}-{uuid.uuid4().hex[:8]}"
            answer = self.client.request(
                "POST",
                "/apis/v2beta1/pipelines/upload",
                params={"name": name},
                files={"uploadfile": (self.path.name, file)},
            )
        category = self.row["category"]
        if category.startswith("x_"):
            said = answer.text.strip()
            if 400 <= answer.status_code < 500 and said:
                return self.verdict("passed", f"refused: {one_line(said)}")
            return self.verdict("failed", f"not refused: {answer.status_code} {one_line(said)}")
        if not answer.ok:
            return self.verdict("failed", f"upload: {answer.status_code} {one_line(answer.text)}")
        if category.startswith(UPLOAD_ONLY):
            return self.verdict("passed", "uploaded; running it needs an image or a network")
        version = self.newest_version(answer.json()["pipeline_id"])
        return self.judge(version["pipeline_spec"], *self.submit(version))

    def newest_version(self, pipeline_id: str) -> dict:
        answer = self.client.request("GET", f"/apis/v2beta1/pipelines/{pipeline_id}/versions")
        return answer.json()["pipeline_versions"][0]

    def submit(self, version: dict) -> tuple[dict, float]:
        """Run a pipeline's version to its end. Returns the run and how long it took."""
        spec = version["pipeline_spec"].get("pipeline_spec", version["pipeline_spec"])
        given = parameters(spec, self.expected_output()[0])
        timeout = self.timeout
        if self.naps:
            declared = spec["root"]["inputDefinitions"]["parameters"]
            if self.nap is not None:
                given[NAP] = self.nap
            timeout = given.get(NAP, declared.get(NAP, {}).get("defaultValue", 0)) + SPARE_SECONDS
        started = time.monotonic()
        answer = self.client.request(
            "POST",
            "/apis/v2beta1/runs",
            json={
                "display_name": self.row["file"],
                "pipeline_version_reference": {
                    "pipeline_id": version["pipeline_id"],
                    "pipeline_version_id": version["pipeline_version_id"],
                },
                "runtime_config": {"parameters": given},
            },
        )
        if not answer.ok:
            raise ValueError(f"run: {answer.status_code} {one_line(answer.text)}")
        run = answer.json()
        while run.get("state") not in TERMINAL and time.monotonic() - started < timeout:
            time.sleep(0.2)
            run = self.client.request("GET", f"/apis/v2beta1/runs/{run['run_id']}").json()
        return run, time.monotonic() - started

    def expected_output(self) -> tuple[dict, list]:
        """Parameters to pass, and the values of which one has to come out; none when any will do."""
        if said := self.row.get("expected_output"):
            try:
                return {}, [json.loads(said), said]
            except ValueError:
                return {}, [said]
        for pattern, given, values in OUTPUTS:
            if re.search(pattern, f"/{self.row['file']}"):
                return given, values
        return {}, []

    def judge(self, spec: dict, run: dict, seconds: float) -> Verdict:
        state = run.get("state", "RUNTIME_STATE_UNSPECIFIED")
        shown = f"{state} in {seconds:.1f} s"
        if state not in TERMINAL:
            self.client.request("POST", f"/apis/v2beta1/runs/{run['run_id']}:terminate")
            return self.verdict("failed", f"{shown}: not ended")
        why = failures(run)
        expected = self.row["expected"]
        if "accelerator" in self.row["features"].split(";"):
            # Where there is no such GPU, it has to say so at once and with the numbers.
            is_right = state == "SUCCEEDED" or (state == "FAILED" and "RequestExceedsNode" in why)
        elif expected.startswith(("skipped upstream", "n/a")):
            # Nobody has said how it should end: it is tried, and what came of it is told.
            if state != "SUCCEEDED":
                return self.verdict("skipped", f"{shown} {one_line(why)}; expected: {expected}")
            is_right = True
        elif expected.startswith("failure"):
            is_right = state == "FAILED"
        else:
            is_right = state == "SUCCEEDED"
        if is_right:
            wrong = self.what_is_wrong(spec, run)
            if wrong:
                return self.verdict("failed", f"{shown}: {wrong}")
        return self.verdict("passed" if is_right else "failed", f"{shown} {one_line(why)}".strip())

    def what_is_wrong(self, spec: dict, run: dict) -> str:
        """What does not fit in a run whose state does."""
        tasks = self.client.request("GET", f"/apis/v2beta1/runs/{run['run_id']}/tasks").json()["tasks"]
        _, values = self.expected_output()
        if values:
            made = [v for task in tasks for v in task["outputs"].get("parameters", {}).values()]
            if not any(value in made for value in values):
                return f"none of {values} came out, but {one_line(str(made))}"
        root = spec.get("pipeline_spec", spec)["root"].get("dag", {}).get("tasks", {})
        always = {
            name
            for name, task in root.items()
            if task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
        }
        ran = {task["name"] for task in tasks if task["state"] in ("SUCCEEDED", "CACHED")}
        return f"exit tasks that did not run: {sorted(always - ran)}" if always - ran else ""

    def verdict(self, outcome: str, text: str) -> Verdict:
        return Verdict(outcome, self.row["file"], text)


def parameters(spec: dict, given: dict) -> dict:
    """A value for each parameter that must be given, as upstream's tests generate them by type."""
    declared = spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    generated = {
        name: (definition.get("literals") or [GENERATED.get(definition["parameterType"], "text")])[0]
        for name, definition in declared.items()
        if "defaultValue" not in definition and not definition.get("isOptional")
    }
    return generated | {name: value for name, value in given.items() if name in declared}


def reason(error: dict) -> str:
    """The stable name of what went wrong."""
    return next((detail["reason"] for detail in error.get("details", []) if "reason" in detail), "")


def failures(run: dict) -> str:
    """What the failed tasks say, else what the run says."""
    tasks = run.get("run_details", {}).get("task_details", [])
    said = [
        f"{task['display_name']}: {reason(task['error'])} {task['error'].get('message', '')}"
        for task in tasks
        if task.get("state") == "FAILED" and task.get("error")
    ]
    return "; ".join(said) or run.get("error", {}).get("message", "")


def one_line(text: str, limit: int = 220) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[:limit]}…"


def read_inventory(folder: Path, only: str) -> list[dict]:
    with (folder / "inventory.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [row for row in rows if only in row["file"] or only in row["category"]]


def check_all(client: Client, rows: list[dict], options: argparse.Namespace) -> list[Verdict]:
    client.prepare()
    verdicts = []
    checks = [Check(client, options.folder, row, options.timeout, options.nap) for row in rows]
    naps = [check for check in checks if check.naps]
    with (
        concurrent.futures.ThreadPoolExecutor(options.jobs) as pool,
        concurrent.futures.ThreadPoolExecutor(len(naps) or 1) as beside,
    ):
        started = [(beside if check.naps else pool).submit(check.run) for check in checks]
        for done in concurrent.futures.as_completed(started):
            verdict = done.result()
            verdicts.append(verdict)
            print(f"{verdict.outcome:<8}{verdict.file:<76}{verdict.text}", flush=True)
    return verdicts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="only files whose path or category contains this")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=180, help="seconds for one run")
    parser.add_argument("--host", default="", help="a server that is up; else one is started")
    parser.add_argument("--nap", type=int, help="seconds for pipelines that sleep, instead of their own")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a file failed")
    options = parser.parse_args()

    rows = read_inventory(options.folder, options.only)
    if options.host:
        verdicts = check_all(Client(options.host), rows, options)
    else:
        with tempfile.TemporaryDirectory(prefix="coracle-conformance-") as scratch:
            server = Server(Path(scratch) / "data", Path(scratch) / "server.log").start()
            try:
                verdicts = check_all(Client(server.url), rows, options)
            finally:
                server.stop()

    count = {word: sum(v.outcome == word for v in verdicts) for word in ("passed", "failed", "skipped")}
    for verdict in sorted(verdicts, key=lambda verdict: verdict.file):
        if verdict.outcome == "failed":
            print(f"failed: {verdict.file}")
    print(f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped")
    return 1 if options.strict and count["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
