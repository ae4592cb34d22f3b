"""What clients are told when the database cannot be written, and that the server goes on when it can."""

import json
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
import runs
from breakpoints import Breakpoints
from kfp import dsl

#: SQLite's code, and the status, reason and words that it comes to.
TROUBLES = {
    "full": ("13", 507, "DiskFull", "free some space"),
    "fsync": ("1034", 503, "DatabaseUnavailable", "dmesg"),
    "read only": ("8", 503, "DatabaseUnavailable", "make its file, folder and disk writable"),
}


@dsl.container_component
def wait(command: str):
    return dsl.ContainerSpec(image=runs.SHELL_IMAGE, command=["sh", "-c"], args=[command])


@dsl.pipeline
def two_steps(command: str):
    wait(command="true").after(wait(command=command))


def check_refused(server, status: int, reason: str, words: str) -> None:
    """Both APIs say why, and what to do."""
    refused = runs.post_run(server, runs.compiled(two_steps), {"command": "true"})
    told = json.dumps(refused.json())
    assert refused.status_code == status and reason in told and words in told, told
    assert ("Retry-After" in refused.headers) == (status == 503)
    name = f"trouble-{status}"
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
    refused = server.http("POST", "/api/v1/namespaces/default/configmaps", json=body)
    assert refused.status_code == status and words in refused.json()["message"], refused.text
    assert server.http("GET", f"/api/v1/namespaces/default/configmaps/{name}").status_code == 404


@pytest.mark.parametrize("trouble", TROUBLES)
def test_what_cannot_be_written_is_refused_with_words_and_a_run_goes_on_afterwards(new_server, gate, trouble):
    code, status, reason, words = TROUBLES[trouble]
    server = new_server()
    breakpoints = Breakpoints(server)
    run_id = runs.submit(server.start(), two_steps, command=gate.shell)
    gate.wait_reached()
    breakpoints.fail("store.write", code)
    check_refused(server, status, reason, words)
    assert len(server.get("/runs")["runs"]) == 1, "nothing of a refused request is stored"
    gate.open()

    breakpoints.clear("store.write")
    run = runs.finish(server, run_id)
    assert run.state == "SUCCEEDED", run.describe()
    runs.succeed(server, two_steps, command="true")


def test_a_database_that_another_program_holds_is_said_to_be_held(new_server):
    server = new_server().start()
    other = sqlite3.connect(server.data_dir / "coracle.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    check_refused(server, 503, "DatabaseUnavailable", "another program holds the database locked")
    other.execute("ROLLBACK")
    other.close()

    runs.succeed(server, two_steps, command="true")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 24 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", place], capture_output=True
    )
    if not mounted or mounted.returncode != 0:
        pytest.skip("NO DISK CAN BE MOUNTED HERE (that takes root): a disk that is really full is not tested")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(place: Path) -> None:
    with place.open("wb", buffering=0) as file:
        while True:
            try:
                if file.write(b"\0" * 4096) == 0:
                    return
            except OSError:
                return


def test_a_disk_that_is_really_full_loses_nothing_that_was_acknowledged(new_server, gate, small_disk):
    server = new_server(small_disk / "data").start()
    run_id = runs.submit(server, two_steps, command=gate.shell)
    gate.wait_reached()
    ballast = small_disk / "ballast"
    kept = []
    # What is free inside the database's own files is used up first.
    while True:
        fill(ballast)
        name = f"large-{len(kept)}"
        body = {"metadata": {"name": name}, "data": {"text": "x" * 500_000}}
        answer = server.http("POST", "/api/v1/namespaces/default/configmaps", json=body)
        if not answer.ok:
            break
        kept.append(name)
    assert answer.status_code == 507, answer.text
    check_refused(server, 507, "DiskFull", "free some space")
    gate.open()

    ballast.unlink()
    run = runs.finish(server, run_id)
    assert run.state == "SUCCEEDED", run.describe()
    assert listed(server) == kept
    server.kill()
    server.start()
    assert listed(server) == kept


def listed(server) -> list[str]:
    items = server.http("GET", "/api/v1/namespaces/default/configmaps").json()["items"]
    return sorted(item["metadata"]["name"] for item in items if item["metadata"]["name"].startswith("large-"))
