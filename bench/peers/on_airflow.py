"""Airflow standalone: runs are asked for over REST, and their state until they have ended."""

import json
import os
import shutil
import sys
import time
import urllib.request
from pathlib import Path

import clock
import workloads

HERE = Path(__file__).parent
URL = f"http://127.0.0.1:{clock.PORT}"
LAST = {"chain": f"step__{workloads.LENGTH - 1}", "fan": "join", "digits": "scored"}


def server():
    home = Path.cwd()
    (home / "dags").mkdir()
    shutil.copy(HERE / "airflow_dags.py", home / "dags")
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        # Its 32 do not fit a small machine.
        "AIRFLOW__CORE__PARALLELISM": str(2 * (os.cpu_count() or 1)),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": clock.PORT,
        "AIRFLOW__API__BASE_URL": URL,
        "PYTHONPATH": str(HERE),
    }
    airflow = str(Path(sys.executable).with_name("airflow"))
    return [airflow, "standalone"], settings, f"/api/v2/dags/{list(LAST)[-1]}"


def ask(path: str, body: dict | None = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{URL}/api/v2{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def run(workload: str):
    started = ask(f"/dags/{workload}/dagRuns", {"logical_date": None})
    path = f"/dags/{workload}/dagRuns/{started['dag_run_id']}"
    while (state := ask(path)["state"]) not in ("success", "failed"):
        time.sleep(0.2)
    if state == "failed":
        raise SystemExit(f"Airflow says that the run of {workload} failed")
    return lambda: json.loads(
        str(ask(f"{path}/taskInstances/{LAST[workload]}/xcomEntries/return_value")["value"])
    )


if __name__ == "__main__":
    clock.main(server, chain=lambda: run("chain"), fan=lambda: run("fan"), digits=lambda: run("digits"))
