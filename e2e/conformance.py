"""Upload and run a folder of compiled pipelines, and compare how each ends with what was expected.

    make conformance DIR=/path/to/folder [ONLY=word] [JOBS=2] [TIMEOUT=180] [HOST=http://...] [STRICT=1]

The folder holds `inventory.tsv` with at least the columns file, category, expected and features.
Without HOST a server of its own is started, in a data directory that is thrown away.
"""

import argparse
import base64
import concurrent.futures
import csv
import sys
import tempfile
import time
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
        data = {key: base64.b64encode(b"test").decode() for key in ("username", "password")}
        for number in (1, 2, 3):
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

    def __init__(self, client: Client, folder: Path, row: dict, timeout: float):
        self.client = client
        self.path = folder / row["file"]
        self.row = row
        self.timeout = timeout

    def run(self) -> Verdict:
        try:
            return self._run()
        except (requests.RequestException, OSError, KeyError, ValueError) as error:
            return self.verdict("failed", f"{type(error).__name__}: {error}")

    def _run(self) -> Verdict:
        with self.path.open("rb") as file:
            name = self.row["file"].replace("/", "-")
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
        return self.judge(*self.submit(answer.json()["pipeline_id"]))

    def submit(self, pipeline_id: str) -> tuple[dict, float]:
        """Run the pipeline's version to its end. Returns the run and how long it took."""
        versions = self.client.request("GET", f"/apis/v2beta1/pipelines/{pipeline_id}/versions").json()
        version = versions["pipeline_versions"][0]
        reference = {"pipeline_id": pipeline_id, "pipeline_version_id": version["pipeline_version_id"]}
        started = time.monotonic()
        answer = self.client.request(
            "POST",
            "/apis/v2beta1/runs",
            json={
                "display_name": self.row["file"],
                "pipeline_version_reference": reference,
                "runtime_config": {"parameters": parameters(version["pipeline_spec"])},
            },
        )
        if not answer.ok:
            raise ValueError(f"run: {answer.status_code} {one_line(answer.text)}")
        run = answer.json()
        while run.get("state") not in TERMINAL and time.monotonic() - started < self.timeout:
            time.sleep(0.2)
            run = self.client.request("GET", f"/apis/v2beta1/runs/{run['run_id']}").json()
        return run, time.monotonic() - started

    def judge(self, run: dict, seconds: float) -> Verdict:
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
        elif expected.startswith("skipped upstream"):
            if state != "SUCCEEDED":
                return self.verdict("skipped", f"{shown}; {expected}")
            is_right = True
        elif expected.startswith("failure"):
            is_right = state == "FAILED"
        else:
            is_right = state == "SUCCEEDED"
        return self.verdict("passed" if is_right else "failed", f"{shown} {one_line(why)}".strip())

    def verdict(self, outcome: str, text: str) -> Verdict:
        return Verdict(outcome, self.row["file"], text)


def parameters(spec: dict) -> dict:
    """A value for each parameter that must be given."""
    spec = spec.get("pipeline_spec", spec)
    declared = spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    return {
        name: (definition.get("literals") or [GENERATED.get(definition["parameterType"], "text")])[0]
        for name, definition in declared.items()
        if "defaultValue" not in definition and not definition.get("isOptional")
    }


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


def check_all(client: Client, folder: Path, rows: list[dict], jobs: int, timeout: float) -> list[Verdict]:
    client.prepare()
    verdicts = []
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        checks = [pool.submit(Check(client, folder, row, timeout).run) for row in rows]
        for done in concurrent.futures.as_completed(checks):
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
    parser.add_argument("--strict", action="store_true", help="exit 1 when a file failed")
    options = parser.parse_args()

    rows = read_inventory(options.folder, options.only)
    if options.host:
        verdicts = check_all(Client(options.host), options.folder, rows, options.jobs, options.timeout)
    else:
        with tempfile.TemporaryDirectory(prefix="coracle-conformance-") as scratch:
            server = Server(Path(scratch) / "data", Path(scratch) / "server.log").start()
            try:
                verdicts = check_all(Client(server.url), options.folder, rows, options.jobs, options.timeout)
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
