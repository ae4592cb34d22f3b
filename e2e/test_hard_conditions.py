"""What users and their tasks do to a server all at once, or too much of."""

import concurrent.futures
import contextlib
import json
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import requests
import runs
from components import bash, one_bash
from kfp import dsl
from server import BINARY, environment

#: Runs that are asked for at once. `docs/reliability.md` has what 1000 took.
AT_ONCE = 60
#: What is kept of a task's own log, in bytes.
KEPT = 1 << 30
#: Tasks that are at work when the server is told to stop.
AT_WORK = 100


@dsl.pipeline
def many(command: str, items: list):
    with dsl.ParallelFor(items):
        bash(command=command)


def memory(pid: int) -> int:
    """What a process holds, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) * 1024


def below(pid: int) -> dict[int, str]:
    """Every process that comes from a process, with its state."""
    parents = {}
    states = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state, parent = (folder / "stat").read_text().rpartition(") ")[2].split()[:2]
            parents[int(folder.name)], states[int(folder.name)] = int(parent), state
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {child: states[child] for child in found - {pid}}


def test_as_many_runs_as_clients_like_are_taken_at_once_and_end(new_server):
    server = new_server().start()
    document = runs.compiled(one_bash)

    def ask(_):
        while (answer := runs.post_run(server, document, {"command": "true"})).status_code == 429:
            assert int(answer.headers["Retry-After"]) > 0
        assert answer.ok, answer.text
        return answer.json()["run_id"]

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as clients:
        asked = list(clients.map(ask, range(AT_ONCE)))
    assert len(set(asked)) == AT_ONCE
    for run_id in asked:
        run = runs.finish(server, run_id)
        assert run.state == "SUCCEEDED", run.describe()
    assert memory(server.process.pid) < 500 << 20


def test_runs_beyond_those_that_may_be_at_work_wait_in_order_and_say_why(new_server, gate, tmp_path):
    server = new_server().start("--max-runs", "2")
    names = ["first", "second", "stopped", "deleted", "third"]
    asked = {name: runs.submit(server, one_bash, command=gate.shell) for name in names}
    assert gate.wait_visits(2)
    for name in names[2:]:
        waits = runs.until(server, asked[name], lambda run: "error" in run.body)
        assert waits.state == "PENDING", waits.describe()
        assert "RunLimitReached" in json.dumps(waits.body["error"]), waits.describe()
        assert "--max-runs" in waits.body["error"]["message"], waits.describe()
        assert waits.body["state_history"][-1]["error"] == waits.body["error"]
    server.client.terminate_run(asked["stopped"])
    assert runs.finish(server, asked["stopped"]).state == "CANCELED"
    server.client.delete_run(asked["deleted"])

    pipeline = tmp_path / "last.yaml"
    pipeline.write_text(runs.package(one_bash))
    command = [
        BINARY,
        "run",
        pipeline,
        "-p",
        f"command={gate.shell}",
        "--follow",
        "--data-dir",
        server.data_dir,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as last:
        asked["last"] = last.stdout.readline().split()[1]
        assert "PENDING    run: RunLimitReached: " in last.stdout.readline()
        # What was at work goes on at the next start, and what waited waits on.
        server.kill()
        server.start("--max-runs", "1")
        gate.open()
        assert last.wait(timeout=100) == 0
        assert last.stdout.read().count("RunLimitReached") == 0, "it was said already"
    ended = [runs.finish(server, asked[name]) for name in ("first", "second", "third", "last")]
    assert [run.state for run in ended] == ["SUCCEEDED"] * 4
    assert gate.visits == 4
    begun = [run.task("bash")["start_time"] for run in ended]
    assert max(begun[:2]) < begun[2] < begun[3]
    assert all("error" not in run.body for run in ended), "they do not wait any more"
    assert server.http("GET", f"/apis/v2beta1/runs/{asked['deleted']}").status_code == 404


def most(pid: int) -> int:
    """The most that a process has held so far, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024


def streamed(server, path: str, **parameters) -> tuple[int, bytes, bytes]:
    """Reads a large answer: how many bytes it has, the first, and the last."""
    first, last, size = b"", b"", 0
    with requests.get(f"{server.url}{path}", params=parameters, stream=True, timeout=60) as answer:
        assert answer.ok, answer.text
        for part in answer.iter_content(1 << 20):
            first, last, size = (first + part)[:4096], (last + part)[-4096:], size + len(part)
    return size, first, last


def test_a_flood_of_output_is_kept_to_its_limits_and_hinders_nobody(new_server, gate, tmp_path):
    # It is large, and pytest would keep it.
    with tempfile.TemporaryDirectory(dir=tmp_path, ignore_cleanup_errors=True) as data_dir:
        server = new_server(Path(data_dir)).start()
        runs.succeed(server, one_bash, command="true")
        before = memory(server.process.pid)
        line = "a line of some length, as many programs write"
        flood = f"echo first; head -c {KEPT + (64 << 20)} < <(yes '{line}'); echo; echo last"
        run_id = runs.submit(server, one_bash, command=f"{flood}; {gate.shell}")
        others = 0
        while not gate.reached.is_set():
            runs.succeed(server, one_bash, command="true")
            others += 1
        assert others > 0
        task = runs.until(server, run_id, lambda run: run.task("bash")["state"] == "RUNNING").task("bash")
        pod = f"/api/v1/namespaces/default/pods/{task['pod_name']}/log"
        own = f"/apis/v1alpha1/runs/{run_id}/nodes/{task['pod_name']}/log"
        # Those who ask for everything and take none of it.
        held_up = [
            requests.get(f"{server.url}{path}", params={"follow": "true"}, stream=True, timeout=60)
            for path in (pod, own) * 3
        ]
        assert server.http("GET", pod, params={"tailLines": 1}).text == "last\n"
        size, first, last = streamed(server, pod)
        assert size < 51 << 20
        assert first.startswith(b"coracle: ") and b" bytes are missing here" in first
        assert last.endswith(b"\nlast\n")
        assert memory(server.process.pid) - before < 64 << 20
        works = [pid for pid in below(server.process.pid) if Path(f"/proc/{pid}/exe").samefile(BINARY)]
        assert len(works) >= 2, "a helper and a launcher"
        assert max(map(most, works)) < 64 << 20

        gate.open()
        run = runs.finish(server, run_id)
        assert run.state == "SUCCEEDED", run.describe()
        size, first, last = streamed(server, own)
        assert KEPT < size < KEPT + (1 << 20)
        assert first.startswith(b"first\n")
        assert b"\ncoracle: " in last and last.endswith(b"\nlast\n")
        assert memory(server.process.pid) - before < 64 << 20
        for answer in held_up:
            answer.close()
        assert server.stop() == 0


MORE_AND_MORE = """
import itertools, threading
threading.stack_size(32768)
ends = threading.Event()
made = 0
try:
    for made in itertools.count():
        threading.Thread(target=ends.wait).start()
except RuntimeError:
    print("made", made, flush=True)
ends.set()
"""


def test_a_task_that_makes_ever_more_processes_comes_to_a_limit(new_server):
    groups = [Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")]
    server = new_server().start()
    run = runs.succeed(server, one_bash, command=f"python3 -c '{MORE_AND_MORE}'")
    made = int(runs.log(server, run, "bash").split()[1])
    if not any((group / "coracle").is_dir() for group in groups):
        pytest.skip(
            "NO CONTROL GROUP FOR PROCESSES CAN BE MADE HERE: a container may make as many as it likes"
        )
    assert made < int(Path("/proc/sys/kernel/pid_max").read_text()) / 4
    runs.succeed(server, one_bash, command="true")
    assert not below(server.process.pid)


#: Each child leaves one of its own behind, and nobody waits for either.
ORPHANS = """
import os, time
for number in range(100):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
def dead(parent):
    found = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            state, of = open(f"/proc/{pid}/stat").read().rpartition(") ")[2].split()[:2]
        except OSError:
            continue
        found += state == "Z" and int(of) == parent
    return found
while dead(1):
    os.sched_yield()
print("nobody is left to the first process")
"""


def test_a_task_that_waits_for_none_of_its_children_leaves_no_zombies(new_server):
    server = new_server().start()
    run = runs.succeed(server, one_bash, command=f"python3 -c '{ORPHANS}'")
    assert runs.log(server, run, "bash") == "nobody is left to the first process\n"
    assert "Z" not in below(server.process.pid).values()


def test_a_server_that_is_told_to_stop_leaves_its_tasks_at_work_for_the_next_one(new_server, gate):
    places = ["--max-pods", str(AT_WORK)]
    server = new_server().start(*places)
    port = gate.url.rstrip("/").rpartition(":")[2]
    waits = f"exec 3<>/dev/tcp/127.0.0.1/{port}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
    run_id = runs.submit(server, many, command=waits, items=list(range(AT_WORK)))
    assert gate.wait_visits(AT_WORK), f"{gate.visits} came"
    asked = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=20) == 0
    assert time.monotonic() - asked < 10

    server.start(*places)
    gate.open()
    run = runs.finish(server, run_id)
    assert run.state == "SUCCEEDED", run.describe()
    assert gate.visits == AT_WORK, "no task was run again"
