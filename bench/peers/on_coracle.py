"""Coracle, on a server that is up: pipelines that were compiled before, caching on.

Modes: `api` submits over REST and follows the stream of the run; `cli` is `coracle run --follow`.
Each run begins with another number, so that no task finds a result to take over.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request

import clock
import workloads

BINARY = os.environ["BENCH_CORACLE"]
ENDED = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
URL = f"http://127.0.0.1:{clock.PORT}"
#: No two runs have a number in common.
FIRST = int(time.time()) * workloads.WIDTH
PARAMETERS = {
    "chain": {"first": FIRST},
    "fan": {"numbers": list(range(FIRST, FIRST + workloads.WIDTH))},
    "digits": {"seed": int(time.time())},
}


def server():
    from kfp import compiler
    from pipelines import pipelines

    for name, pipeline in pipelines(is_installing=True).items():
        compiler.Compiler().compile(pipeline, f"{name}.json")
    return [BINARY, "up", "--foreground", "--data-dir", "data", "--port", clock.PORT], {}, "/healthz"


def ask(path: str, body: dict | None = None):
    data = body and json.dumps(body).encode()
    request = urllib.request.Request(f"{URL}/apis/v2beta1{path}", data, {"Content-Type": "application/json"})
    return urllib.request.urlopen(request, timeout=600)


def by_api(workload: str) -> str:
    with open(f"{workload}.json") as file:
        document = json.load(file)
    body = {
        "display_name": workload,
        "pipeline_spec": document,
        "runtime_config": {"parameters": PARAMETERS[workload]},
    }
    run_id = json.load(ask("/runs", body))["run_id"]
    for line in ask(f"/runs/{run_id}:watch"):
        if line.startswith(b"data:") and json.loads(line[5:])["state"] in ENDED:
            break
    return run_id


def by_cli(workload: str) -> str:
    parameters = [f"-p{name}={json.dumps(value)}" for name, value in PARAMETERS[workload].items()]
    ended = subprocess.run(
        [BINARY, "run", f"{workload}.json", "--follow", "--server", URL, "-o", "json", *parameters],
        stdout=subprocess.PIPE,
    )
    if ended.returncode != 0:
        sys.exit(ended.returncode)
    return json.loads(ended.stdout)["run_id"]


def run(workload: str):
    run_id = (by_cli if clock.MODE == "cli" else by_api)(workload)

    def result():
        tasks = json.load(ask(f"/runs/{run_id}/tasks"))["tasks"]
        root = next(task for task in tasks if task["type"] == "ROOT")
        return root["outputs"]["parameters"]["Output"]

    return result


if __name__ == "__main__":
    clock.main(
        server, FIRST, chain=lambda: run("chain"), fan=lambda: run("fan"), digits=lambda: run("digits")
    )
